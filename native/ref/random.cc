// Uniform and normal numbers from the counter-based generator: every element depends on its key row
// and index only.
#include <cmath>

#include "native/core/philox.h"
#include "native/ref/element.h"
#include "native/ref/families.h"

namespace smalti::ref {
namespace {

constexpr int64_t kBlockWords = 4;     // numbers of one Philox block
constexpr int64_t kItemBlocks = 1024;  // Philox blocks of a work item

int64_t sample_items(const RandomArgs& args) {
  return ceil_div(args.count, kItemBlocks * kBlockWords);
}

// Box and Muller 1958: two normals from u1 in (0, 1] and u2 in [0, 1).
void normal_pair(uint32_t word1, uint32_t word2, double* pair) {
  const double radius =
      std::sqrt(-2.0 * std::log(static_cast<double>(philox_uniform_positive(word1))));
  const double angle = 6.28318530717958647693 * static_cast<double>(philox_uniform(word2));
  pair[0] = radius * std::cos(angle);
  pair[1] = radius * std::sin(angle);
}

void draw_block(RandomKind kind, const PhiloxBlock& block, double* numbers) {
  if (kind == RandomKind::normal) {
    normal_pair(block.word[0], block.word[1], numbers);
    normal_pair(block.word[2], block.word[3], numbers + 2);
    return;
  }
  for (int i = 0; i < kBlockWords; ++i) {
    numbers[i] = static_cast<double>(philox_uniform(block.word[i]));
  }
}

// Elements [range.begin, range.end) of sample b; range.begin is a multiple of four.
template <class T>
void fill_random(const RandomArgs& args, int64_t b, Range range) {
  const int32_t* key = args.key + b * 4;
  const auto word = [&](int i) { return static_cast<uint32_t>(key[i]); };
  T* dst = static_cast<T*>(args.dst) + b * args.count;
  for (int64_t i = range.begin; i < range.end; i += kBlockWords) {
    const PhiloxBlock counter = {
        {static_cast<uint32_t>(i / kBlockWords), args.purpose, word(2), word(3)}};
    double numbers[kBlockWords];
    draw_block(args.kind, philox4x32_10(counter, word(0), word(1)), numbers);
    const int64_t length = smaller(kBlockWords, range.end - i);
    for (int64_t j = 0; j < length; ++j) dst[i + j] = static_cast<T>(numbers[j]);
  }
}

int64_t random_items(const RandomArgs& args, int) { return args.B * sample_items(args); }

void run_random(const RandomArgs& args, int, Range range, void*) {
  const int64_t items = sample_items(args);
  with_real(args.dtype, [&](auto zero) {
    for (int64_t item = range.begin; item < range.end; ++item) {
      fill_random<decltype(zero)>(args, item / items,
                                  block_range(item % items, kItemBlocks * kBlockWords, args.count));
    }
  });
}

}  // namespace

Kernel<RandomArgs> random_kernel() { return {run_random, random_items, nullptr, 1}; }

}  // namespace smalti::ref
