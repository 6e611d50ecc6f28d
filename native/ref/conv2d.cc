// Convolution on channels-last images as an implicit matrix product, and the gradient of its
// weight.
#include "native/ref/element.h"
#include "native/ref/families.h"
#include "native/ref/pointwise.h"

namespace smalti::ref {
namespace {

constexpr int64_t kPixels = 8;    // output pixels of a work item of conv2d
constexpr int64_t kChannels = 8;  // input channels of a work item of the weight gradient
constexpr int64_t kOutputs = 16;  // output channels of it

// Index in the source of virtual index `v` along one axis, or -1 where the virtual input is zero.
int64_t source_index(int64_t v, int64_t size, int64_t upsample, int64_t dilation) {
  if (v < 0 || v % dilation != 0) return -1;
  const int64_t index = v / dilation / upsample;
  return index < size ? index : -1;
}

// ---------------------------------------------------------------- forward

struct Pixels {
  int64_t b;
  int64_t oh;
  Range ow;
  int64_t group;
};

// Where each pixel of the block reads its channels for one tap; null outside the image.
template <class T>
void find_sources(const Conv2dArgs& args, const Pixels& at, int64_t kh, int64_t kw,
                  const T** sources) {
  const int64_t h =
      source_index(at.oh * args.stride_h + kh - args.pad_top, args.H, args.upsample, args.dilation);
  for (int64_t ow = at.ow.begin; ow < at.ow.end; ++ow) {
    const int64_t w =
        source_index(ow * args.stride_w + kw - args.pad_left, args.W, args.upsample, args.dilation);
    const int64_t pixel = (at.b * args.H + h) * args.W + w;
    sources[ow - at.ow.begin] =
        h < 0 || w < 0 ? nullptr
                       : static_cast<const T*>(args.x) + (pixel * args.groups + at.group) * args.C;
  }
}

int64_t first_output_pixel(const Conv2dArgs& args, const Pixels& at) {
  return (at.b * args.OH + at.oh) * args.OW + at.ow.begin;
}

template <class T>
void convolve_panel(const Conv2dArgs& args, const Pixels& at, int64_t panel) {
  double sums[kPixels][kPanelColumns] = {};
  const T* sources[kPixels];
  const int64_t width = at.ow.end - at.ow.begin;
  const T* w = static_cast<const T*>(args.w) + at.group * args.w_group_stride +
               panel * args.KH * args.KW * args.C * kPanelColumns;
  for (int64_t tap = 0; tap < args.KH * args.KW; ++tap, w += args.C * kPanelColumns) {
    find_sources(args, at, tap / args.KW, tap % args.KW, sources);
    for (int64_t i = 0; i < width; ++i) {
      if (sources[i] == nullptr) continue;
      for (int64_t c = 0; c < args.C; ++c) {
        const double x = static_cast<double>(sources[i][c]);
        const T* row = w + c * kPanelColumns;
        for (int64_t j = 0; j < kPanelColumns; ++j) sums[i][j] += x * static_cast<double>(row[j]);
      }
    }
  }
  const Range columns = block_range(panel, kPanelColumns, args.O);
  for (int64_t i = 0; i < width; ++i) {
    const int64_t pixel = first_output_pixel(args, at) + i;
    T* y = static_cast<T*>(args.y) + (pixel * args.groups + at.group) * args.O + columns.begin;
    for (int64_t j = 0; j < columns.end - columns.begin; ++j) y[j] = static_cast<T>(sums[i][j]);
  }
}

template <class T>
void convolve_pixels(const Conv2dArgs& args, const Pixels& at) {
  for (int64_t panel = 0; panel < ceil_div(args.O, kPanelColumns); ++panel) {
    convolve_panel<T>(args, at, panel);
  }
  const int64_t first = first_output_pixel(args, at);
  run_pointwise_rows(args.epilogue, {first, first + at.ow.end - at.ow.begin},
                     {at.group * args.O, (at.group + 1) * args.O}, args.groups * args.O);
}

int64_t conv2d_items(const Conv2dArgs& args, int) {
  return args.B * args.OH * ceil_div(args.OW, kPixels) * args.groups;
}

void run_conv2d(const Conv2dArgs& args, int, Range range, void*) {
  const int64_t blocks = ceil_div(args.OW, kPixels);
  with_real(args.dtype, [&](auto zero) {
    for (int64_t item = range.begin; item < range.end; ++item) {
      const int64_t block = item / args.groups;
      const int64_t row = block / blocks;
      convolve_pixels<decltype(zero)>(
          args, {row / args.OH, row % args.OH, block_range(block % blocks, kPixels, args.OW),
                 item % args.groups});
    }
  });
}

// ---------------------------------------------------------------- gradient of the weight

struct WeightBlock {
  int64_t kh;
  int64_t kw;
  int64_t group;
  Range channels;
  Range outputs;
};

using WeightSums = double[kChannels][kOutputs];

// All pixels of one image row of dy.
template <class T>
void add_row(const Conv2dGradWeightArgs& args, const WeightBlock& at, int64_t b, int64_t oh,
             WeightSums& sums) {
  const int64_t h =
      source_index(oh * args.stride_h + at.kh - args.pad_top, args.H, args.upsample, 1);
  if (h < 0) return;
  const int64_t width = at.outputs.end - at.outputs.begin;
  for (int64_t ow = 0; ow < args.OW; ++ow) {
    const int64_t w =
        source_index(ow * args.stride_w + at.kw - args.pad_left, args.W, args.upsample, 1);
    if (w < 0) continue;
    const int64_t from = (b * args.H + h) * args.W + w;
    const int64_t to = (b * args.OH + oh) * args.OW + ow;
    const T* x = static_cast<const T*>(args.x) + (from * args.groups + at.group) * args.C;
    const T* dy =
        static_cast<const T*>(args.dy) + (to * args.groups + at.group) * args.O + at.outputs.begin;
    for (int64_t c = at.channels.begin; c < at.channels.end; ++c) {
      double* sum = sums[c - at.channels.begin];
      const double left = static_cast<double>(x[c]);
      for (int64_t o = 0; o < width; ++o) sum[o] += left * static_cast<double>(dy[o]);
    }
  }
}

template <class T>
void grad_weight_block(const Conv2dGradWeightArgs& args, const WeightBlock& at) {
  WeightSums sums = {};
  for (int64_t b = 0; b < args.B; ++b) {
    for (int64_t oh = 0; oh < args.OH; ++oh) add_row<T>(args, at, b, oh, sums);
  }
  for (int64_t c = at.channels.begin; c < at.channels.end; ++c) {
    const int64_t row = (at.kh * args.KW + at.kw) * args.C + c;
    T* dw = static_cast<T*>(args.dw) + (row * args.groups + at.group) * args.O;
    for (int64_t o = at.outputs.begin; o < at.outputs.end; ++o) {
      dw[o] = static_cast<T>(sums[c - at.channels.begin][o - at.outputs.begin]);
    }
  }
}

int64_t grad_weight_items(const Conv2dGradWeightArgs& args, int) {
  return args.KH * args.KW * args.groups * ceil_div(args.C, kChannels) * ceil_div(args.O, kOutputs);
}

void run_grad_weight(const Conv2dGradWeightArgs& args, int, Range range, void*) {
  const int64_t channel_blocks = ceil_div(args.C, kChannels);
  const int64_t output_blocks = ceil_div(args.O, kOutputs);
  with_real(args.dtype, [&](auto zero) {
    for (int64_t item = range.begin; item < range.end; ++item) {
      const int64_t channel_item = item / output_blocks;
      const int64_t group_item = channel_item / channel_blocks;
      const int64_t tap = group_item / args.groups;
      grad_weight_block<decltype(zero)>(
          args, {tap / args.KW, tap % args.KW, group_item % args.groups,
                 block_range(channel_item % channel_blocks, kChannels, args.C),
                 block_range(item % output_blocks, kOutputs, args.O)});
    }
  });
}

}  // namespace

Kernel<Conv2dArgs> conv2d_kernel() { return {run_conv2d, conv2d_items, nullptr, 1}; }

Kernel<Conv2dGradWeightArgs> conv2d_grad_weight_kernel() {
  return {run_grad_weight, grad_weight_items, nullptr, 1};
}

}  // namespace smalti::ref
