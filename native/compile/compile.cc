// The list of stages from graph to Program.
#include <algorithm>

#include "native/compile/stages.h"
#include "native/core/error.h"
#include "native/core/thread_pool.h"
#include "native/cpu/isa.h"

namespace smalti {
namespace {

const KernelTable* choose_table(const std::string& isa) {
  if (isa == "ref") return nullptr;
  const KernelTable* table = cpu_table(isa.empty() ? best_isa() : isa);
  if (table != nullptr) return table;
  std::string names;
  for (const std::string& name : available_isas()) names += name + ", ";
  throw Error(ErrorCode::device,
              "compile: expected isa " + names + "or ref on this machine, got " + isa);
}

void fill_interface(const Module& module, const MemoryPlan& memory, Program& program) {
  for (const GraphInput& input : module.graph.inputs) {
    InputSlot slot{input.name, module.spec(input.value), false, false};
    (input.role == Role::input ? program.inputs : program.buffers).push_back(slot);
  }
  for (const GraphOutput& output : module.graph.outputs) {
    if (!output.updates) {
      program.outputs.push_back(
          {output.name, module.spec(output.value), memory.place_of(module, output.value)});
      continue;
    }
    for (InputSlot& slot : program.buffers)
      slot.is_updated = slot.is_updated || slot.name == *output.updates;
  }
}

// Buffers that the run or its outputs point into.
void mark_buffers(Program& program) {
  const auto mark = [&](const Place& place) {
    if (place.space == Space::buffer)
      program.buffers[static_cast<size_t>(place.slot)].is_used_by_run = true;
  };
  for (const Instruction& instruction : program.run) {
    for (const PointerFix& fix : instruction.fixes) mark(fix.place);
  }
  for (const OutputSlot& output : program.outputs) mark(output.place);
}

void bind_all(const Module& module, const MemoryPlan& memory, const std::vector<int>& steps,
              std::vector<Instruction>& into) {
  for (const int step : steps) {
    for (Instruction& instruction : bind(module, memory, module.steps[static_cast<size_t>(step)])) {
      into.push_back(std::move(instruction));
    }
  }
}

void count_totals(Program& program) {
  for (const Instruction& instruction : program.setup)
    program.setup_scratch_bytes = std::max(program.setup_scratch_bytes, instruction.scratch_bytes);
  for (const Instruction& instruction : program.run) {
    program.scratch_bytes = std::max(program.scratch_bytes, instruction.scratch_bytes);
    program.flops += instruction.flops;
    program.bytes += instruction.bytes;
  }
}

void print_list(const std::vector<Instruction>& list, std::string& text) {
  for (const Instruction& instruction : list) {
    text += "  " + instruction.op + " [" + instruction.backend + "] " + instruction.text;
    if (!instruction.scope.empty()) text += " # " + instruction.scope;
    text += "\n";
  }
}

}  // namespace

Program compile(Graph graph, const CompileOptions& options, const AbortFlag& abort) {
  verify(graph);
  Module module;
  module.isa = choose_table(options.isa);
  module.allows_winograd = options.winograd;
  module.threads = thread_pool()->threads();
  module.quantize = options.quantize;
  module.ref = &ref_kernels();
  abort.check("compile");
  module.graph = canonicalise(graph);
  abort.check("compile");
  find_aliases(module);
  fuse(module, abort);
  select(module);
  abort.check("compile");
  const Schedule order = schedule(module);
  MemoryPlan memory = plan_memory(module, order, abort);
  Program program;
  program.isa = module.isa == nullptr ? "ref" : module.isa->name;
  bind_all(module, memory, order.setup, program.setup);
  abort.check("compile");
  bind_all(module, memory, order.run, program.run);
  fill_interface(module, memory, program);
  mark_buffers(program);
  count_totals(program);
  program.constants = std::move(memory.constants);
  program.setup_arena_bytes = memory.setup_arena_bytes;
  program.arena_bytes = memory.arena_bytes;
  program.lower_bound_bytes = memory.lower_bound_bytes;
  program.persistent_bytes = memory.persistent_bytes;
  program.planned = std::move(memory.planned);
  program.setup_tensors = std::move(memory.setup_tensors);
  program.persistent = std::move(memory.persistent);
  return program;
}

std::vector<std::string> compilable_ops() {
  std::vector<std::string> known = op_names();
  std::vector<std::string> names;
  const std::vector<std::string> bound = bindable_ops();
  std::copy_if(known.begin(), known.end(), std::back_inserter(names), [&](const std::string& name) {
    return is_pointwise(name) || std::find(bound.begin(), bound.end(), name) != bound.end();
  });
  return names;
}

std::string print(const Program& program) {
  std::string text = "program " + program.isa + ", arena " + std::to_string(program.arena_bytes) +
                     " bytes\nsetup\n";
  print_list(program.setup, text);
  text += "run\n";
  print_list(program.run, text);
  return text;
}

double estimate_ms(const Program& program, int threads) {
  // Sustained rates of one thread, from measurements on one server core: multiply-adds and memory.
  struct Rate {
    const char* isa;
    double gigaflops;
  };
  static constexpr Rate kRates[] = {{"amx", 130}, {"zen4", 130},  {"avx512", 130}, {"avx2", 65},
                                    {"neon", 40}, {"scalar", 10}, {"ref", 0.5}};
  constexpr double kGigabytes = 10;
  double gigaflops = 1;
  for (const Rate& rate : kRates) {
    if (program.isa == rate.isa) gigaflops = rate.gigaflops;
  }
  double seconds = 0;
  for (const Instruction& instruction : program.run) {
    const double arithmetic = instruction.work / (gigaflops * 1e9);
    const double memory = instruction.bytes / (kGigabytes * 1e9);
    seconds += std::max(arithmetic, memory) / threads;
  }
  return seconds * 1e3;
}

}  // namespace smalti
