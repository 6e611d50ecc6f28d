// Inference of sources, reductions, movement, lookups and random numbers.
#include <algorithm>

#include "native/ir/infer.h"

namespace smalti {
namespace {

constexpr int64_t kMax = int64_t{1} << 42;

Specs input(const InferCase& c) {
  c.expect_arity(0, 0);
  c.expect(c.declared.size() == 1, "one output");
  return c.declared;
}

Specs constant(const InferCase& c) {
  c.expect_arity(0, 0);
  const Spec spec{parse_dtype(c.node.text("dtype")), c.shape_attr()};
  const size_t count = c.node.numbers("values").size();
  c.expect(count == 1 || static_cast<int64_t>(count) == spec.shape.elements(),
           "one value or one for each element");
  return {spec};
}

Specs iota(const InferCase& c) {
  c.expect_arity(0, 0);
  const Spec spec{parse_dtype(c.node.text("dtype")), c.shape_attr()};
  const bool is_number =
      spec.dtype == Dtype::f32 || spec.dtype == Dtype::f64 || spec.dtype == Dtype::i32;
  if (!is_number) c.fail(ErrorCode::dtype, "f32, f64 or i32");
  c.bounded("axis", 0, spec.shape.rank - 1);
  return {spec};
}

Specs reduce(const InferCase& c) {
  c.expect_arity(1, 1);
  c.expect_number(0);
  const Shape& shape = c.in[0].shape;
  const std::vector<int64_t> axes = c.node.integers("axes");
  for (size_t i = 0; i < axes.size(); ++i) {
    c.expect(axes[i] >= 0 && axes[i] < shape.rank && (i == 0 || axes[i] == axes[i - 1] + 1),
             "a run of adjacent axes");
  }
  const bool keep = c.node.flag_or("keepDims", false);
  Spec result{c.in[0].dtype, {}};
  for (int i = 0; i < shape.rank; ++i) {
    const bool is_reduced = std::find(axes.begin(), axes.end(), i) != axes.end();
    if (!is_reduced) result.shape.push(shape[i]);
    if (is_reduced && keep) result.shape.push(1);
  }
  return {result};
}

Shape without_last(const Shape& shape) {
  Shape result = shape;
  result.dims[--result.rank] = 0;
  return result;
}

Specs arg_reduce(const InferCase& c) {
  c.expect_arity(1, 1);
  c.expect_number(0);
  c.expect_rank(0, 1, kMaxShapeRank);
  return {{Dtype::i32, without_last(c.in[0].shape)}};
}

Specs cumulative_sum(const InferCase& c) {
  c.expect_arity(1, 1);
  c.expect_number(0);
  c.expect_rank(0, 1, kMaxShapeRank);
  c.node.flag_or("reverse", false);
  return {c.in[0]};
}

Specs top_k(const InferCase& c) {
  c.expect_arity(1, 1);
  c.expect_number(0);
  c.expect_rank(0, 1, kMaxShapeRank);
  c.node.flag("descending");
  Shape shape = c.in[0].shape;
  shape[shape.rank - 1] = c.bounded("k", 1, shape.last());
  return {{c.in[0].dtype, shape}, {Dtype::i32, shape}};
}

Specs reshape(const InferCase& c) {
  c.expect_arity(1, 1);
  const Shape shape = c.shape_attr();
  c.expect(shape.elements() == c.in[0].shape.elements(), "a shape with as many elements");
  return {{c.in[0].dtype, shape}};
}

Specs transpose(const InferCase& c) {
  c.expect_arity(1, 1);
  const Shape& shape = c.in[0].shape;
  const auto rank = static_cast<size_t>(shape.rank);
  const std::vector<int64_t> permutation =
      c.bounded_list("permutation", rank, 0, std::max(0, shape.rank - 1));
  std::vector<int64_t> sorted = permutation;
  std::sort(sorted.begin(), sorted.end());
  Spec result{c.in[0].dtype, {}};
  for (size_t i = 0; i < rank; ++i) {
    c.expect(sorted[i] == static_cast<int64_t>(i), "a permutation of the axes");
    result.shape.push(shape[static_cast<int>(permutation[i])]);
  }
  return {result};
}

Specs slice(const InferCase& c) {
  c.expect_arity(1, 1);
  const Shape& shape = c.in[0].shape;
  const auto rank = static_cast<size_t>(shape.rank);
  const auto starts = c.bounded_list("starts", rank, 0, kMax);
  const auto sizes = c.bounded_list("sizes", rank, 1, kMax);
  const auto strides = c.bounded_list("strides", rank, -kMax, kMax);
  Spec result{c.in[0].dtype, {}};
  for (size_t i = 0; i < rank; ++i) {
    const int64_t dim = shape[static_cast<int>(i)];
    // Checked by division: the product of a hostile stride and size may not fit.
    const int64_t room = strides[i] > 0 ? dim - 1 - starts[i] : starts[i];
    const bool fits =
        starts[i] < dim && strides[i] != 0 && (sizes[i] - 1) <= room / std::abs(strides[i]);
    c.expect(fits, "a slice within the input");
    result.shape.push(sizes[i]);
  }
  return {result};
}

Specs concat(const InferCase& c) {
  c.expect(!c.in.empty(), "at least one input");
  Spec result = c.in[0];
  const auto axis = static_cast<int>(c.bounded("axis", 0, result.shape.rank - 1));
  for (size_t i = 1; i < c.in.size(); ++i) {
    Spec rest = c.in[i];
    c.expect(rest.shape.rank == result.shape.rank, "equal ranks");
    const int64_t more = rest.shape[axis];
    rest.shape[axis] = result.shape[axis];
    c.expect(rest == result, "equal dtypes and shapes except along the axis");
    result.shape[axis] += more;
    c.expect(result.shape[axis] <= kMax, "a size that fits");
  }
  return {result};
}

Specs pad(const InferCase& c) {
  c.expect_arity(1, 1);
  Spec result = c.in[0];
  const auto rank = static_cast<size_t>(result.shape.rank);
  const auto low = c.bounded_list("low", rank, 0, kMax);
  const auto high = c.bounded_list("high", rank, 0, kMax);
  c.node.number("value");
  int64_t elements = 1;
  for (size_t i = 0; i < rank; ++i) {
    int64_t& dim = result.shape[static_cast<int>(i)];
    dim += low[i] + high[i];
    c.expect(dim <= kMax / elements, "a size that fits");
    elements *= dim;
  }
  return {result};
}

Specs broadcast_to(const InferCase& c) {
  c.expect_arity(1, 1);
  const Shape shape = c.shape_attr();
  const Shape& from = c.in[0].shape;
  c.expect(from.rank <= shape.rank, "a shape that the input broadcasts to");
  for (int i = 0; i < from.rank; ++i) {
    const int64_t dim = from[i];
    c.expect(dim == 1 || dim == shape[shape.rank - from.rank + i],
             "a shape that the input broadcasts to");
  }
  return {{c.in[0].dtype, shape}};
}

Specs gather(const InferCase& c) {
  c.expect_arity(2, 2);
  c.expect_dtype(1, Dtype::i32);
  const Shape& table = c.in[0].shape;
  const Shape& indices = c.in[1].shape;
  const auto axis = static_cast<int>(c.bounded("axis", 0, table.rank - 1));
  c.expect(table.rank - 1 + indices.rank <= kMaxShapeRank, "a result of rank at most 8");
  Spec result{c.in[0].dtype, {}};
  for (int i = 0; i < axis; ++i) result.shape.push(table[i]);
  for (int i = 0; i < indices.rank; ++i) result.shape.push(indices[i]);
  for (int i = axis + 1; i < table.rank; ++i) result.shape.push(table[i]);
  return {result};
}

Specs scatter_add(const InferCase& c) {
  c.expect_arity(2, 2);
  c.expect_number(0);
  c.expect_dtype(1, Dtype::i32);
  const Shape& values = c.in[0].shape;
  const Shape& indices = c.in[1].shape;
  c.expect(indices.rank <= values.rank && values.rank - indices.rank + 1 <= kMaxShapeRank,
           "indices of lower rank");
  const auto axis = static_cast<int>(c.bounded("axis", 0, values.rank - indices.rank));
  Spec result{c.in[0].dtype, {}};
  for (int i = 0; i < axis; ++i) result.shape.push(values[i]);
  result.shape.push(c.bounded("size", 1, kMax));
  for (int i = 0; i < indices.rank; ++i)
    c.expect(values[axis + i] == indices[i], "values with the shape of the indices");
  for (int i = axis + indices.rank; i < values.rank; ++i) result.shape.push(values[i]);
  return {result};
}

Specs gather_last(const InferCase& c) {
  c.expect_arity(2, 2);
  c.expect_dtype(1, Dtype::i32);
  c.expect_rank(0, 1, kMaxShapeRank);
  const Shape shape = without_last(c.in[0].shape);
  c.expect(c.in[1].shape == shape, "indices with the shape of the input less its last axis");
  return {{c.in[0].dtype, shape}};
}

Specs scatter_last(const InferCase& c) {
  c.expect_arity(2, 2);
  c.expect_dtype(1, Dtype::i32);
  c.expect_rank(0, 0, kMaxShapeRank - 1);
  c.expect(c.in[0].shape == c.in[1].shape, "equal shapes");
  Spec result = c.in[0];
  result.shape.push(c.bounded("size", 1, kMax / std::max<int64_t>(1, result.shape.elements())));
  return {result};
}

Specs random(const InferCase& c) {
  c.expect_arity(1, 1);
  const Shape shape = c.shape_attr();
  c.expect(shape.rank >= 1, "a shape that starts with the batch");
  Shape key;
  key.push(shape[0]);
  key.push(4);
  c.expect_spec(0, {Dtype::i32, key});
  c.bounded("purpose", 0, 0xffffffffLL);
  const bool is_f64 = c.declared.size() == 1 && c.declared[0].dtype == Dtype::f64;
  return {{is_f64 ? Dtype::f64 : Dtype::f32, shape}};
}

}  // namespace

void add_tensor_rules(InferTable& table) {
  table["input"] = input;
  table["constant"] = constant;
  table["iota"] = iota;
  for (const char* op : {"sum", "mean", "max", "min", "prod", "sumSquares"}) table[op] = reduce;
  table["argMax"] = arg_reduce;
  table["argMin"] = arg_reduce;
  table["cumulativeSum"] = cumulative_sum;
  table["topK"] = top_k;
  table["reshape"] = reshape;
  table["transpose"] = transpose;
  table["slice"] = slice;
  table["concat"] = concat;
  table["pad"] = pad;
  table["broadcastTo"] = broadcast_to;
  table["gather"] = gather;
  table["scatterAdd"] = scatter_add;
  table["gatherLast"] = gather_last;
  table["scatterLast"] = scatter_last;
  table["randomUniform"] = random;
  table["randomNormal"] = random;
}

}  // namespace smalti
