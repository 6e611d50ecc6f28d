// Reads and writes copy on the JavaScript thread; they are refused while a queued run may change,
// or read, the memory.
#include "bindings/buffer_wrap.h"

#include <cstring>

#include "bindings/convert.h"
#include "bindings/errors.h"
#include "native/core/error.h"

namespace smalti {
namespace {

void expect_range(const char* where, size_t offset, size_t bytes, size_t size) {
  if (offset <= size && bytes <= size - offset) return;
  throw Error(ErrorCode::option, std::string(where) + ": expected a range within " +
                                     std::to_string(size) + " bytes, got " + std::to_string(bytes) +
                                     " from " + std::to_string(offset));
}

// The values of f32 tensors in files: { path, offset, dtype: "f32" | "f16" | "bf16" }.
FileValues file_values(Napi::Object source) {
  FileValues values;
  values.file = WeightFile::open(source.Get("path").ToString().Utf8Value());
  values.offset = source.Get("offset").ToNumber().Int64Value();
  const std::string dtype = source.Get("dtype").ToString().Utf8Value();
  for (const Dtype stored : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    if (dtype != dtype_name(stored)) continue;
    values.stored = stored;
    return values;
  }
  throw Error(ErrorCode::dtype, "NativeBuffer: expected f32, f16 or bf16, got " + dtype);
}

void expect_idle(const char* where, int runs) {
  if (runs == 0) return;
  throw Error(ErrorCode::option,
              std::string(where) +
                  ": expected an idle buffer, got one in use by a run; await the run first");
}

}  // namespace

Napi::Function BufferWrap::define(Napi::Env env) {
  return DefineClass(
      env, "NativeBuffer",
      {InstanceAccessor<&BufferWrap::byte_length>("byteLength"),
       InstanceMethod<&BufferWrap::read>("read"), InstanceMethod<&BufferWrap::write>("write"),
       InstanceMethod<&BufferWrap::dispose>("dispose")});
}

BufferWrap::BufferWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<BufferWrap>(info) {
  guarded(info.Env(), [&] {
    bytes_ = count_argument(info, 0, "NativeBuffer");
    const std::string name = info[1].IsUndefined() ? "" : text_argument(info, 1, "NativeBuffer");
    if (info[2].IsObject()) {
      buffer_ = std::make_shared<Buffer>(bytes_, name, file_values(info[2].As<Napi::Object>()));
      return;
    }
    buffer_ = std::make_shared<Buffer>(bytes_, name);
    count_memory(info.Env(), 1);
  });
}

BufferWrap::~BufferWrap() { count_memory(Env(), -1); }

// Tells the garbage collector of memory gained or lost.
void BufferWrap::count_memory(Napi::Env env, int sign) const {
  if (buffer_ && !buffer_->is_of_file())
    Napi::MemoryManagement::AdjustExternalMemory(env, sign * static_cast<int64_t>(bytes_));
}

const std::shared_ptr<Buffer>& BufferWrap::buffer(const char* where) const {
  if (!buffer_)
    throw Error(ErrorCode::option,
                std::string(where) + ": expected a live buffer, got a disposed one");
  return buffer_;
}

Napi::Value BufferWrap::byte_length(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(bytes_));
}

Napi::Value BufferWrap::read(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    Buffer& source = *buffer("read");
    expect_idle("read", source.updates.load());
    const size_t offset =
        info.Length() > 0 && !info[0].IsUndefined() ? count_argument(info, 0, "read") : 0;
    const size_t rest = bytes_ - std::min(offset, bytes_);
    const size_t bytes =
        info.Length() > 1 && !info[1].IsUndefined() ? count_argument(info, 1, "read") : rest;
    expect_range("read", offset, bytes, bytes_);
    Napi::ArrayBuffer copy = Napi::ArrayBuffer::New(info.Env(), bytes);
    if (bytes > 0) std::memcpy(copy.Data(), source.hold()->data() + offset, bytes);
    return copy;
  });
}

void BufferWrap::write(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] {
    Buffer& target = *buffer("write");
    expect_idle("write", target.runs.load());
    if (target.is_of_file())
      throw Error(ErrorCode::option, "write: expected a buffer in memory, got values of a file");
    const Span<uint8_t> bytes = bytes_argument(info, 0, "write");
    const size_t offset =
        info.Length() > 1 && !info[1].IsUndefined() ? count_argument(info, 1, "write") : 0;
    expect_range("write", offset, bytes.size(), bytes_);
    if (!bytes.empty()) std::memcpy(target.hold()->data() + offset, bytes.data(), bytes.size());
  });
}

void BufferWrap::dispose(const Napi::CallbackInfo& info) {
  count_memory(info.Env(), -1);
  buffer_.reset();
}

}  // namespace smalti
