// Walks instructions over the thread pool.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "native/compile/program.h"
#include "native/core/thread_pool.h"
#include "native/runtime/frame.h"

namespace smalti {

// Asks a run to stop: by a word that JavaScript sets, or from this side.
struct AbortFlag {
  const int32_t* word = nullptr;
  std::atomic<bool> is_set{false};

  bool is_raised() const {
    return is_set.load(std::memory_order_relaxed) ||
           (word != nullptr && __atomic_load_n(word, __ATOMIC_RELAXED) != 0);
  }
};

struct Scratch {
  std::byte* base = nullptr;
  size_t worker_bytes = 0;
};

// Runs all instructions; throws Error(aborted) when the flag is raised, which is looked at between
// pieces of work.
void execute(const std::vector<Instruction>& instructions, const Frame& frame, ThreadPool& pool,
             Scratch scratch, const AbortFlag& abort);

}  // namespace smalti
