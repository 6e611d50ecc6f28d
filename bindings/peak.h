// measurePeak(isa, milliseconds): GFLOP/s of one thread, measured on the engine's thread.
#pragma once

#include <napi.h>

namespace smalti {

Napi::Value measure_peak(const Napi::CallbackInfo& info);

}  // namespace smalti
