// Corruption of tokens by mask-and-replace, and one reverse step from logits to tokens.
#include "native/ref/mask_replace.h"

#include <algorithm>

#include "native/ref/element.h"
#include "native/ref/families.h"

namespace smalti::ref {
namespace {

// ---------------------------------------------------------------- forward

int64_t forward_items(const MaskReplaceForwardArgs& args, int) { return args.B; }

// x_t ~ q(x_t | x_0) of one sample. Gu et al. 2021, arXiv:2111.14822, eq. 8.
template <class T>
void corrupt_sample(const MaskReplaceForwardArgs& args, int64_t b) {
  const MaskReplaceCoeffs c = coeffs_of<T>(args.coeffs, b);
  for (int64_t i = b * args.N; i < (b + 1) * args.N; ++i) {
    const T* u = static_cast<const T*>(args.uniform) + 2 * i;
    const double choice = static_cast<double>(u[0]);
    const double replacement = std::floor(static_cast<double>(u[1]) * static_cast<double>(args.K));
    if (choice < c.cbar_t) {
      args.xt[i] = static_cast<int32_t>(args.K);
    } else if (choice < c.cbar_t + c.abar_t) {
      args.xt[i] = args.x0[i];
    } else {
      args.xt[i] = static_cast<int32_t>(clamp_index(static_cast<int64_t>(replacement), args.K));
    }
  }
}

void run_forward(const MaskReplaceForwardArgs& args, int, Range range, void*) {
  with_real(args.dtype, [&](auto zero) {
    for (int64_t b = range.begin; b < range.end; ++b) corrupt_sample<decltype(zero)>(args, b);
  });
}

// ---------------------------------------------------------------- reverse step

struct Settings {
  double guidance;
  double temperature;
  double truncation;
  int64_t top_k;
};

template <class T>
Settings settings_of(const void* table, int64_t b) {
  const T* row = static_cast<const T*>(table) + b * kMaskReplaceSettings;
  return {static_cast<double>(row[kGuidance]), static_cast<double>(row[kTemperature]),
          static_cast<double>(row[kTruncation]), static_cast<int64_t>(row[kTopK])};
}

// Private memory of one position.
struct StepScratch {
  double* p;       // (K): log p, then p
  double* weight;  // (K + 1): log p of the unconditional model, then the posterior's weights
  int32_t* order;  // (K)
};

// log p = log p_u + s (log p_c - log p_u), not normalised. Tang et al. 2022, arXiv:2205.16007, with
// s = 1 for no guidance. A category that either model excludes keeps the conditional value.
void guide(double* log_p, const double* log_uncond, double scale, int64_t K) {
  for (int64_t k = 0; k < K; ++k) {
    if (std::isinf(log_p[k]) || std::isinf(log_uncond[k])) continue;
    log_p[k] = log_uncond[k] + scale * (log_p[k] - log_uncond[k]);
  }
}

// p(x0 | x_t) of position i after temperature and guidance, in scratch.p.
template <class T>
void predict_x0(const MaskReplaceStepArgs& args, const Settings& settings, int64_t i,
                const StepScratch& scratch) {
  const T* logits = static_cast<const T*>(args.logits) + i * args.K;
  log_softmax(logits, settings.temperature, args.K, scratch.p);
  if (args.uncond_logits != nullptr) {
    const T* uncond = static_cast<const T*>(args.uncond_logits) + i * args.K;
    log_softmax(uncond, settings.temperature, args.K, scratch.weight);
    guide(scratch.p, scratch.weight, settings.guidance, args.K);
    log_softmax(scratch.p, 1.0, args.K, scratch.p);
  }
  for (int64_t k = 0; k < args.K; ++k) scratch.p[k] = std::exp(scratch.p[k]);
}

int64_t argmax(const double* p, int64_t K) {
  int64_t best = 0;
  for (int64_t k = 1; k < K; ++k) {
    if (p[k] > p[best]) best = k;
  }
  return best;
}

// Keep the top k and, of those, each category before which the mass is below the truncation rate;
// zero the rest without renormalising. Gu et al. 2021, arXiv:2111.14822, truncation sampling, as in
// predict_start_with_truncation of microsoft/VQ-Diffusion (modeling/models/dalle.py).
void truncate(const Settings& settings, int64_t K, const StepScratch& scratch) {
  const int64_t top_k = settings.top_k > 0 ? smaller(settings.top_k, K) : K;
  if (top_k == K && settings.truncation >= 1.0) return;
  for (int64_t k = 0; k < K; ++k) scratch.order[k] = static_cast<int32_t>(k);
  const double* p = scratch.p;
  std::sort(scratch.order, scratch.order + K,
            [p](int32_t a, int32_t b) { return p[a] > p[b] || (!(p[a] < p[b]) && a < b); });
  double before = 0.0;
  for (int64_t rank = 0; rank < K; ++rank) {
    double& kept = scratch.p[scratch.order[rank]];
    const bool is_kept =
        rank < top_k && (settings.truncation >= 1.0 || rank == 0 || before < settings.truncation);
    before += kept;
    if (!is_kept) kept = 0.0;
  }
}

// Weights of q(x_s | x_t) over K tokens and MASK, up to a factor: sum over x0 of q(x_s | x_t, x0)
// p(x0 | x_t). Gu et al. 2021, arXiv:2111.14822, eq. 11, in closed form for any s < t. With P = sum
// p:
//   x_t = MASK: token k: c_ts (abar_s p_k + bbar_s P); MASK: cbar_s P
//   x_t = v:    token k: (b_ts + a_ts [k = v]) (abar_s w_k + bbar_s sum w), w_j = p_j / (bbar_t +
//   abar_t [j = v])
// With bbar_t = 0 a visible token is certain and is kept.
void posterior(const MaskReplaceCoeffs& c, int32_t xt, int64_t K, const StepScratch& scratch) {
  double* weight = scratch.weight;
  const bool masked = is_masked(xt, K);
  // All w_j are multiplied by bbar_t, which leaves only the entry of v to change.
  if (!masked) scratch.p[xt] *= c.bbar_t / (c.bbar_t + c.abar_t);
  double total = 0.0;
  for (int64_t k = 0; k < K; ++k) total += scratch.p[k];
  for (int64_t k = 0; k < K; ++k) {
    const double factor = masked ? c.c_ts : c.b_ts + (k == xt ? c.a_ts : 0.0);
    weight[k] = factor * (c.abar_s * scratch.p[k] + c.bbar_s * total);
  }
  weight[K] = masked ? c.cbar_s * total : 0.0;
}

// The category where the running sum passes u times the total; rounding ends in the last one with
// positive weight.
int64_t draw(const double* weight, int64_t categories, double u, int64_t fallback) {
  double total = 0.0;
  for (int64_t k = 0; k < categories; ++k) total += std::fmax(weight[k], 0.0);
  double sum = 0.0;
  int64_t last = fallback;
  for (int64_t k = 0; k < categories; ++k) {
    if (!(weight[k] > 0.0)) continue;
    last = k;
    sum += weight[k];
    if (u * total < sum) return k;
  }
  return last;
}

template <class T>
void step_position(const MaskReplaceStepArgs& args, int64_t i, const StepScratch& scratch) {
  const MaskReplaceCoeffs c = coeffs_of<T>(args.coeffs, i / args.N);
  const Settings settings = settings_of<T>(args.settings, i / args.N);
  predict_x0<T>(args, settings, i, scratch);
  const int64_t best = argmax(scratch.p, args.K);
  args.best[i] = static_cast<int32_t>(best);
  static_cast<T*>(args.confidence)[i] = static_cast<T>(scratch.p[best]);
  const int32_t xt = args.xt[i];
  const bool masked = is_masked(xt, args.K);
  if (!masked && c.bbar_t == 0.0) {
    args.tokens[i] = xt;
    return;
  }
  truncate(settings, args.K, scratch);
  posterior(c, xt, args.K, scratch);
  const double u = static_cast<double>(static_cast<const T*>(args.uniform)[i]);
  args.tokens[i] = static_cast<int32_t>(draw(scratch.weight, args.K + 1, u, masked ? best : xt));
}

int64_t step_items(const MaskReplaceStepArgs& args, int) { return args.B * args.N; }

int64_t step_scratch(const MaskReplaceStepArgs& args) {
  return (2 * args.K + 1) * static_cast<int64_t>(sizeof(double)) +
         args.K * static_cast<int64_t>(sizeof(int32_t));
}

void run_step(const MaskReplaceStepArgs& args, int, Range range, void* memory) {
  double* doubles = static_cast<double*>(memory);
  const StepScratch scratch = {doubles, doubles + args.K,
                               reinterpret_cast<int32_t*>(doubles + 2 * args.K + 1)};
  with_real(args.dtype, [&](auto zero) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      step_position<decltype(zero)>(args, i, scratch);
    }
  });
}

}  // namespace

Kernel<MaskReplaceForwardArgs> mask_replace_forward_kernel() {
  return {run_forward, forward_items, nullptr, 1};
}

Kernel<MaskReplaceStepArgs> mask_replace_step_kernel() {
  return {run_step, step_items, step_scratch, 1};
}

}  // namespace smalti::ref
