// The pointwise machine in double registers: a chain runs instruction by instruction over tiles of
// elements. Double registers hold every f32, i32, u8 and half value exactly, so one code serves all
// element types.
#include "native/ref/pointwise.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "native/core/half.h"
#include "native/ref/element.h"
#include "native/ref/families.h"

namespace smalti::ref {
namespace {

constexpr int64_t kTile = 256;           // elements a register holds
constexpr int64_t kItemElements = 4096;  // elements of a work item

using Register = double[kTile];

double read_element(const void* data, Dtype dtype, int64_t i) {
  switch (dtype) {
    case Dtype::f32:
      return static_cast<double>(static_cast<const float*>(data)[i]);
    case Dtype::f64:
      return static_cast<const double*>(data)[i];
    case Dtype::f16:
      return static_cast<double>(f16_to_float(static_cast<const uint16_t*>(data)[i]));
    case Dtype::bf16:
      return static_cast<double>(bf16_to_float(static_cast<const uint16_t*>(data)[i]));
    case Dtype::i32:
      return static_cast<double>(static_cast<const int32_t*>(data)[i]);
    case Dtype::u8:
      return static_cast<double>(static_cast<const uint8_t*>(data)[i]);
    case Dtype::boolean:
      return static_cast<const uint8_t*>(data)[i] != 0 ? 1.0 : 0.0;
  }
  return 0.0;
}

// Toward zero, saturating; NaN becomes 0.
double truncate_to(double x, double low, double high) {
  if (std::isnan(x)) return 0.0;
  return std::trunc(x < low ? low : x > high ? high : x);
}

double truncate_i32(double x) { return truncate_to(x, -2147483648.0, 2147483647.0); }
double truncate_u8(double x) { return truncate_to(x, 0.0, 255.0); }

void write_element(void* data, Dtype dtype, int64_t i, double x) {
  switch (dtype) {
    case Dtype::f32:
      static_cast<float*>(data)[i] = static_cast<float>(x);
      return;
    case Dtype::f64:
      static_cast<double*>(data)[i] = x;
      return;
    case Dtype::f16:
      static_cast<uint16_t*>(data)[i] = float_to_f16(static_cast<float>(x));
      return;
    case Dtype::bf16:
      static_cast<uint16_t*>(data)[i] = float_to_bf16(static_cast<float>(x));
      return;
    case Dtype::i32:
      static_cast<int32_t*>(data)[i] = static_cast<int32_t>(truncate_i32(x));
      return;
    case Dtype::u8:
      static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(truncate_u8(x));
      return;
    case Dtype::boolean:
      static_cast<uint8_t*>(data)[i] = x != 0.0 ? 1 : 0;
      return;
  }
}

// Offset of the first element of `row` in an input.
int64_t row_offset(const PointwiseArgs& args, const PwInput& input, int64_t row) {
  int64_t offset = 0;
  for (int axis = args.rank - 2; axis >= 0; --axis) {
    offset += row % args.shape[axis] * input.strides[axis];
    row /= args.shape[axis];
  }
  return offset;
}

// Elements [begin, begin + count) of the flat space; a tile may cross rows.
void load_tile(const PointwiseArgs& args, const PwInput& input, int64_t begin, int64_t count,
               double* dst) {
  const int64_t columns = args.shape[args.rank - 1];
  const int64_t stride = input.strides[args.rank - 1];
  int64_t row = begin / columns;
  int64_t column = begin % columns;
  for (int64_t done = 0; done < count; ++row, column = 0) {
    const int64_t length = smaller(columns - column, count - done);
    const int64_t offset = row_offset(args, input, row) + column * stride;
    for (int64_t i = 0; i < length; ++i) {
      dst[done + i] = read_element(input.data, input.dtype, offset + i * stride);
    }
    done += length;
  }
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// max and min that propagate NaN
double maximum(double a, double b) { return a > b || std::isnan(a) ? a : b; }
double minimum(double a, double b) { return a < b || std::isnan(a) ? a : b; }

// Remainder with the sign of the divisor.
double floored_mod(double a, double b) {
  const double r = std::fmod(a, b);
  return r != 0.0 && (r < 0.0) != (b < 0.0) ? r + b : r;
}

// Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2: x Phi(x), its tanh form and its sigmoid
// form.
double gelu(double x) { return 0.5 * x * (1.0 + std::erf(x * 0.70710678118654752440)); }
double gelu_tanh(double x) {
  return 0.5 * x * (1.0 + std::tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}
double quick_gelu(double x) { return x * sigmoid(1.702 * x); }
double silu_slope(double x) { return sigmoid(x) * (1.0 + x * sigmoid(-x)); }
// With s = sigmoid(2 u): s (1 + 2 x u' (1 - s)).
double gelu_tanh_slope(double x) {
  const double c = 2 * 0.79788456080286535588;
  const double u = c * (x + 0.044715 * x * x * x);
  return sigmoid(u) * (1.0 + x * c * (1.0 + 3 * 0.044715 * x * x) * sigmoid(-u));
}

double softplus(double x) { return (x > 0.0 ? x : 0.0) + std::log1p(std::exp(-std::fabs(x))); }

// Half to even, whatever the rounding mode of the thread.
double round_even(double x) {
  const double nearest = std::round(x);
  const bool is_tie = std::fabs(x - std::trunc(x)) == 0.5;
  return is_tie ? 2.0 * std::round(x / 2.0) : nearest;
}

double sign(double x) { return std::isnan(x) ? x : static_cast<double>((x > 0.0) - (x < 0.0)); }
double truth(bool claim) { return claim ? 1.0 : 0.0; }

struct Operands {
  double* dst;
  const double* a;
  const double* b;
  const double* c;
  int64_t count;
};

template <class F>
void map1(const Operands& r, F f) {
  for (int64_t i = 0; i < r.count; ++i) r.dst[i] = f(r.a[i]);
}

template <class F>
void map2(const Operands& r, F f) {
  for (int64_t i = 0; i < r.count; ++i) r.dst[i] = f(r.a[i], r.b[i]);
}

template <class F>
void map3(const Operands& r, F f) {
  for (int64_t i = 0; i < r.count; ++i) r.dst[i] = f(r.a[i], r.b[i], r.c[i]);
}

// One line an operation; a switch of this length is the table of what the machine can do.
void compute(const PwInstr& in, const Operands& r) {
  // clang-format off
  switch (in.op) {
    case PwOp::load:
    case PwOp::store:
      return;  // done by the caller
    case PwOp::constant:
      for (int64_t i = 0; i < r.count; ++i) r.dst[i] = in.imm;
      return;
    case PwOp::neg: return map1(r, [](double a) { return -a; });
    case PwOp::abs: return map1(r, [](double a) { return std::fabs(a); });
    case PwOp::exp: return map1(r, [](double a) { return std::exp(a); });
    case PwOp::log: return map1(r, [](double a) { return std::log(a); });
    case PwOp::log1p: return map1(r, [](double a) { return std::log1p(a); });
    case PwOp::sqrt: return map1(r, [](double a) { return std::sqrt(a); });
    case PwOp::rsqrt: return map1(r, [](double a) { return 1.0 / std::sqrt(a); });
    case PwOp::reciprocal: return map1(r, [](double a) { return 1.0 / a; });
    case PwOp::square: return map1(r, [](double a) { return a * a; });
    case PwOp::sin: return map1(r, [](double a) { return std::sin(a); });
    case PwOp::cos: return map1(r, [](double a) { return std::cos(a); });
    case PwOp::tanh: return map1(r, [](double a) { return std::tanh(a); });
    case PwOp::sigmoid: return map1(r, sigmoid);
    case PwOp::silu: return map1(r, [](double a) { return a * sigmoid(a); });
    case PwOp::gelu: return map1(r, gelu);
    case PwOp::gelu_tanh: return map1(r, gelu_tanh);
    case PwOp::quick_gelu: return map1(r, quick_gelu);
    case PwOp::silu_slope: return map1(r, silu_slope);
    case PwOp::gelu_tanh_slope: return map1(r, gelu_tanh_slope);
    case PwOp::relu: return map1(r, [](double a) { return a < 0.0 ? 0.0 : a; });
    case PwOp::softplus: return map1(r, softplus);
    case PwOp::erf: return map1(r, [](double a) { return std::erf(a); });
    case PwOp::floor: return map1(r, [](double a) { return std::floor(a); });
    case PwOp::ceil: return map1(r, [](double a) { return std::ceil(a); });
    case PwOp::round: return map1(r, round_even);
    case PwOp::sign: return map1(r, sign);
    case PwOp::is_finite: return map1(r, [](double a) { return truth(std::isfinite(a)); });
    case PwOp::logical_not: return map1(r, [](double a) { return truth(a == 0.0); });
    case PwOp::leaky_relu: return map1(r, [&](double a) { return a < 0.0 ? in.imm * a : a; });
    case PwOp::clamp:
      return map1(r, [&](double a) { return minimum(maximum(a, in.imm), in.imm2); });
    case PwOp::cast_i32: return map1(r, truncate_i32);
    case PwOp::cast_bool: return map1(r, [](double a) { return truth(a != 0.0); });
    case PwOp::cast_f16:
      return map1(r, [](double a) {
        return static_cast<double>(f16_to_float(float_to_f16(static_cast<float>(a))));
      });
    case PwOp::cast_bf16:
      return map1(r, [](double a) {
        return static_cast<double>(bf16_to_float(float_to_bf16(static_cast<float>(a))));
      });
    case PwOp::cast_u8: return map1(r, truncate_u8);
    case PwOp::add: return map2(r, [](double a, double b) { return a + b; });
    case PwOp::sub: return map2(r, [](double a, double b) { return a - b; });
    case PwOp::mul: return map2(r, [](double a, double b) { return a * b; });
    case PwOp::div: return map2(r, [](double a, double b) { return a / b; });
    case PwOp::pow: return map2(r, [](double a, double b) { return std::pow(a, b); });
    case PwOp::maximum: return map2(r, maximum);
    case PwOp::minimum: return map2(r, minimum);
    case PwOp::mod: return map2(r, floored_mod);
    case PwOp::equal: return map2(r, [](double a, double b) { return truth(a == b); });
    case PwOp::less: return map2(r, [](double a, double b) { return truth(a < b); });
    case PwOp::less_equal: return map2(r, [](double a, double b) { return truth(a <= b); });
    case PwOp::logical_and:
      return map2(r, [](double a, double b) { return truth(a != 0.0 && b != 0.0); });
    case PwOp::logical_or:
      return map2(r, [](double a, double b) { return truth(a != 0.0 || b != 0.0); });
    case PwOp::where: return map3(r, [](double a, double b, double c) { return a != 0.0 ? b : c; });
    case PwOp::fma: return map3(r, [](double a, double b, double c) { return a * b + c; });
  }
  // clang-format on
}

// The whole chain on at most kTile elements.
void run_tile(const PointwiseArgs& args, int64_t begin, int64_t count, Register* registers) {
  for (int32_t pc = 0; pc < args.code_length; ++pc) {
    const PwInstr& in = args.code[pc];
    if (in.op == PwOp::load) {
      load_tile(args, args.inputs[in.index], begin, count, registers[in.dst]);
    } else if (in.op == PwOp::store) {
      const PwOutput& output = args.outputs[in.index];
      const double* src = registers[in.a];
      for (int64_t i = 0; i < count; ++i) {
        write_element(output.data, output.dtype, begin + i, src[i]);
      }
    } else {
      compute(in, {registers[in.dst], registers[in.a], registers[in.b], registers[in.c], count});
    }
  }
}

int64_t element_count(const PointwiseArgs& args) {
  int64_t count = 1;
  for (int axis = 0; axis < args.rank; ++axis) count *= args.shape[axis];
  return count;
}

int64_t pointwise_items(const PointwiseArgs& args, int) {
  return ceil_div(element_count(args), kItemElements);
}

void run_pointwise(const PointwiseArgs& args, int, Range range, void*) {
  run_pointwise_span(
      args, {range.begin * kItemElements, smaller(range.end * kItemElements, element_count(args))});
}

}  // namespace

void run_pointwise_span(const PointwiseArgs& args, Range range) {
  if (args.code_length == 0) return;
  Register registers[kPwRegisters];
  for (int64_t begin = range.begin; begin < range.end; begin += kTile) {
    run_tile(args, begin, smaller(kTile, range.end - begin), registers);
  }
}

void run_pointwise_rows(const PointwiseArgs& args, Range rows, Range columns, int64_t row_length) {
  if (args.code_length == 0) return;
  if (columns.begin == 0 && columns.end == row_length) {
    return run_pointwise_span(args, {rows.begin * row_length, rows.end * row_length});
  }
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    run_pointwise_span(args, {row * row_length + columns.begin, row * row_length + columns.end});
  }
}

Kernel<PointwiseArgs> pointwise_kernel() { return {run_pointwise, pointwise_items, nullptr, 1}; }

}  // namespace smalti::ref
