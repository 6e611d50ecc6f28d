// The argument structs of a list of instructions with all pointers set: valid while the memories
// they name stay where they are. Inputs differ from run to run and are set again each time.
#pragma once

#include <cstddef>
#include <vector>

#include "native/compile/program.h"
#include "native/core/span.h"

namespace smalti {

// Start of each memory that a Place can name.
struct Bases {
  std::byte* arena = nullptr;
  std::byte* persistent = nullptr;
  std::byte* constants = nullptr;
  std::vector<std::byte*> buffers;

  std::byte* at(const Place& place, const std::vector<std::byte*>& inputs) const;
};

class Frame {
 public:
  Frame() = default;
  Frame(Span<const Instruction> instructions, Bases bases);

  void set_inputs(const std::vector<std::byte*>& inputs);
  const void* args(size_t instruction) const { return words_.data() + starts_[instruction]; }
  const std::byte* arena() const { return bases_.arena; }
  const Bases& bases() const { return bases_; }

 private:
  struct InputFix {
    size_t word;  // start of the struct
    uint32_t at;
    Place place;
  };
  Bases bases_;
  std::vector<uint64_t> words_;
  std::vector<size_t> starts_;
  std::vector<InputFix> input_fixes_;
};

}  // namespace smalti
