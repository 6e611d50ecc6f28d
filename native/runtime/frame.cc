// Copies argument structs and writes pointers into them.
#include "native/runtime/frame.h"

#include <cstring>
#include <utility>

namespace smalti {
namespace {

void write_pointer(uint64_t* words, int64_t at, const void* pointer) {
  std::memcpy(reinterpret_cast<std::byte*>(words) + at, &pointer, sizeof pointer);
}

}  // namespace

std::byte* Bases::at(const Place& place, const std::vector<std::byte*>& inputs) const {
  const auto slot = static_cast<size_t>(place.slot);
  switch (place.space) {
    case Space::arena:
      return arena + place.offset;
    case Space::persistent:
      return persistent + place.offset;
    case Space::constant:
      return constants + place.offset;
    case Space::buffer:
      return buffers[slot] + place.offset;
    case Space::input:
      return inputs[slot] + place.offset;
  }
  return nullptr;
}

Frame::Frame(Span<const Instruction> instructions, Bases bases) : bases_(std::move(bases)) {
  for (const Instruction& instruction : instructions) {
    starts_.push_back(words_.size());
    words_.insert(words_.end(), instruction.args.begin(), instruction.args.end());
  }
  for (size_t i = 0; i < instructions.size(); ++i) {
    uint64_t* words = words_.data() + starts_[i];
    if (instructions[i].code_at >= 0)
      write_pointer(words, instructions[i].code_at, instructions[i].code.data());
    for (const PointerFix& fix : instructions[i].fixes) {
      if (fix.place.space == Space::input) {
        input_fixes_.push_back({starts_[i], fix.at, fix.place});
      } else {
        write_pointer(words, fix.at, bases_.at(fix.place, {}));
      }
    }
  }
}

void Frame::set_inputs(const std::vector<std::byte*>& inputs) {
  for (const InputFix& fix : input_fixes_)
    write_pointer(words_.data() + fix.word, fix.at, bases_.at(fix.place, inputs));
}

}  // namespace smalti
