// Bytes that lie: decode and verify throw, and never read outside or take much memory.
#include "native/compile/program.h"
#include "native/core/error.h"
#include "tests/native/check.h"
#include "tests/native/graphs.h"

namespace smalti::test {
namespace {

// Whether the bytes make a program; an Error is the other allowed result.
bool compiles(const std::vector<uint8_t>& bytes) {
  try {
    compile(decode({bytes.data(), bytes.size()}), {});
    return true;
  } catch (const Error&) {
    return false;
  }
}

TEST(decode_round_trip) {
  const Graph graph = sample_graph();
  const std::vector<uint8_t> bytes = encode(graph);
  CHECK(print(decode({bytes.data(), bytes.size()})) == print(graph));
  CHECK(compiles(bytes));
}

TEST(decode_cut_bytes) {
  const std::vector<uint8_t> bytes = encode(sample_graph());
  for (size_t length = 0; length < bytes.size(); ++length) {
    CHECK(!compiles(
        std::vector<uint8_t>(bytes.begin(), bytes.begin() + static_cast<int64_t>(length))));
  }
}

TEST(decode_changed_bytes) {
  const std::vector<uint8_t> bytes = encode(sample_graph());
  Random random(1);
  for (int i = 0; i < 20000; ++i) {
    std::vector<uint8_t> changed = bytes;
    for (int64_t k = random.below(4); k >= 0; --k) {
      changed[static_cast<size_t>(random.below(static_cast<int64_t>(changed.size())))] =
          static_cast<uint8_t>(random.next() >> 56);
    }
    compiles(changed);
  }
}

TEST(decode_huge_counts) {
  std::vector<uint8_t> bytes = encode(sample_graph());
  for (size_t at = 4; at + 4 <= bytes.size(); ++at) {
    std::vector<uint8_t> changed = bytes;
    for (size_t k = 0; k < 4; ++k) changed[at + k] = 0xff;
    compiles(changed);
  }
}

}  // namespace
}  // namespace smalti::test
