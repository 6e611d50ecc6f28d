// JavaScript values <-> plain structs; the only place that reads arguments.
#pragma once

#include <napi.h>

#include <string>

#include "native/compile/program.h"
#include "native/core/span.h"

namespace smalti {

// Bytes of a typed array that is passed as argument `index`; throws Error(option) naming `where`.
Span<uint8_t> bytes_argument(const Napi::CallbackInfo& info, size_t index, const char* where);
// A whole number of at least 0.
size_t count_argument(const Napi::CallbackInfo& info, size_t index, const char* where);
std::string text_argument(const Napi::CallbackInfo& info, size_t index, const char* where);
Napi::Array array_argument(const Napi::CallbackInfo& info, size_t index, const char* where);

// Bytes of a typed array.
Span<uint8_t> bytes_of(Napi::TypedArray array);
// Element `index`, which must be a typed array of as many bytes as `spec` takes.
Napi::TypedArray tensor_at(Napi::Array list, uint32_t index, const std::string& name,
                           const Spec& spec);

Napi::Object plan_to_js(Napi::Env env, const Program& program, int threads);

}  // namespace smalti
