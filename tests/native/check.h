// The few lines of test framework that the native tests need: named tests that register themselves,
// and CHECK.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace smalti::test {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

// Small deterministic generator (xorshift64*).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2685821657736338717ull + 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 2685821657736338717ull;
  }
  int64_t below(int64_t n) {
    return static_cast<int64_t>((next() >> 11) % static_cast<uint64_t>(n));
  }

 private:
  uint64_t state_;
};

}  // namespace smalti::test

#define TEST(name)                                                          \
  static void name();                                                       \
  static const smalti::test::Registration registration_##name(#name, name); \
  static void name()

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                                \
    }                                                                              \
  } while (false)
