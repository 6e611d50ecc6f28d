// What the bind functions share: the step's values with their places, and the erasure of argument
// types.
#pragma once

#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "native/compile/stages.h"

namespace smalti {

template <class Args>
void invoke_kernel(const void* kernel, const void* args, int phase, Range range, void* scratch) {
  static_cast<const Kernel<Args>*>(kernel)->run(*static_cast<const Args*>(args), phase, range,
                                                scratch);
}

class Binder {
 public:
  Binder(const Module& module, const MemoryPlan& memory, const Step& step)
      : module(module),
        memory(memory),
        step(step),
        graph(module.graph),
        node(step.node >= 0 ? &module.node(step.node) : nullptr) {}

  const Module& module;
  const MemoryPlan& memory;
  const Step& step;
  const Graph& graph;
  const Node* node;

  Place place(int value) const { return memory.place_of(module, value); }
  Place input(size_t i) const { return place(step.inputs[i]); }
  Place output(size_t i) const { return place(node->outputs[i]); }
  // Elements between rows of an input whose rows have `width`.
  int64_t row_stride(size_t i, int64_t width) const {
    const int64_t stride = module.aliases[static_cast<size_t>(step.inputs[i])].row_stride;
    return stride == 0 ? width : stride;
  }
  int64_t head_stride(size_t i, int64_t width) const {
    const int64_t stride = module.aliases[static_cast<size_t>(step.inputs[i])].head_stride;
    return stride == 0 ? width : stride;
  }
  const Shape& in_shape(size_t i) const { return graph.in(*node, i).shape; }
  const Shape& out_shape(size_t i = 0) const { return graph.out(*node, i).shape; }
  Dtype dtype(size_t i = 0) const { return graph.in(*node, i).dtype; }
  bool is_f32(size_t i = 0) const { return dtype(i) == Dtype::f32; }

  // Fills the instruction with a copy of `args` for the kernel `entry` of `table`. Pointer fields
  // were registered by `fix`.
  template <class Args>
  Instruction finish(const Args& args, const KernelTable& table, Kernel<Args> KernelTable::*entry) {
    static_assert(std::is_trivially_copyable_v<Args> && alignof(Args) <= 8,
                  "arguments are plain data");
    const Kernel<Args>& kernel = table.*entry;
    Instruction instruction;
    instruction.invoke = invoke_kernel<Args>;
    instruction.kernel = &kernel;
    instruction.backend = table.name;
    instruction.args.resize((sizeof(Args) + 7) / 8);
    std::memcpy(instruction.args.data(), &args, sizeof(Args));
    for (int phase = 0; phase < kernel.phases; ++phase)
      instruction.items.push_back(kernel.items(args, phase));
    if (kernel.scratch_bytes != nullptr) instruction.scratch_bytes = kernel.scratch_bytes(args);
    for (const Fix& fix : fixes_) {
      const auto distance =
          static_cast<const char*>(fix.field) - reinterpret_cast<const char*>(&args);
      instruction.fixes.push_back({static_cast<uint32_t>(distance), fix.place});
    }
    fixes_.clear();
    instruction.code = std::move(code_);
    if (code_field_ != nullptr) {
      instruction.code_at =
          static_cast<const char*>(code_field_) - reinterpret_cast<const char*>(&args);
    }
    return instruction;
  }

  // As above with the instruction set's kernel where it has one and the step `is_fast`, else the
  // reference's.
  template <class Args>
  Instruction finish(const Args& args, Kernel<Args> KernelTable::*entry, bool is_fast) {
    return finish(args, pick(module, entry, is_fast), entry);
  }

  // The pointer `field` of the argument struct will point to `place`.
  template <class T>
  void fix(T* const& field, Place place) {
    fixes_.push_back({static_cast<const void*>(&field), place});
  }

  // The pointers, in this order, will point to the first inputs of the step; outputs of the node.
  template <class... T>
  void fix_inputs(T* const&... fields) {
    size_t i = 0;
    (fix(fields, input(i++)), ...);
  }
  template <class... T>
  void fix_outputs(T* const&... fields) {
    size_t i = 0;
    (fix(fields, output(i++)), ...);
  }

  // Sets `rows` to the tensors that the first operand is read from, if they are several.
  void fix_columns(RowParts& rows) {
    for (const int value : step.columns) {
      rows.width[rows.count] = module.spec(value).shape.last();
      fix(rows.data[rows.count++], place(value));
    }
  }

  // Sets `sums` to number i of the step's sums, of rows of x, if there are such.
  void fix_sums(ResultSums& sums, const Shape& x, size_t i = 0) {
    if (i >= step.sums.size() || step.sums[i] < 0) return;
    const Shape& shape = module.spec(step.sums[i]).shape;
    sums.rows = x.elements() / x.last() / shape[0];
    sums.parts = shape[1];
    fix(sums.data, place(step.sums[i]));
  }

  // Sets `args` to the step's elementwise program.
  void fix_pointwise(PointwiseArgs& args) {
    const PointwiseProgram& program = *step.pointwise;
    args = program.args;
    for (size_t i = 0; i < program.inputs.size(); ++i)
      fix(args.inputs[i].data, place(program.inputs[i]));
    for (size_t o = 0; o < program.outputs.size(); ++o)
      fix(args.outputs[o].data, place(program.outputs[o]));
    code_ = program.code;
    // Kernels may look at the program while counting items or scratch.
    args.code = code_.data();
    code_field_ = &args.code;
  }

 private:
  struct Fix {
    const void* field;
    Place place;
  };
  std::vector<Fix> fixes_;
  std::vector<PwInstr> code_;
  const void* code_field_ = nullptr;
};

using BindRule = Instruction (*)(Binder& b);
using BindTable = std::map<std::string, BindRule, std::less<>>;
void add_tensor_binds(BindTable& table);
void add_network_binds(BindTable& table);

// Nodes that take several instructions.
std::vector<Instruction> bind_concat(Binder& b);
std::vector<Instruction> bind_pad(Binder& b);
std::vector<Instruction> bind_spread_gradient(Binder& b);
Instruction bind_spread(Binder& b, int value, const Shape& shape);
Instruction bind_copy(Binder& b, int from, int to);
Instruction bind_fill(Binder& b, int value, double number);

// Bits of a number in a dtype.
uint64_t encode_number(double value, Dtype dtype);

}  // namespace smalti
