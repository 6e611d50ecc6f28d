// First in, first out. The thread starts with the first job and ends with the process.
#include "native/runtime/engine.h"

#include <algorithm>
#include <string>
#include <utility>

#include "native/core/error.h"

namespace smalti {

Engine& Engine::instance() {
  static auto* const engine = new Engine;
  return *engine;
}

void Engine::post(std::function<void()> job) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!is_started_) start();
  jobs_.push_back(std::move(job));
  wake_.notify_one();
}

void Engine::start() {
  try {
    std::thread([this] { loop(); }).detach();
  } catch (const std::exception& error) {
    throw Error(ErrorCode::memory, std::string("engine: expected to start its thread, got \"") +
                                       error.what() + "\"; raise the limit of threads (ulimit -u)");
  }
  is_started_ = true;
}

void Engine::loop() {
  while (true) {
    std::function<void()> job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return !jobs_.empty(); });
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

void Engine::add_need(size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  needs_.insert(bytes);
}

void Engine::remove_need(size_t bytes) {
  bool is_smaller = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    needs_.erase(needs_.find(bytes));
    is_smaller = needs_.empty() || *needs_.rbegin() < bytes;
  }
  if (is_smaller) post([this] { trim(); });
}

// Gives back what no living session needs.
void Engine::trim() {
  size_t largest = 0;
  bool is_unused = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_unused = needs_.empty();
    if (!is_unused) largest = *needs_.rbegin();
  }
  if (arena_.size() > largest) arena_ = AlignedBuffer();
  if (is_unused) scratch_ = AlignedBuffer();
}

std::byte* Engine::arena(size_t bytes) {
  if (arena_.size() < bytes) {
    arena_ = AlignedBuffer();
    arena_ = AlignedBuffer(bytes, "the tensors of a run");
  }
  return arena_.data();
}

Scratch Engine::scratch(size_t worker_bytes, int threads) {
  const size_t each = (worker_bytes + 63) / 64 * 64;
  const size_t total = each * static_cast<size_t>(threads);
  if (scratch_.size() < total) {
    scratch_ = AlignedBuffer();
    scratch_ = AlignedBuffer(total, "the scratch of the threads");
  }
  return {scratch_.data(), each};
}

}  // namespace smalti
