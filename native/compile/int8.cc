// Which products run on 8-bit integers when that is asked for: those with a weight that is the same
// in every run, of one group, and long enough sums. The first and last layers of a network are
// narrow and stay in float.
#include "native/compile/stages.h"

namespace smalti {
namespace {

constexpr int64_t kLeastChannels = 16;
constexpr int64_t kLeastSum = 64;
constexpr int64_t kLeastColumns = 32;

bool is_matrix_product(const Graph& graph, const Node& node) {
  if (node.op != "matmul") return false;
  const MatmulShape s = matmul_shape(graph, node);
  return s.batch == 1 && !s.transpose_a;
}

}  // namespace

Conv2dArgs int8_shape(const Graph& graph, const Node& node) {
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

bool takes_int8(const Module& module, const Step& step) {
  const Node& node = module.node(step.node);
  const bool has_kernel = module.isa != nullptr && module.isa->int8_conv.run != nullptr;
  if (!module.wants_int8 || !has_kernel) return false;
  if (node.op != "conv2d" && !is_matrix_product(module.graph, node)) return false;
  if (!module.is_setup[static_cast<size_t>(step.inputs[1])] || step.is_setup) return false;
  const Conv2dArgs a = int8_shape(module.graph, node);
  return a.dtype == Dtype::f32 && a.groups == 1 && a.C >= kLeastChannels &&
         a.KH * a.KW * a.C >= kLeastSum && a.O >= kLeastColumns;
}

}  // namespace smalti
