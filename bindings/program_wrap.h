// NativeProgram and NativeSession: handles on what the engine made.
#pragma once

#include <napi.h>

#include <memory>
#include <string>

#include "native/compile/program.h"
#include "native/runtime/session.h"

namespace smalti {

class ProgramWrap : public Napi::ObjectWrap<ProgramWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Object create(Napi::Env env, std::shared_ptr<const Program> program);
  explicit ProgramWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ProgramWrap>(info) {}

 private:
  const std::shared_ptr<const Program>& program(const char* where) const;
  Napi::Value plan(const Napi::CallbackInfo& info);
  Napi::Value print(const Napi::CallbackInfo& info);
  Napi::Value bind(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<const Program> program_;
};

class SessionWrap : public Napi::ObjectWrap<SessionWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Object create(Napi::Env env, std::shared_ptr<Session> session);
  explicit SessionWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SessionWrap>(info) {}

 private:
  Napi::Value run(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<Session> session_;
};

// compile(bytes, isa, abort, { winograd, quantize }): Promise<NativeProgram>
Napi::Value start_compile(const Napi::CallbackInfo& info);

}  // namespace smalti
