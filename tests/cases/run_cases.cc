// Runs the op cases that export-cases.ts wrote on one instruction set: run_cases FILE ISA [PART OF
// A NAME]. A plain executable, so that kernels can be tested under sanitizers, and those of
// another architecture under emulation.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <future>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "native/compile/program.h"
#include "native/core/error.h"
#include "native/runtime/engine.h"
#include "native/runtime/session.h"

namespace smalti::test {
namespace {

using Bytes = std::vector<uint8_t>;

enum class Kind : uint8_t { ignored = 0, exact = 1, real = 2 };

struct Expectation {
  std::string name;
  Kind kind = Kind::ignored;
  Bytes bytes;                   // exact
  std::vector<double> expected;  // real
  std::vector<double> limits;
};

struct Case {
  std::string name;
  Bytes graph;
  std::vector<Bytes> inputs;
  std::vector<Expectation> outputs;
};

// Reads the parts of the file in order; throws when it ends early.
class Reader {
 public:
  explicit Reader(const char* path) : path_(path) {
    std::ifstream file(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    char magic[4];
    if (!file || std::memcmp(take(magic, 4), "SMLC", 4) != 0)
      throw Error(ErrorCode::internal, path_ + ": expected a file of cases, got another or none");
  }

  uint8_t u8() { return scalar<uint8_t>(); }
  uint32_t u32() { return scalar<uint32_t>(); }
  Bytes blob() {
    Bytes bytes(u32());
    take(bytes.data(), bytes.size());
    return bytes;
  }
  std::string text() {
    const Bytes bytes = blob();
    return std::string(bytes.begin(), bytes.end());
  }
  std::vector<double> doubles() {
    const Bytes bytes = blob();
    std::vector<double> values(bytes.size() / sizeof(double));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }

 private:
  template <class T>
  T scalar() {
    T value;
    take(&value, sizeof value);
    return value;
  }
  void* take(void* into, size_t count) {
    if (bytes_.size() - at_ < count)
      throw Error(ErrorCode::internal, path_ + ": expected more bytes, got the end of the file");
    if (count > 0) std::memcpy(into, bytes_.data() + at_, count);
    at_ += count;
    return into;
  }

  std::string path_;
  Bytes bytes_;
  size_t at_ = 0;
};

Expectation read_expectation(Reader& reader) {
  Expectation expectation;
  expectation.name = reader.text();
  expectation.kind = static_cast<Kind>(reader.u8());
  if (expectation.kind == Kind::exact) expectation.bytes = reader.blob();
  if (expectation.kind == Kind::real) {
    expectation.expected = reader.doubles();
    expectation.limits = reader.doubles();
  }
  return expectation;
}

Case read_case(Reader& reader) {
  Case c;
  c.name = reader.text();
  c.graph = reader.blob();
  for (uint32_t n = reader.u32(); n > 0; --n) c.inputs.push_back(reader.blob());
  for (uint32_t n = reader.u32(); n > 0; --n) c.outputs.push_back(read_expectation(reader));
  return c;
}

// Runs `body` on the engine's thread and waits; rethrows its exception.
template <class F>
void on_engine(F body) {
  std::promise<void> done;
  Engine::instance().post([&] {
    try {
      body();
      done.set_value();
    } catch (...) {
      done.set_exception(std::current_exception());
    }
  });
  done.get_future().get();
}

void fill(RunData& data, const Program& program, const Case& c) {
  for (const Bytes& input : c.inputs) {
    data.inputs.emplace_back(input.size(), "an input");
    std::memcpy(data.inputs.back().data(), input.data(), input.size());
  }
  for (const OutputSlot& slot : program.outputs)
    data.outputs.emplace_back(static_cast<size_t>(slot.spec.bytes()), slot.name);
}

// The element's fault as text, or "". A limit of NaN asks for exactly the float of `expected`, any
// NaN for NaN.
std::string real_fault(float got, double expected, double limit) {
  char text[160];
  if (std::isnan(limit)) {
    const float wanted = static_cast<float>(expected);
    const bool is_equal = std::memcmp(&got, &wanted, sizeof got) == 0;
    if (is_equal || (std::isnan(got) && std::isnan(wanted))) return "";
    std::snprintf(text, sizeof text, "expected %.9g, got %.9g", expected, got);
    return text;
  }
  const double error = std::abs(static_cast<double>(got) - expected);
  if (error <= limit) return "";
  std::snprintf(text, sizeof text, "expected %.9g, got %.9g, off by %.3g > %.3g", expected, got,
                error, limit);
  return text;
}

std::string fault(const AlignedBuffer& output, const Expectation& e) {
  if (e.kind == Kind::ignored) return "";
  if (e.kind == Kind::exact) {
    if (output.size() != e.bytes.size()) return e.name + ": wrong size";
    for (size_t i = 0; i < e.bytes.size(); ++i) {
      if (static_cast<uint8_t>(output.data()[i]) != e.bytes[i])
        return e.name + ": byte " + std::to_string(i) + ": expected " + std::to_string(e.bytes[i]) +
               ", got " + std::to_string(static_cast<int>(output.data()[i]));
    }
    return "";
  }
  if (output.size() != e.expected.size() * sizeof(float)) return e.name + ": wrong size";
  for (size_t i = 0; i < e.expected.size(); ++i) {
    float got;
    std::memcpy(&got, output.data() + i * sizeof got, sizeof got);
    const std::string text = real_fault(got, e.expected[i], e.limits[i]);
    if (!text.empty()) return e.name + " element " + std::to_string(i) + ": " + text;
  }
  return "";
}

struct Tally {
  int passed = 0;
  int failed = 0;
  int instructions = 0;
  int own = 0;  // by kernels of the instruction set, not by the reference
};

void count_instructions(const Program& program, const std::string& isa, Tally& tally) {
  for (const Instruction& instruction : program.run) {
    ++tally.instructions;
    tally.own += instruction.backend == isa ? 1 : 0;
  }
}

// The first fault of the case as text, or "".
std::string run_case(const Case& c, const std::string& isa, Tally& tally) {
  const auto program = std::make_shared<const Program>(
      compile(decode(Span<const uint8_t>(c.graph.data(), c.graph.size())), {isa}));
  count_instructions(*program, isa, tally);
  if (program->inputs.size() != c.inputs.size() || program->outputs.size() != c.outputs.size())
    return "other inputs or outputs than exported";
  RunData data;
  fill(data, *program, c);
  on_engine([&] {
    Session session(program, {}, AbortFlag{});
    session.run(data, {});
  });
  for (size_t i = 0; i < c.outputs.size(); ++i) {
    const std::string text = fault(data.outputs[i], c.outputs[i]);
    if (!text.empty()) return text;
  }
  return "";
}

Tally run_file(const char* path, const std::string& isa, const std::string& part) {
  Reader reader(path);
  Tally tally;
  for (uint32_t n = reader.u32(); n > 0; --n) {
    const Case c = read_case(reader);
    if (c.name.find(part) == std::string::npos) continue;
    std::string text;
    try {
      text = run_case(c, isa, tally);
    } catch (const std::exception& error) {
      text = error.what();
    }
    ++(text.empty() ? tally.passed : tally.failed);
    if (!text.empty()) std::printf("failed: %s: %s\n", c.name.c_str(), text.c_str());
  }
  return tally;
}

}  // namespace
}  // namespace smalti::test

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "run_cases: expected FILE ISA [PART OF A NAME], got %d arguments\n",
                 argc - 1);
    return 2;
  }
  try {
    const smalti::test::Tally tally =
        smalti::test::run_file(argv[1], argv[2], argc > 3 ? argv[3] : "");
    std::printf("%s: %d of %d instructions by its own kernels\n%d passed, %d failed\n", argv[2],
                tally.own, tally.instructions, tally.passed, tally.failed);
    return tally.failed == 0 && tally.passed > 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "run_cases: %s\n", error.what());
    return 2;
  }
}
