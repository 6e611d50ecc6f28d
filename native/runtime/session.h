// A program with its weights and states: what was prepared once, and everything a run needs.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "native/compile/program.h"
#include "native/core/aligned_buffer.h"
#include "native/runtime/executor.h"

namespace smalti {

// Memory of a weight or state, shared between its owner in JavaScript and the sessions that use it.
struct Buffer {
  Buffer(size_t bytes, const std::string& name) : memory(bytes, "buffer " + name) {}
  AlignedBuffer memory;
  std::atomic<int> runs{0};     // queued or running that read it
  std::atomic<int> updates{0};  // queued or running that write it
};

// The data of one run: copies, so that the caller's arrays may change or move meanwhile.
struct RunData {
  std::vector<AlignedBuffer> inputs;
  std::vector<AlignedBuffer> outputs;
  std::vector<double> milliseconds;  // by instruction; empty = not wanted
};

class Session {
 public:
  // Runs the setup; on the engine's thread. `buffers` in order of Program::buffers.
  Session(std::shared_ptr<const Program> program, std::vector<std::shared_ptr<Buffer>> buffers,
          const AbortFlag& abort);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // On the engine's thread; one run at a time.
  void run(RunData& data, const AbortFlag& abort);

  const Program& program() const { return *program_; }
  // Marks the buffers as in use while a run is queued.
  void begin_use() const { count_use(1); }
  void end_use() const { count_use(-1); }

 private:
  void count_use(int change) const;
  Bases bases(std::byte* arena) const;

  std::shared_ptr<const Program> program_;
  std::vector<std::shared_ptr<Buffer>> buffers_;  // null where only the setup needed it
  AlignedBuffer persistent_;
  Frame frame_;
  bool is_patched_ = false;
};

}  // namespace smalti
