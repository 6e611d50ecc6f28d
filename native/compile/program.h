// What compiling a graph gives: immutable instructions and a memory plan. Everything that changes
// during a run lives in the runtime's arena.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "native/core/abort_flag.h"
#include "native/core/aligned_buffer.h"
#include "native/ir/graph.h"
#include "native/kernels/table.h"

namespace smalti {

// Which memory a tensor lies in.
enum class Space : uint8_t {
  arena,       // of the run (or of the setup)
  input,       // slot: the n-th input of a run
  buffer,      // slot: the n-th weight or state
  persistent,  // of the session: results of the setup
  constant,    // of the program
};

struct Place {
  Space space = Space::arena;
  int slot = 0;
  int64_t offset = 0;  // in bytes
};

// A pointer inside an argument struct that is set when the memory is known.
struct PointerFix {
  uint32_t at;  // byte offset in the struct
  Place place;
};

struct Instruction {
  // Runs work items of one phase of the kernel.
  void (*invoke)(const void* kernel, const void* args, int phase, Range range,
                 void* scratch) = nullptr;
  const void* kernel = nullptr;  // Kernel<Args> of a table
  const char* backend = "";
  std::string op;
  std::string scope;
  std::vector<uint64_t> args;  // the struct, null pointers
  std::vector<PointerFix> fixes;
  std::vector<PwInstr> code;   // of the pointwise program
  int64_t code_at = -1;        // byte offset of the pointer to `code`
  std::vector<int64_t> items;  // by phase
  int64_t scratch_bytes = 0;   // for each worker
  double flops = 0;            // of the operation as it is defined
  double work = 0;             // of the kernel, which may need fewer
  double bytes = 0;
  std::string text;  // for people
};

struct InputSlot {
  std::string name;
  Spec spec;
  bool is_updated = false;      // states only
  bool is_used_by_run = false;  // weights that only the setup reads are released after it
};

struct OutputSlot {
  std::string name;
  Spec spec;
  Place place;
};

// A tensor in the memory plan, for reports and for the planner's test.
struct PlannedBuffer : NamedBytes {
  int64_t offset;
  int first;  // instruction that writes it
  int last;   // last instruction that reads it
};

struct Program {
  std::string isa;
  std::vector<Instruction> setup;
  std::vector<Instruction> run;
  std::vector<InputSlot> inputs;   // role input
  std::vector<InputSlot> buffers;  // roles weight and state
  std::vector<OutputSlot> outputs;
  AlignedBuffer constants;
  int64_t setup_arena_bytes = 0;
  int64_t arena_bytes = 0;
  int64_t lower_bound_bytes = 0;
  int64_t persistent_bytes = 0;
  int64_t setup_scratch_bytes = 0;        // for each worker
  int64_t scratch_bytes = 0;              // likewise, of the run
  std::vector<PlannedBuffer> planned;     // in the arena of the run
  std::vector<NamedBytes> setup_tensors;  // in the arena of the setup
  std::vector<NamedBytes> persistent;     // packed weights and other results of the setup
  double flops = 0;
  double bytes = 0;
};

// "int8", "int8-weights" or "f16-weights", "" for floats; by the name throws Error(option).
const char* name_of(Quantize quantize);
Quantize quantize_named(const std::string& name);

struct CompileOptions {
  std::string isa;       // "" = best, "ref" = reference
  bool winograd = true;  // convolutions may run by Winograd's algorithm, products by Strassen's
  Quantize quantize = Quantize::none;  // how products with weights run where they can
};

// Graph -> Program. Throws Error(aborted) soon after the flag is raised.
Program compile(Graph graph, const CompileOptions& options, const AbortFlag& abort = {});

// Ops that compile accepts.
std::vector<std::string> compilable_ops();

// One line an instruction.
std::string print(const Program& program);

// Time of one run from operation and byte counts, for plan().
double estimate_ms(const Program& program, int threads);

}  // namespace smalti
