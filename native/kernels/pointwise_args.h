// What elementwise kernels and the epilogues of others take (the contract: args.h).
#pragma once

#include <cstdint>

#include "native/core/dtype.h"

namespace smalti {

constexpr int kMaxRank = 8;

// Half-open range of work items.
struct Range {
  int64_t begin;
  int64_t end;
};

// ---------------------------------------------------------------- pointwise

// One operation of the pointwise machine on registers that hold a tile of elements.
enum class PwOp : uint8_t {
  load,      // dst = input[imm_index], converted from its dtype
  constant,  // dst = imm
  store,     // output[imm_index] = a, converted to its dtype
  neg,
  abs,
  exp,
  log,
  log1p,
  sqrt,
  rsqrt,
  reciprocal,
  square,
  sin,
  cos,
  tanh,
  sigmoid,
  silu,
  gelu,
  gelu_tanh,
  quick_gelu,
  silu_slope,
  gelu_tanh_slope,
  relu,
  softplus,
  erf,
  floor,
  ceil,
  round,
  sign,
  is_finite,
  logical_not,
  leaky_relu,  // a < 0 ? imm * a : a
  clamp,       // min(max(a, imm), imm2)
  cast_i32,    // truncate toward zero
  cast_bool,   // a != 0
  cast_f16,    // round to f16 and back
  cast_bf16,   // round to bf16 and back
  cast_u8,     // truncate, saturate to [0, 255]
  add,
  sub,
  mul,
  div,
  pow,
  maximum,
  minimum,
  mod,
  equal,
  less,
  less_equal,
  logical_and,
  logical_or,
  where,  // a != 0 ? b : c
  fma,    // a * b + c, made by the fuser
};

constexpr int kPwRegisters = 16;
constexpr int kPwInputs = 16;
constexpr int kPwOutputs = 4;

struct PwInstr {
  PwOp op;
  uint8_t dst;
  uint8_t a;
  uint8_t b;
  uint8_t c;
  uint8_t index;  // which input or output, for load and store
  double imm;
  double imm2;
};

struct PwInput {
  const void* data;
  Dtype dtype;
  int64_t strides[kMaxRank];  // in elements, aligned with PointwiseArgs::shape; 0 = broadcast
};

struct PwOutput {
  void* data;  // dense over PointwiseArgs::shape
  Dtype dtype;
};

// A chain of elementwise operations over one iteration space, also used as the epilogue of matmul
// and conv2d. Rows = product of shape[0 .. rank-2], columns = shape[rank-1]; rank >= 1 after
// collapsing.
struct PointwiseArgs {
  const PwInstr* code;
  int32_t code_length;  // 0 = nothing to do
  int32_t input_count;
  int32_t output_count;
  int32_t rank;
  int64_t shape[kMaxRank];
  PwInput inputs[kPwInputs];
  PwOutput outputs[kPwOutputs];
  bool is_exact;  // integer arithmetic: must run in double registers (reference backend only)
  bool is_f64;    // some tensor is f64: reference backend only
};

}  // namespace smalti
