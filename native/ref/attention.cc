// Scaled dot-product attention with heads as an axis, and its gradient recomputed from the stored
// log-sum-exp. Vaswani et al. 2017, arXiv:1706.03762, eq. 1; gradient as in Dao et al. 2022,
// arXiv:2205.14135, appendix B.2.
#include <cmath>

#include "native/ref/element.h"
#include "native/ref/families.h"

namespace smalti::ref {
namespace {

constexpr int64_t kKeys = 8;  // keys of a work item of the gradient's second phase

// Row `row` of head h in a tensor (B * tokens, H, width) with `stride` elements between rows and
// `head` between heads.
template <class T>
const T* head_row(const void* data, int64_t row, int64_t stride, int64_t h, int64_t head) {
  return static_cast<const T*>(data) + row * stride + h * head;
}

template <class T>
double dot(const T* a, const T* b, int64_t count) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

template <class T>
void add_scaled(double* sums, double factor, const T* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) sums[i] += factor * static_cast<double>(values[i]);
}

template <class T>
void store_scaled(T* dst, const double* sums, double factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) dst[i] = static_cast<T>(factor * sums[i]);
}

void clear(double* sums, int64_t count) {
  for (int64_t i = 0; i < count; ++i) sums[i] = 0.0;
}

// One query: sample b, head h, token n.
struct Query {
  int64_t b;
  int64_t h;
  int64_t n;
};

template <class Args>
Query query_at(const Args& args, int64_t item) {
  return {item / args.N / args.H, item / args.N % args.H, item % args.N};
}

// Keys [0, count) are visible to query n.
template <class Args>
int64_t visible_keys(const Args& args, int64_t n) {
  if (!args.is_causal) return args.M;
  const int64_t count = n + (args.M - args.N) + 1;
  return count < 0 ? 0 : smaller(count, args.M);
}

// scale q.k + mask
template <class T, class Args>
double score(const Args& args, const Query& at, int64_t m) {
  const T* q = head_row<T>(args.q, at.b * args.N + at.n, args.q_stride, at.h, args.q_head);
  const T* k = head_row<T>(args.k, at.b * args.M + m, args.k_stride, at.h, args.k_head);
  const double product = args.scale * dot(q, k, args.D);
  if (args.mask == nullptr) return product;
  const int64_t* strides = args.mask_strides;
  return product + static_cast<double>(
                       static_cast<const T*>(args.mask)[at.b * strides[0] + at.h * strides[1] +
                                                        at.n * strides[2] + m * strides[3]]);
}

// ---------------------------------------------------------------- forward

// A row with no visible key (or only -inf scores) gives zeros and lse = -inf.
template <class T>
void attend(const AttentionArgs& args, int64_t item, double* scores, double* sums) {
  const Query at = query_at(args, item);
  const int64_t count = visible_keys(args, at.n);
  double peak = -INFINITY;
  for (int64_t m = 0; m < count; ++m) {
    scores[m] = score<T>(args, at, m);
    if (!(scores[m] <= peak)) peak = scores[m];  // NaN is taken too
  }
  clear(sums, args.E);
  double total = 0.0;
  for (int64_t m = 0; m < count && peak != -INFINITY; ++m) {
    const double weight = std::exp(scores[m] - peak);
    total += weight;
    add_scaled(sums, weight,
               head_row<T>(args.v, at.b * args.M + m, args.v_stride, at.h, args.v_head), args.E);
  }
  T* out = static_cast<T*>(args.out) + ((at.b * args.N + at.n) * args.H + at.h) * args.E;
  store_scaled(out, sums, total == 0.0 ? 0.0 : 1.0 / total, args.E);
  static_cast<T*>(args.lse)[item] = static_cast<T>(peak + std::log(total));
}

int64_t attention_items(const AttentionArgs& args, int) { return args.B * args.H * args.N; }

int64_t attention_scratch(const AttentionArgs& args) {
  return (args.M + args.E) * static_cast<int64_t>(sizeof(double));
}

void run_attention(const AttentionArgs& args, int, Range range, void* scratch) {
  double* scores = static_cast<double*>(scratch);
  with_real(args.dtype, [&](auto zero) {
    for (int64_t item = range.begin; item < range.end; ++item) {
      attend<decltype(zero)>(args, item, scores, scores + args.M);
    }
  });
}

// ---------------------------------------------------------------- gradient

// exp(score - lse); a query that saw nothing has lse = -inf and no probability anywhere
template <class T>
double probability(const AttentionGradArgs& args, const Query& at, int64_t m) {
  const double lse =
      static_cast<double>(static_cast<const T*>(args.lse)[(at.b * args.H + at.h) * args.N + at.n]);
  return lse == -INFINITY ? 0.0 : std::exp(score<T>(args, at, m) - lse);
}

// sum(dout out) of one query
template <class T>
double upstream_mean(const AttentionGradArgs& args, const Query& at) {
  const int64_t row = at.b * args.N + at.n;
  return dot(head_row<T>(args.dout, row, args.H * args.E, at.h, args.E),
             head_row<T>(args.out, row, args.H * args.E, at.h, args.E), args.E);
}

// Gradient of one score: p (dout.v - sum(dout out)).
template <class T>
double score_gradient(const AttentionGradArgs& args, const Query& at, int64_t m, double p,
                      double mean) {
  const T* dout = head_row<T>(args.dout, at.b * args.N + at.n, args.H * args.E, at.h, args.E);
  const T* v = head_row<T>(args.v, at.b * args.M + m, args.v_stride, at.h, args.v_head);
  return p * (dot(dout, v, args.E) - mean);
}

// First phase, one query: dq = scale sum_m ds k
template <class T>
void query_gradient(const AttentionGradArgs& args, int64_t item, double* sums) {
  const Query at = query_at(args, item);
  const double mean = upstream_mean<T>(args, at);
  clear(sums, args.D);
  for (int64_t m = 0; m < visible_keys(args, at.n); ++m) {
    const double ds = score_gradient<T>(args, at, m, probability<T>(args, at, m), mean);
    add_scaled(sums, ds, head_row<T>(args.k, at.b * args.M + m, args.k_stride, at.h, args.k_head),
               args.D);
  }
  T* dq = static_cast<T*>(args.dq) + ((at.b * args.N + at.n) * args.H + at.h) * args.D;
  store_scaled(dq, sums, args.scale, args.D);
}

// What one query adds to a block of keys: dk += ds q, dv += p dout.
template <class T>
void add_query(const AttentionGradArgs& args, const Query& at, Range keys, double* sums) {
  const double mean = upstream_mean<T>(args, at);
  const int64_t row = at.b * args.N + at.n;
  const int64_t end = smaller(keys.end, visible_keys(args, at.n));
  for (int64_t m = keys.begin; m < end; ++m) {
    const double p = probability<T>(args, at, m);
    const double ds = score_gradient<T>(args, at, m, p, mean);
    double* dk = sums + (m - keys.begin) * (args.D + args.E);
    add_scaled(dk, ds, head_row<T>(args.q, row, args.q_stride, at.h, args.q_head), args.D);
    add_scaled(dk + args.D, p, head_row<T>(args.dout, row, args.H * args.E, at.h, args.E), args.E);
  }
}

// Second phase, one block of keys of one (sample, head): dk = scale sum_n ds q, dv = sum_n p dout
template <class T>
void key_gradient(const AttentionGradArgs& args, int64_t item, double* sums) {
  const int64_t blocks = ceil_div(args.M, kKeys);
  const int64_t b = item / blocks / args.H;
  const int64_t h = item / blocks % args.H;
  const Range keys = block_range(item % blocks, kKeys, args.M);
  clear(sums, kKeys * (args.D + args.E));
  for (int64_t n = 0; n < args.N; ++n) add_query<T>(args, {b, h, n}, keys, sums);
  for (int64_t m = keys.begin; m < keys.end; ++m, sums += args.D + args.E) {
    const int64_t row = (b * args.M + m) * args.H + h;
    store_scaled(static_cast<T*>(args.dk) + row * args.D, sums, args.scale, args.D);
    store_scaled(static_cast<T*>(args.dv) + row * args.E, sums + args.D, 1.0, args.E);
  }
}

int64_t attention_grad_items(const AttentionGradArgs& args, int phase) {
  return args.B * args.H * (phase == 0 ? args.N : ceil_div(args.M, kKeys));
}

int64_t attention_grad_scratch(const AttentionGradArgs& args) {
  return kKeys * (args.D + args.E) * static_cast<int64_t>(sizeof(double));
}

void run_attention_grad(const AttentionGradArgs& args, int phase, Range range, void* scratch) {
  double* sums = static_cast<double*>(scratch);
  with_real(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t item = range.begin; item < range.end; ++item) {
      if (phase == 0) {
        query_gradient<T>(args, item, sums);
      } else {
        key_gradient<T>(args, item, sums);
      }
    }
  });
}

}  // namespace

Kernel<AttentionArgs> attention_kernel() {
  return {run_attention, attention_items, attention_scratch, 1};
}

Kernel<AttentionGradArgs> attention_grad_kernel() {
  return {run_attention_grad, attention_grad_items, attention_grad_scratch, 2};
}

}  // namespace smalti::ref
