// Owning memory, 64-byte aligned, large blocks on huge pages where the system offers them. An
// allocation that fails, or that passes the limit tests can set, throws Error(memory) with the
// numbers and the largest buffers held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace smalti {

// Which pages a large block lies on. `resident`: huge ones too, but not where a virtual machine
// gives free ones back to its host, since each of them would have to be fetched again at its first
// touch; small pages that another program has just freed are still there. For what is read in
// order, which loses little by them.
enum class Pages { huge, resident };

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // `purpose` names the buffer in the error.
  AlignedBuffer(size_t bytes, const std::string& purpose, Pages pages = Pages::huge);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// A piece of memory in a message.
struct NamedBytes {
  std::string name;
  int64_t bytes;
};
// "a 64, b 32": the first few by size.
std::string largest_of(std::vector<NamedBytes> list);

// Bytes held by all AlignedBuffers together.
size_t allocated_bytes();
// Makes allocations beyond `bytes` in total fail; 0 = no limit.
void set_allocation_limit(size_t bytes);

// Gives back to the system what small blocks that were freed still occupy, where it can.
void release_freed_blocks();

struct MemoryInfo {
  size_t physical_bytes = 0;
  size_t available_bytes = 0;
};
MemoryInfo memory_info();

}  // namespace smalti
