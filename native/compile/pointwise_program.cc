// Elementwise nodes -> a program of the pointwise machine: order, registers, collapsed iteration
// space.
#include <algorithm>
#include <map>

#include "native/compile/stages.h"
#include "native/core/error.h"

namespace smalti {
namespace {

constexpr size_t kMaxCode = 120;

const std::map<std::string, PwOp, std::less<>>& machine_ops() {
  static const auto* const table =
      new std::map<std::string, PwOp, std::less<>>{{"neg", PwOp::neg},
                                                   {"abs", PwOp::abs},
                                                   {"exp", PwOp::exp},
                                                   {"log", PwOp::log},
                                                   {"log1p", PwOp::log1p},
                                                   {"sqrt", PwOp::sqrt},
                                                   {"rsqrt", PwOp::rsqrt},
                                                   {"reciprocal", PwOp::reciprocal},
                                                   {"square", PwOp::square},
                                                   {"sin", PwOp::sin},
                                                   {"cos", PwOp::cos},
                                                   {"tanh", PwOp::tanh},
                                                   {"sigmoid", PwOp::sigmoid},
                                                   {"silu", PwOp::silu},
                                                   {"gelu", PwOp::gelu},
                                                   {"geluTanh", PwOp::gelu_tanh},
                                                   {"quickGelu", PwOp::quick_gelu},
                                                   {"siluSlope", PwOp::silu_slope},
                                                   {"geluTanhSlope", PwOp::gelu_tanh_slope},
                                                   {"relu", PwOp::relu},
                                                   {"softplus", PwOp::softplus},
                                                   {"erf", PwOp::erf},
                                                   {"floor", PwOp::floor},
                                                   {"ceil", PwOp::ceil},
                                                   {"round", PwOp::round},
                                                   {"sign", PwOp::sign},
                                                   {"isFinite", PwOp::is_finite},
                                                   {"logicalNot", PwOp::logical_not},
                                                   {"leakyRelu", PwOp::leaky_relu},
                                                   {"clamp", PwOp::clamp},
                                                   {"cast", PwOp::load},
                                                   {"add", PwOp::add},
                                                   {"sub", PwOp::sub},
                                                   {"mul", PwOp::mul},
                                                   {"div", PwOp::div},
                                                   {"pow", PwOp::pow},
                                                   {"maximum", PwOp::maximum},
                                                   {"minimum", PwOp::minimum},
                                                   {"mod", PwOp::mod},
                                                   {"equal", PwOp::equal},
                                                   {"less", PwOp::less},
                                                   {"lessEqual", PwOp::less_equal},
                                                   {"logicalAnd", PwOp::logical_and},
                                                   {"logicalOr", PwOp::logical_or},
                                                   {"where", PwOp::where}};
  return *table;
}

// An operation on virtual registers: registers 0 .. are numbered by first definition.
struct VirtualOp {
  PwOp op;
  int dst = -1;
  int sources[3] = {-1, -1, -1};
  int source_count = 0;
  uint8_t index = 0;
  double imm = 0;
  double imm2 = 0;
};

class Emitter {
 public:
  Emitter(const Graph& graph, const std::vector<int>& nodes, const std::vector<int>& outputs)
      : graph_(graph), nodes_(nodes), outputs_(outputs) {
    for (const int id : nodes) {
      for (const int input : graph.nodes[static_cast<size_t>(id)].inputs) ++uses_[input];
      for (const int output : graph.nodes[static_cast<size_t>(id)].outputs)
        inside_.push_back(output);
    }
    std::sort(inside_.begin(), inside_.end());
  }

  std::vector<VirtualOp> emit() {
    for (const int id : nodes_) emit_node(graph_.nodes[static_cast<size_t>(id)]);
    return std::move(ops_);
  }

  std::vector<int> inputs;

 private:
  bool is_inside(int value) const {
    return std::binary_search(inside_.begin(), inside_.end(), value);
  }
  bool is_output(int value) const {
    return std::find(outputs_.begin(), outputs_.end(), value) != outputs_.end();
  }

  // Register of a value, loading it when it comes from outside.
  int reg(int value) {
    const auto found = registers_.find(value);
    if (found != registers_.end()) return found->second;
    VirtualOp op{PwOp::load};
    op.dst = next_++;
    if (is_splat(graph_, value)) {
      op.op = PwOp::constant;
      const Node& node =
          graph_.nodes[static_cast<size_t>(graph_.values[static_cast<size_t>(value)].node)];
      op.imm = node.numbers("values")[0];
    } else {
      op.index = static_cast<uint8_t>(std::min<size_t>(255, inputs.size()));
      inputs.push_back(value);
    }
    ops_.push_back(op);
    return registers_[value] = op.dst;
  }

  void emit_op(PwOp op, const std::vector<int>& sources, int result, double imm = 0,
               double imm2 = 0) {
    VirtualOp v{op};
    for (const int source : sources) v.sources[v.source_count++] = source;
    v.dst = next_++;
    v.imm = imm;
    v.imm2 = imm2;
    ops_.push_back(v);
    registers_[result] = v.dst;
  }

  // A product that only the sum `node` uses: a * b + c in one operation.
  const Node* single_product(int value) const {
    if (!is_inside(value) || is_output(value) || uses_.at(value) != 1) return nullptr;
    const Node& maker =
        graph_.nodes[static_cast<size_t>(graph_.values[static_cast<size_t>(value)].node)];
    return maker.op == "mul" ? &maker : nullptr;
  }

  bool emit_fma(const Node& node) {
    if (node.op != "add" || graph_.out(node).dtype == Dtype::i32) return false;
    for (size_t k = 0; k < 2; ++k) {
      const auto product = products_.find(node.inputs[k]);
      if (product == products_.end()) continue;
      const int a = reg(product->second->inputs[0]);
      const int b = reg(product->second->inputs[1]);
      emit_op(PwOp::fma, {a, b, reg(node.inputs[1 - k])}, node.outputs[0]);
      return true;
    }
    return false;
  }

  // Whether the product's only use is a sum inside: its emission waits for that sum. At most one
  // product a sum.
  bool waits_for_sum(const Node& node) {
    if (node.op != "mul" || graph_.out(node).dtype == Dtype::i32 ||
        single_product(node.outputs[0]) == nullptr)
      return false;
    for (const int id : nodes_) {
      const Node& user = graph_.nodes[static_cast<size_t>(id)];
      if (user.op != "add" || graph_.out(user).shape != graph_.out(node).shape) continue;
      if (user.inputs[0] == user.inputs[1]) continue;
      const bool uses_it = user.inputs[0] == node.outputs[0] || user.inputs[1] == node.outputs[0];
      if (!uses_it) continue;
      const int other = user.inputs[0] == node.outputs[0] ? user.inputs[1] : user.inputs[0];
      if (products_.count(other) > 0) return false;
      products_[node.outputs[0]] = &node;
      return true;
    }
    return false;
  }

  void emit_cast(const Node& node) {
    const int source = reg(node.inputs[0]);
    const Dtype from = graph_.in(node, 0).dtype;
    switch (graph_.out(node).dtype) {
      case Dtype::i32:
        if (from == Dtype::u8 || from == Dtype::boolean) break;
        return emit_op(PwOp::cast_i32, {source}, node.outputs[0]);
      case Dtype::boolean:
        return emit_op(PwOp::cast_bool, {source}, node.outputs[0]);
      case Dtype::u8:
        if (from == Dtype::boolean) break;
        return emit_op(PwOp::cast_u8, {source}, node.outputs[0]);
      case Dtype::f16:
        return emit_op(PwOp::cast_f16, {source}, node.outputs[0]);
      case Dtype::bf16:
        return emit_op(PwOp::cast_bf16, {source}, node.outputs[0]);
      case Dtype::f32:
      case Dtype::f64:
        break;
    }
    registers_[node.outputs[0]] = source;
  }

  void emit_arithmetic(const Node& node) {
    std::vector<int> sources;
    for (const int input : node.inputs) sources.push_back(reg(input));
    const double imm = node.op == "leakyRelu" ? node.number("slope")
                       : node.op == "clamp"   ? node.number("min")
                                              : 0;
    const double imm2 = node.op == "clamp" ? node.number("max") : 0;
    emit_op(machine_ops().find(node.op)->second, sources, node.outputs[0], imm, imm2);
    const bool may_leave_integers = node.op == "div" || node.op == "pow";
    if (graph_.out(node).dtype == Dtype::i32 && may_leave_integers) {
      emit_op(PwOp::cast_i32, {registers_[node.outputs[0]]}, node.outputs[0]);
    }
  }

  void emit_node(const Node& node) {
    if (waits_for_sum(node)) return;
    if (node.op == "cast") {
      emit_cast(node);
    } else if (!emit_fma(node)) {
      emit_arithmetic(node);
    }
    const auto output = std::find(outputs_.begin(), outputs_.end(), node.outputs[0]);
    if (output == outputs_.end()) return;
    VirtualOp store{PwOp::store};
    store.sources[0] = registers_[node.outputs[0]];
    store.source_count = 1;
    store.index = static_cast<uint8_t>(output - outputs_.begin());
    ops_.push_back(store);
  }

  const Graph& graph_;
  const std::vector<int>& nodes_;
  const std::vector<int>& outputs_;
  std::vector<int> inside_;
  std::map<int, int> uses_;
  std::map<int, int> registers_;
  std::map<int, const Node*> products_;
  std::vector<VirtualOp> ops_;
  int next_ = 0;
};

// Virtual -> machine registers. When none is free, the loaded input (or constant) whose next use is
// farthest is forgotten and loaded again later.
class RegisterAllocator {
 public:
  explicit RegisterAllocator(const std::vector<VirtualOp>& ops) : ops_(ops) {
    for (size_t i = 0; i < ops.size(); ++i) {
      if (ops[i].dst >= 0) definitions_[ops[i].dst] = &ops[i];
      for (int k = 0; k < ops[i].source_count; ++k) uses_[ops[i].sources[k]].push_back(i);
    }
    std::fill(holder_, holder_ + kPwRegisters, -1);
  }

  bool run() {
    for (size_t i = 0; i < ops_.size(); ++i) {
      if (ops_[i].op == PwOp::load || ops_[i].op == PwOp::constant)
        continue;  // loaded at the first use
      if (!place(i)) return false;
    }
    return code.size() <= kMaxCode;
  }

  std::vector<PwInstr> code;

 private:
  size_t next_use(int reg, size_t at) const {
    const auto uses = uses_.find(reg);
    if (uses == uses_.end()) return SIZE_MAX;
    const auto next = std::lower_bound(uses->second.begin(), uses->second.end(), at);
    return next == uses->second.end() ? SIZE_MAX : *next;
  }

  bool is_reloadable(int reg) const {
    const PwOp op = definitions_.at(reg)->op;
    return op == PwOp::load || op == PwOp::constant;
  }

  // A machine register for something new at operation `at`; those in `pinned` stay.
  int take(size_t at, const std::vector<int>& pinned) {
    int victim = -1;
    for (int m = 0; m < kPwRegisters; ++m) {
      if (holder_[m] < 0 || next_use(holder_[m], at) == SIZE_MAX) {
        if (std::find(pinned.begin(), pinned.end(), m) == pinned.end()) return m;
        continue;
      }
      const bool may_go =
          is_reloadable(holder_[m]) && std::find(pinned.begin(), pinned.end(), m) == pinned.end();
      if (may_go && (victim < 0 || next_use(holder_[m], at) > next_use(holder_[victim], at)))
        victim = m;
    }
    return victim;
  }

  int find(int reg) const {
    for (int m = 0; m < kPwRegisters; ++m) {
      if (holder_[m] == reg) return m;
    }
    return -1;
  }

  bool place(size_t at) {
    const VirtualOp& op = ops_[at];
    std::vector<int> sources;
    for (int k = 0; k < op.source_count; ++k) {
      if (const int m = find(op.sources[k]); m >= 0) sources.push_back(m);
    }
    std::vector<int> pinned = sources;
    sources.clear();
    for (int k = 0; k < op.source_count; ++k) {
      int m = find(op.sources[k]);
      if (m < 0) {
        m = take(at, pinned);
        if (m < 0) return false;
        const VirtualOp& load = *definitions_.at(op.sources[k]);
        code.push_back(
            {load.op, static_cast<uint8_t>(m), 0, 0, 0, load.index, load.imm, load.imm2});
        holder_[m] = op.sources[k];
        pinned.push_back(m);
      }
      sources.push_back(m);
    }
    int dst = 0;
    if (op.dst >= 0) {
      // A fresh register, so that a lent input or a direct write is never its own operand.
      dst = take(at + 1, sources);
      if (dst < 0) return false;
      holder_[dst] = op.dst;
    }
    const auto source = [&](size_t k) {
      return static_cast<uint8_t>(k < sources.size() ? sources[k] : 0);
    };
    code.push_back({op.op, static_cast<uint8_t>(dst), source(0), source(1), source(2), op.index,
                    op.imm, op.imm2});
    return true;
  }

  const std::vector<VirtualOp>& ops_;
  std::map<int, const VirtualOp*> definitions_;
  std::map<int, std::vector<size_t>> uses_;
  int holder_[kPwRegisters];
};

// Strides of a tensor of `shape` read over `space`, right-aligned; 0 where it is repeated.
void broadcast_strides(const Shape& shape, const Shape& space, int64_t* strides) {
  int64_t step = 1;
  for (int i = space.rank - 1; i >= 0; --i) {
    const int k = i - (space.rank - shape.rank);
    const int64_t dim = k < 0 ? 1 : shape[k];
    strides[i] = dim == 1 ? 0 : step;
    step *= dim;
  }
}

// Merges dimension d + 1 into d of space and strides.
void merge_dimension(PointwiseArgs& args, int d) {
  args.shape[d] *= args.shape[d + 1];
  for (int i = 0; i < args.input_count; ++i)
    args.inputs[i].strides[d] = args.inputs[i].strides[d + 1];
  for (int k = d + 1; k + 1 < args.rank; ++k) {
    args.shape[k] = args.shape[k + 1];
    for (int i = 0; i < args.input_count; ++i)
      args.inputs[i].strides[k] = args.inputs[i].strides[k + 1];
  }
  --args.rank;
}

bool can_merge(const PointwiseArgs& args, int d) {
  if (args.shape[d] == 1 || args.shape[d + 1] == 1) return true;
  for (int i = 0; i < args.input_count; ++i) {
    const int64_t* strides = args.inputs[i].strides;
    if (strides[d] != strides[d + 1] * args.shape[d + 1]) return false;
  }
  return true;
}

void merge(PointwiseArgs& args, int d) {
  if (args.shape[d + 1] == 1) {  // keep the strides of the other one
    for (int i = 0; i < args.input_count; ++i)
      args.inputs[i].strides[d + 1] = args.inputs[i].strides[d];
  }
  merge_dimension(args, d);
}

// Fewest dimensions; with `columns` > 0 the last one must come out as that. False when it cannot.
bool collapse(PointwiseArgs& args, int64_t columns) {
  if (args.rank == 0) {
    args.rank = 1;
    args.shape[0] = 1;
    for (int i = 0; i < args.input_count; ++i) args.inputs[i].strides[0] = 0;
  }
  if (columns > 0) {
    while (args.rank >= 2 && args.shape[args.rank - 1] < columns && can_merge(args, args.rank - 2))
      merge(args, args.rank - 2);
    if (args.shape[args.rank - 1] != columns) return false;
  }
  for (int d = args.rank - (columns > 0 ? 3 : 2); d >= 0; --d) {
    if (can_merge(args, d)) merge(args, d);
  }
  return true;
}

}  // namespace

bool PointwiseProgram::can_share(size_t i, size_t o) const {
  const PwInput& input = args.inputs[i];
  if (dtype_bytes(input.dtype) != dtype_bytes(args.outputs[o].dtype)) return false;
  int64_t step = 1;
  for (int d = args.rank - 1; d >= 0; --d) {
    if (args.shape[d] != 1 && input.strides[d] != step) return false;
    step *= args.shape[d];
  }
  bool is_stored = false;
  for (const PwInstr& instr : code) {
    if (instr.op == PwOp::store && instr.index == o) is_stored = true;
    if (instr.op == PwOp::load && instr.index == i && is_stored) return false;
  }
  return true;
}

bool is_pointwise(const std::string& op) { return machine_ops().count(op) > 0; }

bool is_splat(const Graph& graph, int value) {
  const int maker = graph.values[static_cast<size_t>(value)].node;
  if (maker < 0) return false;
  const Node& node = graph.nodes[static_cast<size_t>(maker)];
  return node.op == "constant" && node.numbers("values").size() == 1;
}

bool is_exact(const Graph& graph, const Node& node) {
  if (node.op == "cast") return false;
  const auto is_i32 = [&](int value) { return graph.spec(value).dtype == Dtype::i32; };
  return std::any_of(node.inputs.begin(), node.inputs.end(), is_i32) || is_i32(node.outputs[0]);
}

std::optional<PointwiseProgram> compile_pointwise(const Graph& graph, const std::vector<int>& nodes,
                                                  const std::vector<int>& outputs,
                                                  int64_t columns) {
  if (outputs.size() > kPwOutputs || outputs.empty() || nodes.size() > kMaxCode)
    return std::nullopt;
  Emitter emitter(graph, nodes, outputs);
  const std::vector<VirtualOp> ops = emitter.emit();
  if (emitter.inputs.size() > kPwInputs) return std::nullopt;
  RegisterAllocator allocator(ops);
  if (!allocator.run()) return std::nullopt;
  PointwiseProgram program;
  program.code = std::move(allocator.code);
  program.inputs = emitter.inputs;
  program.outputs = outputs;
  PointwiseArgs& args = program.args;
  const Shape& space = graph.spec(outputs[0]).shape;
  args.rank = space.rank;
  std::copy(space.dims, space.dims + space.rank, args.shape);
  args.code_length = static_cast<int32_t>(program.code.size());
  args.input_count = static_cast<int32_t>(program.inputs.size());
  args.output_count = static_cast<int32_t>(outputs.size());
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    const Spec& spec = graph.spec(program.inputs[i]);
    args.inputs[i].dtype = spec.dtype;
    broadcast_strides(spec.shape, space, args.inputs[i].strides);
  }
  for (size_t o = 0; o < outputs.size(); ++o) args.outputs[o].dtype = graph.spec(outputs[o]).dtype;
  for (const int id : nodes) {
    const Node& node = graph.nodes[static_cast<size_t>(id)];
    args.is_exact = args.is_exact || is_exact(graph, node);
    for (const int value : node.inputs)
      args.is_f64 = args.is_f64 || graph.spec(value).dtype == Dtype::f64;
    args.is_f64 = args.is_f64 || graph.out(node).dtype == Dtype::f64;
  }
  if (!collapse(args, columns)) return std::nullopt;
  return program;
}

}  // namespace smalti
