// Group and layer normalisation with their gradients; two-pass statistics in double.
#include <cmath>

#include "native/ref/element.h"
#include "native/ref/families.h"
#include "native/ref/pointwise.h"

namespace smalti::ref {
namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// d/dz (z sigmoid(z))
double silu_slope(double z) {
  const double s = sigmoid(z);
  return s * (1.0 + z * (1.0 - s));
}

struct Moments {
  double mean;
  double rstd;
};

// `rows` rows of `columns` elements, `stride` apart.
template <class T>
Moments moments_of(const T* x, int64_t rows, int64_t columns, int64_t stride, double eps) {
  const double count = static_cast<double>(rows * columns);
  double sum = 0.0;
  for (int64_t s = 0; s < rows; ++s) {
    for (int64_t c = 0; c < columns; ++c) sum += static_cast<double>(x[s * stride + c]);
  }
  const double mean = sum / count;
  double squares = 0.0;
  for (int64_t s = 0; s < rows; ++s) {
    for (int64_t c = 0; c < columns; ++c) {
      const double centred = static_cast<double>(x[s * stride + c]) - mean;
      squares += centred * centred;
    }
  }
  return {mean, 1.0 / std::sqrt(squares / count + eps)};
}

// ---------------------------------------------------------------- group norm

// One (sample, group). Wu and He 2018, arXiv:1803.08494, eq. 1-3.
template <class T>
void group_norm_item(const GroupNormArgs& args, int64_t item) {
  const int64_t width = args.C / args.groups;
  const int64_t first = item % args.groups * width;
  const int64_t offset = item / args.groups * args.S * args.C + first;
  const T* x = static_cast<const T*>(args.x) + offset;
  const T* gamma = static_cast<const T*>(args.gamma) + first;
  const T* beta = static_cast<const T*>(args.beta) + first;
  T* y = static_cast<T*>(args.y) + offset;
  const Moments m = moments_of(x, args.S, width, args.C, args.eps);
  for (int64_t s = 0; s < args.S; ++s) {
    for (int64_t c = 0; c < width; ++c) {
      const double normal = (static_cast<double>(x[s * args.C + c]) - m.mean) * m.rstd;
      const double z = normal * static_cast<double>(gamma[c]) + static_cast<double>(beta[c]);
      y[s * args.C + c] = static_cast<T>(args.silu ? z * sigmoid(z) : z);
    }
  }
  const int64_t row = item / args.groups * args.S;
  run_pointwise_rows(args.epilogue, {row, row + args.S}, {first, first + width}, args.C);
}

int64_t group_norm_items(const GroupNormArgs& args, int) { return args.B * args.groups; }

void run_group_norm(const GroupNormArgs& args, int, Range range, void*) {
  with_real(args.dtype, [&](auto zero) {
    for (int64_t item = range.begin; item < range.end; ++item) {
      group_norm_item<decltype(zero)>(args, item);
    }
  });
}

// One (sample, group) of the gradient, in the order of the formulas below.
template <class T>
class GroupGradient {
 public:
  GroupGradient(const GroupNormGradArgs& args, int64_t item)
      : args_(args),
        width_(args.C / args.groups),
        batch_(item / args.groups),
        first_(item % args.groups * width_),
        offset_(batch_ * args.S * args.C + first_),
        x_(static_cast<const T*>(args.x) + offset_),
        dy_(static_cast<const T*>(args.dy) + offset_),
        gamma_(static_cast<const T*>(args.gamma) + first_),
        beta_(static_cast<const T*>(args.beta) + first_),
        moments_(moments_of(x_, args.S, width_, args.C, args.eps)) {}

  // dgamma = sum_s dz n, dbeta = sum_s dz; with m1 = mean(dz gamma), m2 = mean(dz gamma n) over the
  // group: dx = rstd (dz gamma - m1 - n m2), where n = (x - mean) rstd and dz = dy act'(z).
  void run() const {
    double sum = 0.0;
    double projection = 0.0;
    for (int64_t c = 0; c < width_; ++c) {
      double dgamma = 0.0;
      double dbeta = 0.0;
      for (int64_t s = 0; s < args_.S; ++s) {
        const double dz = upstream(s, c);
        dgamma += dz * normal(s, c);
        dbeta += dz;
      }
      T* partial = static_cast<T*>(args_.partial) + batch_ * 2 * args_.C + first_ + c;
      partial[0] = static_cast<T>(dgamma);
      partial[args_.C] = static_cast<T>(dbeta);
      sum += dbeta * static_cast<double>(gamma_[c]);
      projection += dgamma * static_cast<double>(gamma_[c]);
    }
    const double count = static_cast<double>(args_.S * width_);
    write_dx(sum / count, projection / count);
  }

 private:
  double normal(int64_t s, int64_t c) const {
    return (static_cast<double>(x_[s * args_.C + c]) - moments_.mean) * moments_.rstd;
  }

  double upstream(int64_t s, int64_t c) const {
    const double dy = static_cast<double>(dy_[s * args_.C + c]);
    if (!args_.silu) return dy;
    return dy * silu_slope(normal(s, c) * static_cast<double>(gamma_[c]) +
                           static_cast<double>(beta_[c]));
  }

  void write_dx(double mean, double projection) const {
    T* dx = static_cast<T*>(args_.dx) + offset_;
    for (int64_t s = 0; s < args_.S; ++s) {
      for (int64_t c = 0; c < width_; ++c) {
        const double scaled = upstream(s, c) * static_cast<double>(gamma_[c]);
        dx[s * args_.C + c] =
            static_cast<T>(moments_.rstd * (scaled - mean - normal(s, c) * projection));
      }
    }
  }

  const GroupNormGradArgs& args_;
  int64_t width_;
  int64_t batch_;
  int64_t first_;
  int64_t offset_;
  const T* x_;
  const T* dy_;
  const T* gamma_;
  const T* beta_;
  Moments moments_;
};

// Second phase: one channel, summed over the samples.
template <class T>
void group_norm_sum(const GroupNormGradArgs& args, int64_t channel) {
  double dgamma = 0.0;
  double dbeta = 0.0;
  for (int64_t b = 0; b < args.B; ++b) {
    const T* partial = static_cast<const T*>(args.partial) + b * 2 * args.C + channel;
    dgamma += static_cast<double>(partial[0]);
    dbeta += static_cast<double>(partial[args.C]);
  }
  static_cast<T*>(args.dgamma)[channel] = static_cast<T>(dgamma);
  static_cast<T*>(args.dbeta)[channel] = static_cast<T>(dbeta);
}

int64_t group_norm_grad_items(const GroupNormGradArgs& args, int phase) {
  return phase == 0 ? args.B * args.groups : args.C;
}

void run_group_norm_grad(const GroupNormGradArgs& args, int phase, Range range, void*) {
  with_real(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t item = range.begin; item < range.end; ++item) {
      if (phase == 0) {
        GroupGradient<T>(args, item).run();
      } else {
        group_norm_sum<T>(args, item);
      }
    }
  });
}

// ---------------------------------------------------------------- layer norm

// What multiplies the normalised element of column i in sample b.
template <class T>
double layer_gain(const void* scale, NormAffine affine, int64_t b, int64_t D, int64_t i) {
  if (affine == NormAffine::none) return 1.0;
  const T* gains = static_cast<const T*>(scale);
  if (affine == NormAffine::shared) return static_cast<double>(gains[i]);
  return 1.0 + static_cast<double>(gains[b * D + i]);
}

// One row. Ba et al. 2016, arXiv:1607.06450, eq. 3-4; `modulate` is Peebles and Xie 2022,
// arXiv:2212.09748, section 3.2.
template <class T>
void layer_norm_row(const LayerNormArgs& args, int64_t row) {
  const int64_t b = row / args.N;
  const T* x = static_cast<const T*>(args.x) + row * args.D;
  T* y = static_cast<T*>(args.y) + row * args.D;
  const T* shift = static_cast<const T*>(args.shift);
  if (args.affine == NormAffine::modulate) shift += b * args.D;
  const Moments m = moments_of(x, 1, args.D, args.D, args.eps);
  for (int64_t i = 0; i < args.D; ++i) {
    const double normal = (static_cast<double>(x[i]) - m.mean) * m.rstd;
    const double offset = args.affine == NormAffine::none ? 0.0 : static_cast<double>(shift[i]);
    y[i] = static_cast<T>(normal * layer_gain<T>(args.scale, args.affine, b, args.D, i) + offset);
  }
}

int64_t layer_norm_items(const LayerNormArgs& args, int) { return args.B * args.N; }

void run_layer_norm(const LayerNormArgs& args, int, Range range, void*) {
  with_real(args.dtype, [&](auto zero) {
    for (int64_t row = range.begin; row < range.end; ++row) {
      layer_norm_row<decltype(zero)>(args, row);
    }
  });
}

// One row: dx = rstd (g - mean(g) - n mean(g n)) with g = dy gain; adds dy n and dy to the sums
// over rows.
template <class T>
void layer_norm_grad_row(const LayerNormGradArgs& args, int64_t row, double* dscale,
                         double* dshift) {
  const int64_t b = row / args.N;
  const T* x = static_cast<const T*>(args.x) + row * args.D;
  const T* dy = static_cast<const T*>(args.dy) + row * args.D;
  T* dx = static_cast<T*>(args.dx) + row * args.D;
  const Moments m = moments_of(x, 1, args.D, args.D, args.eps);
  double sum = 0.0;
  double projection = 0.0;
  for (int64_t i = 0; i < args.D; ++i) {
    const double upstream = static_cast<double>(dy[i]);
    const double normal = (static_cast<double>(x[i]) - m.mean) * m.rstd;
    const double scaled = upstream * layer_gain<T>(args.scale, args.affine, b, args.D, i);
    dscale[i] += upstream * normal;
    dshift[i] += upstream;
    sum += scaled;
    projection += scaled * normal;
  }
  const double count = static_cast<double>(args.D);
  for (int64_t i = 0; i < args.D; ++i) {
    const double normal = (static_cast<double>(x[i]) - m.mean) * m.rstd;
    const double scaled =
        static_cast<double>(dy[i]) * layer_gain<T>(args.scale, args.affine, b, args.D, i);
    dx[i] = static_cast<T>(m.rstd * (scaled - sum / count - normal * projection / count));
  }
}

int64_t row_blocks(const LayerNormGradArgs& args) { return ceil_div(args.N, kLayerNormBlock); }

// First phase: one block of rows of one sample.
template <class T>
void layer_norm_grad_block(const LayerNormGradArgs& args, int64_t item, double* sums) {
  const int64_t b = item / row_blocks(args);
  const Range rows = block_range(item % row_blocks(args), kLayerNormBlock, args.N);
  for (int64_t i = 0; i < 2 * args.D; ++i) sums[i] = 0.0;
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    layer_norm_grad_row<T>(args, b * args.N + row, sums, sums + args.D);
  }
  if (args.affine == NormAffine::none) return;
  T* partial = static_cast<T*>(args.partial) + item * 2 * args.D;
  for (int64_t i = 0; i < 2 * args.D; ++i) partial[i] = static_cast<T>(sums[i]);
}

// Second phase: one column of the whole batch (shared) or of one sample (modulate).
template <class T>
void layer_norm_sum(const LayerNormGradArgs& args, int64_t item) {
  const int64_t b = item / args.D;
  const int64_t column = item % args.D;
  const int64_t samples = args.affine == NormAffine::shared ? args.B : 1;
  const int64_t blocks = row_blocks(args);
  double dscale = 0.0;
  double dshift = 0.0;
  for (int64_t block = b * blocks; block < (b + samples) * blocks; ++block) {
    const T* partial = static_cast<const T*>(args.partial) + block * 2 * args.D + column;
    dscale += static_cast<double>(partial[0]);
    dshift += static_cast<double>(partial[args.D]);
  }
  static_cast<T*>(args.dscale)[item] = static_cast<T>(dscale);
  static_cast<T*>(args.dshift)[item] = static_cast<T>(dshift);
}

int64_t layer_norm_grad_items(const LayerNormGradArgs& args, int phase) {
  if (phase == 0) return args.B * row_blocks(args);
  if (args.affine == NormAffine::none) return 0;
  return args.affine == NormAffine::shared ? args.D : args.B * args.D;
}

int64_t layer_norm_grad_scratch(const LayerNormGradArgs& args) {
  return 2 * args.D * static_cast<int64_t>(sizeof(double));
}

void run_layer_norm_grad(const LayerNormGradArgs& args, int phase, Range range, void* scratch) {
  with_real(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t item = range.begin; item < range.end; ++item) {
      if (phase == 0) {
        layer_norm_grad_block<T>(args, item, static_cast<double*>(scratch));
      } else {
        layer_norm_sum<T>(args, item);
      }
    }
  });
}

}  // namespace

Kernel<GroupNormArgs> group_norm_kernel() { return {run_group_norm, group_norm_items, nullptr, 1}; }

Kernel<GroupNormGradArgs> group_norm_grad_kernel() {
  return {run_group_norm_grad, group_norm_grad_items, nullptr, 2};
}

Kernel<LayerNormArgs> layer_norm_kernel() { return {run_layer_norm, layer_norm_items, nullptr, 1}; }

Kernel<LayerNormGradArgs> layer_norm_grad_kernel() {
  return {run_layer_norm_grad, layer_norm_grad_items, layer_norm_grad_scratch, 2};
}

}  // namespace smalti::ref
