// From a run-time element type to a template instance, and the small arithmetic of work items.
#pragma once

#include <cstdint>

#include "native/kernels/args.h"

namespace smalti::ref {

// body(T{}) with T = float or double
template <class Body>
void with_real(Dtype dtype, Body&& body) {
  if (dtype == Dtype::f64) {
    body(double{});
  } else {
    body(float{});
  }
}

// body(T{}) with T = float, double or int32_t
template <class Body>
void with_number(Dtype dtype, Body&& body) {
  if (dtype == Dtype::i32) {
    body(int32_t{});
  } else {
    with_real(dtype, body);
  }
}

// body(T{}) with T an unsigned integer of 1, 2, 4 or 8 bytes
template <class Body>
void with_bits(int32_t element_bytes, Body&& body) {
  switch (element_bytes) {
    case 1:
      return body(uint8_t{});
    case 2:
      return body(uint16_t{});
    case 4:
      return body(uint32_t{});
    default:
      return body(uint64_t{});
  }
}

constexpr int64_t ceil_div(int64_t count, int64_t block) { return (count + block - 1) / block; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Part `block` of [0, count) cut into blocks of `size`.
constexpr Range block_range(int64_t block, int64_t size, int64_t count) {
  return {block * size, smaller((block + 1) * size, count)};
}

constexpr int64_t clamp_index(int64_t index, int64_t size) {
  return index < 0 ? 0 : index < size ? index : size - 1;
}

}  // namespace smalti::ref
