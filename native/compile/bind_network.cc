// Arguments of products, normalisation, attention and token kernels: one function per kernel.
#include "native/compile/binder.h"

namespace smalti {
namespace {

Instruction bind_int8(Binder& b) {
  Int8ConvArgs a = {};
  a.conv = product_shape(b.graph, *b.node);
  b.fix_inputs(a.conv.x, a.conv.w);
  b.fix_outputs(a.conv.y);
  b.fix(a.quantised, b.place(b.step.temps.end()[-2]));
  b.fix(a.ranges, b.place(b.step.temps.end()[-1]));
  if (b.step.pointwise) b.fix_pointwise(a.conv.epilogue);
  return b.finish(a, *b.step.table, &KernelTable::int8_conv);
}

// A matrix product or a 1x1 convolution with weights that are stored narrow.
Instruction bind_narrow(Binder& b) {
  const Conv2dArgs conv = product_shape(b.graph, *b.node);
  MatmulArgs a = {};
  a.batch = 1;
  a.M = conv.B * conv.H * conv.W;
  a.N = conv.O;
  a.K = a.a_row_stride = conv.C;
  a.a_column_stride = 1;
  a.dtype = b.dtype();
  a.quantize = b.step.quantize;
  b.fix_inputs(a.a, a.b);
  b.fix_columns(a.columns);
  b.fix_outputs(a.c);
  if (b.step.pointwise) b.fix_pointwise(a.epilogue);
  b.fix_sums(a.result_sums, b.out_shape());
  return b.finish(a, *b.step.table, &KernelTable::matmul);
}

Instruction bind_matmul(Binder& b) {
  if (b.step.quantize == Quantize::int8) return bind_int8(b);
  if (b.step.quantize != Quantize::none) return bind_narrow(b);
  const MatmulShape s = matmul_shape(b.graph, *b.node);
  MatmulArgs a = {};
  a.batch = s.batch;
  a.M = s.M;
  a.N = s.N;
  a.K = s.K;
  a.a_batch_stride = s.a_shared || s.batch == 1 ? 0 : s.M * s.K;
  a.a_row_stride = s.transpose_a ? 1 : s.K;
  a.a_column_stride = s.transpose_a ? s.M : 1;
  a.b_batch_stride = s.b_shared ? 0 : packed_group_elements(s.K, s.N, b.step.table->panel_columns);
  a.dtype = b.dtype();
  b.fix_inputs(a.a, a.b);
  b.fix_columns(a.columns);
  b.fix_outputs(a.c);
  if (b.step.pointwise) b.fix_pointwise(a.epilogue);
  b.fix_sums(a.result_sums, b.out_shape());
  if (b.step.algorithm == Algorithm::defined)
    return b.finish(a, *b.step.table, &KernelTable::matmul);
  if (!b.step.temps.empty()) b.fix(a.sums, b.place(b.step.temps.back()));
  const auto entry = b.step.algorithm == Algorithm::paired   ? &KernelTable::paired
                     : b.step.algorithm == Algorithm::digits ? &KernelTable::digits
                                                             : &KernelTable::strassen;
  return b.finish(a, *b.step.table, entry);
}

Conv2dArgs conv2d_args(const Binder& b) {
  Conv2dArgs a = conv2d_shape(b.graph, *b.node);
  a.w_group_stride = packed_group_elements(a.KH * a.KW * a.C, a.O, b.step.table->panel_columns);
  return a;
}

Instruction bind_winograd(Binder& b) {
  const KernelTable& table = *b.step.table;
  WinogradArgs a = winograd_args(conv2d_shape(b.graph, *b.node), b.step.tile, table.panel_columns);
  b.fix_inputs(a.conv.x, a.conv.w);
  b.fix_outputs(a.conv.y);
  if (a.is_staged) {
    b.fix(a.inputs, b.place(b.step.temps.end()[-2]));
    b.fix(a.products, b.place(b.step.temps.end()[-1]));
  }
  if (b.step.pointwise) b.fix_pointwise(a.conv.epilogue);
  b.fix_sums(a.conv.result_sums, b.out_shape());
  return b.finish(a, table, &KernelTable::winograd);
}

Instruction finish_conv2d(Binder& b, Conv2dArgs& a, Place x) {
  b.fix(a.x, x);
  b.fix(a.w, b.input(1));
  b.fix_outputs(a.y);
  if (b.step.pointwise) b.fix_pointwise(a.epilogue);
  b.fix_sums(a.result_sums, b.out_shape());
  const auto entry = b.step.algorithm == Algorithm::ends    ? &KernelTable::conv2d_ends
                     : b.step.algorithm == Algorithm::small ? &KernelTable::conv2d_small
                                                            : &KernelTable::conv2d;
  return b.finish(a, *b.step.table, entry);
}

Instruction bind_winograd_digits(Binder& b) {
  WinogradArgs a = winograd_digits_args(conv2d_shape(b.graph, *b.node));
  a.is_local = winograd_digits_is_local(a, b.module.threads);
  b.fix_inputs(a.conv.x, a.conv.w);
  b.fix_outputs(a.conv.y);
  if (!a.is_local) b.fix(a.inputs, b.place(b.step.temps.back()));
  if (b.step.pointwise) b.fix_pointwise(a.conv.epilogue);
  b.fix_sums(a.conv.result_sums, b.out_shape());
  return b.finish(a, *b.step.table, &KernelTable::winograd_digits);
}

Instruction bind_conv2d_digits(Binder& b) {
  if (b.step.tile != 0) return bind_winograd_digits(b);
  DigitsConvArgs a = {};
  a.conv = conv2d_shape(b.graph, *b.node);
  b.fix_inputs(a.conv.x, a.conv.w);
  b.fix_outputs(a.conv.y);
  b.fix(a.inputs, b.place(b.step.temps.back()));
  if (b.step.pointwise) b.fix_pointwise(a.conv.epilogue);
  return b.finish(a, *b.step.table, &KernelTable::conv2d_digits);
}

Instruction bind_conv2d(Binder& b) {
  if (b.step.quantize == Quantize::int8) return bind_int8(b);
  if (b.step.quantize != Quantize::none) return bind_narrow(b);
  if (b.step.algorithm == Algorithm::winograd) return bind_winograd(b);
  if (b.step.algorithm == Algorithm::digits) return bind_conv2d_digits(b);
  Conv2dArgs a = conv2d_args(b);
  return finish_conv2d(b, a, b.input(0));
}

Instruction bind_conv2d_grad_weight(Binder& b) {
  const Conv2dGradWeightArgs conv = conv2d_grad_weight_shape(b.graph, *b.node);
  if (b.step.algorithm != Algorithm::winograd) {
    Conv2dGradWeightArgs a = conv;
    b.fix_inputs(a.x, a.dy);
    b.fix_outputs(a.dw);
    return b.finish(a, &KernelTable::conv2d_grad_weight, b.is_f32());
  }
  WinogradGradArgs a = winograd_gradient_args(conv, b.step.tile);
  b.fix_inputs(a.conv.x, a.conv.dy);
  b.fix_outputs(a.conv.dw);
  b.fix(a.inputs, b.place(b.step.temps[0]));
  b.fix(a.gradients, b.place(b.step.temps[1]));
  if (!a.is_whole) b.fix(a.products, b.place(b.step.temps[2]));
  return b.finish(a, &KernelTable::winograd_grad_weight, true);
}

template <class Args>
void set_group_norm(const Binder& b, Args& a) {
  const Shape& x = b.in_shape(0);
  a.B = x[0];
  a.C = x.last();
  a.S = x.elements() / a.B / a.C;
  a.groups = b.node->integer("groups");
  a.eps = b.node->number("eps");
  a.silu = b.node->text("activation") == "silu";
  a.dtype = b.dtype();
}

Instruction bind_group_norm(Binder& b) {
  GroupNormArgs a = {};
  set_group_norm(b, a);
  a.block = b.step.norm_block;
  b.fix_inputs(a.x, a.gamma, a.beta);
  b.fix_columns(a.columns);
  b.fix_outputs(a.y);
  if (b.step.pointwise) b.fix_pointwise(a.epilogue);
  a.own_sums = b.step.own_sums;
  for (size_t i = 0; i < b.step.sums.size(); ++i) b.fix_sums(a.sums[i], b.in_shape(0), i);
  if (a.block > 0) b.fix(a.gains, b.place(b.step.temps.back()));
  return b.finish(a, &KernelTable::group_norm, b.is_f32());
}

Instruction bind_group_norm_grad(Binder& b) {
  GroupNormGradArgs a = {};
  set_group_norm(b, a);
  b.fix_inputs(a.x, a.gamma, a.beta, a.dy);
  b.fix_outputs(a.dx, a.dgamma, a.dbeta);
  b.fix(a.partial, b.place(b.step.temps[0]));
  return b.finish(a, &KernelTable::group_norm_grad, b.is_f32());
}

NormAffine norm_affine(const Node& node) {
  const std::string& affine = node.text("affine");
  return affine == "none"     ? NormAffine::none
         : affine == "shared" ? NormAffine::shared
                              : NormAffine::modulate;
}

template <class Args>
void set_layer_norm(const Binder& b, Args& a) {
  const Shape& x = b.in_shape(0);
  a.B = x.rank == 1 ? 1 : x[0];
  a.D = x.last();
  a.N = x.elements() / a.B / a.D;
  a.eps = b.node->number("eps");
  a.affine = norm_affine(*b.node);
  a.dtype = b.dtype();
}

Instruction bind_layer_norm(Binder& b) {
  LayerNormArgs a = {};
  set_layer_norm(b, a);
  b.fix_inputs(a.x);
  if (a.affine != NormAffine::none) {
    b.fix(a.scale, b.input(1));
    b.fix(a.shift, b.input(2));
  }
  b.fix_outputs(a.y);
  return b.finish(a, &KernelTable::layer_norm, b.is_f32());
}

Instruction bind_layer_norm_grad(Binder& b) {
  LayerNormGradArgs a = {};
  set_layer_norm(b, a);
  const bool is_affine = a.affine != NormAffine::none;
  b.fix_inputs(a.x);
  b.fix(a.dy, b.input(is_affine ? 2 : 1));
  b.fix_outputs(a.dx);
  if (is_affine) {
    b.fix(a.scale, b.input(1));
    b.fix(a.dscale, b.output(1));
    b.fix(a.dshift, b.output(2));
    b.fix(a.partial, b.place(b.step.temps[0]));
  }
  return b.finish(a, &KernelTable::layer_norm_grad, b.is_f32());
}

Instruction bind_softmax(Binder& b) {
  SoftmaxArgs a = {};
  a.count = b.in_shape(0).last();
  a.rows = b.in_shape(0).elements() / a.count;
  a.is_log = b.node->op == "logSoftmax";
  a.dtype = b.dtype();
  b.fix_inputs(a.src);
  b.fix_outputs(a.dst);
  return b.finish(a, &KernelTable::softmax, b.is_f32());
}

Instruction bind_softmax_grad(Binder& b) {
  SoftmaxGradArgs a = {};
  a.count = b.in_shape(0).last();
  a.rows = b.in_shape(0).elements() / a.count;
  a.is_log = b.node->op == "logSoftmaxGrad";
  a.dtype = b.dtype();
  b.fix_inputs(a.y, a.dy);
  b.fix_outputs(a.dx);
  return b.finish(a, &KernelTable::softmax_grad, b.is_f32());
}

template <class Args>
void set_attention(Binder& b, Args& a, size_t mask) {
  const Shape& q = b.in_shape(0);
  a.B = q[0];
  a.N = q[1];
  a.H = q[2];
  a.D = q[3];
  a.M = b.in_shape(1)[1];
  a.E = b.in_shape(2)[3];
  a.q_stride = b.row_stride(0, a.H * a.D);
  a.k_stride = b.row_stride(1, a.H * a.D);
  a.v_stride = b.row_stride(2, a.H * a.E);
  a.q_head = b.head_stride(0, a.D);
  a.k_head = b.head_stride(1, a.D);
  a.v_head = b.head_stride(2, a.E);
  a.scale = b.node->number("scale");
  a.is_causal = b.node->flag_or("causal", false);
  a.dtype = b.dtype();
  b.fix_inputs(a.q, a.k, a.v);
  if (b.node->inputs.size() <= mask) return;
  b.fix(a.mask, b.input(mask));
  const Shape& shape = b.in_shape(mask);
  int64_t step = 1;
  for (int i = shape.rank - 1; i >= 0; --i) {
    a.mask_strides[4 - shape.rank + i] = shape[i] == 1 ? 0 : step;
    step *= shape[i];
  }
}

Instruction bind_attention(Binder& b) {
  AttentionArgs a = {};
  set_attention(b, a, 3);
  const KernelTable* isa = b.module.isa;
  a.takes_pairs = b.module.allows_winograd && isa != nullptr && isa->paired.run != nullptr;
  b.fix_outputs(a.out, a.lse);
  if (b.step.algorithm == Algorithm::digits) {
    b.fix(a.digits, b.place(b.step.temps[0]));
    return b.finish(a, &KernelTable::attention_digits, b.is_f32());
  }
  return b.finish(a, &KernelTable::attention, b.is_f32());
}

Instruction bind_attention_grad(Binder& b) {
  AttentionGradArgs a = {};
  set_attention(b, a, 6);
  b.fix(a.out, b.input(3));
  b.fix(a.lse, b.input(4));
  b.fix(a.dout, b.input(5));
  b.fix_outputs(a.dq, a.dk, a.dv);
  if (!b.step.temps.empty()) b.fix(a.kept, b.place(b.step.temps[0]));
  return b.finish(a, &KernelTable::attention_grad, b.is_f32());
}

Instruction bind_nearest_codes(Binder& b) {
  NearestCodesArgs a = {};
  a.N = b.in_shape(0)[0];
  a.D = b.in_shape(0)[1];
  a.K = b.in_shape(1)[0];
  a.metric = b.node->text("metric") == "cosine" ? CodeMetric::cosine : CodeMetric::euclidean;
  a.dtype = b.dtype();
  b.fix_inputs(a.latents, a.codebook);
  b.fix_outputs(a.indices);
  b.fix(a.packed, b.place(b.step.temps[0]));
  return b.finish(a, &KernelTable::nearest_codes, b.is_f32());
}

Instruction bind_mask_replace_forward(Binder& b) {
  MaskReplaceForwardArgs a = {};
  a.B = b.in_shape(0)[0];
  a.N = b.in_shape(0)[1];
  a.K = b.node->integer("codes");
  a.dtype = b.dtype(1);
  b.fix_inputs(a.x0, a.coeffs, a.uniform);
  b.fix_outputs(a.xt);
  return b.finish(a, &KernelTable::mask_replace_forward, b.is_f32(1));
}

template <class Args>
void set_tokens(const Binder& b, Args& a) {
  a.B = b.in_shape(0)[0];
  a.N = b.in_shape(0)[1];
  a.K = b.in_shape(0)[2];
  a.dtype = b.dtype();
}

Instruction bind_mask_replace_step(Binder& b) {
  MaskReplaceStepArgs a = {};
  set_tokens(b, a);
  const size_t first = b.node->flag("guided") ? 2 : 1;
  b.fix_inputs(a.logits);
  if (first == 2) b.fix(a.uncond_logits, b.input(1));
  b.fix(a.xt, b.input(first));
  b.fix(a.coeffs, b.input(first + 1));
  b.fix(a.settings, b.input(first + 2));
  b.fix(a.uniform, b.input(first + 3));
  b.fix_outputs(a.tokens, a.best, a.confidence);
  return b.finish(a, &KernelTable::mask_replace_step, b.is_f32());
}

Instruction bind_mask_replace_loss(Binder& b) {
  MaskReplaceLossArgs a = {};
  set_tokens(b, a);
  b.fix_inputs(a.logits, a.x0, a.xt, a.coeffs);
  b.fix_outputs(a.kl, a.nll);
  return b.finish(a, &KernelTable::mask_replace_loss, b.is_f32());
}

Instruction bind_mask_replace_loss_grad(Binder& b) {
  MaskReplaceLossGradArgs a = {};
  set_tokens(b, a);
  b.fix_inputs(a.logits, a.x0, a.xt, a.coeffs, a.dkl, a.dnll);
  b.fix_outputs(a.dlogits);
  return b.finish(a, &KernelTable::mask_replace_loss_grad, b.is_f32());
}

}  // namespace

std::vector<Instruction> bind_spread_gradient(Binder& b) {
  const int spread = b.step.temps.back();
  const Shape shape = spread_shape(b.graph, *b.node);
  std::vector<Instruction> instructions{bind_fill(b, spread, 0), bind_spread(b, spread, shape)};
  Conv2dArgs a = conv2d_args(b);
  a.H = shape[1];
  a.W = shape[2];
  a.dilation = 1;
  instructions.push_back(finish_conv2d(b, a, b.place(spread)));
  return instructions;
}

void add_network_binds(BindTable& table) {
  table["matmul"] = bind_matmul;
  table["conv2d"] = bind_conv2d;
  table["conv2dGradInput"] = bind_conv2d;
  table["conv2dGradWeight"] = bind_conv2d_grad_weight;
  table["groupNorm"] = bind_group_norm;
  table["groupNormGrad"] = bind_group_norm_grad;
  table["layerNorm"] = bind_layer_norm;
  table["layerNormGrad"] = bind_layer_norm_grad;
  table["softmax"] = bind_softmax;
  table["logSoftmax"] = bind_softmax;
  table["softmaxGrad"] = bind_softmax_grad;
  table["logSoftmaxGrad"] = bind_softmax_grad;
  table["attention"] = bind_attention;
  table["attentionGrad"] = bind_attention_grad;
  table["nearestCodes"] = bind_nearest_codes;
  table["maskReplaceForward"] = bind_mask_replace_forward;
  table["maskReplaceStep"] = bind_mask_replace_step;
  table["maskReplaceLoss"] = bind_mask_replace_loss;
  table["maskReplaceLossGrad"] = bind_mask_replace_loss_grad;
}

}  // namespace smalti
