// The one exception of the native side. Bindings turn it into a JS error with the same code
// (lib/errors.ts).
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace smalti {

enum class ErrorCode { shape, dtype, option, checkpoint, device, memory, aborted, internal };

constexpr const char* error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::shape:
      return "shape";
    case ErrorCode::dtype:
      return "dtype";
    case ErrorCode::option:
      return "option";
    case ErrorCode::checkpoint:
      return "checkpoint";
    case ErrorCode::device:
      return "device";
    case ErrorCode::memory:
      return "memory";
    case ErrorCode::aborted:
      return "aborted";
    case ErrorCode::internal:
      return "internal";
  }
  return "internal";
}

class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  ErrorCode code() const { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorCode code_;
  std::string message_;
};

}  // namespace smalti
