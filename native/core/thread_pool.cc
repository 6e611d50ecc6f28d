// Thread pool: a gate word, written by the caller only, holds the number of the job and whether it
// may be joined; each worker tells on its own cache line whether it is inside. The caller closes
// the gate when nothing is left to take and waits for those inside only, never for a sleeper to
// wake up.
#include "native/core/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>
#include <string>

#ifdef __linux__
#include <sched.h>
#endif

#include "native/core/error.h"

namespace smalti {
namespace {

constexpr uint64_t kOpen = 1;
constexpr auto kSpinTime = std::chrono::microseconds(50);

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

#ifdef __linux__
std::string read_line(const std::string& path) {
  std::string text;
  if (std::FILE* file = std::fopen(path.c_str(), "r")) {
    char line[256];
    if (std::fgets(line, sizeof line, file) != nullptr) text = line;
    std::fclose(file);
  }
  return text;
}

// Whole CPUs that the control group grants, 0 = no limit.
int cgroup_limit() {
  long long quota = 0;
  long long period = 0;
  const std::string text = read_line("/sys/fs/cgroup/cpu.max");
  if (std::sscanf(text.c_str(), "%lld %lld", &quota, &period) != 2 || period <= 0) return 0;
  return static_cast<int>(std::max(1LL, (quota + period - 1) / period));
}
#endif

}  // namespace

int default_threads() {
  int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
    std::set<std::string> physical;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      const std::string siblings = read_line("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                                             "/topology/thread_siblings_list");
      physical.insert(siblings.empty() ? std::to_string(cpu) : siblings);
    }
    if (!physical.empty()) cores = static_cast<int>(physical.size());
  }
  if (const int limit = cgroup_limit(); limit > 0) cores = std::min(cores, limit);
#endif
  return cores;
}

ThreadPool::ThreadPool(int threads, int processors)
    : shares_(new Share[static_cast<size_t>(std::max(1, threads))]),
      processors_(std::max(1, processors)) {
  try {
    for (int worker = 1; worker < threads; ++worker)
      workers_.emplace_back([this, worker] { work(worker); });
  } catch (const std::exception& error) {
    const size_t started = workers_.size();
    stop();
    throw Error(ErrorCode::memory, "threads: expected to start " + std::to_string(threads - 1) +
                                       ", got " + std::to_string(started) + " and then \"" +
                                       error.what() +
                                       "\"; use fewer (--threads, SMALTI_THREADS) or raise the "
                                       "limit (ulimit -u)");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  is_stopping_ = true;
  {
    const std::lock_guard<std::mutex> lock(sleep_mutex_);
    wake_.notify_all();
  }
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_job(int64_t items, int64_t grain, bool wakes, Call call, void* context) {
  if (items <= 0) return;
  grain = std::max<int64_t>(1, grain);
  const std::lock_guard<std::mutex> lock(job_mutex_);
  if (workers_.empty() || items <= grain) {
    for (int64_t begin = 0; begin < items; begin += grain)
      call(context, begin, std::min(items, begin + grain), 0);
    return;
  }
  call_ = call;
  context_ = context;
  grain_ = grain;
  const int64_t count = threads();
  for (int64_t i = 0; i < count; ++i) {
    shares_[static_cast<size_t>(i)].next.store(items * i / count, std::memory_order_relaxed);
    shares_[static_cast<size_t>(i)].end = items * (i + 1) / count;
  }
  gate_.store(gate_.load(std::memory_order_relaxed) + 2 + kOpen);
  if (wakes) wake((items + grain - 1) / grain);
  take_shares(0);
  close_gate();
}

// Wakes as many as lack for one thread a piece, within the processors.
void ThreadPool::wake(int64_t pieces) {
  if (sleepers_.load() == 0) return;
  const int64_t wanted = std::min<int64_t>(pieces, processors_);
  const std::lock_guard<std::mutex> lock(sleep_mutex_);
  for (; sleepers_.load() > 0 && threads() - sleepers_.load() < wanted; ++woken_) {
    sleepers_.fetch_sub(1);
    wake_.notify_one();
  }
}

void ThreadPool::close_gate() {
  gate_.store(gate_.load(std::memory_order_relaxed) - kOpen);
  int polls = 0;
  for (int worker = 1; worker < threads(); ++worker) {
    while (shares_[static_cast<size_t>(worker)].is_inside.load()) {
      // On a busy machine the one waited for may need this processor.
      if (++polls % 1024 == 0) std::this_thread::yield();
      pause();
    }
  }
}

// Takes pieces of the own share, then of the others'.
void ThreadPool::take_shares(int worker) {
  const int count = threads();
  for (int i = 0; i < count; ++i) {
    Share& share = shares_[static_cast<size_t>((worker + i) % count)];
    while (share.next.load(std::memory_order_relaxed) < share.end) {
      const int64_t begin = share.next.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= share.end) break;
      call_(context_, begin, std::min(share.end, begin + grain_), worker);
    }
  }
}

// Joins the current job if it is open and not yet seen: either the caller sees who is inside, or
// that one sees the gate closed.
bool ThreadPool::enter(Share& own, uint64_t& seen) {
  const uint64_t gate = gate_.load(std::memory_order_acquire);
  if ((gate & kOpen) == 0 || gate == seen) return false;
  own.is_inside.store(true);
  if (gate_.load() == gate) {
    seen = gate;
    return true;
  }
  own.is_inside.store(false, std::memory_order_release);
  return false;
}

void ThreadPool::sleep(uint64_t seen) {
  std::unique_lock<std::mutex> lock(sleep_mutex_);
  sleepers_.fetch_add(1);
  const uint64_t gate = gate_.load();
  if ((gate & kOpen) != 0 && gate != seen) {  // the caller took this thread for awake
    sleepers_.fetch_sub(1);
    return;
  }
  wake_.wait(lock, [&] { return is_stopping_.load() || woken_ > 0; });
  if (woken_ > 0) --woken_;
}

void ThreadPool::work(int worker) {
  Share& own = shares_[static_cast<size_t>(worker)];
  uint64_t seen = 0;
  auto idle_since = std::chrono::steady_clock::now();
  int polls = 0;
  while (!is_stopping_.load(std::memory_order_relaxed)) {
    if (enter(own, seen)) {
      take_shares(worker);
      own.is_inside.store(false, std::memory_order_release);
      idle_since = std::chrono::steady_clock::now();
      continue;
    }
    pause();
    if (++polls % 64 != 0 || std::chrono::steady_clock::now() - idle_since < kSpinTime) continue;
    sleep(seen);
    idle_since = std::chrono::steady_clock::now();
  }
}

namespace {

// Never destroyed: a process that exits in the middle of a run must not join its threads.
struct ProcessPool {
  std::mutex mutex;
  std::shared_ptr<ThreadPool> pool;
};

ProcessPool& process_pool() {
  static auto* const instance = new ProcessPool;
  return *instance;
}

}  // namespace

std::shared_ptr<ThreadPool> thread_pool() {
  ProcessPool& process = process_pool();
  const std::lock_guard<std::mutex> lock(process.mutex);
  if (!process.pool) process.pool = std::make_shared<ThreadPool>(default_threads());
  return process.pool;
}

void set_threads(int threads) {
  ProcessPool& process = process_pool();
  const std::lock_guard<std::mutex> lock(process.mutex);
  if (process.pool && process.pool->threads() == threads) return;
  process.pool = std::make_shared<ThreadPool>(threads);
}

}  // namespace smalti
