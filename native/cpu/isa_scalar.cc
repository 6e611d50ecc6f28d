// Kernels with nothing beyond the compiler's baseline: four lanes, which are SSE2 on x86-64.
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "native/kernels/table.h"

#define SMALTI_WIDTH 4
#define SMALTI_ISA_NAME "scalar"

namespace smalti::scalar {
#include "native/cpu/kernels.inc"
}  // namespace smalti::scalar
