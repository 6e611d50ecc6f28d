// The one thread that compiles, prepares and runs, in order of arrival, and the memory that only it
// uses: one arena and one scratch for the runs of all sessions, as large as the largest of them
// needs.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <set>
#include <thread>

#include "native/core/aligned_buffer.h"
#include "native/runtime/executor.h"

namespace smalti {

class Engine {
 public:
  // The engine of the process; never destroyed.
  static Engine& instance();

  // Runs `job` on the engine's thread after all jobs posted before it. It must not throw. Throws
  // Error(memory) when the system refuses the thread; the job is then not run.
  void post(std::function<void()> job);

  // A session's need of arena memory, known while it lives.
  void add_need(size_t bytes);
  void remove_need(size_t bytes);

  // The rest is for jobs, on the engine's thread.
  std::byte* arena(size_t bytes);
  Scratch scratch(size_t worker_bytes, int threads);

 private:
  Engine() = default;
  void start();
  void loop();
  void trim();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  std::multiset<size_t> needs_;
  bool is_started_ = false;
  AlignedBuffer arena_;
  AlignedBuffer scratch_;
};

}  // namespace smalti
