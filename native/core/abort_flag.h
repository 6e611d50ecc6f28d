// Asks work on another thread to stop: by a word that JavaScript sets, or from this side.
#pragma once

#include <atomic>
#include <cstdint>

#include "native/core/error.h"

namespace smalti {

struct AbortFlag {
  const int32_t* word = nullptr;
  std::atomic<bool> is_set{false};

  bool is_raised() const {
    return is_set.load(std::memory_order_relaxed) ||
           (word != nullptr && __atomic_load_n(word, __ATOMIC_RELAXED) != 0);
  }

  // Throws Error(aborted) in the name of `where` once it is raised.
  void check(const char* where) const {
    if (is_raised())
      throw Error(ErrorCode::aborted, std::string(where) + ": expected to finish, got aborted");
  }
};

}  // namespace smalti
