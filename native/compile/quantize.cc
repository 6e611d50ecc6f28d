// Which products run on 8-bit integers or on weights that are stored narrow when that is asked for:
// those with a weight that is the same in every run, of one group, and long enough sums. The first
// and last layers of a network are narrow and stay in float; of the convolutions with a window
// only those on integers take part.
#include "native/compile/stages.h"
#include "native/core/error.h"

namespace smalti {
namespace {

constexpr const char* kNames[] = {"", "int8", "int8-weights", "f16-weights"};

constexpr int64_t kLeastChannels = 16;
constexpr int64_t kLeastSum = 64;
constexpr int64_t kLeastColumns = 32;

bool is_matrix_product(const Graph& graph, const Node& node) {
  if (node.op != "matmul") return false;
  const MatmulShape s = matmul_shape(graph, node);
  return s.batch == 1 && !s.transpose_a;
}

// A convolution that is a matrix product on pixels.
bool is_pointwise_product(const Conv2dArgs& a) {
  return a.KH * a.KW * a.stride_h * a.stride_w * a.upsample == 1 && a.H == a.OH && a.W == a.OW &&
         a.pad_top + a.pad_left == 0;
}

bool has_kernel(const Module& module) {
  if (module.isa == nullptr || module.quantize == Quantize::none) return false;
  return module.quantize == Quantize::int8 ? module.isa->int8_conv.run != nullptr
                                           : module.isa->narrow_pack.run != nullptr;
}

}  // namespace

const char* name_of(Quantize quantize) { return kNames[static_cast<int>(quantize)]; }

Quantize quantize_named(const std::string& name) {
  for (const Quantize quantize :
       {Quantize::none, Quantize::int8, Quantize::int8_weights, Quantize::f16_weights}) {
    if (name == name_of(quantize)) return quantize;
  }
  throw Error(ErrorCode::option,
              "compile: expected quantize int8, int8-weights, f16-weights or none, got " + name);
}

Conv2dArgs product_shape(const Graph& graph, const Node& node) {
  if (node.op != "matmul") return conv2d_shape(graph, node);
  const MatmulShape s = matmul_shape(graph, node);
  Conv2dArgs a = {};
  a.B = s.M;
  a.C = s.K;
  a.O = s.N;
  a.H = a.W = a.OH = a.OW = a.KH = a.KW = 1;
  a.groups = a.stride_h = a.stride_w = a.upsample = a.dilation = 1;
  a.dtype = graph.out(node).dtype;
  return a;
}

Quantize quantize_of(const Module& module, const Step& step) {
  const Node& node = module.node(step.node);
  if (!has_kernel(module)) return Quantize::none;
  if (node.op != "conv2d" && !is_matrix_product(module.graph, node)) return Quantize::none;
  if (!module.is_setup[static_cast<size_t>(step.inputs[1])] || step.is_setup) return Quantize::none;
  const Conv2dArgs a = product_shape(module.graph, node);
  const bool is_offered = module.quantize == Quantize::int8 || is_pointwise_product(a);
  const bool is_large = a.C >= kLeastChannels && a.KH * a.KW * a.C >= kLeastSum &&
                        a.O >= kLeastColumns && a.groups == 1;
  return a.dtype == Dtype::f32 && is_offered && is_large ? module.quantize : Quantize::none;
}

}  // namespace smalti
