// Inference of matrix products and convolutions.
#include <algorithm>

#include "native/ir/infer.h"

namespace smalti {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 30;

void expect_pair(const InferCase& c) {
  c.expect_arity(2, 2);
  c.expect_real(0);
  c.expect_dtype(1, c.in[0].dtype);
}

Specs matmul(const InferCase& c) {
  expect_pair(c);
  c.expect_rank(0, 2, kMaxShapeRank);
  c.expect_rank(1, 2, kMaxShapeRank);
  const Shape& a = c.in[0].shape;
  const Shape& b = c.in[1].shape;
  const bool transpose_a = c.node.flag_or("transposeA", false);
  const bool transpose_b = c.node.flag_or("transposeB", false);
  const int64_t M = a[a.rank - (transpose_a ? 1 : 2)];
  const int64_t K = a[a.rank - (transpose_a ? 2 : 1)];
  const int64_t N = b[b.rank - (transpose_b ? 2 : 1)];
  c.expect(b[b.rank - (transpose_b ? 1 : 2)] == K, "equal inner dimensions");
  Spec result{c.in[0].dtype, a.rank >= b.rank ? a : b};
  if (a.rank > 2 && b.rank > 2) {
    c.expect(a.rank == b.rank && std::equal(a.dims, a.dims + a.rank - 2, b.dims),
             "equal leading dimensions, or none in one");
  }
  result.shape[result.shape.rank - 2] = M;
  result.shape[result.shape.rank - 1] = N;
  return {result};
}

struct Window {
  std::vector<int64_t> stride;
  std::vector<int64_t> padding;
  int64_t groups;
  int64_t upsample;
};

Window window_of(const InferCase& c) {
  Window w{c.bounded_list("stride", 2, 1, kMaxSize), c.bounded_list("padding", 4, 0, kMaxSize),
           c.node.integer_or("groups", 1), c.node.integer_or("upsample", 1)};
  c.expect(w.groups >= 1, "at least one group");
  c.expect(w.upsample == 1 || w.upsample == 2, "upsample 1 or 2");
  return w;
}

// Output pixels along one axis: floor((size * upsample + padding - kernel) / stride) + 1.
int64_t output_size(const InferCase& c, const Window& w, int axis, int64_t size, int64_t kernel) {
  const size_t i = static_cast<size_t>(axis) * 2;
  const int64_t padded = size * w.upsample + w.padding[i] + w.padding[i + 1];
  c.expect(padded >= kernel, "an image at least as large as the kernel");
  return (padded - kernel) / w.stride[static_cast<size_t>(axis)] + 1;
}

Shape shape4(int64_t a, int64_t b, int64_t c, int64_t d) {
  Shape shape;
  for (const int64_t dim : {a, b, c, d}) shape.push(dim);
  return shape;
}

Specs conv2d(const InferCase& c) {
  expect_pair(c);
  c.expect_rank(0, 4, 4);
  c.expect_rank(1, 4, 4);
  const Shape& x = c.in[0].shape;
  const Shape& w = c.in[1].shape;
  const Window window = window_of(c);
  const bool is_divided =
      x[3] % window.groups == 0 && w[3] % window.groups == 0 && w[2] == x[3] / window.groups;
  c.expect(is_divided, "weight (KH, KW, C / groups, O) for input (B, H, W, C)");
  return {{c.in[0].dtype, shape4(x[0], output_size(c, window, 0, x[1], w[0]),
                                 output_size(c, window, 1, x[2], w[1]), w[3])}};
}

Specs conv2d_grad_input(const InferCase& c) {
  expect_pair(c);
  c.expect_rank(0, 4, 4);
  c.expect_rank(1, 4, 4);
  const Shape& dy = c.in[0].shape;
  const Shape& w = c.in[1].shape;
  const Window window = window_of(c);
  const auto size = c.bounded_list("inputSize", 2, 1, kMaxSize);
  c.expect(window.upsample == 1, "upsample 1");
  c.expect(dy[3] == w[3] && w[3] % window.groups == 0,
           "weight (KH, KW, C / groups, O) for gradient (B, OH, OW, O)");
  const bool is_consistent = output_size(c, window, 0, size[0], w[0]) == dy[1] &&
                             output_size(c, window, 1, size[1], w[1]) == dy[2];
  c.expect(is_consistent, "inputSize that convolves to the gradient's size");
  return {{c.in[0].dtype, shape4(dy[0], size[0], size[1], w[2] * window.groups)}};
}

Specs conv2d_grad_weight(const InferCase& c) {
  expect_pair(c);
  c.expect_rank(0, 4, 4);
  c.expect_rank(1, 4, 4);
  const Shape& x = c.in[0].shape;
  const Shape& dy = c.in[1].shape;
  const Window window = window_of(c);
  const auto kernel = c.bounded_list("kernel", 2, 1, kMaxSize);
  c.expect(x[0] == dy[0] && x[3] % window.groups == 0 && dy[3] % window.groups == 0,
           "equal batches, divisible channels");
  const bool is_consistent = output_size(c, window, 0, x[1], kernel[0]) == dy[1] &&
                             output_size(c, window, 1, x[2], kernel[1]) == dy[2];
  c.expect(is_consistent, "a kernel that convolves the input to the gradient's size");
  return {{c.in[0].dtype, shape4(kernel[0], kernel[1], x[3] / window.groups, dy[3])}};
}

}  // namespace

void add_linear_rules(InferTable& table) {
  table["matmul"] = matmul;
  table["conv2d"] = conv2d;
  table["conv2dGradInput"] = conv2d_grad_input;
  table["conv2dGradWeight"] = conv2d_grad_weight;
}

}  // namespace smalti
