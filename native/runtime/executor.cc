// Each phase of an instruction is one parallel_for; small ones stay on this thread.
#include "native/runtime/executor.h"

#include <algorithm>
#include <chrono>

namespace smalti {
namespace {

// Work that is worth a thread of those awake, and how many times that is worth waking one.
constexpr double kWorthFlops = 40e3;
constexpr double kWorthBytes = 32e3;
constexpr double kWorthWaking = 16;
// Pieces a worker's share is cut into, so that whoever is late can be helped.
constexpr int64_t kPiecesPerThread = 8;
// Of a run on one thread that is timed: as many pieces as this number of threads would take.
constexpr int kThreadsTimed = 16;

double worth_of(const Instruction& instruction) {
  return std::max(instruction.flops / kWorthFlops, instruction.bytes / kWorthBytes);
}

int64_t grain_of(double worth, int64_t items, int threads) {
  if (worth < 1) return items;
  const double pieces =
      std::min<double>(2 * worth, static_cast<double>(threads * kPiecesPerThread));
  return std::max<int64_t>(1, items / static_cast<int64_t>(pieces));
}

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

}  // namespace

void execute(Span<const Instruction> instructions, const Frame& frame, ThreadPool& pool,
             Scratch scratch, const AbortFlag& abort, std::vector<double>* milliseconds) {
  const bool is_timed = milliseconds != nullptr;
  const bool times_pieces = is_timed && pool.threads() == 1;
  double worth_so_far = 0;
  for (size_t i = 0; i < instructions.size(); ++i) {
    const Clock::time_point start = is_timed ? Clock::now() : Clock::time_point();
    const Instruction& instruction = instructions[i];
    const double worth = worth_of(instruction);
    worth_so_far += worth < 1 ? 0 : worth;
    const void* args = frame.args(i);
    for (size_t phase = 0; phase < instruction.items.size(); ++phase) {
      const int64_t items = instruction.items[phase];
      const int64_t grain = grain_of(worth, items, times_pieces ? kThreadsTimed : pool.threads());
      const auto run = [&](int64_t begin, int64_t end, int worker) {
        if (abort.is_raised()) return;
        const Clock::time_point from = times_pieces ? Clock::now() : Clock::time_point();
        std::byte* own = scratch.base + scratch.worker_bytes * static_cast<size_t>(worker);
        instruction.invoke(instruction.kernel, args, static_cast<int>(phase), {begin, end}, own);
        if (times_pieces) milliseconds[i].push_back(since(from));
      };
      pool.parallel_for(items, grain, run, worth_so_far >= kWorthWaking);
      abort.check("run");
    }
    if (is_timed && !times_pieces) milliseconds[i].push_back(since(start));
  }
}

}  // namespace smalti
