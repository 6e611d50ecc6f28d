// Argument checks repeat what lib/runtime checks with better messages: here they only keep memory
// safe.
#include "bindings/convert.h"

#include <algorithm>
#include <vector>

#include "native/core/error.h"

namespace smalti {
namespace {

[[noreturn]] void fail_argument(const char* where, const char* expected) {
  throw Error(ErrorCode::option,
              std::string(where) + ": expected " + expected + ", got another value");
}

constexpr double kLargestCount = 9007199254740991.0;

}  // namespace

Span<uint8_t> bytes_of(Napi::TypedArray array) {
  Napi::ArrayBuffer buffer = array.ArrayBuffer();
  return {static_cast<uint8_t*>(buffer.Data()) + array.ByteOffset(), array.ByteLength()};
}

Span<uint8_t> bytes_argument(const Napi::CallbackInfo& info, size_t index, const char* where) {
  if (!info[index].IsTypedArray()) fail_argument(where, "a Uint8Array");
  return bytes_of(info[index].As<Napi::TypedArray>());
}

size_t count_argument(const Napi::CallbackInfo& info, size_t index, const char* where) {
  if (!info[index].IsNumber()) fail_argument(where, "a whole number");
  const double value = info[index].As<Napi::Number>().DoubleValue();
  if (!(value >= 0 && value <= kLargestCount)) fail_argument(where, "a whole number of at least 0");
  return static_cast<size_t>(value);
}

std::string text_argument(const Napi::CallbackInfo& info, size_t index, const char* where) {
  if (!info[index].IsString()) fail_argument(where, "a string");
  return info[index].As<Napi::String>().Utf8Value();
}

Napi::Array array_argument(const Napi::CallbackInfo& info, size_t index, const char* where) {
  if (!info[index].IsArray()) fail_argument(where, "an array");
  return info[index].As<Napi::Array>();
}

Napi::TypedArray tensor_at(Napi::Array list, uint32_t index, const std::string& name,
                           const Spec& spec) {
  const Napi::Value value = list.Get(index);
  const bool is_array = value.IsTypedArray();
  const auto bytes = static_cast<int64_t>(is_array ? value.As<Napi::TypedArray>().ByteLength() : 0);
  if (!is_array || bytes != spec.bytes()) {
    throw Error(ErrorCode::shape,
                "run: expected a typed array of " + std::to_string(spec.bytes()) + " bytes for " +
                    name + " " + format_spec(spec) + ", got " +
                    (is_array ? std::to_string(bytes) + " bytes" : "another value"));
  }
  return value.As<Napi::TypedArray>();
}

Napi::Object plan_to_js(Napi::Env env, const Program& program, int threads) {
  Napi::Object plan = Napi::Object::New(env);
  const auto set = [&](const char* key, double value) {
    plan.Set(key, Napi::Number::New(env, value));
  };
  set("arenaBytes", static_cast<double>(program.arena_bytes));
  set("weightBytes", static_cast<double>(program.persistent_bytes));
  set("scratchBytes", static_cast<double>(program.scratch_bytes * threads));
  set("lowerBoundBytes", static_cast<double>(program.lower_bound_bytes));
  set("flops", program.flops);
  set("bytesMoved", program.bytes);
  set("estimateMs", estimate_ms(program, threads));
  set("instructions", static_cast<double>(program.run.size()));
  std::vector<const PlannedBuffer*> sorted;
  for (const PlannedBuffer& buffer : program.planned) sorted.push_back(&buffer);
  std::stable_sort(
      sorted.begin(), sorted.end(),
      [](const PlannedBuffer* a, const PlannedBuffer* b) { return a->bytes > b->bytes; });
  Napi::Array buffers = Napi::Array::New(env, sorted.size());
  for (uint32_t i = 0; i < sorted.size(); ++i) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", Napi::String::New(env, sorted[i]->name));
    entry.Set("bytes", Napi::Number::New(env, static_cast<double>(sorted[i]->bytes)));
    buffers.Set(i, entry);
  }
  plan.Set("buffers", buffers);
  Napi::Array steps = Napi::Array::New(env, program.run.size());
  for (uint32_t i = 0; i < program.run.size(); ++i) {
    const Instruction& instruction = program.run[i];
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("op", instruction.op);
    entry.Set("backend", instruction.backend);
    entry.Set("text", instruction.text);
    entry.Set("scope", instruction.scope);
    entry.Set("flops", instruction.flops);
    entry.Set("bytes", instruction.bytes);
    Napi::Array items = Napi::Array::New(env, instruction.items.size());
    for (uint32_t phase = 0; phase < instruction.items.size(); ++phase)
      items.Set(phase, static_cast<double>(instruction.items[phase]));
    entry.Set("items", items);
    steps.Set(i, entry);
  }
  plan.Set("steps", steps);
  return plan;
}

}  // namespace smalti
