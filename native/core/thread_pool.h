// The process-wide threads that do arithmetic. The caller takes part; the others spin briefly after
// work and then sleep. Items are split statically (a worker meets the same part of a tensor in
// consecutive layers); who finishes early takes what others have left. What an item computes never
// depends on who runs it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace smalti {

class ThreadPool {
 public:
  // Throws Error(memory) when the system refuses a thread; none is left behind.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(begin, end, worker) until [0, items) is covered, in pieces of about `grain` items;
  // returns when all is done. `worker` < threads() and no two concurrent calls share it. One
  // parallel_for runs at a time; fn must not throw.
  template <class F>
  void parallel_for(int64_t items, int64_t grain, F&& fn) {
    using Fn = std::remove_reference_t<F>;
    run_job(
        items, grain,
        [](void* context, int64_t begin, int64_t end, int worker) {
          (*static_cast<Fn*>(context))(begin, end, worker);
        },
        const_cast<void*>(static_cast<const void*>(&fn)));
  }

 private:
  using Call = void (*)(void* context, int64_t begin, int64_t end, int worker);

  // One worker's share of the items; on its own cache line.
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  void run_job(int64_t items, int64_t grain, Call call, void* context);
  void open_gate();
  void close_gate();
  void work(int worker);
  void take_shares(int worker);
  bool enter(uint32_t& seen);
  void sleep(uint32_t seen);
  void stop();

  // The job of the moment: written while the gate is closed.
  Call call_ = nullptr;
  void* context_ = nullptr;
  int64_t grain_ = 1;
  std::unique_ptr<Share[]> shares_;

  // (epoch << 32) | (open << 31) | workers inside
  alignas(64) std::atomic<uint64_t> gate_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> is_stopping_{false};
  std::mutex job_mutex_;
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

// Physical cores that this process may use.
int default_threads();
// The pool of the process; built at the first call.
std::shared_ptr<ThreadPool> thread_pool();
// Replaces the pool for the runs that start later; the old one stays when the
// new one cannot be.
void set_threads(int threads);

}  // namespace smalti
