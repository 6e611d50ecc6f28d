// Arguments of sources, reductions, movement, lookups and random numbers: one function per kernel.
#include <algorithm>

#include "native/compile/binder.h"

namespace smalti {
namespace {

int32_t element_bytes(const Spec& spec) { return static_cast<int32_t>(dtype_bytes(spec.dtype)); }

// Strides of a dense tensor.
void dense_strides(const Shape& shape, int64_t* strides) {
  int64_t step = 1;
  for (int i = shape.rank - 1; i >= 0; --i) {
    strides[i] = step;
    step *= shape[i];
  }
}

// Drops dimensions of size 1 and merges those that are contiguous on both sides.
void collapse(CopyArgs& a) {
  int rank = 0;
  for (int i = 0; i < a.rank; ++i) {
    if (a.shape[i] == 1) continue;
    const bool merges = rank > 0 && a.src_strides[rank - 1] == a.src_strides[i] * a.shape[i] &&
                        a.dst_strides[rank - 1] == a.dst_strides[i] * a.shape[i];
    const int to = merges ? rank - 1 : rank;
    a.shape[to] = merges ? a.shape[to] * a.shape[i] : a.shape[i];
    a.src_strides[to] = a.src_strides[i];
    a.dst_strides[to] = a.dst_strides[i];
    rank = to + 1;
  }
  if (rank == 0) {
    a.shape[0] = 1;
    a.src_strides[0] = a.dst_strides[0] = 1;
    rank = 1;
  }
  a.rank = rank;
}

Instruction finish_copy(Binder& b, CopyArgs& a, Place from, Place to) {
  collapse(a);
  b.fix(a.src, from);
  b.fix(a.dst, to);
  return b.finish(a, &KernelTable::copy, true);
}

// Copy over the output's shape; source strides to be set by the caller.
CopyArgs copy_to_output(const Binder& b) {
  CopyArgs a = {};
  const Shape& shape = b.out_shape();
  a.rank = shape.rank;
  a.element_bytes = element_bytes(b.graph.out(*b.node));
  std::copy(shape.dims, shape.dims + shape.rank, a.shape);
  dense_strides(shape, a.dst_strides);
  return a;
}

Instruction bind_reshape(
    Binder& b) {  // only a slice or reshape that could not share memory comes here
  CopyArgs a = copy_to_output(b);
  dense_strides(b.out_shape(), a.src_strides);
  return finish_copy(b, a, b.input(0), b.output(0));
}

Instruction bind_transpose(Binder& b) {
  CopyArgs a = copy_to_output(b);
  const std::vector<int64_t> permutation = b.node->integers("permutation");
  int64_t strides[kMaxRank];
  dense_strides(b.in_shape(0), strides);
  for (int i = 0; i < a.rank; ++i) a.src_strides[i] = strides[permutation[static_cast<size_t>(i)]];
  return finish_copy(b, a, b.input(0), b.output(0));
}

Instruction bind_slice(Binder& b) {
  CopyArgs a = copy_to_output(b);
  const std::vector<int64_t> starts = b.node->integers("starts");
  const std::vector<int64_t> steps = b.node->integers("strides");
  int64_t strides[kMaxRank];
  dense_strides(b.in_shape(0), strides);
  for (int i = 0; i < a.rank; ++i) {
    a.src_offset += starts[static_cast<size_t>(i)] * strides[i];
    a.src_strides[i] = steps[static_cast<size_t>(i)] * strides[i];
  }
  return finish_copy(b, a, b.input(0), b.output(0));
}

Instruction bind_broadcast_to(Binder& b) {
  CopyArgs a = copy_to_output(b);
  const Shape& from = b.in_shape(0);
  int64_t strides[kMaxRank];
  dense_strides(from, strides);
  for (int i = 0; i < from.rank; ++i) {
    a.src_strides[a.rank - from.rank + i] = from[i] == 1 ? 0 : strides[i];
  }
  return finish_copy(b, a, b.input(0), b.output(0));
}

ReduceOp reduce_op(const std::string& op) {
  if (op == "sum") return ReduceOp::sum;
  if (op == "mean") return ReduceOp::mean;
  if (op == "max") return ReduceOp::max;
  if (op == "min") return ReduceOp::min;
  return op == "prod" ? ReduceOp::prod : ReduceOp::sum_squares;
}

Instruction bind_reduce(Binder& b) {
  ReduceArgs a = {};
  const Shape& shape = b.in_shape(0);
  const std::vector<int64_t> axes = b.node->integers("axes");
  const int first = axes.empty() ? shape.rank : static_cast<int>(axes.front());
  const int end = axes.empty() ? shape.rank : static_cast<int>(axes.back()) + 1;
  a.outer = shape.product(0, first);
  a.count = shape.product(first, end);
  a.inner = shape.product(end, shape.rank);
  a.op = reduce_op(b.node->op);
  a.dtype = b.dtype();
  b.fix_inputs(a.src);
  b.fix_outputs(a.dst);
  return b.finish(a, &KernelTable::reduce, b.is_f32());
}

Instruction bind_arg_reduce(Binder& b) {
  ArgReduceArgs a = {};
  a.count = b.in_shape(0).last();
  a.rows = b.in_shape(0).elements() / a.count;
  a.is_max = b.node->op == "argMax";
  a.dtype = b.dtype();
  b.fix_inputs(a.src);
  b.fix_outputs(a.dst);
  return b.finish(a, &KernelTable::arg_reduce, b.is_f32());
}

Instruction bind_cumulative_sum(Binder& b) {
  CumulativeSumArgs a = {};
  a.count = b.in_shape(0).last();
  a.rows = b.in_shape(0).elements() / a.count;
  a.reverse = b.node->flag_or("reverse", false);
  a.dtype = b.dtype();
  b.fix_inputs(a.src);
  b.fix_outputs(a.dst);
  return b.finish(a, &KernelTable::cumulative_sum, b.is_f32());
}

Instruction bind_top_k(Binder& b) {
  TopKArgs a = {};
  a.count = b.in_shape(0).last();
  a.rows = b.in_shape(0).elements() / a.count;
  a.k = b.node->integer("k");
  a.descending = b.node->flag("descending");
  a.dtype = b.dtype();
  b.fix_inputs(a.src);
  b.fix_outputs(a.values, a.indices);
  return b.finish(a, &KernelTable::top_k, b.is_f32());
}

Instruction bind_iota(Binder& b) {
  IotaArgs a = {};
  const Shape& shape = b.out_shape();
  const auto axis = static_cast<int>(b.node->integer("axis"));
  a.outer = shape.product(0, axis);
  a.count = shape[axis];
  a.inner = shape.product(axis + 1, shape.rank);
  a.dtype = b.graph.out(*b.node).dtype;
  b.fix_outputs(a.dst);
  return b.finish(a, &KernelTable::iota, a.dtype == Dtype::f32);
}

Instruction bind_gather(Binder& b) {
  GatherArgs a = {};
  const Shape& table = b.in_shape(0);
  const auto axis = static_cast<int>(b.node->integer("axis"));
  a.outer = table.product(0, axis);
  a.size = table[axis];
  a.inner = table.product(axis + 1, table.rank);
  a.count = b.in_shape(1).elements();
  a.element_bytes = element_bytes(b.graph.in(*b.node, 0));
  b.fix_inputs(a.table, a.indices);
  b.fix_outputs(a.dst);
  return b.finish(a, &KernelTable::gather, true);
}

Instruction bind_scatter_add(Binder& b) {
  ScatterAddArgs a = {};
  const Shape& values = b.in_shape(0);
  const auto axis = static_cast<int>(b.node->integer("axis"));
  a.outer = values.product(0, axis);
  a.count = b.in_shape(1).elements();
  a.inner = values.product(axis + b.in_shape(1).rank, values.rank);
  a.size = b.node->integer("size");
  a.dtype = b.dtype();
  b.fix_inputs(a.values, a.indices);
  b.fix_outputs(a.dst);
  return b.finish(a, &KernelTable::scatter_add, b.is_f32());
}

Instruction bind_gather_last(Binder& b) {
  GatherLastArgs a = {};
  a.size = b.in_shape(0).last();
  a.rows = b.in_shape(0).elements() / a.size;
  a.element_bytes = element_bytes(b.graph.in(*b.node, 0));
  b.fix_inputs(a.src, a.indices);
  b.fix_outputs(a.dst);
  return b.finish(a, &KernelTable::gather_last, true);
}

Instruction bind_scatter_last(Binder& b) {
  ScatterLastArgs a = {};
  a.size = b.out_shape().last();
  a.rows = b.in_shape(0).elements();
  a.element_bytes = element_bytes(b.graph.in(*b.node, 0));
  b.fix_inputs(a.values, a.indices);
  b.fix_outputs(a.dst);
  return b.finish(a, &KernelTable::scatter_last, true);
}

Instruction bind_random(Binder& b) {
  RandomArgs a = {};
  a.B = b.out_shape()[0];
  a.count = b.out_shape().elements() / a.B;
  a.purpose = static_cast<uint32_t>(b.node->integer("purpose"));
  a.kind = b.node->op == "randomUniform" ? RandomKind::uniform : RandomKind::normal;
  a.dtype = b.graph.out(*b.node).dtype;
  b.fix_inputs(a.key);
  b.fix_outputs(a.dst);
  return b.finish(a, &KernelTable::random, a.dtype == Dtype::f32);
}

}  // namespace

// One strided copy for each input.
std::vector<Instruction> bind_concat(Binder& b) {
  std::vector<Instruction> instructions;
  const auto axis = static_cast<int>(b.node->integer("axis"));
  int64_t position = 0;
  for (size_t i = 0; i < b.node->inputs.size(); ++i) {
    const Shape& shape = b.in_shape(i);
    CopyArgs a = copy_to_output(b);
    std::copy(shape.dims, shape.dims + shape.rank, a.shape);
    dense_strides(shape, a.src_strides);
    a.dst_offset = position * a.dst_strides[axis];
    position += shape[axis];
    instructions.push_back(finish_copy(b, a, b.input(i), b.output(0)));
  }
  return instructions;
}

// Fill, then copy the input inside.
std::vector<Instruction> bind_pad(Binder& b) {
  std::vector<Instruction> instructions{bind_fill(b, b.node->outputs[0], b.node->number("value"))};
  const Shape& shape = b.in_shape(0);
  const std::vector<int64_t> low = b.node->integers("low");
  CopyArgs a = copy_to_output(b);
  std::copy(shape.dims, shape.dims + shape.rank, a.shape);
  dense_strides(shape, a.src_strides);
  for (int i = 0; i < a.rank; ++i) a.dst_offset += low[static_cast<size_t>(i)] * a.dst_strides[i];
  instructions.push_back(finish_copy(b, a, b.input(0), b.output(0)));
  return instructions;
}

Instruction bind_copy(Binder& b, int from, int to) {
  CopyArgs a = {};
  a.rank = 1;
  a.shape[0] = b.module.spec(to).shape.elements();
  a.src_strides[0] = a.dst_strides[0] = 1;
  a.element_bytes = element_bytes(b.module.spec(to));
  return finish_copy(b, a, b.place(from), b.place(to));
}

// Copies the node's first input (B, OH, OW, O) into every stride-th pixel of `value`, which has
// `shape`.
Instruction bind_spread(Binder& b, int value, const Shape& shape) {
  CopyArgs a = {};
  const Shape& from = b.in_shape(0);
  a.rank = 4;
  std::copy(from.dims, from.dims + 4, a.shape);
  dense_strides(from, a.src_strides);
  dense_strides(shape, a.dst_strides);
  const std::vector<int64_t> stride = b.node->integers("stride");
  a.dst_strides[1] *= stride[0];
  a.dst_strides[2] *= stride[1];
  a.element_bytes = element_bytes(b.graph.in(*b.node, 0));
  return finish_copy(b, a, b.input(0), b.place(value));
}

Instruction bind_fill(Binder& b, int value, double number) {
  FillArgs a = {};
  const Spec& spec = b.module.spec(value);
  a.count = spec.shape.elements();
  a.element_bytes = element_bytes(spec);
  a.bits = encode_number(number, spec.dtype);
  b.fix(a.dst, b.place(value));
  return b.finish(a, &KernelTable::fill, true);
}

void add_tensor_binds(BindTable& table) {
  for (const char* op : {"sum", "mean", "max", "min", "prod", "sumSquares"})
    table[op] = bind_reduce;
  table["argMax"] = bind_arg_reduce;
  table["argMin"] = bind_arg_reduce;
  table["cumulativeSum"] = bind_cumulative_sum;
  table["topK"] = bind_top_k;
  table["reshape"] = bind_reshape;
  table["transpose"] = bind_transpose;
  table["slice"] = bind_slice;
  table["broadcastTo"] = bind_broadcast_to;
  table["iota"] = bind_iota;
  table["gather"] = bind_gather;
  table["scatterAdd"] = bind_scatter_add;
  table["gatherLast"] = bind_gather_last;
  table["scatterLast"] = bind_scatter_last;
  table["randomUniform"] = bind_random;
  table["randomNormal"] = bind_random;
}

}  // namespace smalti
