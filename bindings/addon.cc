// The export table.
#include <napi.h>

#include "bindings/addon_data.h"
#include "bindings/buffer_wrap.h"
#include "bindings/convert.h"
#include "bindings/errors.h"
#include "bindings/peak.h"
#include "bindings/program_wrap.h"
#include "native/core/aligned_buffer.h"
#include "native/core/error.h"
#include "native/core/thread_pool.h"
#include "native/cpu/isa.h"

namespace smalti {
namespace {

constexpr const char* kVersion = "0.1.0";
constexpr size_t kMaxThreads = 1024;

Napi::Array strings_to_js(Napi::Env env, const std::vector<std::string>& strings) {
  Napi::Array array = Napi::Array::New(env, strings.size());
  for (uint32_t i = 0; i < strings.size(); ++i) array.Set(i, Napi::String::New(env, strings[i]));
  return array;
}

Napi::Value kernels(const Napi::CallbackInfo& info) {
  return strings_to_js(info.Env(), compilable_ops());
}

Napi::Value describe_core(Napi::Env env) {
  const MemoryInfo memory = memory_info();
  Napi::Object object = Napi::Object::New(env);
  object.Set("version", kVersion);
  object.Set("isa", best_isa());
  object.Set("isas", strings_to_js(env, available_isas()));
  object.Set("threads", thread_pool()->threads());
  object.Set("physicalBytes", static_cast<double>(memory.physical_bytes));
  object.Set("availableBytes", static_cast<double>(memory.available_bytes));
  object.Set("cpu", cpu_name());
  object.Set("napi", NAPI_VERSION);
  return object;
}

Napi::Value describe(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return describe_core(info.Env()); });
}

void configure(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] {
    const Napi::Value threads =
        info[0].IsObject() ? info[0].As<Napi::Object>().Get("threads") : info.Env().Undefined();
    if (threads.IsUndefined()) return;
    const double count = threads.IsNumber() ? threads.As<Napi::Number>().DoubleValue() : 0;
    if (!(count >= 1 && count <= kMaxThreads)) {
      throw Error(ErrorCode::option,
                  "configure: expected threads from 1 to 1024, got another value");
    }
    set_threads(static_cast<int>(count));
  });
}

void set_limit(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] { set_allocation_limit(count_argument(info, 0, "setAllocationLimit")); });
}

Napi::Value print_graph(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Span<uint8_t> bytes = bytes_argument(info, 0, "print");
    return Napi::String::New(info.Env(), print(decode({bytes.data(), bytes.size()})));
  });
}

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  auto* data = new AddonData(env);
  env.SetInstanceData(data);
  const Napi::Function buffer = BufferWrap::define(env);
  data->buffer_class = Napi::Persistent(buffer);
  data->program_class = Napi::Persistent(ProgramWrap::define(env));
  data->session_class = Napi::Persistent(SessionWrap::define(env));
  exports.Set("NativeBuffer", buffer);
  exports.Set("kernels", Napi::Function::New(env, kernels, "kernels"));
  exports.Set("describe", Napi::Function::New(env, describe, "describe"));
  exports.Set("configure", Napi::Function::New(env, configure, "configure"));
  exports.Set("setAllocationLimit", Napi::Function::New(env, set_limit, "setAllocationLimit"));
  exports.Set("compile", Napi::Function::New(env, start_compile, "compile"));
  exports.Set("measurePeak", Napi::Function::New(env, measure_peak, "measurePeak"));
  exports.Set("print", Napi::Function::New(env, print_graph, "print"));
  return exports;
}

}  // namespace
}  // namespace smalti

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  return smalti::initialise(env, exports);
}
NODE_API_MODULE(smalti, Init)
