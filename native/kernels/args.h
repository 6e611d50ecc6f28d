// The contract between the compiler and the kernels: one plain struct per kernel.
// Pointers are patched by the executor just before a run (see native/runtime); everything else is
// fixed at compile time. "real" tensors are f32, or f64 for the reference backend only: `dtype`
// says which. All tensors are dense, row-major, channels last, 64-byte aligned at their start.
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace smalti {

constexpr int kMaxRank = 8;

// Half-open range of work items.
struct Range {
  int64_t begin;
  int64_t end;
};

// ---------------------------------------------------------------- pointwise

// One operation of the pointwise machine on registers that hold a tile of elements.
enum class PwOp : uint8_t {
  load,      // dst = input[imm_index], converted from its dtype
  constant,  // dst = imm
  store,     // output[imm_index] = a, converted to its dtype
  neg,
  abs,
  exp,
  log,
  log1p,
  sqrt,
  rsqrt,
  reciprocal,
  square,
  sin,
  cos,
  tanh,
  sigmoid,
  silu,
  gelu,
  gelu_tanh,
  quick_gelu,
  silu_slope,
  gelu_tanh_slope,
  relu,
  softplus,
  erf,
  floor,
  ceil,
  round,
  sign,
  is_finite,
  logical_not,
  leaky_relu,  // a < 0 ? imm * a : a
  clamp,       // min(max(a, imm), imm2)
  cast_i32,    // truncate toward zero
  cast_bool,   // a != 0
  cast_f16,    // round to f16 and back
  cast_bf16,   // round to bf16 and back
  cast_u8,     // truncate, saturate to [0, 255]
  add,
  sub,
  mul,
  div,
  pow,
  maximum,
  minimum,
  mod,
  equal,
  less,
  less_equal,
  logical_and,
  logical_or,
  where,  // a != 0 ? b : c
  fma,    // a * b + c, made by the fuser
};

constexpr int kPwRegisters = 16;
constexpr int kPwInputs = 16;
constexpr int kPwOutputs = 4;

struct PwInstr {
  PwOp op;
  uint8_t dst;
  uint8_t a;
  uint8_t b;
  uint8_t c;
  uint8_t index;  // which input or output, for load and store
  double imm;
  double imm2;
};

struct PwInput {
  const void* data;
  Dtype dtype;
  int64_t strides[kMaxRank];  // in elements, aligned with PointwiseArgs::shape; 0 = broadcast
};

struct PwOutput {
  void* data;  // dense over PointwiseArgs::shape
  Dtype dtype;
};

// A chain of elementwise operations over one iteration space, also used as the epilogue of matmul
// and conv2d. Rows = product of shape[0 .. rank-2], columns = shape[rank-1]; rank >= 1 after
// collapsing.
struct PointwiseArgs {
  const PwInstr* code;
  int32_t code_length;  // 0 = nothing to do
  int32_t input_count;
  int32_t output_count;
  int32_t rank;
  int64_t shape[kMaxRank];
  PwInput inputs[kPwInputs];
  PwOutput outputs[kPwOutputs];
  bool is_exact;  // integer arithmetic: must run in double registers (reference backend only)
  bool is_f64;    // some tensor is f64: reference backend only
};

// ---------------------------------------------------------------- reductions and scans

enum class ReduceOp : uint8_t { sum, mean, max, min, prod, sum_squares };

// src (outer, count, inner) -> dst (outer, inner)
struct ReduceArgs {
  const void* src;
  void* dst;
  int64_t outer;
  int64_t count;
  int64_t inner;
  ReduceOp op;
  Dtype dtype;  // f32, f64, i32
};

// src (rows, count) -> dst i32 (rows); ties: lowest index
struct ArgReduceArgs {
  const void* src;
  int32_t* dst;
  int64_t rows;
  int64_t count;
  bool is_max;
  Dtype dtype;  // f32, f64, i32
};

// running sum along the last axis
struct CumulativeSumArgs {
  const void* src;
  void* dst;
  int64_t rows;
  int64_t count;
  bool reverse;
  Dtype dtype;  // f32, f64, i32
};

// the k first of each row in sorted order; stable (ties: lowest index first)
struct TopKArgs {
  const void* src;
  void* values;
  int32_t* indices;
  int64_t rows;
  int64_t count;
  int64_t k;
  bool descending;
  Dtype dtype;  // f32, f64, i32
};

// ---------------------------------------------------------------- movement

// n-dimensional strided copy; element size 1, 2, 4 or 8
struct CopyArgs {
  const void* src;
  void* dst;
  int32_t rank;
  int32_t element_bytes;
  int64_t shape[kMaxRank];
  int64_t src_offset;  // in elements
  int64_t dst_offset;
  int64_t src_strides[kMaxRank];  // in elements; 0 = broadcast
  int64_t dst_strides[kMaxRank];
};

// dst[0..count) = bits, element size 1, 2, 4 or 8
struct FillArgs {
  void* dst;
  int64_t count;
  int32_t element_bytes;
  uint64_t bits;
};

// dst[axis] = start + step * index along the axis, broadcast over outer and inner
struct IotaArgs {
  void* dst;
  int64_t outer;
  int64_t count;
  int64_t inner;
  Dtype dtype;
};

// table (outer, size, inner), indices i32 (count) -> dst (outer, count, inner). Indices are clamped
// to [0, size).
struct GatherArgs {
  const void* table;
  const int32_t* indices;
  void* dst;
  int64_t outer;
  int64_t size;
  int64_t inner;
  int64_t count;
  int32_t element_bytes;
};

// values (outer, count, inner), indices i32 (count) -> dst (outer, size, inner), zero-initialised
// by the kernel, then added in index order (deterministic). Work items: outer * inner blocks of
// kScatterBlock columns.
struct ScatterAddArgs {
  const void* values;
  const int32_t* indices;
  void* dst;
  int64_t outer;
  int64_t size;
  int64_t inner;
  int64_t count;
  Dtype dtype;  // f32, f64, i32
};

// src (rows, size), indices (rows) -> dst (rows): one element a row
struct GatherLastArgs {
  const void* src;
  const int32_t* indices;
  void* dst;
  int64_t rows;
  int64_t size;
  int32_t element_bytes;
};

// values (rows), indices (rows) -> dst (rows, size), zeros elsewhere
struct ScatterLastArgs {
  const void* values;
  const int32_t* indices;
  void* dst;
  int64_t rows;
  int64_t size;
  int32_t element_bytes;
};

// ---------------------------------------------------------------- matrix products

// How products with weights are computed: in floats; with inputs and weights on 8-bit integers; or
// in floats on weights that are stored narrow, with a scale a column.
enum class Quantize : uint8_t { none, int8, int8_weights, f16_weights };

// B operand of a product, rearranged into column panels that the micro-kernel reads in order.
// Source element (k, n) of group g lies at src[g * group_stride + k * k_stride + n * n_stride].
// Panel p holds columns [p*NR, (p+1)*NR), zero-padded, as (K, NR). NR is the backend's
// `panel_columns`. For conv2d the K index is (kernel row, kernel column, input channel) of one
// group.
struct PackArgs {
  const void* src;
  void* dst;
  int64_t groups;
  int64_t K;
  int64_t N;
  int64_t group_stride;
  // K is split as (taps, channels); the source offset of k = tap * channels + c is tap_offset(tap)
  // + c * k_stride. tap_offset(tap) = (flip_taps ? taps - 1 - tap : tap) * tap_stride
  int64_t taps;
  int64_t channels;
  int64_t tap_stride;
  int64_t k_stride;
  int64_t n_stride;
  bool flip_taps;
  int64_t tile;       // 0, or of WinogradArgs: such matrices of transformed 3x3 weights
  Quantize quantize;  // int8: for Int8ConvArgs, words of four 8-bit weights
  bool is_strassen;   // for MatmulArgs::sums: seven matrices (K / 2, NR) for each two panels
  Dtype dtype;
};

// Rows whose columns lie in several dense tensors side by side: a concatenation that is not made.
constexpr int kMaxParts = 4;
struct RowParts {
  const void* data[kMaxParts];
  int64_t width[kMaxParts];
  int64_t count;  // 0: the rows of one tensor
};

// C (batch, M, N) = A (batch, M, K) * B (batch, K, N), then the epilogue over (batch, M, N).
// A element (m, k) of batch b: a[b * a_batch_stride + m * a_row_stride + k * a_column_stride]; one
// of the last two is 1. Or, with a batch of one, A lies in columns.
struct MatmulArgs {
  const void* a;
  const void* b;  // packed by PackArgs with groups = b_batch
  void* c;
  int64_t batch;
  int64_t M;
  int64_t N;
  int64_t K;
  int64_t a_batch_stride;  // 0 = shared
  int64_t a_row_stride;
  int64_t a_column_stride;
  int64_t b_batch_stride;  // in packed elements; 0 = shared
  RowParts columns;
  Dtype dtype;
  Quantize quantize;  // of b: none, int8_weights or f16_weights
  PointwiseArgs
      epilogue;  // reads c as an ordinary input and writes its outputs; code_length 0 = none
  void* sums;    // Strassen's algorithm only: (kStrassenSums, M / 2, winograd_row(K / 2))
};
constexpr int64_t kStrassenProducts = 7;
constexpr int64_t kStrassenSums = 5;    // of quarters of A
constexpr int64_t kStrassenDepth = 32;  // K is a multiple of it

// Implicit-GEMM convolution on channels-last tensors, also used for the gradient with respect to
// the input. Output pixel (oh, ow), tap (kh, kw) reads virtual input row vh = oh * stride_h + kh -
// pad_top, column likewise. The virtual input is the source with nearest upsampling by `upsample`,
// or with `dilation - 1` zeros between its pixels (dilation > 1 only for the input gradient of a
// strided convolution). Outside it reads zero.
struct Conv2dArgs {
  const void* x;  // (B, H, W, groups * C)
  const void* w;  // packed: groups x (KH*KW*C, O)
  void* y;        // (B, OH, OW, groups * O)
  int64_t B, H, W;
  int64_t groups;
  int64_t C;  // input channels of one group
  int64_t O;  // output channels of one group
  int64_t KH, KW;
  int64_t OH, OW;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_left;
  int64_t upsample;
  int64_t dilation;
  int64_t w_group_stride;  // packed elements a group
  Dtype dtype;
  PointwiseArgs epilogue;  // over (B, OH, OW, groups * O)
  void* sums;              // Winograd only: GroupNormArgs::partial of what is stored, or null
};

// How minimal filtering cuts a 3x3 convolution of one group: `tile` is 2 or 4 for as many results a
// side of a plain one of stride 1; or one of these, for 4 results a side of one whose input is
// upsampled by 2 (padding 1), or has zeros between its pixels (dilation 2, paddings 0 to 2 of equal
// parity): there most products of the plain form repeat others or are zero.
constexpr int64_t kTileUpsampled = 5;
constexpr int64_t kTileSpreadEven = 6;  // by the parity of the rows in which two taps meet pixels
constexpr int64_t kTileSpreadOdd = 7;
constexpr int64_t kTileStrided = 8;  // 3 results a side of a convolution of stride 2

// Numbers a side of a tile.
struct WinogradSides {
  int64_t results, inputs, products;
};
constexpr WinogradSides winograd_sides(int64_t tile) {
  return tile < kTileUpsampled  ? WinogradSides{tile, tile + 2, tile + 2}
         : tile == kTileStrided ? WinogradSides{3, 7, 7}
                                : WinogradSides{4, 4, 5};
}
constexpr int64_t winograd_products(int64_t tile) {
  return winograd_sides(tile).products * winograd_sides(tile).products;
}
constexpr int64_t winograd_inputs(int64_t tile) {
  return winograd_sides(tile).inputs * winograd_sides(tile).inputs;
}

// A 3x3 convolution by minimal filtering. Either in stages over all tiles, with their results in
// tensors, and conv.w packed as for conv2d is transformed on its way to the products; or a work
// item takes `block` tiles and `columns` output channels through all stages in scratch, and conv.w
// is packed with the same `tile`.
struct WinogradArgs {
  Conv2dArgs conv;
  void* inputs;    // stages: (winograd_inputs, tiles, winograd_row(C))
  void* products;  // stages: (winograd_products, tiles, winograd_row(O))
  int64_t tile;
  bool is_staged;
  int64_t block;
  int64_t columns;  // a multiple of the panel, or all
};

// Floats of a row of channels there: an odd number of cache lines, so that rows spread over the
// sets of a cache.
constexpr int64_t winograd_row(int64_t channels) { return ((channels + 15) / 16 | 1) * 16; }
// The same with 8-bit integers, one group, dilation 1: conv.w is packed by `int8_pack`. A matrix
// product is such a convolution of images of one pixel.
struct Int8ConvArgs {
  Conv2dArgs conv;
  uint8_t* quantised;  // the bytes of conv.x, channels in fours; then a zero pixel an image
  float* ranges;       // (B, blocks of pixels, 2): least and largest number
};

// Sizes of its tensors: bytes of `quantised`, numbers of `ranges`.
constexpr int64_t kInt8Pixels = 32;  // of a block of an image
constexpr int64_t int8_depth(int64_t channels) { return (channels + 3) / 4; }
constexpr int64_t int8_blocks(const Conv2dArgs& c) {
  return (c.H * c.W + kInt8Pixels - 1) / kInt8Pixels;
}
constexpr int64_t int8_input_bytes(const Conv2dArgs& c) {
  return c.B * (c.H * c.W + (c.KH * c.KW > 1 ? 1 : 0)) * int8_depth(c.C) * 4;
}

// A 3x3 convolution of a map that is doubled first is four convolutions of 2x2 on the map itself,
// one for each parity of rows and columns of results; packed with tile = kTileUpsampled.
constexpr bool int8_is_doubled(const Conv2dArgs& c) {
  return c.upsample == 2 && c.KH == 3 && c.KW == 3 && c.pad_top == 1 && c.pad_left == 1 &&
         c.OH == 2 * c.H && c.OW == 2 * c.W;
}
constexpr int64_t int8_parts(bool is_doubled) { return is_doubled ? 4 : 1; }

// dw (KH, KW, C, groups * O)  =  sum over pixels of x (virtual input as above, dilation 1) times
// dy. Within a group the weight gradient is (KH*KW*C, O); the stored weight is (KH, KW, C,
// groups*O) with group g in columns [g*O, (g+1)*O).
struct Conv2dGradWeightArgs {
  const void* x;   // (B, H, W, groups * C)
  const void* dy;  // (B, OH, OW, groups * O)
  void* dw;
  int64_t B, H, W;
  int64_t groups;
  int64_t C;
  int64_t O;
  int64_t KH, KW;
  int64_t OH, OW;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_left;
  int64_t upsample;
  Dtype dtype;
};

// The same of a 3x3 kernel of stride 1 and one group by minimal filtering on tiles as in
// WinogradArgs, of 2, 4 or kTileUpsampled, in turn for blocks of `block` tiles.
constexpr int64_t kWinogradGradBlocks = 32;
constexpr int kWinogradGradPhases = 2 * kWinogradGradBlocks + 1;
struct WinogradGradArgs {
  Conv2dGradWeightArgs conv;
  void* inputs;     // (winograd_inputs, block, winograd_row(C))
  void* gradients;  // (winograd_products, block, winograd_row(O))
  void* products;   // (winograd_products, C, winograd_row(O)), unless is_whole
  int64_t tile;
  int64_t block;  // kWinogradGradBlocks of them or fewer
  bool is_whole;  // one block: a work item then keeps its products in scratch
};

// ---------------------------------------------------------------- normalisation, softmax,
// attention

// y = act(gamma * (x - mean) * rstd + beta), statistics over (spatial, C / groups) of each (sample,
// group)
struct GroupNormArgs {
  const void* x;  // (B, S, C), unless it lies in columns
  const void* gamma;
  const void* beta;
  void* y;
  void* partial;  // with blocks, see group_norm_floats
  int64_t B, S, C, groups;
  int64_t block;   // rows of a block; 0 = none: a sample stays in a cache between its two readings
  int64_t parts;   // of the sums of a sample
  bool is_summed;  // by the kernel that made x
  double eps;
  bool silu;
  Dtype dtype;
  RowParts columns;
  PointwiseArgs epilogue;  // over (B, S, C), reads y as an input
};

constexpr int64_t kGroupNormSmall = int64_t{1} << 16;  // numbers: a smaller sample has no blocks
constexpr int64_t kGroupNormNear = int64_t{1} << 18;   // nor has a fresh batch that a cache holds
constexpr int64_t kGroupNormBlock = int64_t{1} << 16;  // numbers of the largest block
constexpr int64_t kGroupNormBlocks = 8;                // of a sample at least
constexpr int64_t group_norm_block(int64_t B, int64_t S, int64_t C, bool is_fresh) {
  if (S * C < kGroupNormSmall || (is_fresh && B * S * C <= kGroupNormNear)) return 0;
  const int64_t share = S * C / kGroupNormBlocks;
  return ((share < kGroupNormBlock ? share : kGroupNormBlock) + C - 1) / C;
}

// Sums of the parts of each sample: (B, parts, 3, C), a shift and the sums of differences to it and
// of their squares; their rows (B, parts); then means, gains and offsets (B, 3, C).
constexpr int64_t group_norm_floats(int64_t B, int64_t parts, int64_t C) {
  return B * ((3 * parts + 3) * C + parts);
}

// gradient of the above; dgamma and dbeta are sums over (B, S). `partial` is (B, 2, C) scratch that
// the kernel fills in its first phase (one work item a (sample, group)); the second phase adds it
// over B.
struct GroupNormGradArgs {
  const void* x;
  const void* gamma;
  const void* beta;
  const void* dy;
  void* dx;
  void* dgamma;
  void* dbeta;
  void* partial;
  int64_t B, S, C, groups;
  double eps;
  bool silu;
  Dtype dtype;
};

enum class NormAffine : uint8_t { none, shared, modulate };

// y = n, n * scale + shift (shared, vectors (D)), or n * (1 + scale) + shift (modulate, (B, D) per
// sample)
struct LayerNormArgs {
  const void* x;  // (B, N, D)
  const void* scale;
  const void* shift;
  void* y;
  int64_t B, N, D;
  double eps;
  NormAffine affine;
  Dtype dtype;
};

// dscale, dshift: (D) or (B, D) as in LayerNormArgs; unused for `none`. `partial` is (B, blocks, 2,
// D) with blocks = ceil(N / kLayerNormBlock): first phase fills it (work item: one block of rows),
// second phase adds it.
constexpr int64_t kLayerNormBlock = 32;
struct LayerNormGradArgs {
  const void* x;
  const void* scale;
  const void* dy;
  void* dx;
  void* dscale;
  void* dshift;
  void* partial;
  int64_t B, N, D;
  double eps;
  NormAffine affine;
  Dtype dtype;
};

// softmax or log-softmax along the last axis
struct SoftmaxArgs {
  const void* src;
  void* dst;
  int64_t rows;
  int64_t count;
  bool is_log;
  Dtype dtype;
};

// gradient from the output y: softmax dx = y * (dy - sum(dy * y)); log-softmax dx = dy - exp(y) *
// sum(dy)
struct SoftmaxGradArgs {
  const void* y;
  const void* dy;
  void* dx;
  int64_t rows;
  int64_t count;
  bool is_log;
  Dtype dtype;
};

// out = softmax(scale * q k^T + mask) v, heads as an axis; lse (B, H, N) is the log-sum-exp of each
// row. Tokens and heads of q, k and v lie at their own distances: they may be columns of one
// product.
struct AttentionArgs {
  const void* q;     // (B, N, H, D)
  const void* k;     // (B, M, H, D)
  const void* v;     // (B, M, H, E)
  const void* mask;  // additive, or null; element (b, h, n, m) at the strides below
  void* out;         // (B, N, H, E)
  void* lse;         // (B, H, N)
  int64_t B, N, M, H, D, E;
  int64_t q_stride, k_stride, v_stride;  // elements between tokens
  int64_t q_head, k_head, v_head;        // elements between heads
  int64_t mask_strides[4];               // b, h, n, m; 0 = broadcast
  double scale;
  bool is_causal;  // key m is visible to query n when m <= n + (M - N)
  Dtype dtype;
};

struct AttentionGradArgs {
  const void* q;
  const void* k;
  const void* v;
  const void* mask;
  const void* out;
  const void* lse;
  const void* dout;
  void* dq;
  void* dk;
  void* dv;
  void* kept;  // see attention_grad_floats
  int64_t B, N, M, H, D, E;
  int64_t q_stride, k_stride, v_stride;  // elements between tokens
  int64_t q_head, k_head, v_head;        // elements between heads
  int64_t mask_strides[4];
  double scale;
  bool is_causal;
  Dtype dtype;
};

constexpr int64_t kQueryBlock = 64;
// With this many heads in all, a head is one work item of the gradient; with fewer, its blocks are,
// which then keep what both phases need: (heads, blocks of queries, 2, M, kQueryBlock).
constexpr int64_t kWholeHeads = 6;
constexpr int64_t kAttentionKept = int64_t{1} << 21;  // beyond, it is computed again
constexpr int64_t attention_grad_floats(int64_t heads, int64_t N, int64_t M) {
  const int64_t floats = 2 * heads * ((N + kQueryBlock - 1) / kQueryBlock) * kQueryBlock * M;
  return heads >= kWholeHeads || floats > kAttentionKept ? 0 : floats;
}

// ---------------------------------------------------------------- random numbers

enum class RandomKind : uint8_t { uniform, normal };

// Philox 4x32-10. key row b = (seed low, seed high, sample, step); element i of sample b uses block
// i / 4 with counter (i / 4, purpose, sample, step) and key (seed low, seed high). See
// native/core/philox.h.
struct RandomArgs {
  const int32_t* key;  // (B, 4)
  void* dst;           // (B, count)
  int64_t B;
  int64_t count;
  uint32_t purpose;
  RandomKind kind;
  Dtype dtype;
};

// ---------------------------------------------------------------- tokens

enum class CodeMetric : uint8_t { euclidean, cosine };

// nearest codebook row of each latent; ties: lowest index; no N x K array. `packed` is scratch of
// packed_code_elements(K, D) that the first phase fills; the reference needs none.
constexpr int64_t kCodeGroup = 16;
constexpr int64_t packed_code_elements(int64_t K, int64_t D) {
  return (K + kCodeGroup - 1) / kCodeGroup * kCodeGroup * (D + 1);
}
struct NearestCodesArgs {
  const void* latents;   // (N, D)
  const void* codebook;  // (K, D)
  int32_t* indices;      // (N)
  void* packed;
  int64_t N, K, D;
  CodeMetric metric;
  Dtype dtype;
};

// x_t ~ q(x_t | x_0): u0 < cbar -> MASK (= K); u0 < cbar + abar -> x0; else floor(u1 * K)
struct MaskReplaceForwardArgs {
  const int32_t* x0;    // (B, N)
  const void* coeffs;   // (B, 9), see MaskReplaceCoeff
  const void* uniform;  // (B, N, 2)
  int32_t* xt;          // (B, N)
  int64_t B, N, K;
  Dtype dtype;
};

// Columns of the coefficient table of one sample: cumulative at t, cumulative at s, and from s to t
// (-1 <= s < t).
enum MaskReplaceCoeff {
  kAbarT,
  kBbarT,
  kCbarT,
  kAbarS,
  kBbarS,
  kCbarS,
  kAts,
  kBts,
  kCts,
  kMaskReplaceCoeffs
};

// Columns of the settings table of one sample.
enum MaskReplaceSetting { kGuidance, kTemperature, kTruncation, kTopK, kMaskReplaceSettings };

// One reverse step from logits to tokens: softmax, temperature, guidance, top-k, truncation,
// posterior at (t, s), draw by inverse CDF from one uniform a token.
struct MaskReplaceStepArgs {
  const void* logits;         // (B, N, K), conditional
  const void* uncond_logits;  // (B, N, K) or null
  const int32_t* xt;          // (B, N)
  const void* coeffs;         // (B, 9)
  const void* settings;       // (B, 4)
  const void* uniform;        // (B, N)
  int32_t* tokens;            // (B, N): x_s
  int32_t* best;              // (B, N): argmax of p(x0 | x_t)
  void* confidence;           // (B, N): its probability (before truncation)
  int64_t B, N, K;
  Dtype dtype;
};

// Per-position variational term and negative log-likelihood of x0:
// kl = KL(q(x_s | x_t, x_0) || p(x_s | x_t)) over K + 1 classes, nll = -log p(x_0 | x_t).
struct MaskReplaceLossArgs {
  const void* logits;  // (B, N, K)
  const int32_t* x0;
  const int32_t* xt;
  const void* coeffs;  // (B, 9)
  void* kl;            // (B, N)
  void* nll;           // (B, N)
  int64_t B, N, K;
  Dtype dtype;
};

struct MaskReplaceLossGradArgs {
  const void* logits;
  const int32_t* x0;
  const int32_t* xt;
  const void* coeffs;
  const void* dkl;   // (B, N)
  const void* dnll;  // (B, N)
  void* dlogits;     // (B, N, K)
  int64_t B, N, K;
  Dtype dtype;
};

}  // namespace smalti
