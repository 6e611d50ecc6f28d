// The code of an error is its property `code`, one of lib/errors.ts.
#include "bindings/errors.h"

#include <new>
#include <string>

#include "native/core/error.h"

namespace smalti {
namespace {

Napi::Value make_error(Napi::Env env, const char* code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error.Value();
}

}  // namespace

Napi::Value to_js_error(Napi::Env env, std::exception_ptr exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const Error& error) {
    return make_error(env, error_code_name(error.code()), error.what());
  } catch (const Napi::Error& error) {
    return error.Value();
  } catch (const std::bad_alloc&) {
    return make_error(env, "memory", "memory: expected enough for a small table, got none");
  } catch (const std::exception& error) {
    return make_error(env, "internal",
                      std::string("core: expected no failure, got ") + error.what());
  }
}

}  // namespace smalti
