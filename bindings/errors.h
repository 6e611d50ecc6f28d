// Native exceptions -> JavaScript errors with a code.
#pragma once

#include <napi.h>

#include <exception>

namespace smalti {

// An Error with `code`, from any exception.
Napi::Value to_js_error(Napi::Env env, std::exception_ptr exception);

// Runs `body` and rethrows its native exceptions as JavaScript ones.
template <class F>
auto guarded(Napi::Env env, F&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw Napi::Error(env, to_js_error(env, std::current_exception()));
  }
}

}  // namespace smalti
