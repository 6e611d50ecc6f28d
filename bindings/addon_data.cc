// Jobs from JavaScript to the engine and back. When the environment ends, its jobs are aborted and
// waited for, so that nothing touches memory of a finished thread.
#include "bindings/addon_data.h"

#include "bindings/convert.h"
#include "bindings/errors.h"
#include "bindings/job.h"
#include "native/core/error.h"
#include "native/runtime/engine.h"

namespace smalti {

void Job::run() {
  try {
    if (abort_.is_raised())
      throw Error(ErrorCode::aborted, std::string(where_) + ": expected to start, got aborted");
    execute();
  } catch (...) {
    failure_ = std::current_exception();
  }
}

void Job::stop_by(Napi::Value abort) {
  if (!abort.IsObject()) return;
  const Napi::Value flag = abort.As<Napi::Object>().Get("flag");
  const bool is_word = flag.IsTypedArray() &&
                       flag.As<Napi::TypedArray>().TypedArrayType() == napi_int32_array &&
                       flag.As<Napi::TypedArray>().ElementLength() == 1;
  if (!is_word)
    throw Error(ErrorCode::option,
                std::string(where_) + ": expected an abort flag Int32Array(1), got another value");
  abort_.word = reinterpret_cast<const int32_t*>(bytes_of(flag.As<Napi::TypedArray>()).data());
  keep(flag.As<Napi::Object>());
}

void Job::settle(Napi::Env env) {
  try {
    if (failure_) std::rethrow_exception(failure_);
    deferred_.Resolve(result(env));
  } catch (...) {
    deferred_.Reject(to_js_error(env, std::current_exception()));
  }
  finish();
}

// The environment is gone: its references with it.
void Job::abandon() {
  for (Napi::ObjectReference& reference : kept_) reference.SuppressDestruct();
  finish();
}

AddonData::AddonData(Napi::Env env) {
  napi_value name = Napi::String::New(env, "smalti");
  const napi_status status = napi_create_threadsafe_function(
      env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, settle, &done_);
  if (status != napi_ok)
    throw Napi::Error::New(env, "smalti: expected a thread-safe function, got none");
  napi_unref_threadsafe_function(env, done_);
  // Hooks run in reverse order: this one before the function above is closed.
  napi_add_env_cleanup_hook(env, clean_up, this);
}

void AddonData::clean_up(void* self) {
  auto& data = *static_cast<AddonData*>(self);
  std::unique_lock<std::mutex> lock(data.mutex_);
  for (Job* job : data.executing_) job->abort_.is_set = true;
  data.idle_.wait(lock, [&] { return data.executing_.empty(); });
}

Napi::Promise AddonData::start(std::unique_ptr<Job> owned) {
  Job* job = owned.get();
  const Napi::Promise promise = job->deferred_.Promise();
  const Napi::Env env = job->deferred_.Env();
  job->begin();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    executing_.insert(job);
  }
  try {
    Engine::instance().post([this, job] { execute(job); });
  } catch (...) {
    refuse(*job, std::current_exception());
    return promise;
  }
  owned.release();  // settle() deletes it
  if (unsettled_++ == 0) napi_ref_threadsafe_function(env, done_);
  return promise;
}

// The engine did not take the job.
void AddonData::refuse(Job& job, std::exception_ptr reason) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    executing_.erase(&job);
  }
  job.failure_ = std::move(reason);
  job.settle(job.deferred_.Env());
}

void AddonData::execute(Job* job) {
  job->run();
  // Under the lock: once it is empty this object may go.
  const std::lock_guard<std::mutex> lock(mutex_);
  napi_call_threadsafe_function(done_, job, napi_tsfn_nonblocking);
  executing_.erase(job);
  idle_.notify_all();
}

void AddonData::settle(napi_env env, napi_value, void* context, void* data) {
  const std::unique_ptr<Job> job(static_cast<Job*>(data));
  if (env == nullptr) {
    job->abandon();
    return;
  }
  auto& self = *static_cast<AddonData*>(context);
  if (--self.unsettled_ == 0) napi_unref_threadsafe_function(env, self.done_);
  const Napi::HandleScope scope(env);
  try {
    job->settle(env);
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
  }
}

}  // namespace smalti
