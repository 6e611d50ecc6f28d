// Which 3x3 convolutions run by Winograd's algorithm, and how they are cut into work items: by a
// cost model of shapes only (docs/design/0016); where V of tiles in digits lies, by threads too.
#include <algorithm>
#include <vector>

#include "native/compile/stages.h"

namespace smalti {
namespace {

constexpr int64_t kStagedTiles = 128;  // up to so many, all tiles go through each stage together
constexpr int64_t kBlockTiles = 24;    // of a work item: its inputs and products stay in L2
constexpr int64_t kLeastTiles = 12;
constexpr int64_t kItemsWanted = 16;
constexpr int64_t kThinOutputs =
    4;  // so few are packed in a form of their own (native/cpu/gemm.inc)
constexpr int64_t kFewInputs = 8;
constexpr int64_t kManyInputs = 32;  // two vectors of any instruction set
constexpr int64_t kEndWidth = 8;     // pixels of a row that are worth how a row begins
constexpr int64_t kLeastChannels =
    48;  // of tile 4: its error is more than three times the direct one below
constexpr int64_t kLeastSide = 4;      // pixels: likewise, direct sums end at the borders
constexpr int64_t kSmallSide = 4;      // pixels, of maps that filtering along rows takes whole
constexpr int64_t kItemColumns = 128;  // the input is transformed anew for each item of columns

// Maps of up to so many pixels run in digits from weights as they are, the next ones in tiles, if
// the weight is worth what its tiles cost. A single map of one block and more than kDigitMostInputs
// channels does not run in tiles, whose weights would take a third more memory than in floats, but
// direct. Upsampled maps need as many products in digits as in floats: they win from one block of
// tiles on.
constexpr int64_t kDigitPixels = 128;
constexpr int64_t kDigitManyPixels = 256;      // of one map, more than kDigitMostInputs channels
constexpr int64_t kDigitHalvedResults = 4096;  // of stride 2; beyond, filtering is faster
constexpr int64_t kDigitTiles = 64;            // a block, whose V stays near to a core
constexpr int64_t kDigitManyTiles = 32;        // likewise, of more than kDigitMostInputs channels
constexpr int64_t kDigitLeastOutputs = 64;     // of tiles
constexpr int64_t kDigitLeastInputs = 96;      // of more than a block, and
constexpr int64_t kDigitLeastWeight = 96 * 128;
constexpr int64_t kDigitMostInputs = 384;

// From so many tiles, or floats of packed weight (which then come from memory in any case), packing
// it costs less than 1 % of the layer.
constexpr int64_t kManyTiles = 1024;
constexpr int64_t kManyFloats = int64_t{3} << 19;

constexpr int64_t kGradientFloats = int64_t{1} << 21;  // wanted of transformed operands at once
constexpr int64_t kGradientTiles = 48;                 // but no fewer tiles
constexpr int64_t kWholeProducts = 48 * 64;            // of an element in an item

// What one costs, in multiply-adds of the micro-kernel.
constexpr double kTransform = 14;     // a number through the transform of inputs or of results
constexpr double kRowTransform = 16;  // nine taps, transformed along rows in registers
constexpr double kStream = 8;         // a weight read from memory
constexpr double kPacking = 16;       // a weight packed in the run
constexpr double kUnpacking = 5;      // a number of a weight transformed on its way, in stages

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class Args>
int64_t tiles_of(const Args& c, int64_t tile) {
  const int64_t side = winograd_sides(tile).results;
  return c.B * ceil_div(c.OH, side) * ceil_div(c.OW, side);
}

// Of a pair of channels.
double direct_cost(const Conv2dArgs& c, bool packs_in_run) {
  return 9 * (static_cast<double>(c.B * c.OH * c.OW) + kStream + (packs_in_run ? kPacking : 0));
}

double product_cost(int64_t tile, int64_t tiles, bool packs_in_run) {
  const double products = static_cast<double>(winograd_products(tile));
  const double rows = static_cast<double>(tiles);
  const double packing = packs_in_run ? kPacking : 0;
  if (tiles > kStagedTiles) return products * (rows + packing);
  return products * (rows + kUnpacking) + 9 * (kStream + packing);
}

double winograd_cost(const Conv2dArgs& c, int64_t tile, bool packs_in_run) {
  const int64_t tiles = tiles_of(c, tile);
  const int64_t numbers = winograd_inputs(tile) * c.C + winograd_products(tile) * c.O;
  return static_cast<double>(c.C * c.O) * product_cost(tile, tiles, packs_in_run) +
         kTransform * static_cast<double>(tiles * numbers);
}

// Results of twice the size of the map, which is upsampled first.
template <class Args>
bool is_doubled(const Args& c) {
  return c.upsample == 2 && c.stride_h == 1 && c.stride_w == 1 && c.pad_top == 1 && c.pad_left == 1;
}

// The forms of minimal filtering that compute the convolution.
std::vector<int64_t> forms_of(const Conv2dArgs& c) {
  const bool fits = c.KH == 3 && c.KW == 3 && c.stride_h == c.stride_w && c.stride_h <= 2 &&
                    c.groups == 1 && c.dtype == Dtype::f32 && c.O > kThinOutputs;
  if (!fits) return {};
  if (c.stride_h == 2) {
    const bool pays = c.upsample == 1 && tiles_of(c, kTileStrided) > kStagedTiles;
    return pays ? std::vector<int64_t>{kTileStrided} : std::vector<int64_t>{};
  }
  const int64_t least = std::min(c.pad_top, c.pad_left);
  const int64_t most = std::max(c.pad_top, c.pad_left);
  if (c.dilation == 1) {
    return is_doubled(c) ? std::vector<int64_t>{kTileUpsampled} : std::vector<int64_t>{4, 2};
  }
  if (c.dilation != 2 || least < 0 || most > 2 || (most - least) % 2 != 0) return {};
  return {least % 2 == 0 ? kTileSpreadEven : kTileSpreadOdd};
}

// 3x3 of stride 1 on the map itself, one group.
bool is_plain(const Conv2dArgs& c) {
  return c.KH == 3 && c.KW == 3 && c.stride_h == 1 && c.stride_w == 1 && c.upsample == 1 &&
         c.dilation == 1 && c.groups == 1 && c.dtype == Dtype::f32;
}

// Results of the size of the map, and of half of it.
bool is_same_size(const Conv2dArgs& c) {
  return is_plain(c) && c.pad_top == 1 && c.pad_left == 1 && c.OH == c.H && c.OW == c.W;
}
bool is_halved(const Conv2dArgs& c) {
  const auto is_axis = [](int64_t stride, int64_t pad, int64_t size, int64_t results) {
    return stride == 2 && (pad == 0 || pad == 1) && size == 2 * results;
  };
  return c.upsample == 1 && is_axis(c.stride_h, c.pad_top, c.H, c.OH) &&
         is_axis(c.stride_w, c.pad_left, c.W, c.OW);
}

// Whether KernelTable::conv2d_ends computes the convolution, and faster.
bool is_network_end(const Conv2dArgs& c) {
  const bool has_few = c.C <= kFewInputs || (c.O <= kThinOutputs && c.C >= kManyInputs);
  return is_plain(c) && has_few && c.OW >= kEndWidth;
}

// Whether KernelTable::conv2d_small computes it.
bool is_small_map(const Conv2dArgs& c, int64_t images) {
  return is_plain(c) && c.O > kThinOutputs && c.B <= images && c.H <= kSmallSide &&
         c.OW <= kSmallSide && c.OH == c.H && c.pad_top == 1;
}

double small_cost(const Conv2dArgs& c, bool packs_in_run) {
  const double products = static_cast<double>(6 * (3 * c.H - 2)) + kRowTransform;
  return static_cast<double>(c.C * c.O) *
         (static_cast<double>(c.B) * products + 9 * (kStream + (packs_in_run ? kPacking : 0)));
}

// Products (C, tiles) by (tiles, O); the sums are written and read once more.
double gradient_cost(const Conv2dGradWeightArgs& c, int64_t matrices, int64_t rows) {
  return static_cast<double>(matrices * c.C) * static_cast<double>(c.O) *
         (static_cast<double>(rows) + kStream);
}

double winograd_gradient_cost(const Conv2dGradWeightArgs& c, int64_t tile) {
  const int64_t elements = winograd_products(tile);
  const int64_t rows = tiles_of(c, tile);
  const int64_t numbers = winograd_inputs(tile) * c.C + elements * c.O;
  return gradient_cost(c, elements, rows) + gradient_cost(c, elements, 0) +
         kTransform * static_cast<double>(rows * numbers);
}

}  // namespace

ConvAlgorithm conv2d_algorithm(const Conv2dArgs& c, bool packs_in_run, int64_t small_images) {
  if (is_network_end(c)) return {Algorithm::ends, 0};
  ConvAlgorithm best = {Algorithm::defined, 0};
  double least = static_cast<double>(c.C * c.O) * direct_cost(c, packs_in_run);
  const auto offer = [&](ConvAlgorithm way, double cost) {
    if (cost >= least) return;
    least = cost;
    best = way;
  };
  const bool is_small = c.C < kLeastChannels || std::min(c.H, c.W) < kLeastSide;
  for (const int64_t tile : forms_of(c)) {
    if (tile != 4 || !is_small)
      offer({Algorithm::winograd, tile}, winograd_cost(c, tile, packs_in_run));
  }
  if (is_small_map(c, small_images)) offer({Algorithm::small, 0}, small_cost(c, packs_in_run));
  return best;
}

int64_t conv_digits_tile(const Conv2dArgs& c) {
  if (c.upsample == 2) return kTileUpsampled;
  const bool has_many = c.B == 1 && c.C > kDigitMostInputs && c.O >= kDigitLeastOutputs;
  const int64_t most = has_many ? kDigitManyPixels : kDigitPixels;
  return c.stride_h == 2 || c.B * c.H * c.W <= most ? 0 : 2;
}

bool takes_conv_digits(const Conv2dArgs& c, bool packs_in_run) {
  const bool is_window = c.KH == 3 && c.KW == 3 && c.dilation == 1 && c.groups == 1 &&
                         c.dtype == Dtype::f32 && c.O > kThinOutputs;
  const int64_t padded = ceil_div(c.C, kDigitsTerms) * kDigitsTerms;
  if (!is_window || packs_in_run || padded * 3 > c.C * 4) return false;
  if (is_halved(c)) return c.B * c.OH * c.OW <= kDigitHalvedResults;
  const int64_t tile = conv_digits_tile(c);
  if (tile == 0) return is_same_size(c);
  const int64_t tiles = tiles_of(c, tile);
  if (c.O < kDigitLeastOutputs) return false;
  if (is_doubled(c)) return tiles >= kDigitTiles;
  if (!is_same_size(c) || std::min(c.H, c.W) < kLeastSide) return false;
  if (tiles > kDigitTiles) return c.C >= kDigitLeastInputs && c.C * c.O >= kDigitLeastWeight;
  return c.C <= kDigitMostInputs || c.B > 1;
}

WinogradArgs winograd_digits_args(const Conv2dArgs& c) {
  WinogradArgs a = {};
  a.conv = c;
  a.tile = conv_digits_tile(c);
  a.block = c.C > kDigitMostInputs ? kDigitManyTiles : kDigitTiles;
  return a;
}

bool winograd_digits_is_local(const WinogradArgs& a, int threads) {
  const int64_t blocks = ceil_div(tiles_of(a.conv, a.tile), a.block);
  const int64_t turns = ceil_div(blocks, threads);  // of the thread that has most of them
  return turns > 1 && blocks * 10 >= turns * threads * 9;
}

int64_t conv_digits_elements(const Conv2dArgs& c, int64_t tile, int threads) {
  if (tile == 0) return digits_conv_elements(c);
  const WinogradArgs a = winograd_digits_args(c);
  if (winograd_digits_is_local(a, threads)) return 0;
  return DigitTiles(tiles_of(c, tile), c.C).floats();
}

WinogradArgs winograd_args(const Conv2dArgs& c, int64_t tile, int64_t panel_columns) {
  WinogradArgs a = {};
  a.conv = c;
  a.tile = tile;
  a.columns = c.O;
  const int64_t tiles = tiles_of(c, tile);
  a.is_staged = tiles <= kStagedTiles;
  if (a.is_staged) return a;
  int64_t blocks = ceil_div(tiles, kBlockTiles);
  int64_t parts = 1;
  while (blocks * parts < kItemsWanted && c.O >= 2 * parts * kItemColumns) parts *= 2;
  if (parts > 1) a.columns = ceil_div(ceil_div(c.O, parts), panel_columns) * panel_columns;
  if (blocks * parts < kItemsWanted)
    blocks = std::min(ceil_div(kItemsWanted, parts), ceil_div(tiles, kLeastTiles));
  a.block = ceil_div(tiles, blocks);
  return a;
}

WinogradTemps winograd_temps(const WinogradArgs& a) {
  if (!a.is_staged) return {};
  const int64_t tiles = tiles_of(a.conv, a.tile);
  // 16 more channels make room for slots of 32.
  return {winograd_inputs(a.tile) * winograd_row(tiles * winograd_row(a.conv.C + 16)),
          winograd_products(a.tile) * winograd_row(tiles * winograd_row(a.conv.O))};
}

bool winograd_packs_again(const WinogradArgs& a) {
  const int64_t floats = winograd_products(a.tile) * a.conv.C * a.conv.O;
  return !a.is_staged && (tiles_of(a.conv, a.tile) >= kManyTiles || floats >= kManyFloats);
}

int64_t winograd_parts(const WinogradArgs& a) {
  if (a.is_staged) return ceil_div(a.conv.OH, winograd_sides(a.tile).results);
  return result_parts(a.conv.B, tiles_of(a.conv, a.tile) / a.conv.B, a.block);
}

int64_t winograd_gradient_tile(const Conv2dGradWeightArgs& c) {
  const bool fits = c.KH == 3 && c.KW == 3 && c.stride_h == 1 && c.stride_w == 1 && c.groups == 1 &&
                    c.dtype == Dtype::f32;
  if (!fits) return 0;
  int64_t best = 0;
  double least = gradient_cost(c, 9, c.B * c.OH * c.OW);
  for (const int64_t tile :
       is_doubled(c) ? std::vector<int64_t>{kTileUpsampled} : std::vector<int64_t>{4, 2}) {
    const double cost = winograd_gradient_cost(c, tile);
    if (cost >= least || (tile == 4 && std::min(c.C, c.O) < kLeastChannels)) continue;
    least = cost;
    best = tile;
  }
  return best;
}

WinogradGradArgs winograd_gradient_args(const Conv2dGradWeightArgs& c, int64_t tile) {
  WinogradGradArgs a = {};
  a.conv = c;
  a.tile = tile;
  const int64_t tiles = tiles_of(c, tile);
  const int64_t floats = winograd_inputs(tile) * c.C + winograd_products(tile) * c.O;
  const int64_t wanted = std::max(kGradientTiles, kGradientFloats / floats);
  const int64_t blocks = std::min(kWinogradGradBlocks, ceil_div(tiles, wanted));
  a.block = ceil_div(tiles, blocks);
  a.is_whole = blocks == 1 && c.C * c.O >= kItemsWanted * kWholeProducts;
  return a;
}

WinogradGradTemps winograd_gradient_temps(const WinogradGradArgs& a) {
  const int64_t elements = winograd_products(a.tile);
  return {winograd_inputs(a.tile) * winograd_row(a.block * winograd_row(a.conv.C)),
          elements * winograd_row(a.block * winograd_row(a.conv.O)),
          a.is_whole ? 0 : elements * a.conv.C * winograd_row(a.conv.O)};
}

double winograd_work(const WinogradGradArgs& a) {
  return 2 * winograd_gradient_cost(a.conv, a.tile);
}

double winograd_work(const WinogradArgs& a) { return 2 * winograd_cost(a.conv, a.tile, false); }

}  // namespace smalti
