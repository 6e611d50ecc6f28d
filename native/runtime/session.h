// A program with its weights and states: what was prepared once, and everything a run needs.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "native/compile/program.h"
#include "native/core/aligned_buffer.h"
#include "native/runtime/buffer.h"
#include "native/runtime/executor.h"

namespace smalti {

// The data of one run: copies, so that the caller's arrays may change or move meanwhile.
struct RunData {
  std::vector<AlignedBuffer> inputs;
  std::vector<AlignedBuffer> outputs;
  std::vector<std::vector<double>> milliseconds;  // see execute; empty = not wanted
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
  void check_buffers() const;
  void prepare(const AbortFlag& abort);
  void count_use(int change) const;
  Bases bases(std::byte* arena) const;

  std::shared_ptr<const Program> program_;
  std::vector<std::shared_ptr<Buffer>> buffers_;        // null where only the setup needed it
  std::vector<std::shared_ptr<AlignedBuffer>> values_;  // of the buffers; null when not needed now
  AlignedBuffer persistent_;
  Frame frame_;
  bool is_patched_ = false;
};

}  // namespace smalti
