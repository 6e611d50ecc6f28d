// Inference of fused ops: softmax, normalisation, attention, tokens.
#include <algorithm>

#include "native/ir/infer.h"

namespace smalti {
namespace {

Shape shape_of(std::initializer_list<int64_t> dims) {
  Shape shape;
  for (const int64_t dim : dims) shape.push(dim);
  return shape;
}

Specs softmax(const InferCase& c) {
  c.expect_arity(1, 1);
  c.expect_real(0);
  c.expect_rank(0, 1, kMaxShapeRank);
  return {c.in[0]};
}

Specs softmax_grad(const InferCase& c) {
  c.expect_arity(2, 2);
  c.expect_real(0);
  c.expect_rank(0, 1, kMaxShapeRank);
  c.expect_spec(1, c.in[0]);
  return {c.in[0]};
}

void expect_group_norm(const InferCase& c, size_t inputs) {
  c.expect_arity(inputs, inputs);
  c.expect_real(0);
  c.expect_rank(0, 2, kMaxShapeRank);
  const int64_t channels = c.in[0].shape.last();
  c.expect_spec(1, {c.in[0].dtype, shape_of({channels})});
  c.expect_spec(2, {c.in[0].dtype, shape_of({channels})});
  c.expect(channels % c.bounded("groups", 1, channels) == 0, "channels divisible by groups");
  c.node.number("eps");
  const std::string& activation = c.node.text("activation");
  if (activation != "none" && activation != "silu")
    c.fail(ErrorCode::option, "activation none or silu");
}

Specs group_norm(const InferCase& c) {
  expect_group_norm(c, 3);
  return {c.in[0]};
}

Specs group_norm_grad(const InferCase& c) {
  expect_group_norm(c, 4);
  c.expect_spec(3, c.in[0]);
  return {c.in[0], c.in[1], c.in[2]};
}

// Spec of scale and shift, or nothing for affine "none".
Specs layer_norm_affine(const InferCase& c) {
  c.expect(!c.in.empty(), "an input");
  c.expect_real(0);
  c.expect_rank(0, 1, kMaxShapeRank);
  c.node.number("eps");
  const Shape& x = c.in[0].shape;
  const std::string& affine = c.node.text("affine");
  if (affine == "none") return {};
  if (affine == "shared") return {{c.in[0].dtype, shape_of({x.last()})}};
  if (affine != "modulate") c.fail(ErrorCode::option, "affine none, shared or modulate");
  c.expect_rank(0, 2, kMaxShapeRank);
  return {{c.in[0].dtype, shape_of({x[0], x.last()})}};
}

Specs layer_norm(const InferCase& c) {
  const Specs affine = layer_norm_affine(c);
  c.expect_arity(affine.empty() ? 1 : 3, affine.empty() ? 1 : 3);
  if (!affine.empty()) {
    c.expect_spec(1, affine[0]);
    c.expect_spec(2, affine[0]);
  }
  return {c.in[0]};
}

Specs layer_norm_grad(const InferCase& c) {
  const Specs affine = layer_norm_affine(c);
  if (affine.empty()) {
    c.expect_arity(2, 2);
    c.expect_spec(1, c.in[0]);
    return {c.in[0]};
  }
  c.expect_arity(3, 3);
  c.expect_spec(1, affine[0]);
  c.expect_spec(2, c.in[0]);
  return {c.in[0], affine[0], affine[0]};
}

void expect_mask(const InferCase& c, size_t index, const Shape& full) {
  if (c.in.size() <= index) return;
  c.expect_dtype(index, c.in[0].dtype);
  const Shape& mask = c.in[index].shape;
  c.expect(mask.rank <= full.rank, "a mask that broadcasts to (B, H, N, M)");
  for (int i = 0; i < mask.rank; ++i) {
    const bool fits = mask[i] == 1 || mask[i] == full[full.rank - mask.rank + i];
    c.expect(fits, "a mask that broadcasts to (B, H, N, M)");
  }
}

struct AttentionSpecs {
  Spec out;
  Spec lse;
};

AttentionSpecs attention_specs(const InferCase& c) {
  c.expect_real(0);
  for (size_t i = 0; i < 3; ++i) {
    c.expect_dtype(i, c.in[0].dtype);
    c.expect_rank(i, 4, 4);
  }
  const Shape& q = c.in[0].shape;
  const Shape& k = c.in[1].shape;
  const Shape& v = c.in[2].shape;
  const bool fits =
      k[0] == q[0] && v[0] == q[0] && v[1] == k[1] && k[2] == q[2] && v[2] == q[2] && k[3] == q[3];
  c.expect(fits, "q (B, N, H, D), k (B, M, H, D), v (B, M, H, E)");
  c.node.number("scale");
  c.node.flag_or("causal", false);
  return {{c.in[0].dtype, shape_of({q[0], q[1], q[2], v[3]})},
          {c.in[0].dtype, shape_of({q[0], q[2], q[1]})}};
}

Shape score_shape(const InferCase& c) {
  const Shape& q = c.in[0].shape;
  return shape_of({q[0], q[2], q[1], c.in[1].shape[1]});
}

Specs attention(const InferCase& c) {
  c.expect_arity(3, 4);
  const AttentionSpecs specs = attention_specs(c);
  expect_mask(c, 3, score_shape(c));
  return {specs.out, specs.lse};
}

Specs attention_grad(const InferCase& c) {
  c.expect_arity(6, 7);
  const AttentionSpecs specs = attention_specs(c);
  c.expect_spec(3, specs.out);
  c.expect_spec(4, specs.lse);
  c.expect_spec(5, specs.out);
  expect_mask(c, 6, score_shape(c));
  return {c.in[0], c.in[1], c.in[2]};
}

Specs nearest_codes(const InferCase& c) {
  c.expect_arity(2, 2);
  c.expect_real(0);
  c.expect_dtype(1, c.in[0].dtype);
  c.expect_rank(0, 2, 2);
  c.expect_rank(1, 2, 2);
  c.expect(c.in[0].shape[1] == c.in[1].shape[1], "latents and codes of equal width");
  const std::string& metric = c.node.text("metric");
  if (metric != "euclidean" && metric != "cosine")
    c.fail(ErrorCode::option, "metric euclidean or cosine");
  return {{Dtype::i32, shape_of({c.in[0].shape[0]})}};
}

constexpr int64_t kCoeffColumns = 9;
constexpr int64_t kSettingColumns = 4;

Specs mask_replace_forward(const InferCase& c) {
  c.expect_arity(3, 3);
  c.expect_dtype(0, Dtype::i32);
  c.expect_rank(0, 2, 2);
  c.expect_real(1);
  const int64_t B = c.in[0].shape[0];
  const int64_t N = c.in[0].shape[1];
  c.expect_spec(1, {c.in[1].dtype, shape_of({B, kCoeffColumns})});
  c.expect_spec(2, {c.in[1].dtype, shape_of({B, N, 2})});
  c.bounded("codes", 1, 0x7fffffff - 1);
  return {c.in[0]};
}

// Checks logits (B, N, K) in input 0 and returns (B, N).
Shape token_shape(const InferCase& c) {
  c.expect(!c.in.empty(), "logits");
  c.expect_real(0);
  c.expect_rank(0, 3, 3);
  return shape_of({c.in[0].shape[0], c.in[0].shape[1]});
}

Specs mask_replace_step(const InferCase& c) {
  const Shape tokens = token_shape(c);
  const Dtype real = c.in[0].dtype;
  const bool is_guided = c.node.flag("guided");
  const size_t first = is_guided ? 2 : 1;
  c.expect_arity(first + 4, first + 4);
  if (is_guided) c.expect_spec(1, c.in[0]);
  c.expect_spec(first, {Dtype::i32, tokens});
  c.expect_spec(first + 1, {real, shape_of({tokens[0], kCoeffColumns})});
  c.expect_spec(first + 2, {real, shape_of({tokens[0], kSettingColumns})});
  c.expect_spec(first + 3, {real, tokens});
  return {{Dtype::i32, tokens}, {Dtype::i32, tokens}, {real, tokens}};
}

void expect_loss_inputs(const InferCase& c, const Shape& tokens) {
  c.expect_spec(1, {Dtype::i32, tokens});
  c.expect_spec(2, {Dtype::i32, tokens});
  c.expect_spec(3, {c.in[0].dtype, shape_of({tokens[0], kCoeffColumns})});
}

Specs mask_replace_loss(const InferCase& c) {
  const Shape tokens = token_shape(c);
  c.expect_arity(4, 4);
  expect_loss_inputs(c, tokens);
  return {{c.in[0].dtype, tokens}, {c.in[0].dtype, tokens}};
}

Specs mask_replace_loss_grad(const InferCase& c) {
  const Shape tokens = token_shape(c);
  c.expect_arity(6, 6);
  expect_loss_inputs(c, tokens);
  c.expect_spec(4, {c.in[0].dtype, tokens});
  c.expect_spec(5, {c.in[0].dtype, tokens});
  return {c.in[0]};
}

}  // namespace

void add_fused_rules(InferTable& table) {
  table["softmax"] = softmax;
  table["logSoftmax"] = softmax;
  table["softmaxGrad"] = softmax_grad;
  table["logSoftmaxGrad"] = softmax_grad;
  table["groupNorm"] = group_norm;
  table["groupNormGrad"] = group_norm_grad;
  table["layerNorm"] = layer_norm;
  table["layerNormGrad"] = layer_norm_grad;
  table["attention"] = attention;
  table["attentionGrad"] = attention_grad;
  table["nearestCodes"] = nearest_codes;
  table["maskReplaceForward"] = mask_replace_forward;
  table["maskReplaceStep"] = mask_replace_step;
  table["maskReplaceLoss"] = mask_replace_loss;
  table["maskReplaceLossGrad"] = mask_replace_loss_grad;
}

}  // namespace smalti
