// Counter-based random numbers, shared by every backend: Philox 4x32-10.
// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3; constants of the
// Random123 library.
// Everything is `static`: each translation unit keeps its own copy, for its own instruction set.
#pragma once

#include <cstdint>

namespace smalti {

struct PhiloxBlock {
  uint32_t word[4];
};

// Ten rounds over one 128-bit counter with a 64-bit key.
static inline PhiloxBlock philox4x32_10(PhiloxBlock counter, uint32_t key0, uint32_t key1) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53u;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57u;
  constexpr uint32_t kWeyl0 = 0x9E3779B9u;  // golden ratio
  constexpr uint32_t kWeyl1 = 0xBB67AE85u;  // sqrt(3) - 1
  PhiloxBlock x = counter;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * x.word[0];
    const uint64_t product1 = kMultiplier1 * x.word[2];
    x = {{static_cast<uint32_t>(product1 >> 32) ^ x.word[1] ^ key0, static_cast<uint32_t>(product1),
          static_cast<uint32_t>(product0 >> 32) ^ x.word[3] ^ key1,
          static_cast<uint32_t>(product0)}};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return x;
}

// [0, 1) with 24 bits, exact in f32.
static inline float philox_uniform(uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

// (0, 1] with 24 bits, for logarithms.
static inline float philox_uniform_positive(uint32_t word) {
  return static_cast<float>((word >> 8) + 1) * 0x1p-24f;
}

}  // namespace smalti
