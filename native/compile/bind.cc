// Step -> instructions: kernel, arguments, pointers to set, and counts of operations and bytes for
// the plan.
#include <algorithm>
#include <cstring>

#include "native/compile/binder.h"
#include "native/core/error.h"
#include "native/core/half.h"

namespace smalti {
namespace {

const BindTable& rules() {
  static const BindTable* const table = [] {
    auto* t = new BindTable;
    add_tensor_binds(*t);
    add_network_binds(*t);
    return t;
  }();
  return *table;
}

Instruction bind_pointwise(Binder& b) {
  PointwiseArgs a = {};
  b.fix_pointwise(a);
  const bool is_fast = !a.is_exact && !a.is_f64;
  return b.finish(a, &KernelTable::pointwise, is_fast);
}

Instruction bind_pack(Binder& b) {
  PackArgs a = b.step.pack;
  b.fix_inputs(a.src);
  b.fix(a.dst, b.place(b.step.outputs[0]));
  const auto entry =
      a.quantize == Quantize::int8      ? &KernelTable::int8_pack
      : a.quantize != Quantize::none    ? &KernelTable::narrow_pack
      : a.form == ProductForm::strassen ? &KernelTable::strassen_pack
      : a.form == ProductForm::paired   ? &KernelTable::paired_pack
      : a.form == ProductForm::digits
          ? a.tile != 0 ? &KernelTable::winograd_digits_pack : &KernelTable::digits_pack
      : a.tile != 0 ? &KernelTable::winograd_pack
                    : &KernelTable::pack;
  return b.finish(a, *b.step.table, entry);
}

std::vector<Instruction> bind_step(Binder& b) {
  switch (b.step.kind) {
    case Step::Kind::pointwise:
      return {bind_pointwise(b)};
    case Step::Kind::pack:
      return {bind_pack(b)};
    case Step::Kind::copy:
      return {bind_copy(b, b.step.inputs[0], b.step.outputs[0])};
    case Step::Kind::node:
      break;
  }
  if (b.node->op == "concat") return bind_concat(b);
  if (b.node->op == "pad") return bind_pad(b);
  if (is_spread_gradient(*b.node)) return bind_spread_gradient(b);
  if (b.node->op == "constant")
    return {bind_fill(b, b.node->outputs[0], b.node->numbers("values")[0])};
  const auto rule = rules().find(b.node->op);
  if (rule == rules().end())
    throw Error(ErrorCode::internal, "compile: expected an op with a kernel, got " + b.node->op);
  return {rule->second(b)};
}

double elements_of(const Module& module, int value) {
  return static_cast<double>(module.spec(value).shape.elements());
}

// Multiplications and additions of a node; elementwise passes count one an operation and element.
double count_flops(const Binder& b) {
  double flops = 0;
  if (b.step.pointwise) {
    const auto steps = static_cast<double>(b.step.pointwise->code.size());
    flops += steps * elements_of(b.module, b.step.pointwise->outputs[0]);
  }
  if (b.step.kind != Step::Kind::node) return flops;
  const std::string& op = b.node->op;
  if (op == "matmul") {
    const MatmulShape s = matmul_shape(b.graph, *b.node);
    return flops + 2.0 * static_cast<double>(s.batch) * static_cast<double>(s.M) *
                       static_cast<double>(s.N) * static_cast<double>(s.K);
  }
  if (op == "conv2d" || op == "conv2dGradInput") {
    const Shape& w = b.in_shape(1);
    const int gradient = op == "conv2d" ? 0 : 1;
    const double pixels = elements_of(b.module, gradient ? b.node->inputs[0] : b.node->outputs[0]);
    return flops + 2.0 * pixels * static_cast<double>(w[0] * w[1] * w[2]);
  }
  if (op == "conv2dGradWeight") {
    const Shape& dw = b.out_shape();
    return 2.0 * elements_of(b.module, b.node->inputs[1]) *
           static_cast<double>(dw[0] * dw[1] * dw[2]);
  }
  if (op == "attention" || op == "attentionGrad") {
    const Shape& q = b.in_shape(0);
    const auto scores = static_cast<double>(q.elements() / q[3] * b.in_shape(1)[1]);
    const auto widths = static_cast<double>(q[3] + b.in_shape(2)[3]);
    return scores * widths * (op == "attention" ? 2.0 : 5.0);
  }
  if (op == "nearestCodes")
    return 2.0 * elements_of(b.module, b.node->inputs[0]) * static_cast<double>(b.in_shape(1)[0]);
  constexpr double kOperationsPerElement = 8;  // norms, softmax and the like
  return kOperationsPerElement *
         elements_of(b.module, b.node->inputs.empty() ? b.node->outputs[0] : b.node->inputs[0]);
}

// Operations of the kernel of a product that runs by another algorithm.
double count_work(const Binder& b) {
  if (b.step.algorithm == Algorithm::strassen) return count_flops(b) * 7 / 8;
  if (b.step.algorithm == Algorithm::paired) return count_flops(b) * 2 / 3;
  if (b.node->op == "conv2dGradWeight") {
    return winograd_work(
        winograd_gradient_args(conv2d_grad_weight_shape(b.graph, *b.node), b.step.tile));
  }
  return winograd_work(
      winograd_args(conv2d_shape(b.graph, *b.node), b.step.tile, b.step.table->panel_columns));
}

double count_bytes(const Module& module, const Step& step) {
  double bytes = 0;
  for (const int value : step.inputs) bytes += static_cast<double>(module.spec(value).bytes());
  for (const int value : step.outputs) bytes += static_cast<double>(module.spec(value).bytes());
  return bytes;
}

std::string describe_op(const Module& module, const Step& step) {
  std::string text;
  if (step.kind == Step::Kind::pack) return "pack";
  if (step.kind == Step::Kind::copy) return "copy";
  if (step.kind == Step::Kind::node) text = module.node(step.node).op;
  if (step.group.empty()) return text;
  text += step.kind == Step::Kind::node ? "+(" : "pointwise(";
  for (size_t i = 0; i < step.group.size(); ++i)
    text += (i > 0 ? " " : "") + module.node(step.group[i]).op;
  return text + ")";
}

std::string space_text(const Place& place) {
  static const char* const names[] = {"arena", "input", "buffer", "persistent", "constant"};
  return std::string(names[static_cast<int>(place.space)]) +
         (place.space == Space::input || place.space == Space::buffer ? std::to_string(place.slot)
                                                                      : "") +
         "+" + std::to_string(place.offset);
}

// Another way than the definition to compute a product.
std::string algorithm_of(const Step& step) {
  if (step.quantize != Quantize::none) return name_of(step.quantize) + std::string(" ");
  if (step.algorithm == Algorithm::defined) return "";
  if (step.algorithm == Algorithm::strassen) return "Strassen ";
  if (step.algorithm == Algorithm::paired) return "pairs ";
  const std::string digits = step.algorithm == Algorithm::digits ? "digits " : "";
  if (step.tile == 0) return digits.empty() ? "F(4,3) " : digits;
  const std::string side = std::to_string(winograd_sides(step.tile).results);
  const char* const input = step.tile < kTileUpsampled    ? ""
                            : step.tile == kTileUpsampled ? " upsampled"
                            : step.tile == kTileStrided   ? " stride 2"
                                                          : " spread";
  return "F(" + side + "x" + side + ",3x3" + input + ") " + digits;
}

std::string describe(const Binder& b) {
  std::string text;
  for (const int value : b.step.outputs) {
    text += (text.empty() ? "" : ", ") + space_text(b.place(value)) + ":" +
            format_spec(b.module.spec(value));
  }
  text += " =";
  for (const int value : b.step.inputs)
    text += " " + space_text(b.place(value)) + ":" + format_spec(b.module.spec(value));
  return algorithm_of(b.step) + text;
}

}  // namespace

// One number as the bits of a dtype.
uint64_t encode_number(double value, Dtype dtype) {
  uint64_t bits = 0;
  switch (dtype) {
    case Dtype::f64:
      std::memcpy(&bits, &value, 8);
      return bits;
    case Dtype::f32:
      return float_to_bits(static_cast<float>(value));
    case Dtype::f16:
      return float_to_f16(static_cast<float>(value));
    case Dtype::bf16:
      return float_to_bf16(static_cast<float>(value));
    case Dtype::i32:
      return static_cast<uint32_t>(
          static_cast<int32_t>(std::max(-2147483648.0, std::min(2147483647.0, value))));
    case Dtype::u8:
      return static_cast<uint8_t>(std::max(0.0, std::min(255.0, value)));
    case Dtype::boolean:
      return value != 0 ? 1 : 0;
  }
  return 0;
}

std::vector<Instruction> bind(const Module& module, const MemoryPlan& memory, const Step& step) {
  Binder binder(module, memory, step);
  std::vector<Instruction> instructions = bind_step(binder);
  const bool has_work = step.algorithm == Algorithm::winograd ||
                        step.algorithm == Algorithm::strassen ||
                        step.algorithm == Algorithm::paired;
  const auto parts = static_cast<double>(instructions.size());
  const int named = step.kind == Step::Kind::pointwise ? step.group.back() : step.node;
  for (Instruction& instruction : instructions) {
    instruction.flops = count_flops(binder) / parts;
    instruction.work = has_work ? count_work(binder) : instruction.flops;
    instruction.bytes = count_bytes(module, step) / parts;
    instruction.op = describe_op(module, step);
    if (named >= 0) instruction.scope = module.node(named).scope;
    instruction.text = describe(binder);
  }
  return instructions;
}

std::vector<std::string> bindable_ops() {
  std::vector<std::string> names{"input", "constant", "concat", "pad"};
  for (const auto& [name, rule] : rules()) names.push_back(name);
  return names;
}

}  // namespace smalti
