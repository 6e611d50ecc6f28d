// The pointwise machine, shared with the epilogues of matmul and conv2d.
#pragma once

#include "native/kernels/args.h"

namespace smalti::ref {

// Run the chain on elements [range.begin, range.end) of the flattened iteration space.
void run_pointwise_span(const PointwiseArgs& args, Range range);

// Run the chain on columns [columns.begin, columns.end) of rows [rows.begin, rows.end) of a dense
// space whose rows have `row_length` elements. The chain may have been collapsed to another rank:
// only the flat order of elements counts.
void run_pointwise_rows(const PointwiseArgs& args, Range rows, Range columns, int64_t row_length);

}  // namespace smalti::ref
