// Shapes: up to eight dimensions, dense and row-major. The same words as lib/ir/shape.ts.
#pragma once

#include <cstdint>
#include <string>

#include "native/core/dtype.h"

namespace smalti {

constexpr int kMaxShapeRank = 8;

struct Shape {
  int rank = 0;
  int64_t dims[kMaxShapeRank] = {};

  int64_t operator[](int axis) const { return dims[axis]; }
  int64_t& operator[](int axis) { return dims[axis]; }
  void push(int64_t dim) { dims[rank++] = dim; }

  int64_t elements() const { return product(0, rank); }
  // Product of the dimensions [begin, end).
  int64_t product(int begin, int end) const {
    int64_t n = 1;
    for (int i = begin; i < end; ++i) n *= dims[i];
    return n;
  }
  int64_t last() const { return rank == 0 ? 1 : dims[rank - 1]; }

  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; ++i) {
      if (a.dims[i] != b.dims[i]) return false;
    }
    return true;
  }
  friend bool operator!=(const Shape& a, const Shape& b) { return !(a == b); }
};

// Element type and shape of a value.
struct Spec {
  Dtype dtype = Dtype::f32;
  Shape shape;

  int64_t bytes() const { return shape.elements() * static_cast<int64_t>(dtype_bytes(dtype)); }
  friend bool operator==(const Spec& a, const Spec& b) {
    return a.dtype == b.dtype && a.shape == b.shape;
  }
  friend bool operator!=(const Spec& a, const Spec& b) { return !(a == b); }
};

// "f32[2,3]"
inline std::string format_spec(const Spec& spec) {
  std::string text = dtype_name(spec.dtype);
  text += '[';
  for (int i = 0; i < spec.shape.rank; ++i) {
    if (i > 0) text += ',';
    text += std::to_string(spec.shape[i]);
  }
  return text + ']';
}

}  // namespace smalti
