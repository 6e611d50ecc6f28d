// Variational term of mask-and-replace diffusion per position, and its gradient, in O(K) from the
// closed form. Gu et al. 2021, arXiv:2111.14822, eq. 9-11.
#include <cmath>

#include "native/ref/element.h"
#include "native/ref/families.h"
#include "native/ref/mask_replace.h"

namespace smalti::ref {
namespace {

// The two posteriors of one position share a factor for each token, so that for k < K
//   q(x_s = k | x_t, x0) = factor(k) truth(k),   p(x_s = k | x_t) = factor(k) model(k),
//   truth(k) = (abar_s [k = x0] + bbar_s) / D(x0),   model(k) = abar_s p_k / D(k) + bbar_s S,
// and MASK, when x_t is MASK, has the same probability in both. Here
//   x_t = MASK: factor = c_ts / cbar_t,            D = 1,                       S = sum p = 1
//   x_t = v:    factor = b_ts + a_ts [k = v],      D(j) = bbar_t + abar_t [j = v],   S = sum_j p_j
//   / D(j)
class Position {
 public:
  Position(const MaskReplaceCoeffs& coeffs, int32_t x0, int32_t xt, const double* log_p, int64_t K)
      : c_(coeffs),
        x0_(clamp_index(x0, K)),
        xt_(xt),
        masked_(is_masked(xt, K)),
        log_p_(log_p),
        K_(K) {
    if (masked_) {
      spread_ = 1.0;
      return;
    }
    double others = 0.0;  // summed, because 1 - p_v cancels
    for (int64_t k = 0; k < K; ++k) others += k == xt ? 0.0 : p(k);
    spread_ = others / c_.bbar_t + p(xt) / (c_.bbar_t + c_.abar_t);
  }

  // With bbar_t = 0 a visible token is certain in both posteriors.
  bool is_certain() const { return masked_ ? c_.cbar_t == 0.0 : c_.bbar_t == 0.0; }

  // Differs: the logarithm of the model's posterior is never clamped; where bbar_s = 0 it comes
  // from log p directly.
  double kl() const {
    if (is_certain()) return 0.0;
    double sum = 0.0;
    for (int64_t k = 0; k < K_; ++k) {
      const double q = factor(k) * truth(k);
      if (q > 0.0) sum += q * (std::log(truth(k)) - log_model(k));
    }
    return sum;
  }

  double nll() const { return -log_p_[x0_]; }

  // dlogits = dkl dKL/dlogits + dnll dNLL/dlogits. With g_k = p_k dKL/dp_k, dKL/dlogit_k = g_k -
  // p_k sum g, where
  //   g_k = -factor(k) truth(k) share(k) - p_k / D(k) bbar_s R,
  //   share(k) = abar_s p_k / D(k) / model(k),   R = sum_k factor(k) truth(k) / model(k);
  // R appears only where model(k) depends on S, that is for x_t = v: for MASK, S = 1 whatever p is.
  template <class T>
  void gradient(double dkl, double dnll, T* dlogits) const {
    const double ratio = is_certain() || masked_ || c_.bbar_s == 0.0 ? 0.0 : ratio_sum();
    double sum = 0.0;
    for (int64_t k = 0; k < K_; ++k) sum += kl_slope(k, ratio);
    for (int64_t k = 0; k < K_; ++k) {
      const double kl_gradient = kl_slope(k, ratio) - p(k) * sum;
      const double nll_gradient = p(k) - (k == x0_ ? 1.0 : 0.0);
      dlogits[k] = static_cast<T>(dkl * kl_gradient + dnll * nll_gradient);
    }
  }

 private:
  double p(int64_t k) const { return std::exp(log_p_[k]); }

  double factor(int64_t k) const {
    if (masked_) return c_.c_ts / c_.cbar_t;
    return std::fmax(c_.b_ts + (k == xt_ ? c_.a_ts : 0.0), 0.0);
  }

  double divisor(int64_t k) const {
    return masked_ ? 1.0 : c_.bbar_t + (k == xt_ ? c_.abar_t : 0.0);
  }

  double truth(int64_t k) const {
    return ((k == x0_ ? c_.abar_s : 0.0) + c_.bbar_s) / divisor(x0_);
  }

  double model(int64_t k) const { return c_.abar_s * p(k) / divisor(k) + c_.bbar_s * spread_; }

  double log_model(int64_t k) const {
    if (c_.bbar_s == 0.0) return std::log(c_.abar_s) + log_p_[k] - std::log(divisor(k));
    return std::log(model(k));
  }

  double ratio_sum() const {
    double sum = 0.0;
    for (int64_t k = 0; k < K_; ++k) sum += factor(k) * truth(k) / model(k);
    return sum;
  }

  // p_k dKL/dp_k
  double kl_slope(int64_t k, double ratio) const {
    if (is_certain()) return 0.0;
    const double q = factor(k) * truth(k);
    if (c_.bbar_s == 0.0) return -q;  // share(k) = 1
    const double direct = c_.abar_s * p(k) / divisor(k);
    return -q * direct / model(k) - p(k) / divisor(k) * c_.bbar_s * ratio;
  }

  MaskReplaceCoeffs c_;
  int64_t x0_;
  int64_t xt_;
  bool masked_;
  const double* log_p_;
  int64_t K_;
  double spread_;  // S
};

template <class T, class Args>
Position position_at(const Args& args, int64_t i, double* log_p) {
  log_softmax(static_cast<const T*>(args.logits) + i * args.K, 1.0, args.K, log_p);
  return Position(coeffs_of<T>(args.coeffs, i / args.N), args.x0[i], args.xt[i], log_p, args.K);
}

template <class Args>
int64_t position_items(const Args& args, int) {
  return args.B * args.N;
}

template <class Args>
int64_t position_scratch(const Args& args) {
  return args.K * static_cast<int64_t>(sizeof(double));
}

void run_loss(const MaskReplaceLossArgs& args, int, Range range, void* scratch) {
  with_real(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const Position position = position_at<T>(args, i, static_cast<double*>(scratch));
      static_cast<T*>(args.kl)[i] = static_cast<T>(position.kl());
      static_cast<T*>(args.nll)[i] = static_cast<T>(position.nll());
    }
  });
}

void run_loss_grad(const MaskReplaceLossGradArgs& args, int, Range range, void* scratch) {
  with_real(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = range.begin; i < range.end; ++i) {
      const Position position = position_at<T>(args, i, static_cast<double*>(scratch));
      position.gradient(static_cast<double>(static_cast<const T*>(args.dkl)[i]),
                        static_cast<double>(static_cast<const T*>(args.dnll)[i]),
                        static_cast<T*>(args.dlogits) + i * args.K);
    }
  });
}

}  // namespace

Kernel<MaskReplaceLossArgs> mask_replace_loss_kernel() {
  return {run_loss, position_items<MaskReplaceLossArgs>, position_scratch<MaskReplaceLossArgs>, 1};
}

Kernel<MaskReplaceLossGradArgs> mask_replace_loss_grad_kernel() {
  return {run_loss_grad, position_items<MaskReplaceLossGradArgs>,
          position_scratch<MaskReplaceLossGradArgs>, 1};
}

}  // namespace smalti::ref
