// Nearest codebook row of each latent vector, without the N x K array of distances.
#include <cmath>

#include "native/ref/element.h"
#include "native/ref/families.h"

namespace smalti::ref {
namespace {

constexpr int64_t kLatents =
    8;  // rows of a work item, compared with each code while it is in cache
constexpr double kNormFloor = 1e-12;  // a zero code has similarity 0 with everything

// Smaller is nearer: squared distance, or minus the cosine times the latent's own norm (which ranks
// alike).
template <class T>
double distance(const T* latent, const T* code, int64_t D, CodeMetric metric, double code_norm) {
  double sum = 0.0;
  for (int64_t i = 0; i < D; ++i) {
    const double z = static_cast<double>(latent[i]);
    const double e = static_cast<double>(code[i]);
    sum += metric == CodeMetric::cosine ? -z * e : (z - e) * (z - e);
  }
  return sum / code_norm;
}

template <class T>
double norm(const T* code, int64_t D) {
  double sum = 0.0;
  for (int64_t i = 0; i < D; ++i)
    sum += static_cast<double>(code[i]) * static_cast<double>(code[i]);
  return std::fmax(std::sqrt(sum), kNormFloor);
}

template <class T>
void nearest_codes_block(const NearestCodesArgs& args, Range rows) {
  double nearest[kLatents];
  for (int64_t k = 0; k < args.K; ++k) {
    const T* code = static_cast<const T*>(args.codebook) + k * args.D;
    const double code_norm = args.metric == CodeMetric::cosine ? norm(code, args.D) : 1.0;
    for (int64_t n = rows.begin; n < rows.end; ++n) {
      const T* latent = static_cast<const T*>(args.latents) + n * args.D;
      const double d = distance(latent, code, args.D, args.metric, code_norm);
      if (k == 0 || d < nearest[n - rows.begin]) {
        nearest[n - rows.begin] = d;
        args.indices[n] = static_cast<int32_t>(k);
      }
    }
  }
}

int64_t nearest_codes_items(const NearestCodesArgs& args, int) {
  return ceil_div(args.N, kLatents);
}

void run_nearest_codes(const NearestCodesArgs& args, int, Range range, void*) {
  with_real(args.dtype, [&](auto zero) {
    for (int64_t item = range.begin; item < range.end; ++item) {
      nearest_codes_block<decltype(zero)>(args, block_range(item, kLatents, args.N));
    }
  });
}

}  // namespace

Kernel<NearestCodesArgs> nearest_codes_kernel() {
  return {run_nearest_codes, nearest_codes_items, nullptr, 1};
}

}  // namespace smalti::ref
