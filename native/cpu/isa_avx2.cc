// Kernels for AVX2 with FMA and F16C. Compiled with -mavx2 -mfma -mf16c; empty elsewhere.
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

#include "native/kernels/table.h"

#define SMALTI_WIDTH 8
#define SMALTI_ISA_NAME "avx2"

namespace smalti::avx2 {
#include "native/cpu/kernels.inc"
}  // namespace smalti::avx2

#endif
