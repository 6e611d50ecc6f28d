// Each phase of an instruction is one parallel_for; small ones stay on this thread.
#include "native/runtime/executor.h"

#include <algorithm>
#include <chrono>

namespace smalti {
namespace {

// Below this much work waking others costs more than it brings.
constexpr double kSerialFlops = 40e3;
constexpr double kSerialBytes = 32e3;
// Pieces a worker's share is cut into, so that whoever is late can be helped.
constexpr int64_t kPiecesPerThread = 8;

int64_t grain_of(const Instruction& instruction, int64_t items, int threads) {
  const bool is_small = instruction.flops < kSerialFlops && instruction.bytes < kSerialBytes;
  return is_small ? items : std::max<int64_t>(1, items / (threads * kPiecesPerThread));
}

}  // namespace

void execute(Span<const Instruction> instructions, const Frame& frame, ThreadPool& pool,
             Scratch scratch, const AbortFlag& abort, double* milliseconds) {
  using Clock = std::chrono::steady_clock;
  for (size_t i = 0; i < instructions.size(); ++i) {
    const Clock::time_point start = milliseconds == nullptr ? Clock::time_point() : Clock::now();
    const Instruction& instruction = instructions[i];
    const void* args = frame.args(i);
    for (size_t phase = 0; phase < instruction.items.size(); ++phase) {
      const int64_t items = instruction.items[phase];
      pool.parallel_for(items, grain_of(instruction, items, pool.threads()),
                        [&](int64_t begin, int64_t end, int worker) {
                          if (abort.is_raised()) return;
                          std::byte* own =
                              scratch.base + scratch.worker_bytes * static_cast<size_t>(worker);
                          instruction.invoke(instruction.kernel, args, static_cast<int>(phase),
                                             {begin, end}, own);
                        });
      abort.check("run");
    }
    if (milliseconds == nullptr) continue;
    milliseconds[i] = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  }
}

}  // namespace smalti
