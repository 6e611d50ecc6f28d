// Inference of elementwise ops: numpy broadcasting, equal dtypes.
#include <algorithm>

#include "native/ir/infer.h"

namespace smalti {
namespace {

Shape broadcast(const InferCase& c) {
  Shape shape;
  for (const Spec& spec : c.in) shape.rank = std::max(shape.rank, spec.shape.rank);
  std::fill(shape.dims, shape.dims + shape.rank, 1);
  for (const Spec& spec : c.in) {
    const int shift = shape.rank - spec.shape.rank;
    for (int i = 0; i < spec.shape.rank; ++i) {
      int64_t& dim = shape[shift + i];
      c.expect(dim == 1 || spec.shape[i] == 1 || dim == spec.shape[i], "shapes that broadcast");
      dim = std::max(dim, spec.shape[i]);
    }
  }
  return shape;
}

void expect_same_dtype(const InferCase& c, size_t a, size_t b) {
  if (c.in[a].dtype != c.in[b].dtype) c.fail(ErrorCode::dtype, "equal dtypes");
}

Specs unary_real(const InferCase& c) {
  c.expect_arity(1, 1);
  c.expect_real(0);
  return {c.in[0]};
}

Specs unary_number(const InferCase& c) {
  c.expect_arity(1, 1);
  c.expect_number(0);
  return {c.in[0]};
}

Specs leaky_relu(const InferCase& c) {
  c.node.number("slope");
  return unary_real(c);
}

Specs clamp(const InferCase& c) {
  c.node.number("min");
  c.node.number("max");
  return unary_number(c);
}

Specs is_finite(const InferCase& c) { return {{Dtype::boolean, unary_real(c)[0].shape}}; }

Specs logical_not(const InferCase& c) {
  c.expect_arity(1, 1);
  c.expect_dtype(0, Dtype::boolean);
  return {c.in[0]};
}

Specs cast(const InferCase& c) {
  c.expect_arity(1, 1);
  return {{parse_dtype(c.node.text("dtype")), c.in[0].shape}};
}

Specs binary(const InferCase& c) {
  c.expect_arity(2, 2);
  c.expect_number(0);
  expect_same_dtype(c, 0, 1);
  return {{c.in[0].dtype, broadcast(c)}};
}

Specs comparison(const InferCase& c) {
  c.expect_arity(2, 2);
  expect_same_dtype(c, 0, 1);
  return {{Dtype::boolean, broadcast(c)}};
}

Specs logical(const InferCase& c) {
  c.expect_arity(2, 2);
  c.expect_dtype(0, Dtype::boolean);
  c.expect_dtype(1, Dtype::boolean);
  return {{Dtype::boolean, broadcast(c)}};
}

Specs where(const InferCase& c) {
  c.expect_arity(3, 3);
  c.expect_dtype(0, Dtype::boolean);
  expect_same_dtype(c, 1, 2);
  return {{c.in[1].dtype, broadcast(c)}};
}

}  // namespace

void add_pointwise_rules(InferTable& table) {
  for (const char* op :
       {"exp",  "log",     "log1p", "sqrt",  "rsqrt",     "reciprocal",   "sin",  "cos",
        "tanh", "sigmoid", "silu",  "gelu",  "geluTanh",  "quickGelu",    "relu", "softplus",
        "erf",  "floor",   "ceil",  "round", "siluSlope", "geluTanhSlope"}) {
    table[op] = unary_real;
  }
  for (const char* op : {"neg", "abs", "sign", "square"}) table[op] = unary_number;
  for (const char* op : {"add", "sub", "mul", "div", "pow", "maximum", "minimum", "mod"})
    table[op] = binary;
  for (const char* op : {"equal", "less", "lessEqual"}) table[op] = comparison;
  for (const char* op : {"logicalAnd", "logicalOr"}) table[op] = logical;
  table["leakyRelu"] = leaky_relu;
  table["clamp"] = clamp;
  table["isFinite"] = is_finite;
  table["logicalNot"] = logical_not;
  table["cast"] = cast;
  table["where"] = where;
}

}  // namespace smalti
