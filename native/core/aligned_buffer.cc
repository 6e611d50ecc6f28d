// Aligned allocation with accounting. Blocks of a huge page or more are mapped, so that freeing
// them returns the memory.
#include "native/core/aligned_buffer.h"

#include <sys/mman.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <utility>

#include "native/core/error.h"

namespace smalti {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPage = size_t{64} << 10;  // the largest small page of the platforms we build for

std::atomic<size_t> limit_bytes{0};

// What is allocated, for the figures of errors. Never destroyed: buffers may outlive statics.
struct Ledger {
  struct Block {
    size_t bytes;
    std::string purpose;
  };
  std::mutex mutex;
  std::map<const void*, Block> blocks;
  size_t total = 0;
};

Ledger& ledger() {
  static auto* const instance = new Ledger;
  return *instance;
}

// The number in a one-line file, or `fallback` ("max" means no limit).
size_t read_number(const char* path, size_t fallback) {
  unsigned long long number = 0;
  std::FILE* file = std::fopen(path, "r");
  if (file == nullptr) return fallback;
  const bool is_number = std::fscanf(file, "%llu", &number) == 1;
  std::fclose(file);
  return is_number ? static_cast<size_t>(number) : fallback;
}

// A container may have less than the machine. What it uses counts page cache that can be given up,
// so it is not subtracted.
void apply_cgroup_limit(MemoryInfo& info) {
  const size_t limit = read_number("/sys/fs/cgroup/memory.max", info.physical_bytes);
  if (limit >= info.physical_bytes) return;
  info.physical_bytes = limit;
  info.available_bytes = std::min(info.available_bytes, limit);
}

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

bool is_mapped(size_t bytes) { return bytes >= kHugePage; }

#ifdef MADV_HUGEPAGE
// Whether free blocks of the size of huge pages go back to the host of this virtual machine: free
// page reporting of Linux, whose order is 2^32 - 1 until a driver asks for it.
bool are_huge_pages_given_back() {
  constexpr size_t kNever = UINT32_MAX;
  static const bool are_given_back =
      read_number("/sys/module/page_reporting/parameters/page_reporting_order", kNever) < kNever;
  return are_given_back;
}

void ask_for_pages(void* block, size_t length, Pages pages) {
  if (pages == Pages::huge || !are_huge_pages_given_back()) madvise(block, length, MADV_HUGEPAGE);
}
#else
void ask_for_pages(void*, size_t, Pages) {}
#endif

// Maps with slack so that the block starts on a huge page. Its end is not rounded to one: with many
// weights just over a huge page that would cost up to twice their size.
void* map_block(size_t bytes, Pages pages) {
  const size_t length = round_up(bytes, kPage);
  void* raw =
      mmap(nullptr, length + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* start = static_cast<std::byte*>(raw);
  const size_t head = (kHugePage - reinterpret_cast<size_t>(start) % kHugePage) % kHugePage;
  if (head > 0) munmap(start, head);
  std::byte* block = start + head;
  munmap(block + length, kHugePage - head);
  ask_for_pages(block, length, pages);
  return block;
}

void* allocate(size_t bytes, Pages pages) {
  if (is_mapped(bytes)) return map_block(bytes, pages);
  void* block = nullptr;
  return posix_memalign(&block, kAlignment, round_up(bytes, kAlignment)) == 0 ? block : nullptr;
}

void release(void* block, size_t bytes) {
  if (is_mapped(bytes)) {
    munmap(block, round_up(bytes, kPage));
  } else {
    std::free(block);
  }
}

void record(const void* block, size_t bytes, const std::string& purpose) {
  Ledger& held = ledger();
  const std::lock_guard<std::mutex> lock(held.mutex);
  held.blocks.emplace(block, Ledger::Block{bytes, purpose});
  held.total += bytes;
}

void forget(const void* block, size_t bytes) {
  Ledger& held = ledger();
  const std::lock_guard<std::mutex> lock(held.mutex);
  held.blocks.erase(block);
  held.total -= bytes;
}

// What is held now, in all and the largest of it.
std::string describe_held() {
  Ledger& held = ledger();
  const std::lock_guard<std::mutex> lock(held.mutex);
  std::vector<NamedBytes> list;
  for (const auto& [start, block] : held.blocks)
    list.push_back({block.purpose, static_cast<int64_t>(block.bytes)});
  const std::string text = std::to_string(held.total) + " in use";
  return list.empty() ? text : text + " (largest: " + largest_of(std::move(list)) + ")";
}

[[noreturn]] void fail_memory(size_t bytes, const std::string& purpose) {
  const size_t limit = limit_bytes.load();
  const std::string available = limit > 0
                                    ? "a limit of " + std::to_string(limit)
                                    : std::to_string(memory_info().available_bytes) + " available";
  throw Error(ErrorCode::memory, "memory: expected " + std::to_string(bytes) + " bytes for " +
                                     purpose + ", got " + available + ", " + describe_held() +
                                     "; use a smaller batch or image, or close other programs");
}

}  // namespace

std::string largest_of(std::vector<NamedBytes> list) {
  constexpr size_t kShown = 4;
  std::stable_sort(list.begin(), list.end(),
                   [](const NamedBytes& a, const NamedBytes& b) { return a.bytes > b.bytes; });
  std::string text;
  for (size_t i = 0; i < std::min(kShown, list.size()); ++i)
    text += (i > 0 ? ", " : "") + list[i].name + " " + std::to_string(list[i].bytes);
  return text;
}

AlignedBuffer::AlignedBuffer(size_t bytes, const std::string& purpose, Pages pages) : size_(bytes) {
  if (bytes == 0) return;
  const size_t limit = limit_bytes.load();
  if (limit > 0 && allocated_bytes() + bytes > limit) fail_memory(bytes, purpose);
  // Far beyond what the machine has: refuse now instead of being killed when the pages are touched.
  const size_t available = is_mapped(bytes) ? memory_info().available_bytes : 0;
  if (available > 0 && bytes > available) fail_memory(bytes, purpose);
  data_ = static_cast<std::byte*>(allocate(bytes, pages));
  if (data_ == nullptr) fail_memory(bytes, purpose);
  try {
    record(data_, bytes, purpose);
  } catch (...) {
    release(data_, bytes);
    throw;
  }
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ == nullptr) return;
  forget(data_, size_);
  release(data_, size_);
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

size_t allocated_bytes() {
  const std::lock_guard<std::mutex> lock(ledger().mutex);
  return ledger().total;
}

void set_allocation_limit(size_t bytes) { limit_bytes.store(bytes); }

void release_freed_blocks() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

MemoryInfo memory_info() {
  MemoryInfo info;
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0)
    info.physical_bytes = static_cast<size_t>(pages) * static_cast<size_t>(page);
  info.available_bytes = info.physical_bytes;
  if (std::FILE* file = std::fopen("/proc/meminfo", "r")) {
    char line[128];
    unsigned long long kilobytes = 0;
    while (std::fgets(line, sizeof line, file) != nullptr) {
      if (std::sscanf(line, "MemAvailable: %llu kB", &kilobytes) == 1)
        info.available_bytes = static_cast<size_t>(kilobytes) * 1024;
    }
    std::fclose(file);
  }
  apply_cgroup_limit(info);
  return info;
}

}  // namespace smalti
