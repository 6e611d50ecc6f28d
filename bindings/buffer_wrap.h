// NativeBuffer: memory of a weight or state.
#pragma once

#include <napi.h>

#include <memory>

#include "native/runtime/session.h"

namespace smalti {

class BufferWrap : public Napi::ObjectWrap<BufferWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit BufferWrap(const Napi::CallbackInfo& info);
  ~BufferWrap() override;

  // Throws Error(option) after dispose().
  const std::shared_ptr<Buffer>& buffer(const char* where) const;

 private:
  Napi::Value byte_length(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  void write(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);
  void count_memory(Napi::Env env, int sign) const;

  std::shared_ptr<Buffer> buffer_;
  size_t bytes_ = 0;
};

}  // namespace smalti
