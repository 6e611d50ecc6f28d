// The 8-bit products of "avx2" and "neon" for CPUs that add four products of bytes in one
// instruction: AVX-VNNI, or dotprod of ARMv8.2. Same bits, same packed weights; empty elsewhere.
#if defined(__AVXVNNI__)
#include <immintrin.h>
#define SMALTI_WIDTH 8
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define SMALTI_WIDTH 4
#endif

#if defined(SMALTI_WIDTH)

#include "native/kernels/table.h"

namespace smalti::dot {
#include "native/cpu/vec.h"
//
#include "native/cpu/math.inc"
//
#include "native/cpu/pointwise.inc"
//
#include "native/cpu/result_sums.inc"
//
#include "native/cpu/conv2d.inc"
#include "native/cpu/matmul.inc"
//
#include "native/cpu/int8.inc"

static constexpr Kernel<Int8ConvArgs> kInt8Conv = {int8_conv_run, int8_conv_items,
                                                   int8_conv_scratch, 3};
const Kernel<Int8ConvArgs>& int8_conv() { return kInt8Conv; }
}  // namespace smalti::dot

#endif
