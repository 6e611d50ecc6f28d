// Reads with pread, so that a file cut short is an error and not a fault of memory.
#include "native/runtime/buffer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <map>
#include <vector>

#include "native/core/error.h"
#include "native/core/half.h"
#include "native/core/thread_pool.h"

namespace smalti {
namespace {

[[noreturn]] void fail_file(const std::string& path, const std::string& expected,
                            const std::string& got) {
  throw Error(ErrorCode::checkpoint, path + ": expected " + expected + ", got " + got);
}

constexpr size_t kPiece = size_t{1} << 18;  // bytes of memory that a thread reads at once

// Which file it is, whatever it is called.
using FileIdentity = std::pair<dev_t, ino_t>;

void widen(const std::vector<uint16_t>& halves, Dtype stored, float* to) {
  for (size_t i = 0; i < halves.size(); ++i)
    to[i] = stored == Dtype::f16 ? f16_to_float(halves[i]) : bf16_to_float(halves[i]);
}

}  // namespace

std::shared_ptr<WeightFile> WeightFile::open(const std::string& path) {
  static auto* const mutex = new std::mutex;
  static auto* const opened = new std::map<FileIdentity, std::weak_ptr<WeightFile>>;
  const std::lock_guard<std::mutex> lock(*mutex);
  struct stat status = {};
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_file(path, "a readable file", std::strerror(errno));
  const std::shared_ptr<WeightFile> file(new WeightFile(descriptor, path));
  if (fstat(descriptor, &status) != 0) fail_file(path, "a readable file", std::strerror(errno));
  std::weak_ptr<WeightFile>& known = (*opened)[{status.st_dev, status.st_ino}];
  if (const std::shared_ptr<WeightFile> same = known.lock()) return same;
  known = file;
  return file;
}

WeightFile::~WeightFile() { close(descriptor_); }

void WeightFile::read(std::byte* to, size_t bytes, int64_t offset) const {
  for (size_t done = 0; done < bytes;) {
    const ssize_t count = pread(descriptor_, to + done, bytes - done,
                                static_cast<off_t>(offset) + static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    const std::string expected = std::to_string(bytes) + " bytes at " + std::to_string(offset);
    if (count < 0) fail_file(path_, expected, std::strerror(errno));
    if (count == 0)
      fail_file(
          path_, expected,
          "the end of the file after " + std::to_string(done) + "; was it changed meanwhile?");
    done += static_cast<size_t>(count);
  }
}

Buffer::Buffer(size_t bytes, const std::string& name)
    : bytes_(bytes),
      purpose_("buffer " + name),
      own_(std::make_shared<AlignedBuffer>(bytes, purpose_)) {
  if (bytes > 0) std::memset(own_->data(), 0, bytes);
}

Buffer::Buffer(size_t bytes, const std::string& name, FileValues source)
    : bytes_(bytes), purpose_("buffer " + name), source_(std::move(source)) {}

std::shared_ptr<AlignedBuffer> Buffer::hold() {
  if (own_) return own_;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (std::shared_ptr<AlignedBuffer> values = read_.lock()) return values;
  const auto values = std::make_shared<AlignedBuffer>(bytes_, purpose_);
  read_piece(values->data(), 0, bytes_);
  read_ = values;
  return values;
}

// Values from byte `begin` to `end` of what they are in memory.
void Buffer::read_piece(std::byte* to, size_t begin, size_t end) const {
  const FileValues& from = source_;
  if (from.stored == Dtype::f32) {
    from.file->read(to + begin, end - begin, from.offset + static_cast<int64_t>(begin));
    return;
  }
  std::vector<uint16_t> halves;
  for (size_t at = begin; at < end; at += halves.size() * sizeof(float)) {
    halves.resize(std::min(kPiece, end - at) / sizeof(float));
    from.file->read(reinterpret_cast<std::byte*>(halves.data()), halves.size() * 2,
                    from.offset + static_cast<int64_t>(at / 2));
    widen(halves, from.stored, reinterpret_cast<float*>(to + at));
  }
}

void Buffer::read(std::byte* to, ThreadPool& pool) const {
  std::mutex mutex;
  std::exception_ptr failure;
  const auto pieces = static_cast<int64_t>((bytes_ + kPiece - 1) / kPiece);
  pool.parallel_for(pieces, 1, [&](int64_t first, int64_t last, int) {
    try {
      read_piece(to, static_cast<size_t>(first) * kPiece,
                 std::min(bytes_, static_cast<size_t>(last) * kPiece));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace smalti
