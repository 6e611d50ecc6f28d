// What matrix products, convolutions and their gradients take (the contract: args.h).
#pragma once

#include "native/kernels/pointwise_args.h"

namespace smalti {

// ---------------------------------------------------------------- matrix products

// How products with weights are computed: in floats; with inputs and weights on 8-bit integers; or
// in floats on weights that are stored narrow, with a scale a column.
enum class Quantize : uint8_t { none, int8, int8_weights, f16_weights };

// How a matrix product with a weight is computed: as it is defined, by Strassen's algorithm
// (MatmulArgs::sums), with two terms of a sum as one multiplication (MatmulArgs::sums), or with
// digits of whole numbers (MatmulArgs::sums).
enum class ProductForm : uint8_t { defined, strassen, paired, digits };

// B operand of a product, rearranged into column panels that the micro-kernel reads in order.
// Source element (k, n) of group g lies at src[g * group_stride + k * k_stride + n * n_stride].
// Panel p holds columns [p*NR, (p+1)*NR), zero-padded, as (K, NR). NR is the backend's
// `panel_columns`. For conv2d the K index is (kernel row, kernel column, input channel) of one
// group.
struct PackArgs {
  const void* src;
  void* dst;
  int64_t groups;
  int64_t K;
  int64_t N;
  int64_t group_stride;
  // K is split as (taps, channels); the source offset of k = tap * channels + c is tap_offset(tap)
  // + c * k_stride. tap_offset(tap) = (flip_taps ? taps - 1 - tap : tap) * tap_stride
  int64_t taps;
  int64_t channels;
  int64_t tap_stride;
  int64_t k_stride;
  int64_t n_stride;
  bool flip_taps;
  int64_t tile;       // 0, or of WinogradArgs: such matrices of transformed 3x3 weights
  Quantize quantize;  // int8: for Int8ConvArgs, words of four 8-bit weights
  ProductForm form;   // strassen: seven matrices (K / 2, NR) for each two panels
  Dtype dtype;
};

constexpr int64_t kCachedResults = int64_t{1} << 22;  // larger results may pass the caches

// Rows whose columns lie in several dense tensors side by side: a concatenation that is not made.
constexpr int kMaxParts = 4;
struct RowParts {
  const void* data[kMaxParts];
  int64_t width[kMaxParts];
  int64_t count;  // 0: the rows of one tensor
};

// Sums of the results (B * rows, C) of a kernel for the group norms that read them, in parts: what
// a work item, or items side by side, stored of one sample. A part is a shift, the sums of the
// differences to it, those of their squares (3, C), and the number of its rows.
struct ResultSums {
  void* data;     // (B, parts, result_sums_floats(C)); null: nobody asks for them
  int64_t rows;   // of a sample
  int64_t parts;  // of a sample; some may be empty
};
constexpr int64_t result_sums_floats(int64_t C) { return 3 * C + 16; }
// Parts of a sample of `size` rows where work items take `block` rows of the batch.
constexpr int64_t result_parts(int64_t B, int64_t size, int64_t block) {
  return B == 1 || size % block == 0 ? (size + block - 1) / block : (size + block - 2) / block + 1;
}

// C (batch, M, N) = A (batch, M, K) * B (batch, K, N), then the epilogue over (batch, M, N).
// A element (m, k) of batch b: a[b * a_batch_stride + m * a_row_stride + k * a_column_stride]; one
// of the last two is 1. Or, with a batch of one, A lies in columns.
struct MatmulArgs {
  const void* a;
  const void* b;  // packed by PackArgs with groups = b_batch
  void* c;
  int64_t batch;
  int64_t M;
  int64_t N;
  int64_t K;
  int64_t a_batch_stride;  // 0 = shared
  int64_t a_row_stride;
  int64_t a_column_stride;
  int64_t b_batch_stride;  // in packed elements; 0 = shared
  RowParts columns;
  Dtype dtype;
  Quantize quantize;  // of b: none, int8_weights or f16_weights
  PointwiseArgs
      epilogue;  // reads c as an ordinary input and writes its outputs; code_length 0 = none
  void* sums;  // strassen: (kStrassenSums, M / 2, winograd_row(K / 2)); paired: (M, paired_row(K));
               // digits: digits_elements(M, K)
  ResultSums result_sums;  // with a batch of one
};
constexpr int64_t kStrassenProducts = 7;
constexpr int64_t kStrassenSums = 5;    // of quarters of A
constexpr int64_t kStrassenDepth = 32;  // K is a multiple of it
// Whether rows are so many that each work item forms the sums it needs: no tensor holds them.
constexpr bool strassen_is_local(int64_t M) { return M >= 1000; }
constexpr int64_t kPairedColumns = 128;  // of a work item, unless it takes all
constexpr bool paired_is_local(int64_t M, int64_t N) { return M >= 1000 || N <= kPairedColumns; }

// Implicit-GEMM convolution on channels-last tensors, also used for the gradient with respect to
// the input. Output pixel (oh, ow), tap (kh, kw) reads virtual input row vh = oh * stride_h + kh -
// pad_top, column likewise. The virtual input is the source with nearest upsampling by `upsample`,
// or with `dilation - 1` zeros between its pixels (dilation > 1 only for the input gradient of a
// strided convolution). Outside it reads zero.
struct Conv2dArgs {
  const void* x;  // (B, H, W, groups * C)
  const void* w;  // packed: groups x (KH*KW*C, O)
  void* y;        // (B, OH, OW, groups * O)
  int64_t B, H, W;
  int64_t groups;
  int64_t C;  // input channels of one group
  int64_t O;  // output channels of one group
  int64_t KH, KW;
  int64_t OH, OW;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_left;
  int64_t upsample;
  int64_t dilation;
  int64_t w_group_stride;  // packed elements a group
  Dtype dtype;
  PointwiseArgs epilogue;  // over (B, OH, OW, groups * O)
  ResultSums result_sums;  // with one group
};
// Output rows of a work item, of one image, of KernelTable::conv2d_ends: an even number.
constexpr int64_t conv_end_rows(const Conv2dArgs& c) {
  return c.B * c.OH < 8 * 16 ? 8 : c.B * c.OH > 16 * 16 ? 16 : (c.B * c.OH + 31) / 32 * 2;
}

// How minimal filtering cuts a 3x3 convolution of one group: `tile` is 2 or 4 for as many results a
// side of a plain one of stride 1; or one of these, for 4 results a side of one whose input is
// upsampled by 2 (padding 1), or has zeros between its pixels (dilation 2, paddings 0 to 2 of equal
// parity): there most products of the plain form repeat others or are zero.
constexpr int64_t kTileUpsampled = 5;
constexpr int64_t kTileSpreadEven = 6;  // by the parity of the rows in which two taps meet pixels
constexpr int64_t kTileSpreadOdd = 7;
constexpr int64_t kTileStrided = 8;  // 3 results a side of a convolution of stride 2

// Numbers a side of a tile.
struct WinogradSides {
  int64_t results, inputs, products;
};
constexpr WinogradSides winograd_sides(int64_t tile) {
  return tile < kTileUpsampled  ? WinogradSides{tile, tile + 2, tile + 2}
         : tile == kTileStrided ? WinogradSides{3, 7, 7}
                                : WinogradSides{4, 4, 5};
}
constexpr int64_t winograd_products(int64_t tile) {
  return winograd_sides(tile).products * winograd_sides(tile).products;
}
constexpr int64_t winograd_inputs(int64_t tile) {
  return winograd_sides(tile).inputs * winograd_sides(tile).inputs;
}

// A 3x3 convolution by minimal filtering. Either in stages over all tiles, with their results in
// tensors, and conv.w packed as for conv2d is transformed on its way to the products; or a work
// item takes `block` tiles and `columns` output channels through all stages in scratch, and conv.w
// is packed with the same `tile`. KernelTable::winograd_digits has two phases, blocks of tiles for
// V of all of them in `inputs` (DigitTiles), or one, if is_local, of blocks with V in scratch;
// neither `products` nor `columns`.
struct WinogradArgs {
  Conv2dArgs conv;
  void* inputs;    // stages: (winograd_inputs, winograd_row(tiles * winograd_row(C)))
  void* products;  // stages: (winograd_products, winograd_row(tiles * winograd_row(O)))
  int64_t tile;
  bool is_staged;
  bool is_local;
  int64_t block;
  int64_t columns;  // a multiple of the panel, or all
};

// Floats of a row of channels there: an odd number of cache lines, so that rows spread over the
// sets of a cache.
constexpr int64_t winograd_row(int64_t channels) { return ((channels + 15) / 16 | 1) * 16; }

// KernelTable::paired: terms of a sum are slices of at most 512, of thirds of equal length. Rows
// of a panel of B, and numbers of a row of A.
constexpr int64_t paired_slices(int64_t K) { return (K + 511) / 512; }
constexpr int64_t paired_depth(int64_t K) { return (K + paired_slices(K) - 1) / paired_slices(K); }
constexpr int64_t paired_third(int64_t K) { return (paired_depth(K) + 2) / 3; }
constexpr int64_t paired_panel_rows(int64_t K) {
  return 1 + paired_slices(K) * (1 + 3 * paired_third(K));
}
constexpr int64_t paired_row(int64_t K) { return winograd_row(paired_panel_rows(K)); }

// KernelTable::digits: terms of a sum lie in spans of equal length, of up to eight tiles of 64
// terms. The numbers of a span have one scale. 512 products of first digits, of which none is above
// 127, still are a whole number of 31 bits with the next ones.
constexpr int64_t kDigits = 3;
constexpr int64_t kDigitsSide = 16;  // rows or columns of a tile
constexpr int64_t kDigitsTerms = 64;
constexpr int64_t kDigitsSteps = 8;
constexpr int64_t kDigitsTile = kDigitsSide * kDigitsTerms;  // bytes

struct DigitSpans {
  constexpr explicit DigitSpans(int64_t depth)
      : steps((depth + kDigitsTerms - 1) / kDigitsTerms),
        count((steps + kDigitsSteps - 1) / kDigitsSteps),
        length((steps + count - 1) / count) {}
  constexpr int64_t first(int64_t span) const { return span * length * kDigitsTerms; }
  constexpr int64_t steps_of(int64_t span) const {
    return length < steps - span * length ? length : steps - span * length;
  }
  // Bytes of the digits of a span of a group of 16 rows or columns, of all of it with a scale and a
  // spread for each, and of a group.
  constexpr int64_t digits() const { return length * kDigits * kDigitsTile; }
  constexpr int64_t bytes() const { return digits() + 2 * kDigitsSide * 4; }
  constexpr int64_t group() const { return count * bytes(); }

  int64_t steps, count, length;  // tiles, spans, tiles of a span
};

// Floats that `rows` rows or columns of `depth` numbers take.
constexpr int64_t digits_elements(int64_t rows, const DigitSpans& spans) {
  return (rows + kDigitsSide - 1) / kDigitsSide * spans.group() / 4;
}
constexpr int64_t digits_elements(int64_t rows, int64_t depth) {
  return digits_elements(rows, DigitSpans(depth));
}

// KernelTable::conv2d_digits, a 3x3 convolution of stride 1 whose results have the size of its
// input, or of stride 2 with results of half of it: results lie in one row of places, with a row of
// an image without results after each image and before the first. Every place of a map has a pixel
// or zeros, and a tap reads a map at a distance. There is a map for each column of taps, so that
// tiles are full; where their digits would leave the second level of cache, one for each column of
// a stride, and a place without a result after each row.
constexpr int64_t kDigitSplitBytes = int64_t{3} << 19;

struct DigitPlaces {
  constexpr explicit DigitPlaces(const Conv2dArgs& c)
      : is_split(3 * c.stride_h * c.B * (c.OH + 1) * c.OW * c.C * kDigits <= kDigitSplitBytes),
        columns(is_split ? 3 : c.stride_w),
        row(c.OW + (is_split ? 0 : 1)),
        image((c.OH + 1) * row),
        first(is_split ? row : row + 1),
        results(c.B * image - row),
        count(whole(2 * first + whole(results))) {}

  bool is_split;
  int64_t columns;     // of maps: one for each of 3 taps, or of a stride
  int64_t row, image;  // places
  int64_t first;       // result; as many places away as the farthest tap
  int64_t results;     // places from the first result to the last
  int64_t count;

 private:
  static constexpr int64_t whole(int64_t places) {
    return (places + kDigitsSide - 1) / kDigitsSide * kDigitsSide;
  }
};

struct DigitsConvArgs {
  Conv2dArgs conv;  // w: for each tap, digits of (C, O)
  void* inputs;     // digits of the places, tile by tile, then scales and spreads of each span
};

constexpr int64_t digits_conv_maps(const Conv2dArgs& c) {
  return c.stride_h * DigitPlaces(c).columns;
}

// Floats of inputs.
constexpr int64_t digits_conv_elements(const Conv2dArgs& c) {
  const DigitSpans spans(c.C);
  return digits_conv_maps(c) * DigitPlaces(c).count *
         (spans.steps * kDigits * kDigitsTerms / 4 + 2 * spans.count);
}

// KernelTable::winograd_digits: V of tile 2 or kTileUpsampled, for each element groups of 16 tiles,
// an odd number of cache lines apart, so that a tile writes to many sets; then scales and spreads
// (element, span, tile).
constexpr int64_t kDigitInputs = winograd_inputs(2);
static_assert(kDigitInputs == winograd_inputs(kTileUpsampled));

struct DigitTiles {
  constexpr DigitTiles(int64_t tiles, int64_t channels)
      : spans(channels),
        count((tiles + kDigitsSide - 1) / kDigitsSide * kDigitsSide),
        group(spans.steps * kDigits * kDigitsTile),
        element(winograd_row(count / kDigitsSide * group / 4) * 4) {}
  constexpr int64_t floats() const {
    return kDigitInputs * (element / 4 + 2 * spans.count * count);
  }

  DigitSpans spans;
  int64_t count;           // of tiles, a multiple of 16
  int64_t group, element;  // bytes
};

// The same with 8-bit integers, one group, dilation 1: conv.w is packed by `int8_pack`. A matrix
// product is such a convolution of images of one pixel.
struct Int8ConvArgs {
  Conv2dArgs conv;
  uint8_t* quantised;  // the bytes of conv.x, channels in fours; then a zero pixel an image
  float* ranges;       // (B, blocks of pixels, 2): least and largest number
};

// Sizes of its tensors: bytes of `quantised`, numbers of `ranges`.
constexpr int64_t kInt8Pixels = 32;  // of a block of an image
constexpr int64_t int8_depth(int64_t channels) { return (channels + 3) / 4; }
constexpr int64_t int8_blocks(const Conv2dArgs& c) {
  return (c.H * c.W + kInt8Pixels - 1) / kInt8Pixels;
}
constexpr int64_t int8_input_bytes(const Conv2dArgs& c) {
  return c.B * (c.H * c.W + (c.KH * c.KW > 1 ? 1 : 0)) * int8_depth(c.C) * 4;
}

// A 3x3 convolution of a map that is doubled first is four convolutions of 2x2 on the map itself,
// one for each parity of rows and columns of results; packed with tile = kTileUpsampled.
constexpr bool int8_is_doubled(const Conv2dArgs& c) {
  return c.upsample == 2 && c.KH == 3 && c.KW == 3 && c.pad_top == 1 && c.pad_left == 1 &&
         c.OH == 2 * c.H && c.OW == 2 * c.W;
}
constexpr int64_t int8_parts(bool is_doubled) { return is_doubled ? 4 : 1; }

// dw (KH, KW, C, groups * O)  =  sum over pixels of x (virtual input as above, dilation 1) times
// dy. Within a group the weight gradient is (KH*KW*C, O); the stored weight is (KH, KW, C,
// groups*O) with group g in columns [g*O, (g+1)*O).
struct Conv2dGradWeightArgs {
  const void* x;   // (B, H, W, groups * C)
  const void* dy;  // (B, OH, OW, groups * O)
  void* dw;
  int64_t B, H, W;
  int64_t groups;
  int64_t C;
  int64_t O;
  int64_t KH, KW;
  int64_t OH, OW;
  int64_t stride_h, stride_w;
  int64_t pad_top, pad_left;
  int64_t upsample;
  Dtype dtype;
};

// The same of a 3x3 kernel of stride 1 and one group by minimal filtering on tiles as in
// WinogradArgs, of 2, 4 or kTileUpsampled, in turn for blocks of `block` tiles.
constexpr int64_t kWinogradGradBlocks = 32;
constexpr int kWinogradGradPhases = 2 * kWinogradGradBlocks + 1;
struct WinogradGradArgs {
  Conv2dGradWeightArgs conv;
  void* inputs;     // (winograd_inputs, winograd_row(block * winograd_row(C)))
  void* gradients;  // (winograd_products, winograd_row(block * winograd_row(O)))
  void* products;   // (winograd_products, C, winograd_row(O)), unless is_whole
  int64_t tile;
  int64_t block;  // kWinogradGradBlocks of them or fewer
  bool is_whole;  // one block: a work item then keeps its products in scratch
};

}  // namespace smalti
