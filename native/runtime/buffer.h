// Memory of a weight or state, shared between its owner in JavaScript and the sessions that use it.
// Values of a file stay there until a session wants them, and are given up when none does.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "native/core/aligned_buffer.h"
#include "native/core/dtype.h"

namespace smalti {

class ThreadPool;

// A file held open: one that is replaced meanwhile is still read as it was.
class WeightFile {
 public:
  // The open file at `path`, shared while it is the same one. Throws Error(checkpoint).
  static std::shared_ptr<WeightFile> open(const std::string& path);
  ~WeightFile();
  WeightFile(const WeightFile&) = delete;
  WeightFile& operator=(const WeightFile&) = delete;

  // Throws Error(checkpoint) when the file ends before.
  void read(std::byte* to, size_t bytes, int64_t offset) const;

 private:
  WeightFile(int descriptor, std::string path) : descriptor_(descriptor), path_(std::move(path)) {}

  int descriptor_;
  std::string path_;
};

// f32 values in a file, stored as f32, f16 or bf16.
struct FileValues {
  std::shared_ptr<WeightFile> file;
  int64_t offset = 0;
  Dtype stored = Dtype::f32;
};

class Buffer {
 public:
  // Zeros.
  Buffer(size_t bytes, const std::string& name);
  Buffer(size_t bytes, const std::string& name, FileValues source);

  size_t size() const { return bytes_; }
  // Values of a file can be read only.
  bool is_of_file() const { return source_.file != nullptr; }
  // The values, in memory as long as someone holds them.
  std::shared_ptr<AlignedBuffer> hold();
  // Copies values of a file to memory of at least size() bytes, by all threads.
  void read(std::byte* to, ThreadPool& pool) const;

  std::atomic<int> runs{0};     // queued or running that read it
  std::atomic<int> updates{0};  // queued or running that write it

 private:
  void read_piece(std::byte* to, size_t begin, size_t end) const;

  size_t bytes_;
  std::string purpose_;
  FileValues source_;
  std::shared_ptr<AlignedBuffer> own_;  // null for values of a file
  std::mutex mutex_;
  std::weak_ptr<AlignedBuffer> read_;
};

}  // namespace smalti
