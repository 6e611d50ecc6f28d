// Kernels for 64-bit ARM, whose vectors are always there; empty elsewhere.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "native/kernels/table.h"

#define SMALTI_WIDTH 4
#define SMALTI_ISA_NAME "neon"

namespace smalti::neon {
#include "native/cpu/kernels.inc"
}  // namespace smalti::neon

#endif
