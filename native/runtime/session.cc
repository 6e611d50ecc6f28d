// Setup at construction; then runs that reuse the patched arguments as long as the arena stays
// where it is.
#include "native/runtime/session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "native/core/error.h"
#include "native/core/thread_pool.h"
#include "native/runtime/engine.h"

namespace smalti {
namespace {

[[noreturn]] void explain_memory(const Error& error, const Program& program) {
  std::string largest;
  if (!program.planned.empty()) {
    const auto most = std::max_element(
        program.planned.begin(), program.planned.end(),
        [](const PlannedBuffer& a, const PlannedBuffer& b) { return a.bytes < b.bytes; });
    largest =
        "; the largest tensor is " + most->name + " with " + std::to_string(most->bytes) + " bytes";
  }
  throw Error(error.code(), error.what() + largest);
}

}  // namespace

Session::Session(std::shared_ptr<const Program> program,
                 std::vector<std::shared_ptr<Buffer>> buffers, const AbortFlag& abort)
    : program_(std::move(program)), buffers_(std::move(buffers)) {
  if (buffers_.size() != program_->buffers.size()) {
    throw Error(ErrorCode::option, "bind: expected " + std::to_string(program_->buffers.size()) +
                                       " buffers, got " + std::to_string(buffers_.size()));
  }
  for (size_t i = 0; i < buffers_.size(); ++i) {
    const InputSlot& slot = program_->buffers[i];
    if (static_cast<int64_t>(buffers_[i]->memory.size()) == slot.spec.bytes()) continue;
    throw Error(ErrorCode::shape, "bind: expected " + std::to_string(slot.spec.bytes()) +
                                      " bytes for " + slot.name + " " + format_spec(slot.spec) +
                                      ", got " + std::to_string(buffers_[i]->memory.size()));
  }
  persistent_ = AlignedBuffer(static_cast<size_t>(program_->persistent_bytes), "packed weights");
  const std::shared_ptr<ThreadPool> pool = thread_pool();
  Engine& engine = Engine::instance();
  const AlignedBuffer arena(static_cast<size_t>(program_->setup_arena_bytes),
                            "the preparation of weights");
  const Frame frame(program_->setup, bases(arena.data()));
  execute(program_->setup, frame, *pool,
          engine.scratch(static_cast<size_t>(program_->scratch_bytes), pool->threads()), abort);
  for (size_t i = 0; i < buffers_.size(); ++i) {
    if (!program_->buffers[i].is_used_by_run) buffers_[i].reset();
  }
  engine.add_need(static_cast<size_t>(program_->arena_bytes));
}

Session::~Session() { Engine::instance().remove_need(static_cast<size_t>(program_->arena_bytes)); }

Bases Session::bases(std::byte* arena) const {
  Bases bases;
  bases.arena = arena;
  bases.persistent = persistent_.data();
  bases.constants = program_->constants.data();
  for (const std::shared_ptr<Buffer>& buffer : buffers_)
    bases.buffers.push_back(buffer ? buffer->memory.data() : nullptr);
  return bases;
}

void Session::run(RunData& data) {
  if (data.abort.is_raised())
    throw Error(ErrorCode::aborted, "run: expected to start, got aborted");
  const std::shared_ptr<ThreadPool> pool = thread_pool();
  Engine& engine = Engine::instance();
  std::byte* arena = nullptr;
  Scratch scratch;
  try {
    arena = engine.arena(static_cast<size_t>(program_->arena_bytes));
    scratch = engine.scratch(static_cast<size_t>(program_->scratch_bytes), pool->threads());
  } catch (const Error& error) {
    explain_memory(error, *program_);
  }
  if (!is_patched_ || frame_.arena() != arena) frame_ = Frame(program_->run, bases(arena));
  is_patched_ = true;
  std::vector<std::byte*> inputs;
  for (const AlignedBuffer& input : data.inputs) inputs.push_back(input.data());
  frame_.set_inputs(inputs);
  execute(program_->run, frame_, *pool, scratch, data.abort);
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
