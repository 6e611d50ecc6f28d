// The coefficients of mask-and-replace diffusion as one sample sees them, shared by its step and
// its loss. Gu et al. 2021, arXiv:2111.14822, eq. 7-8 and 11; closed forms of the posterior follow
// from the matrices.
#pragma once

#include <cmath>
#include <cstdint>

#include "native/kernels/args.h"

namespace smalti::ref {

struct MaskReplaceCoeffs {
  double abar_t, bbar_t, cbar_t;
  double abar_s, bbar_s, cbar_s;
  double a_ts, b_ts, c_ts;
};

template <class T>
MaskReplaceCoeffs coeffs_of(const void* table, int64_t b) {
  const T* row = static_cast<const T*>(table) + b * kMaskReplaceCoeffs;
  const auto at = [&](int column) { return static_cast<double>(row[column]); };
  return {at(kAbarT), at(kBbarT), at(kCbarT), at(kAbarS), at(kBbarS),
          at(kCbarS), at(kAts),   at(kBts),   at(kCts)};
}

// MASK is the token K.
inline bool is_masked(int32_t token, int64_t K) { return token < 0 || token >= K; }

// out = log softmax(logits / temperature)
template <class T>
void log_softmax(const T* logits, double temperature, int64_t K, double* out) {
  // Two loops: GCC 12 for arm64 fails on a maximum in the loop that converts.
  for (int64_t k = 0; k < K; ++k) out[k] = static_cast<double>(logits[k]) / temperature;
  double peak = -INFINITY;
  for (int64_t k = 0; k < K; ++k) peak = std::fmax(peak, out[k]);
  double sum = 0.0;
  for (int64_t k = 0; k < K; ++k) sum += std::exp(out[k] - peak);
  const double log_sum = peak + std::log(sum);
  for (int64_t k = 0; k < K; ++k) out[k] -= log_sum;
}

}  // namespace smalti::ref
