// Reductions and scans along one axis: sums, extremes, running sums, sorted prefixes.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "native/ref/element.h"
#include "native/ref/families.h"

namespace smalti::ref {
namespace {

constexpr int64_t kColumns = 64;  // inner columns of a work item

// Sums are carried in double, or for i32 in 64 bits and wrapped at the end.
template <class T>
using Accumulator = std::conditional_t<std::is_integral_v<T>, int64_t, double>;

template <class T>
bool is_nan(T x) {
  if constexpr (std::is_integral_v<T>)
    return false;
  else
    return std::isnan(x);
}

template <class A>
A initial_value(ReduceOp op) {
  using Limits = std::numeric_limits<A>;
  const bool has_infinity = Limits::has_infinity;
  switch (op) {
    case ReduceOp::prod:
      return A{1};
    case ReduceOp::max:
      return has_infinity ? -Limits::infinity() : A{std::numeric_limits<int32_t>::min()};
    case ReduceOp::min:
      return has_infinity ? Limits::infinity() : A{std::numeric_limits<int32_t>::max()};
    default:
      return A{0};
  }
}

// Integers wrap: the product is taken modulo 2^32 so that it cannot overflow.
template <class A>
A product(A a, A b) {
  if constexpr (std::is_integral_v<A>) {
    return static_cast<A>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b) & 0xffffffffu);
  } else {
    return a * b;
  }
}

// max and min propagate NaN.
template <class A>
void accumulate(ReduceOp op, A& sum, A x) {
  switch (op) {
    case ReduceOp::sum:
    case ReduceOp::mean:
      sum += x;
      return;
    case ReduceOp::sum_squares:
      sum += x * x;
      return;
    case ReduceOp::prod:
      sum = product(sum, x);
      return;
    case ReduceOp::max:
      if (x > sum || is_nan(x)) sum = x;
      return;
    case ReduceOp::min:
      if (x < sum || is_nan(x)) sum = x;
      return;
  }
}

template <class T>
void reduce_block(const ReduceArgs& args, int64_t outer, Range columns) {
  using A = Accumulator<T>;
  A sums[kColumns];
  const int64_t width = columns.end - columns.begin;
  for (int64_t i = 0; i < width; ++i) sums[i] = initial_value<A>(args.op);
  const T* src = static_cast<const T*>(args.src) + outer * args.count * args.inner + columns.begin;
  for (int64_t n = 0; n < args.count; ++n, src += args.inner) {
    for (int64_t i = 0; i < width; ++i) accumulate(args.op, sums[i], static_cast<A>(src[i]));
  }
  T* dst = static_cast<T*>(args.dst) + outer * args.inner + columns.begin;
  for (int64_t i = 0; i < width; ++i) {
    const bool is_mean = args.op == ReduceOp::mean && (std::is_floating_point_v<A> || args.count);
    dst[i] = static_cast<T>(is_mean ? sums[i] / static_cast<A>(args.count) : sums[i]);
  }
}

int64_t reduce_items(const ReduceArgs& args, int) {
  return args.outer * ceil_div(args.inner, kColumns);
}

void run_reduce(const ReduceArgs& args, int, Range range, void*) {
  const int64_t blocks = ceil_div(args.inner, kColumns);
  with_number(args.dtype, [&](auto zero) {
    for (int64_t item = range.begin; item < range.end; ++item) {
      reduce_block<decltype(zero)>(args, item / blocks,
                                   block_range(item % blocks, kColumns, args.inner));
    }
  });
}

// Does x beat the best so far? The first NaN wins over every number.
template <class T>
bool is_better(T x, T best, bool is_max) {
  if (is_nan(best)) return false;
  return is_nan(x) || (is_max ? x > best : x < best);
}

template <class T>
void arg_reduce_rows(const ArgReduceArgs& args, Range range) {
  for (int64_t row = range.begin; row < range.end; ++row) {
    const T* src = static_cast<const T*>(args.src) + row * args.count;
    int64_t best = 0;
    for (int64_t i = 1; i < args.count; ++i) {
      if (is_better(src[i], src[best], args.is_max)) best = i;
    }
    args.dst[row] = static_cast<int32_t>(best);
  }
}

int64_t arg_reduce_items(const ArgReduceArgs& args, int) { return args.rows; }

void run_arg_reduce(const ArgReduceArgs& args, int, Range range, void*) {
  with_number(args.dtype, [&](auto zero) { arg_reduce_rows<decltype(zero)>(args, range); });
}

template <class T>
void cumulative_sum_rows(const CumulativeSumArgs& args, Range range) {
  for (int64_t row = range.begin; row < range.end; ++row) {
    const T* src = static_cast<const T*>(args.src) + row * args.count;
    T* dst = static_cast<T*>(args.dst) + row * args.count;
    Accumulator<T> sum{0};
    for (int64_t i = 0; i < args.count; ++i) {
      const int64_t at = args.reverse ? args.count - 1 - i : i;
      sum += static_cast<Accumulator<T>>(src[at]);
      dst[at] = static_cast<T>(sum);
    }
  }
}

int64_t cumulative_sum_items(const CumulativeSumArgs& args, int) { return args.rows; }

void run_cumulative_sum(const CumulativeSumArgs& args, int, Range range, void*) {
  with_number(args.dtype, [&](auto zero) { cumulative_sum_rows<decltype(zero)>(args, range); });
}

// A total order, so that an unstable sort gives the stable result; NaN is above every number.
template <class T>
bool precedes(const T* src, int32_t i, int32_t j, bool descending) {
  const T a = src[i];
  const T b = src[j];
  if (is_nan(a) != is_nan(b)) return is_nan(a) == descending;
  if (a < b) return !descending;
  if (a > b) return descending;
  return i < j;
}

template <class T>
void top_k_rows(const TopKArgs& args, Range range, int32_t* order) {
  for (int64_t row = range.begin; row < range.end; ++row) {
    const T* src = static_cast<const T*>(args.src) + row * args.count;
    for (int64_t i = 0; i < args.count; ++i) order[i] = static_cast<int32_t>(i);
    std::partial_sort(order, order + args.k, order + args.count,
                      [&](int32_t i, int32_t j) { return precedes(src, i, j, args.descending); });
    T* values = static_cast<T*>(args.values) + row * args.k;
    int32_t* indices = args.indices + row * args.k;
    for (int64_t i = 0; i < args.k; ++i) {
      values[i] = src[order[i]];
      indices[i] = order[i];
    }
  }
}

int64_t top_k_items(const TopKArgs& args, int) { return args.rows; }

int64_t top_k_scratch(const TopKArgs& args) {
  return args.count * static_cast<int64_t>(sizeof(int32_t));
}

void run_top_k(const TopKArgs& args, int, Range range, void* scratch) {
  with_number(args.dtype, [&](auto zero) {
    top_k_rows<decltype(zero)>(args, range, static_cast<int32_t*>(scratch));
  });
}

}  // namespace

Kernel<ReduceArgs> reduce_kernel() { return {run_reduce, reduce_items, nullptr, 1}; }

Kernel<ArgReduceArgs> arg_reduce_kernel() { return {run_arg_reduce, arg_reduce_items, nullptr, 1}; }

Kernel<CumulativeSumArgs> cumulative_sum_kernel() {
  return {run_cumulative_sum, cumulative_sum_items, nullptr, 1};
}

Kernel<TopKArgs> top_k_kernel() { return {run_top_k, top_k_items, top_k_scratch, 1}; }

}  // namespace smalti::ref
