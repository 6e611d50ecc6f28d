// Softmax and log-softmax along the last axis, and their gradients from the output.
#include <cmath>
#include <limits>

#include "native/ref/element.h"
#include "native/ref/families.h"

namespace smalti::ref {
namespace {

template <class T>
void softmax_rows(const SoftmaxArgs& args, Range range) {
  for (int64_t row = range.begin; row < range.end; ++row) {
    const T* x = static_cast<const T*>(args.src) + row * args.count;
    T* y = static_cast<T*>(args.dst) + row * args.count;
    // In T: GCC 12 for arm64 fails on a maximum in a loop that converts.
    T highest = -std::numeric_limits<T>::infinity();
    for (int64_t i = 0; i < args.count; ++i) highest = std::fmax(highest, x[i]);
    const double peak = static_cast<double>(highest);
    double sum = 0.0;
    for (int64_t i = 0; i < args.count; ++i) sum += std::exp(static_cast<double>(x[i]) - peak);
    const double log_sum = std::log(sum);
    for (int64_t i = 0; i < args.count; ++i) {
      const double shifted = static_cast<double>(x[i]) - peak;
      y[i] = static_cast<T>(args.is_log ? shifted - log_sum : std::exp(shifted) / sum);
    }
  }
}

int64_t softmax_items(const SoftmaxArgs& args, int) { return args.rows; }

void run_softmax(const SoftmaxArgs& args, int, Range range, void*) {
  with_real(args.dtype, [&](auto zero) { softmax_rows<decltype(zero)>(args, range); });
}

// softmax: dx = y (dy - sum(dy y)); log-softmax: dx = dy - exp(y) sum(dy)
template <class T>
void softmax_grad_rows(const SoftmaxGradArgs& args, Range range) {
  for (int64_t row = range.begin; row < range.end; ++row) {
    const T* y = static_cast<const T*>(args.y) + row * args.count;
    const T* dy = static_cast<const T*>(args.dy) + row * args.count;
    T* dx = static_cast<T*>(args.dx) + row * args.count;
    double sum = 0.0;
    for (int64_t i = 0; i < args.count; ++i) {
      const double upstream = static_cast<double>(dy[i]);
      sum += args.is_log ? upstream : upstream * static_cast<double>(y[i]);
    }
    for (int64_t i = 0; i < args.count; ++i) {
      const double upstream = static_cast<double>(dy[i]);
      const double output = static_cast<double>(y[i]);
      dx[i] = static_cast<T>(args.is_log ? upstream - std::exp(output) * sum
                                         : output * (upstream - sum));
    }
  }
}

int64_t softmax_grad_items(const SoftmaxGradArgs& args, int) { return args.rows; }

void run_softmax_grad(const SoftmaxGradArgs& args, int, Range range, void*) {
  with_real(args.dtype, [&](auto zero) { softmax_grad_rows<decltype(zero)>(args, range); });
}

}  // namespace

Kernel<SoftmaxArgs> softmax_kernel() { return {run_softmax, softmax_items, nullptr, 1}; }

Kernel<SoftmaxGradArgs> softmax_grad_kernel() {
  return {run_softmax_grad, softmax_grad_items, nullptr, 1};
}

}  // namespace smalti::ref
