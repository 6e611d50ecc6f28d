// Kernels for AVX-512 (F, BW, DQ, VL). Compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl
// -mfma -mf16c; empty elsewhere.
#if defined(__AVX512F__)

// gcc 12 warns inside its own header (bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

#include "native/kernels/table.h"

#define SMALTI_WIDTH 16
#define SMALTI_ISA_NAME "avx512"

namespace smalti::avx512 {
#include "native/cpu/kernels.inc"
}  // namespace smalti::avx512

#endif
