// The kernels of the reference backend, one function for each entry of KernelTable, defined in the
// family's file.
#pragma once

#include "native/kernels/table.h"

namespace smalti::ref {

// NR of packed panels; a multiple of any vector width the host compiler may use for the inner
// loops.
constexpr int64_t kPanelColumns = 16;

// pointwise.cc
Kernel<PointwiseArgs> pointwise_kernel();
// reduce.cc
Kernel<ReduceArgs> reduce_kernel();
Kernel<ArgReduceArgs> arg_reduce_kernel();
Kernel<CumulativeSumArgs> cumulative_sum_kernel();
Kernel<TopKArgs> top_k_kernel();
// movement.cc
Kernel<CopyArgs> copy_kernel();
Kernel<FillArgs> fill_kernel();
Kernel<IotaArgs> iota_kernel();
Kernel<GatherArgs> gather_kernel();
Kernel<ScatterAddArgs> scatter_add_kernel();
Kernel<GatherLastArgs> gather_last_kernel();
Kernel<ScatterLastArgs> scatter_last_kernel();
// matmul.cc
Kernel<PackArgs> pack_kernel();
Kernel<MatmulArgs> matmul_kernel();
// conv2d.cc
Kernel<Conv2dArgs> conv2d_kernel();
Kernel<Conv2dGradWeightArgs> conv2d_grad_weight_kernel();
// norm.cc
Kernel<GroupNormArgs> group_norm_kernel();
Kernel<GroupNormGradArgs> group_norm_grad_kernel();
Kernel<LayerNormArgs> layer_norm_kernel();
Kernel<LayerNormGradArgs> layer_norm_grad_kernel();
// softmax.cc
Kernel<SoftmaxArgs> softmax_kernel();
Kernel<SoftmaxGradArgs> softmax_grad_kernel();
// attention.cc
Kernel<AttentionArgs> attention_kernel();
Kernel<AttentionGradArgs> attention_grad_kernel();
// random.cc
Kernel<RandomArgs> random_kernel();
// codes.cc
Kernel<NearestCodesArgs> nearest_codes_kernel();
// mask_replace.cc
Kernel<MaskReplaceForwardArgs> mask_replace_forward_kernel();
Kernel<MaskReplaceStepArgs> mask_replace_step_kernel();
// mask_replace_loss.cc
Kernel<MaskReplaceLossArgs> mask_replace_loss_kernel();
Kernel<MaskReplaceLossGradArgs> mask_replace_loss_grad_kernel();

}  // namespace smalti::ref
