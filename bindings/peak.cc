#include "bindings/peak.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>

#include "bindings/addon_data.h"
#include "bindings/convert.h"
#include "bindings/errors.h"
#include "bindings/job.h"
#include "native/core/error.h"
#include "native/cpu/isa.h"

namespace smalti {
namespace {

constexpr int64_t kRounds = 1 << 18;

class PeakJob : public Job {
 public:
  PeakJob(Napi::Env env, const KernelTable& table, double milliseconds)
      : Job(env, "measurePeak"), table_(table), milliseconds_(milliseconds) {}

  // The best of many short measurements: a disturbed one is too low, none is too high.
  void execute() override {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + std::chrono::duration<double, std::milli>(milliseconds_);
    float sink = 0;
    do {
      const auto start = Clock::now();
      const int64_t operations = table_.fma_peak(kRounds, &sink);
      const std::chrono::duration<double, std::nano> time = Clock::now() - start;
      best_ = std::max(best_, static_cast<double>(operations) / time.count());
    } while (Clock::now() < end && !abort().is_raised());
  }

  Napi::Value result(Napi::Env env) override { return Napi::Number::New(env, best_); }

 private:
  const KernelTable& table_;
  double milliseconds_;
  double best_ = 0;
};

}  // namespace

Napi::Value measure_peak(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::string asked = text_argument(info, 0, "measurePeak");
    const std::string isa = asked.empty() ? best_isa() : asked;
    const KernelTable* table = cpu_table(isa);
    if (table == nullptr || table->fma_peak == nullptr) {
      throw Error(ErrorCode::option,
                  "measurePeak: expected an instruction set of this CPU, got " + isa);
    }
    const auto milliseconds = static_cast<double>(count_argument(info, 1, "measurePeak"));
    return AddonData::of(info.Env())
        .start(std::make_unique<PeakJob>(info.Env(), *table, milliseconds));
  });
}

}  // namespace smalti
