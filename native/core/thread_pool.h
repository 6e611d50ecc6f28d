// The process-wide threads that do arithmetic. The caller takes part; the others spin briefly after
// work and then sleep; no more are woken than have work and a processor. Items are split statically
// (a worker meets the same part of a tensor in consecutive layers); who finishes early takes what
// others have left. What an item computes never depends on who runs it.
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
  // Throws Error(memory) when the system refuses a thread; none is left behind. Up to `processors`
  // threads are awake.
  explicit ThreadPool(int threads, int processors = processors_here());
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  int sleepers() const { return sleepers_.load(); }

  // Calls fn(begin, end, worker) until [0, items) is covered, in pieces of about `grain` items;
  // returns when all is done. `worker` < threads() and no two concurrent calls share it. One
  // parallel_for runs at a time; fn must not throw. Who sleeps is left alone unless it `wakes`.
  template <class F>
  void parallel_for(int64_t items, int64_t grain, F&& fn, bool wakes = true) {
    using Fn = std::remove_reference_t<F>;
    run_job(
        items, grain, wakes,
        [](void* context, int64_t begin, int64_t end, int worker) {
          (*static_cast<Fn*>(context))(begin, end, worker);
        },
        const_cast<void*>(static_cast<const void*>(&fn)));
  }

 private:
  using Call = void (*)(void* context, int64_t begin, int64_t end, int worker);

  // One worker's share of the items, and whether it is at work; on its own cache line.
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
    std::atomic<bool> is_inside{false};
  };

  static int processors_here() { return static_cast<int>(std::thread::hardware_concurrency()); }
  void run_job(int64_t items, int64_t grain, bool wakes, Call call, void* context);
  void wake(int64_t pieces);
  void close_gate();
  void work(int worker);
  void take_shares(int worker);
  bool enter(Share& own, uint64_t& seen);
  void sleep(uint64_t seen);
  void stop();

  // The job of the moment: written while the gate is closed.
  Call call_ = nullptr;
  void* context_ = nullptr;
  int64_t grain_ = 1;
  std::unique_ptr<Share[]> shares_;

  // 2 * (number of jobs) + (the last may be joined)
  alignas(64) std::atomic<uint64_t> gate_{0};
  const int processors_;
  std::atomic<int> sleepers_{0};
  int64_t woken_ = 0;  // of them no longer counted, still asleep
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
