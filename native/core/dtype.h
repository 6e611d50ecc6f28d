// Element types, the same words as lib/ir/dtype.ts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace smalti {

enum class Dtype : uint8_t { f32 = 0, f64 = 1, f16 = 2, bf16 = 3, i32 = 4, u8 = 5, boolean = 6 };

constexpr size_t dtype_bytes(Dtype dtype) {
  switch (dtype) {
    case Dtype::f64:
      return 8;
    case Dtype::f32:
    case Dtype::i32:
      return 4;
    case Dtype::f16:
    case Dtype::bf16:
      return 2;
    case Dtype::u8:
    case Dtype::boolean:
      return 1;
  }
  return 0;
}

constexpr const char* dtype_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::f32:
      return "f32";
    case Dtype::f64:
      return "f64";
    case Dtype::f16:
      return "f16";
    case Dtype::bf16:
      return "bf16";
    case Dtype::i32:
      return "i32";
    case Dtype::u8:
      return "u8";
    case Dtype::boolean:
      return "bool";
  }
  return "?";
}

}  // namespace smalti
