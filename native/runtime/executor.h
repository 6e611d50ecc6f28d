// Walks instructions over the thread pool.
#pragma once

#include <cstddef>
#include <vector>

#include "native/compile/program.h"
#include "native/core/abort_flag.h"
#include "native/core/span.h"
#include "native/core/thread_pool.h"
#include "native/runtime/frame.h"

namespace smalti {

struct Scratch {
  std::byte* base = nullptr;
  size_t worker_bytes = 0;
};

// Runs all instructions; throws Error(aborted) when the flag is raised, which is looked at between
// pieces of work. `milliseconds`, if not null, receives the time of each instruction; on one thread
// those of its pieces, as many as 16 threads would share.
void execute(Span<const Instruction> instructions, const Frame& frame, ThreadPool& pool,
             Scratch scratch, const AbortFlag& abort, std::vector<double>* milliseconds = nullptr);

}  // namespace smalti
