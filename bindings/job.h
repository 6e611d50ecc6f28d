// One promise: work for the engine's thread, and its result for JavaScript.
#pragma once

#include <napi.h>

#include <exception>
#include <vector>

#include "native/core/abort_flag.h"

namespace smalti {

class Job {
 public:
  // `where` names the call in errors.
  Job(Napi::Env env, const char* where)
      : where_(where), deferred_(Napi::Promise::Deferred::New(env)) {}
  virtual ~Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // On the JavaScript thread, before the job is posted; finish() follows in any case.
  virtual void begin() {}
  // On the engine's thread; touches no JavaScript value.
  virtual void execute() = 0;
  // On the JavaScript thread, after execute() succeeded.
  virtual Napi::Value result(Napi::Env env) = 0;
  // On the JavaScript thread (or when its environment ends), whatever happened.
  virtual void finish() {}

  // Lets the word `flag` of an object stop the job; other values are no flag.
  void stop_by(Napi::Value abort);
  // Keeps a JavaScript value alive until the job is settled.
  void keep(Napi::Object value) { kept_.push_back(Napi::Persistent(value)); }

 protected:
  std::vector<Napi::ObjectReference>& kept() { return kept_; }
  const AbortFlag& abort() const { return abort_; }

 private:
  friend class AddonData;
  void run();
  void settle(Napi::Env env);
  void abandon();

  const char* where_;
  Napi::Promise::Deferred deferred_;
  AbortFlag abort_;
  std::vector<Napi::ObjectReference> kept_;
  std::exception_ptr failure_;
};

}  // namespace smalti
