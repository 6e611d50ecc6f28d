// What a backend provides: one entry per kernel. The reference backend fills every entry and
// supports f32 and f64; an instruction set fills what it accelerates and supports f32 only. A null
// `run` means "use the next backend".
#pragma once

#include <cstdint>

#include "native/kernels/args.h"

namespace smalti {

// Run work items [range.begin, range.end) of phase `phase`. `scratch` is private to the calling
// thread and holds scratch_bytes(args) bytes, 64-byte aligned. A kernel never allocates, throws,
// locks or logs.
template <class Args>
struct Kernel {
  void (*run)(const Args& args, int phase, Range range, void* scratch) = nullptr;
  // Number of independent work items of a phase. What an item sums, and in which order, must not
  // depend on the number of threads.
  int64_t (*items)(const Args& args, int phase) = nullptr;
  int64_t (*scratch_bytes)(const Args& args) = nullptr;  // null = none
  int phases = 1;                                        // with a barrier between them
};

struct KernelTable {
  const char* name;       // "ref", "scalar", "avx2", "avx512", "zen4", "amx", "neon"
  int64_t panel_columns;  // NR: columns of a packed panel
  int64_t small_images;   // up to so many, conv2d_small is offered
  // Rows of a work item of a matrix product or a convolution as one.
  int64_t (*product_rows)(int64_t rows, int64_t columns, int64_t depth, ProductForm form);

  Kernel<PointwiseArgs> pointwise;
  Kernel<ReduceArgs> reduce;
  Kernel<ArgReduceArgs> arg_reduce;
  Kernel<CumulativeSumArgs> cumulative_sum;
  Kernel<TopKArgs> top_k;
  Kernel<CopyArgs> copy;
  Kernel<FillArgs> fill;
  Kernel<IotaArgs> iota;
  Kernel<GatherArgs> gather;
  Kernel<ScatterAddArgs> scatter_add;
  Kernel<GatherLastArgs> gather_last;
  Kernel<ScatterLastArgs> scatter_last;
  Kernel<PackArgs> pack;
  Kernel<MatmulArgs> matmul;
  Kernel<PackArgs> strassen_pack;  // the reference has neither: matmul is theirs
  Kernel<MatmulArgs> strassen;
  Kernel<PackArgs> paired_pack;  // where additions run beside multiply-adds
  Kernel<MatmulArgs> paired;
  Kernel<PackArgs> digits_pack;  // where tiles of bytes are multiplied
  Kernel<MatmulArgs> digits;
  Kernel<Conv2dArgs> conv2d;
  Kernel<DigitsConvArgs> conv2d_digits;  // small maps, conv.w packed by digits_pack
  Kernel<PackArgs> winograd_digits_pack;
  Kernel<WinogradArgs> winograd_digits;  // conv.w packed by winograd_digits_pack
  Kernel<Conv2dArgs> conv2d_ends;        // 3x3 of stride 1, few channels on one side
  Kernel<Conv2dArgs> conv2d_small;       // 3x3 of stride 1 on maps of four pixels a side or fewer
  Kernel<PackArgs> winograd_pack;        // the reference has none of these: conv2d is theirs
  Kernel<WinogradArgs> winograd;
  Kernel<WinogradGradArgs> winograd_grad_weight;
  Kernel<PackArgs> int8_pack;  // the reference has none of these: 8 bits are an approximation
  Kernel<Int8ConvArgs> int8_conv;
  Kernel<PackArgs> narrow_pack;  // for matmul
  Kernel<Conv2dGradWeightArgs> conv2d_grad_weight;
  Kernel<GroupNormArgs> group_norm;
  Kernel<GroupNormGradArgs> group_norm_grad;
  Kernel<LayerNormArgs> layer_norm;
  Kernel<LayerNormGradArgs> layer_norm_grad;
  Kernel<SoftmaxArgs> softmax;
  Kernel<SoftmaxGradArgs> softmax_grad;
  Kernel<AttentionArgs> attention;
  Kernel<AttentionArgs> attention_digits;  // where tiles of bytes are multiplied
  Kernel<AttentionGradArgs> attention_grad;
  Kernel<RandomArgs> random;
  Kernel<NearestCodesArgs> nearest_codes;
  Kernel<MaskReplaceForwardArgs> mask_replace_forward;
  Kernel<MaskReplaceStepArgs> mask_replace_step;
  Kernel<MaskReplaceLossArgs> mask_replace_loss;
  Kernel<MaskReplaceLossGradArgs> mask_replace_loss_grad;

  // Multiply-adds in registers, to measure the peak: returns the operations done. Null for the
  // reference.
  int64_t (*fma_peak)(int64_t rounds, float* sink);
};

// The reference backend: plain loops, double accumulation; every entry filled, f32 and f64.
const KernelTable& ref_kernels();

// Size in elements of the packed form of one group of PackArgs for panels of `panel_columns`.
constexpr int64_t packed_group_elements(int64_t K, int64_t N, int64_t panel_columns) {
  return (N + panel_columns - 1) / panel_columns * panel_columns * K;
}

// The same for 8-bit weights: panels of words of four, then of a scale and a sum a column.
constexpr int64_t kInt8Rows = 2;
constexpr int64_t int8_packed_elements(int64_t taps, int64_t channels, int64_t N,
                                       int64_t panel_columns) {
  return packed_group_elements(taps * int8_depth(channels) + kInt8Rows, N, panel_columns);
}

// Floats that weights stored narrow take: panels of bytes or halves, then a scale a column.
constexpr int64_t packed_floats(Quantize quantize, int64_t elements) {
  return quantize == Quantize::int8_weights  ? elements / 4
         : quantize == Quantize::f16_weights ? elements / 2
                                             : elements;
}
constexpr int64_t narrow_packed_elements(Quantize quantize, int64_t K, int64_t N,
                                         int64_t panel_columns) {
  return packed_floats(quantize, packed_group_elements(K, N, panel_columns)) +
         packed_group_elements(1, N, panel_columns);
}

}  // namespace smalti
