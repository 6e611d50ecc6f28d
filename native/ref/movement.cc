// Data movement: strided copies, fills, index ramps, gathers and their adjoints. Out-of-range
// indices are clamped.
#include <cstring>

#include "native/ref/element.h"
#include "native/ref/families.h"

namespace smalti::ref {
namespace {

constexpr int64_t kBlock = 4096;       // elements of a work item in a flat pass
constexpr int64_t kScatterBlock = 64;  // columns of a work item of scatter_add

// ---------------------------------------------------------------- copy

int64_t row_length(const CopyArgs& args) { return args.rank == 0 ? 1 : args.shape[args.rank - 1]; }

int64_t row_count(const CopyArgs& args) {
  int64_t rows = 1;
  for (int axis = 0; axis < args.rank - 1; ++axis) rows *= args.shape[axis];
  return rows;
}

template <class T>
void copy_block(const CopyArgs& args, int64_t row, Range columns) {
  int64_t from = args.src_offset;
  int64_t to = args.dst_offset;
  for (int axis = args.rank - 2; axis >= 0; --axis) {
    const int64_t index = row % args.shape[axis];
    row /= args.shape[axis];
    from += index * args.src_strides[axis];
    to += index * args.dst_strides[axis];
  }
  const int64_t src_stride = args.rank == 0 ? 0 : args.src_strides[args.rank - 1];
  const int64_t dst_stride = args.rank == 0 ? 0 : args.dst_strides[args.rank - 1];
  const T* src = static_cast<const T*>(args.src) + from;
  T* dst = static_cast<T*>(args.dst) + to;
  for (int64_t i = columns.begin; i < columns.end; ++i) dst[i * dst_stride] = src[i * src_stride];
}

int64_t copy_items(const CopyArgs& args, int) {
  return row_count(args) * ceil_div(row_length(args), kBlock);
}

void run_copy(const CopyArgs& args, int, Range range, void*) {
  const int64_t blocks = ceil_div(row_length(args), kBlock);
  with_bits(args.element_bytes, [&](auto zero) {
    for (int64_t item = range.begin; item < range.end; ++item) {
      copy_block<decltype(zero)>(args, item / blocks,
                                 block_range(item % blocks, kBlock, row_length(args)));
    }
  });
}

// ---------------------------------------------------------------- fill, iota

int64_t fill_items(const FillArgs& args, int) { return ceil_div(args.count, kBlock); }

void run_fill(const FillArgs& args, int, Range range, void*) {
  with_bits(args.element_bytes, [&](auto zero) {
    using T = decltype(zero);
    T* dst = static_cast<T*>(args.dst);
    const int64_t end = smaller(range.end * kBlock, args.count);
    for (int64_t i = range.begin * kBlock; i < end; ++i) dst[i] = static_cast<T>(args.bits);
  });
}

int64_t iota_items(const IotaArgs& args, int) { return args.outer * args.count; }

void run_iota(const IotaArgs& args, int, Range range, void*) {
  with_number(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t item = range.begin; item < range.end; ++item) {
      T* dst = static_cast<T*>(args.dst) + item * args.inner;
      for (int64_t i = 0; i < args.inner; ++i) dst[i] = static_cast<T>(item % args.count);
    }
  });
}

// ---------------------------------------------------------------- gather along an axis

int64_t gather_items(const GatherArgs& args, int) { return args.outer * args.count; }

void run_gather(const GatherArgs& args, int, Range range, void*) {
  const int64_t bytes = args.inner * args.element_bytes;
  const char* table = static_cast<const char*>(args.table);
  char* dst = static_cast<char*>(args.dst);
  for (int64_t item = range.begin; item < range.end; ++item) {
    const int64_t index = clamp_index(args.indices[item % args.count], args.size);
    const int64_t row = item / args.count * args.size + index;
    std::memcpy(dst + item * bytes, table + row * bytes, static_cast<size_t>(bytes));
  }
}

// One block of columns: only this work item writes them, in index order, so the sum is
// deterministic.
template <class T>
void scatter_add_block(const ScatterAddArgs& args, int64_t outer, Range columns) {
  T* dst = static_cast<T*>(args.dst) + outer * args.size * args.inner;
  const T* values = static_cast<const T*>(args.values) + outer * args.count * args.inner;
  for (int64_t row = 0; row < args.size; ++row) {
    for (int64_t i = columns.begin; i < columns.end; ++i) dst[row * args.inner + i] = T{0};
  }
  for (int64_t n = 0; n < args.count; ++n) {
    T* sum = dst + clamp_index(args.indices[n], args.size) * args.inner;
    const T* value = values + n * args.inner;
    for (int64_t i = columns.begin; i < columns.end; ++i)
      sum[i] = static_cast<T>(sum[i] + value[i]);
  }
}

int64_t scatter_add_items(const ScatterAddArgs& args, int) {
  return args.outer * ceil_div(args.inner, kScatterBlock);
}

void run_scatter_add(const ScatterAddArgs& args, int, Range range, void*) {
  const int64_t blocks = ceil_div(args.inner, kScatterBlock);
  with_number(args.dtype, [&](auto zero) {
    for (int64_t item = range.begin; item < range.end; ++item) {
      scatter_add_block<decltype(zero)>(args, item / blocks,
                                        block_range(item % blocks, kScatterBlock, args.inner));
    }
  });
}

// ---------------------------------------------------------------- one element a row

int64_t gather_last_items(const GatherLastArgs& args, int) { return ceil_div(args.rows, kBlock); }

void run_gather_last(const GatherLastArgs& args, int, Range range, void*) {
  with_bits(args.element_bytes, [&](auto zero) {
    using T = decltype(zero);
    const T* src = static_cast<const T*>(args.src);
    T* dst = static_cast<T*>(args.dst);
    const int64_t end = smaller(range.end * kBlock, args.rows);
    for (int64_t row = range.begin * kBlock; row < end; ++row) {
      dst[row] = src[row * args.size + clamp_index(args.indices[row], args.size)];
    }
  });
}

int64_t scatter_last_items(const ScatterLastArgs& args, int) { return args.rows; }

void run_scatter_last(const ScatterLastArgs& args, int, Range range, void*) {
  with_bits(args.element_bytes, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t row = range.begin; row < range.end; ++row) {
      T* dst = static_cast<T*>(args.dst) + row * args.size;
      std::memset(dst, 0, static_cast<size_t>(args.size) * sizeof(T));
      dst[clamp_index(args.indices[row], args.size)] = static_cast<const T*>(args.values)[row];
    }
  });
}

}  // namespace

Kernel<CopyArgs> copy_kernel() { return {run_copy, copy_items, nullptr, 1}; }
Kernel<FillArgs> fill_kernel() { return {run_fill, fill_items, nullptr, 1}; }
Kernel<IotaArgs> iota_kernel() { return {run_iota, iota_items, nullptr, 1}; }
Kernel<GatherArgs> gather_kernel() { return {run_gather, gather_items, nullptr, 1}; }

Kernel<ScatterAddArgs> scatter_add_kernel() {
  return {run_scatter_add, scatter_add_items, nullptr, 1};
}

Kernel<GatherLastArgs> gather_last_kernel() {
  return {run_gather_last, gather_last_items, nullptr, 1};
}

Kernel<ScatterLastArgs> scatter_last_kernel() {
  return {run_scatter_last, scatter_last_items, nullptr, 1};
}

}  // namespace smalti::ref
