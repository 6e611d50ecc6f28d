// The pool: every item exactly once, workers distinct, many jobs in a row, callers from several
// threads, resizing.
#include "native/core/thread_pool.h"

#include <numeric>

#include "tests/native/check.h"

namespace smalti::test {
namespace {

void check_covers(ThreadPool& pool, int64_t items, int64_t grain) {
  std::vector<std::atomic<int>> counts(static_cast<size_t>(items));
  std::vector<std::atomic<int>> busy(static_cast<size_t>(pool.threads()));
  pool.parallel_for(items, grain, [&](int64_t begin, int64_t end, int worker) {
    CHECK(begin < end && end - begin <= grain);
    CHECK(worker >= 0 && worker < pool.threads());
    CHECK(busy[static_cast<size_t>(worker)].fetch_add(1) == 0);
    for (int64_t i = begin; i < end; ++i) counts[static_cast<size_t>(i)].fetch_add(1);
    busy[static_cast<size_t>(worker)].fetch_sub(1);
  });
  for (const std::atomic<int>& count : counts) CHECK(count.load() == 1);
}

TEST(pool_runs_every_item_once) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads, threads);
    for (const int64_t items : {0, 1, 2, 7, 64, 1000}) {
      for (const int64_t grain : {1, 3, 64, 5000}) check_covers(pool, items, grain);
    }
  }
}

TEST(pool_runs_many_short_jobs) {
  ThreadPool pool(4, 4);
  int64_t total = 0;
  for (int job = 0; job < 20000; ++job) {
    std::atomic<int64_t> sum{0};
    pool.parallel_for(8, 1, [&](int64_t begin, int64_t end, int) { sum += begin + end; });
    total += sum.load();
  }
  CHECK(total == 20000 * (28 + 36));
}

TEST(pool_wakes_sleepers) {
  ThreadPool pool(4, 4);
  for (int job = 0; job < 20; ++job) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    check_covers(pool, 100, 1);
  }
}

// Waits until so many sleep; they spin for a while first.
void check_sleepers(const ThreadPool& pool, int sleepers) {
  for (int i = 0; i < 2000 && pool.sleepers() != sleepers; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  CHECK(pool.sleepers() == sleepers);
}

TEST(pool_wakes_one_a_piece_and_a_processor) {
  const auto nothing = [](int64_t, int64_t, int) {};
  ThreadPool wide(16, 16);
  check_sleepers(wide, 15);
  wide.parallel_for(1000, 1, nothing, false);
  CHECK(wide.sleepers() == 15);
  wide.parallel_for(4, 1, [&](int64_t, int64_t, int) { CHECK(wide.sleepers() >= 12); });
  check_sleepers(wide, 15);
  wide.parallel_for(1000, 1, [&](int64_t, int64_t, int worker) {
    if (worker == 0) std::this_thread::sleep_for(std::chrono::microseconds(10));
  });
  ThreadPool narrow(16, 2);
  for (int job = 0; job < 2000; ++job) {
    if (job == 0) check_sleepers(narrow, 15);
    narrow.parallel_for(64, 1, [&](int64_t, int64_t, int) { CHECK(narrow.sleepers() >= 14); });
  }
}

TEST(pool_serves_callers_from_several_threads) {
  ThreadPool pool(3, 3);
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([&] {
      for (int job = 0; job < 200; ++job) check_covers(pool, 50, 2);
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST(pool_is_replaced_while_in_use) {
  for (int round = 0; round < 50; ++round) {
    const std::shared_ptr<ThreadPool> held = thread_pool();
    set_threads(1 + round % 4);
    check_covers(*held, 20, 1);
    CHECK(thread_pool()->threads() == 1 + round % 4);
  }
}

}  // namespace
}  // namespace smalti::test
