// The planner: tensors that live at once never share bytes, and the arena is near the least
// possible.
#include <algorithm>

#include "native/compile/stages.h"
#include "tests/native/check.h"

namespace smalti::test {
namespace {

std::vector<Lifetime> random_lifetimes(Random& random) {
  std::vector<Lifetime> lifetimes;
  const int64_t count = 1 + random.below(120);
  for (int64_t i = 0; i < count; ++i) {
    const int first = static_cast<int>(random.below(60));
    const int length = static_cast<int>(random.below(random.below(4) == 0 ? 60 : 5));
    lifetimes.push_back({static_cast<int>(i), 1 + random.below(5000), first, first + length});
  }
  return lifetimes;
}

bool overlap(int64_t a, int64_t a_bytes, int64_t b, int64_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

TEST(planner_never_overlaps_live_tensors) {
  Random random(3);
  double worst = 1;
  for (int round = 0; round < 2000; ++round) {
    const std::vector<Lifetime> lives = random_lifetimes(random);
    const ArenaPlan plan = plan_arena(lives);
    for (size_t i = 0; i < lives.size(); ++i) {
      CHECK(plan.offsets[i] >= 0 && plan.offsets[i] % 64 == 0);
      CHECK(plan.offsets[i] + lives[i].bytes <= plan.bytes);
      for (size_t j = 0; j < i; ++j) {
        const bool live_at_once =
            lives[i].first <= lives[j].last && lives[j].first <= lives[i].last;
        CHECK(!live_at_once ||
              !overlap(plan.offsets[i], lives[i].bytes, plan.offsets[j], lives[j].bytes));
      }
    }
    CHECK(plan.bytes >= plan.lower_bound);
    worst =
        std::max(worst, static_cast<double>(plan.bytes) / static_cast<double>(plan.lower_bound));
  }
  CHECK(worst < 2);
}

TEST(planner_reaches_the_bound_on_a_chain) {
  std::vector<Lifetime> lives;
  for (int i = 0; i < 50; ++i) lives.push_back({i, 1024, i, i + 1});
  CHECK(plan_arena(lives).bytes == 2048);
}

TEST(planner_takes_nothing_for_nothing) { CHECK(plan_arena({}).bytes == 0); }

}  // namespace
}  // namespace smalti::test
