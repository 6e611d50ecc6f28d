// Packing of the right operand and the matrix product, in blocks of rows and panels of columns.
#include "native/ref/element.h"
#include "native/ref/families.h"
#include "native/ref/pointwise.h"

namespace smalti::ref {
namespace {

constexpr int64_t kRows = 8;    // rows of a work item
constexpr int64_t kPanels = 8;  // panels of a work item

// ---------------------------------------------------------------- pack

int64_t pack_items(const PackArgs& args, int) {
  return args.groups * ceil_div(args.N, kPanelColumns);
}

// Panel p of one group as (K, NR), zero beyond column N.
template <class T>
void pack_panel(const PackArgs& args, int64_t group, int64_t panel) {
  const Range columns = block_range(panel, kPanelColumns, args.N);
  const T* src = static_cast<const T*>(args.src) + group * args.group_stride;
  T* dst = static_cast<T*>(args.dst) +
           group * packed_group_elements(args.K, args.N, kPanelColumns) +
           panel * args.K * kPanelColumns;
  for (int64_t tap = 0; tap < args.taps; ++tap) {
    const T* tap_src = src + (args.flip_taps ? args.taps - 1 - tap : tap) * args.tap_stride;
    for (int64_t c = 0; c < args.channels; ++c, dst += kPanelColumns) {
      for (int64_t j = 0; j < kPanelColumns; ++j) {
        const int64_t n = columns.begin + j;
        dst[j] = n < columns.end ? tap_src[c * args.k_stride + n * args.n_stride] : T{0};
      }
    }
  }
}

void run_pack(const PackArgs& args, int, Range range, void*) {
  const int64_t panels = ceil_div(args.N, kPanelColumns);
  with_real(args.dtype, [&](auto zero) {
    for (int64_t item = range.begin; item < range.end; ++item) {
      pack_panel<decltype(zero)>(args, item / panels, item % panels);
    }
  });
}

// ---------------------------------------------------------------- matmul

struct Block {
  int64_t batch;
  Range rows;
  Range panels;
};

// Rows of A times one packed panel of B.
template <class T>
void multiply_panel(const MatmulArgs& args, const Block& block, int64_t panel) {
  double sums[kRows][kPanelColumns] = {};
  const int64_t height = block.rows.end - block.rows.begin;
  const T* a = static_cast<const T*>(args.a) + block.batch * args.a_batch_stride +
               block.rows.begin * args.a_row_stride;
  const T* b = static_cast<const T*>(args.b) + block.batch * args.b_batch_stride +
               panel * args.K * kPanelColumns;
  for (int64_t k = 0; k < args.K; ++k, b += kPanelColumns) {
    for (int64_t i = 0; i < height; ++i) {
      const double left = static_cast<double>(a[i * args.a_row_stride + k * args.a_column_stride]);
      for (int64_t j = 0; j < kPanelColumns; ++j) sums[i][j] += left * static_cast<double>(b[j]);
    }
  }
  const Range columns = block_range(panel, kPanelColumns, args.N);
  for (int64_t i = 0; i < height; ++i) {
    const int64_t row = block.batch * args.M + block.rows.begin + i;
    T* c = static_cast<T*>(args.c) + row * args.N + columns.begin;
    for (int64_t j = 0; j < columns.end - columns.begin; ++j) c[j] = static_cast<T>(sums[i][j]);
  }
}

template <class T>
void multiply_block(const MatmulArgs& args, const Block& block) {
  for (int64_t panel = block.panels.begin; panel < block.panels.end; ++panel) {
    multiply_panel<T>(args, block, panel);
  }
  const int64_t first_row = block.batch * args.M;
  const Range columns = {block.panels.begin * kPanelColumns,
                         smaller(block.panels.end * kPanelColumns, args.N)};
  run_pointwise_rows(args.epilogue, {first_row + block.rows.begin, first_row + block.rows.end},
                     columns, args.N);
}

int64_t matmul_items(const MatmulArgs& args, int) {
  return args.batch * ceil_div(args.M, kRows) * ceil_div(args.N, kPanelColumns * kPanels);
}

void run_matmul(const MatmulArgs& args, int, Range range, void*) {
  const int64_t row_blocks = ceil_div(args.M, kRows);
  const int64_t panels = ceil_div(args.N, kPanelColumns);
  const int64_t panel_blocks = ceil_div(args.N, kPanelColumns * kPanels);
  with_real(args.dtype, [&](auto zero) {
    for (int64_t item = range.begin; item < range.end; ++item) {
      const int64_t row_block = item / panel_blocks;
      multiply_block<decltype(zero)>(
          args, {row_block / row_blocks, block_range(row_block % row_blocks, kRows, args.M),
                 block_range(item % panel_blocks, kPanels, panels)});
    }
  });
}

}  // namespace

Kernel<PackArgs> pack_kernel() { return {run_pack, pack_items, nullptr, 1}; }
Kernel<MatmulArgs> matmul_kernel() { return {run_matmul, matmul_items, nullptr, 1}; }

}  // namespace smalti::ref
