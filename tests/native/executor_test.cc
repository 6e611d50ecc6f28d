// Sessions on the engine's thread: results, aborts from another thread, several sessions on one
// arena.
#include <cmath>
#include <cstring>
#include <future>
#include <optional>

#include "native/core/error.h"
#include "native/runtime/engine.h"
#include "native/runtime/session.h"
#include "tests/native/check.h"
#include "tests/native/graphs.h"

namespace smalti::test {
namespace {

// Runs `body` on the engine's thread and waits; returns the code of its Error. (Exceptions do not
// cross threads here: ThreadSanitizer cannot see libstdc++'s count of their owners.)
template <class F>
std::optional<ErrorCode> failure_on_engine(F body) {
  std::promise<std::optional<ErrorCode>> done;
  Engine::instance().post([&] {
    std::optional<ErrorCode> failure;
    try {
      body();
    } catch (const Error& error) {
      failure = error.code();
    }
    done.set_value(failure);
  });
  return done.get_future().get();
}

template <class F>
void on_engine(F body) {
  CHECK(!failure_on_engine(body));
}

float* floats(const AlignedBuffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }

struct Fixture {
  Fixture(int64_t rows, int64_t width, int depth, const char* isa) {
    program = std::make_shared<const Program>(compile(sample_graph(rows, width, depth), {isa}));
    weight = std::make_shared<Buffer>(static_cast<size_t>(width * width) * sizeof(float), "w");
    state = std::make_shared<Buffer>(static_cast<size_t>(width) * sizeof(float), "p");
    for (int64_t i = 0; i < width * width; ++i)
      floats(*weight->hold())[i] = i % (width + 1) == 0 ? 1.0f : 0.0f;
    on_engine([&] {
      session = std::make_shared<Session>(
          program, std::vector<std::shared_ptr<Buffer>>{weight, state}, AbortFlag{});
    });
  }

  void fill(RunData& data, float value) const {
    for (const InputSlot& slot : program->inputs) {
      data.inputs.emplace_back(static_cast<size_t>(slot.spec.bytes()), slot.name);
      for (int64_t i = 0; i < slot.spec.shape.elements(); ++i)
        floats(data.inputs.back())[i] = value;
    }
    for (const OutputSlot& slot : program->outputs)
      data.outputs.emplace_back(static_cast<size_t>(slot.spec.bytes()), slot.name);
  }

  std::shared_ptr<const Program> program;
  std::shared_ptr<Buffer> weight;
  std::shared_ptr<Buffer> state;
  std::shared_ptr<Session> session;
};

TEST(executor_runs_on_every_backend) {
  for (const char* isa : {"ref", "scalar", ""}) {
    const Fixture fixture(64, 48, 1, isa);
    for (int run = 1; run <= 3; ++run) {
      RunData data;
      fixture.fill(data, 0.5f);
      on_engine([&] { fixture.session->run(data, {}); });
      const float expected = 64 * std::tanh(0.5f);
      CHECK(std::abs(floats(data.outputs[0])[47] - expected) < 1e-3f);
      CHECK(std::abs(floats(*fixture.state->hold())[0] - expected * static_cast<float>(run)) <
            1e-2f);
    }
  }
}

TEST(executor_stops_when_asked) {
  const Fixture fixture(256, 256, 400, "");
  for (int attempt = 0; attempt < 3; ++attempt) {
    RunData data;
    AbortFlag abort;
    fixture.fill(data, 0.5f);
    std::thread aborter([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      abort.is_set = true;
    });
    const std::optional<ErrorCode> failure =
        failure_on_engine([&] { fixture.session->run(data, abort); });
    aborter.join();
    CHECK(failure == ErrorCode::aborted);
  }
}

TEST(executor_shares_one_arena) {
  auto large = std::make_unique<Fixture>(512, 256, 2, "");
  const Fixture small(16, 32, 2, "");
  const auto run = [](const Fixture& fixture) {
    RunData data;
    fixture.fill(data, 0.25f);
    on_engine([&] { fixture.session->run(data, {}); });
    return floats(data.outputs[0])[0];
  };
  const float first = run(small);
  for (int i = 0; i < 3; ++i) {
    run(*large);
    CHECK(run(small) == first);
  }
  large.reset();
  CHECK(run(small) == first);
}

TEST(executor_gives_equal_results_for_any_thread_count) {
  const Fixture fixture(200, 96, 3, "");
  std::vector<float> first;
  for (const int threads : {1, 2, 5}) {
    set_threads(threads);
    RunData data;
    fixture.fill(data, 0.3f);
    on_engine([&] { fixture.session->run(data, {}); });
    const std::vector<float> result(floats(data.outputs[0]), floats(data.outputs[0]) + 96);
    if (first.empty()) first = result;
    CHECK(result == first);
  }
}

}  // namespace
}  // namespace smalti::test
