// Setup at construction; then runs that reuse the patched arguments as long as the arena stays
// where it is.
#include "native/runtime/session.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "native/core/error.h"
#include "native/core/thread_pool.h"
#include "native/runtime/engine.h"

namespace smalti {
namespace {

// Allocates; the error of a failure also names the largest tensors of what did
// not fit.
template <class Tensors, class Allocate>
auto with_tensors(const Tensors& tensors, Allocate allocate) -> decltype(allocate()) {
  try {
    return allocate();
  } catch (const Error& error) {
    if (tensors.empty()) throw;
    throw Error(error.code(), std::string(error.what()) + "; largest of what was wanted: " +
                                  largest_of({tensors.begin(), tensors.end()}));
  }
}

size_t size(int64_t bytes) { return static_cast<size_t>(bytes); }

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Buffers that an instruction reads or writes.
std::set<size_t> slots_of(const Instruction& instruction) {
  std::set<size_t> slots;
  for (const PointerFix& fix : instruction.fixes) {
    if (fix.place.space == Space::buffer) slots.insert(static_cast<size_t>(fix.place.slot));
  }
  return slots;
}

// The first and the last instruction that reads a buffer.
struct Readers {
  size_t first = SIZE_MAX;
  size_t last = SIZE_MAX;
};

std::vector<Readers> readers_of(const std::vector<Instruction>& instructions, size_t buffers) {
  std::vector<Readers> readers(buffers);
  for (size_t i = 0; i < instructions.size(); ++i) {
    for (const size_t slot : slots_of(instructions[i])) {
      readers[slot].first = std::min(readers[slot].first, i);
      readers[slot].last = i;
    }
  }
  return readers;
}

}  // namespace

Session::Session(std::shared_ptr<const Program> program,
                 std::vector<std::shared_ptr<Buffer>> buffers, const AbortFlag& abort)
    : program_(std::move(program)), buffers_(std::move(buffers)), values_(buffers_.size()) {
  check_buffers();
  persistent_ = with_tensors(program_->persistent, [&] {
    return AlignedBuffer(size(program_->persistent_bytes), "packed weights", Pages::resident);
  });
  prepare(abort);
  for (size_t i = 0; i < buffers_.size(); ++i) {
    if (program_->buffers[i].is_used_by_run) {
      values_[i] = buffers_[i]->hold();
    } else {
      buffers_[i].reset();
    }
  }
  release_freed_blocks();  // of compiling and preparing, small weights among them
  Engine::instance().add_need(size(program_->arena_bytes));
}

void Session::check_buffers() const {
  if (buffers_.size() != program_->buffers.size()) {
    throw Error(ErrorCode::option, "bind: expected " + std::to_string(program_->buffers.size()) +
                                       " buffers, got " + std::to_string(buffers_.size()));
  }
  for (size_t i = 0; i < buffers_.size(); ++i) {
    const InputSlot& slot = program_->buffers[i];
    if (static_cast<int64_t>(buffers_[i]->size()) != slot.spec.bytes()) {
      throw Error(ErrorCode::shape, "bind: expected " + std::to_string(slot.spec.bytes()) +
                                        " bytes for " + slot.name + " " + format_spec(slot.spec) +
                                        ", got " + std::to_string(buffers_[i]->size()));
    }
    if (slot.is_updated && buffers_[i]->is_of_file()) {
      throw Error(ErrorCode::option, "bind: expected memory for " + slot.name +
                                         ", which the program updates, got values of a file");
    }
  }
}

// Runs the setup an instruction at a time: values of files are in memory only from their first
// reader to their last; those of a single reader all in the same place.
void Session::prepare(const AbortFlag& abort) {
  const std::shared_ptr<ThreadPool> pool = thread_pool();
  const std::vector<Instruction>& setup = program_->setup;
  const std::vector<Readers> readers = readers_of(setup, buffers_.size());
  const auto is_passing = [&](size_t slot) {
    return buffers_[slot]->is_of_file() && !program_->buffers[slot].is_used_by_run &&
           readers[slot].first == readers[slot].last;
  };
  const AlignedBuffer arena = with_tensors(program_->setup_tensors, [&] {
    return AlignedBuffer(size(program_->setup_arena_bytes), "the preparation of weights",
                         Pages::resident);
  });
  size_t most = 0;
  for (const Instruction& instruction : setup) {
    size_t bytes = 0;
    for (const size_t slot : slots_of(instruction)) {
      if (is_passing(slot)) bytes += aligned(buffers_[slot]->size());
    }
    most = std::max(most, bytes);
  }
  const AlignedBuffer passing(most, "weights to be packed", Pages::resident);
  const size_t each = aligned(size(program_->setup_scratch_bytes));
  const AlignedBuffer scratch(each * static_cast<size_t>(pool->threads()),
                              "the scratch of the preparation", Pages::resident);
  for (size_t i = 0; i < setup.size(); ++i) {
    for (const size_t slot : slots_of(setup[i])) {
      if (!is_passing(slot)) values_[slot] = buffers_[slot]->hold();
    }
    Bases now = bases(arena.data());
    std::byte* free = passing.data();
    for (const size_t slot : slots_of(setup[i])) {
      if (!is_passing(slot)) continue;
      buffers_[slot]->read(free, *pool);
      now.buffers[slot] = std::exchange(free, free + aligned(buffers_[slot]->size()));
    }
    const Span<const Instruction> one(&setup[i], 1);
    execute(one, Frame(one, std::move(now)), *pool, {scratch.data(), each}, abort);
    for (const size_t slot : slots_of(setup[i])) {
      if (readers[slot].last == i) values_[slot].reset();
    }
  }
}

Session::~Session() { Engine::instance().remove_need(size(program_->arena_bytes)); }

Bases Session::bases(std::byte* arena) const {
  Bases bases;
  bases.arena = arena;
  bases.persistent = persistent_.data();
  bases.constants = program_->constants.data();
  for (const std::shared_ptr<AlignedBuffer>& values : values_)
    bases.buffers.push_back(values ? values->data() : nullptr);
  return bases;
}

void Session::run(RunData& data, const AbortFlag& abort) {
  const std::shared_ptr<ThreadPool> pool = thread_pool();
  Engine& engine = Engine::instance();
  std::byte* arena =
      with_tensors(program_->planned, [&] { return engine.arena(size(program_->arena_bytes)); });
  const Scratch scratch = engine.scratch(size(program_->scratch_bytes), pool->threads());
  const Span<const Instruction> instructions(program_->run.data(), program_->run.size());
  if (!is_patched_ || frame_.arena() != arena) frame_ = Frame(instructions, bases(arena));
  is_patched_ = true;
  std::vector<std::byte*> inputs;
  for (const AlignedBuffer& input : data.inputs) inputs.push_back(input.data());
  frame_.set_inputs(inputs);
  execute(instructions, frame_, *pool, scratch, abort,
          data.milliseconds.empty() ? nullptr : data.milliseconds.data());
  for (size_t i = 0; i < data.outputs.size(); ++i) {
    const std::byte* from = frame_.bases().at(program_->outputs[i].place, inputs);
    std::memcpy(data.outputs[i].data(), from, data.outputs[i].size());
  }
}

void Session::count_use(int change) const {
  for (size_t i = 0; i < buffers_.size(); ++i) {
    if (!buffers_[i]) continue;
    buffers_[i]->runs += change;
    if (program_->buffers[i].is_updated) buffers_[i]->updates += change;
  }
}

}  // namespace smalti
