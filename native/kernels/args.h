// The contract between the compiler and the kernels: one plain struct per kernel.
// Pointers are patched by the executor just before a run (see native/runtime); everything else is
// fixed at compile time. "real" tensors are f32, or f64 for the reference backend only: `dtype`
// says which. All tensors are dense, row-major, channels last, 64-byte aligned at their start.
#pragma once

#include <cstdint>

#include "native/kernels/pointwise_args.h"
#include "native/kernels/product_args.h"

namespace smalti {

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

// ---------------------------------------------------------------- normalisation, softmax,
// attention

// y = act(gamma * (x - mean) * rstd + beta), statistics over (spatial, C / groups) of each (sample,
// group)
struct GroupNormArgs {
  const void* x;  // (B, S, C), unless it lies in columns
  const void* gamma;
  const void* beta;
  void* y;
  void* gains;  // with blocks: (B, 3, C), means, gains and offsets
  int64_t B, S, C, groups;
  int64_t block;  // rows of a block; 0 = none: a sample stays in a cache between its two readings
  ResultSums sums[kMaxParts];  // of the tensors that x lies in, with blocks
  int64_t own_sums;            // bit i: the first phase makes those of tensor i
  double eps;
  bool silu;
  Dtype dtype;
  RowParts columns;
  PointwiseArgs epilogue;  // over (B, S, C), reads y as an input
};

constexpr int64_t kGroupNormSmall = int64_t{1} << 16;  // numbers of a sample without blocks
constexpr int64_t kGroupNormNear = int64_t{1} << 18;   // of a batch that is read twice, likewise
constexpr int64_t kGroupNormBlock = int64_t{1} << 16;  // numbers of the largest block
constexpr int64_t kGroupNormBlocks = 8;                // of a sample at least
constexpr int64_t group_norm_block(int64_t B, int64_t S, int64_t C, bool is_read_twice) {
  if (S * C <= kGroupNormSmall || (is_read_twice && B * S * C <= kGroupNormNear)) return 0;
  const int64_t share = S * C / kGroupNormBlocks;
  return ((share < kGroupNormBlock ? share : kGroupNormBlock) + C - 1) / C;
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
  void* digits;      // KernelTable::attention_digits: attention_digit_floats
  int64_t B, N, M, H, D, E;
  int64_t q_stride, k_stride, v_stride;  // elements between tokens
  int64_t q_head, k_head, v_head;        // elements between heads
  int64_t mask_strides[4];               // b, h, n, m; 0 = broadcast
  double scale;
  bool is_causal;    // key m is visible to query n when m <= n + (M - N)
  bool takes_pairs;  // may compute two terms of a sum as one multiplication
  Dtype dtype;
};

// KernelTable::attention_digits takes heads whose queries are one span of digits.
constexpr int64_t kDigitsWidest = kDigitsSteps * kDigitsTerms;
// Floats of the digits of keys, as rows, and of values, whose channels are rows.
constexpr int64_t attention_digit_floats(int64_t heads, int64_t M, int64_t D, int64_t E) {
  return heads * (digits_elements(M, D) + digits_elements(E, M));
}

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
constexpr int64_t kCodeSpan = 64;       // codes that are passed over together in a search by bytes
constexpr int64_t kLeastByteWidth = 8;  // narrower codes are compared as floats alone
constexpr int64_t packed_code_elements(int64_t K, int64_t D) {
  const int64_t spans = (K + kCodeSpan - 1) / kCodeSpan;
  const int64_t bytes = D < kLeastByteWidth ? 0 : spans * (kCodeSpan * ((D + 3) / 4 + 5) + 3);
  return (K + kCodeGroup - 1) / kCodeGroup * kCodeGroup * (D + 1) + bytes;
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
