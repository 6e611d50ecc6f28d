// What one JavaScript environment (the main thread or a worker) holds: class constructors, jobs on
// their way, and the function that brings results back to its thread.
#pragma once

#include <napi.h>

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <set>

namespace smalti {

class Job;

class AddonData {
 public:
  explicit AddonData(Napi::Env env);
  AddonData(const AddonData&) = delete;
  AddonData& operator=(const AddonData&) = delete;

  static AddonData& of(Napi::Env env) { return *env.GetInstanceData<AddonData>(); }

  // Posts the job to the engine; its promise is settled on this thread.
  Napi::Promise start(std::unique_ptr<Job> job);

  Napi::FunctionReference buffer_class;
  Napi::FunctionReference program_class;
  Napi::FunctionReference session_class;

 private:
  static void settle(napi_env env, napi_value callback, void* context, void* job);
  static void clean_up(void* self);
  void execute(Job* job);
  void refuse(Job& job, std::exception_ptr reason);

  napi_threadsafe_function done_ = nullptr;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::set<Job*> executing_;  // posted, not yet executed
  size_t unsettled_ = 0;      // on the JS thread only
};

}  // namespace smalti
