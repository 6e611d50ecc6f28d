// One promise: work for the engine's thread, and its result for JavaScript.
#pragma once

#include <napi.h>

#include <exception>
#include <vector>

#include "native/runtime/session.h"

namespace smalti {

class Job {
 public:
  explicit Job(Napi::Env env) : deferred_(Napi::Promise::Deferred::New(env)) {}
  virtual ~Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // On the engine's thread; touches no JavaScript value.
  virtual void execute() = 0;
  // On the JavaScript thread, after execute() succeeded.
  virtual Napi::Value result(Napi::Env env) = 0;
  // On the JavaScript thread (or when its environment ends), whatever happened.
  virtual void finish() {}
  virtual AbortFlag& abort() = 0;

  // Keeps a JavaScript value alive until the job is settled.
  void keep(Napi::Object value) { kept_.push_back(Napi::Persistent(value)); }

 protected:
  std::vector<Napi::ObjectReference>& kept() { return kept_; }

 private:
  friend class AddonData;
  void run();
  void settle(Napi::Env env);
  void abandon();

  Napi::Promise::Deferred deferred_;
  std::vector<Napi::ObjectReference> kept_;
  std::exception_ptr failure_;
};

}  // namespace smalti
