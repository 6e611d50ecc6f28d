// Jobs for compile, bind and run, and the handles that start them. Inputs are copied here, when the
// call is made; outputs are copied back when the promise is settled.
#include "bindings/program_wrap.h"

#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

#include "bindings/addon_data.h"
#include "bindings/buffer_wrap.h"
#include "bindings/convert.h"
#include "bindings/errors.h"
#include "bindings/job.h"
#include "native/core/error.h"
#include "native/core/thread_pool.h"
#include "native/ir/graph.h"

namespace smalti {
namespace {

class CompileJob final : public Job {
 public:
  CompileJob(Napi::Env env, Graph graph, CompileOptions options)
      : Job(env, "compile"), graph_(std::move(graph)), options_(std::move(options)) {}
  void execute() override {
    program_ = std::make_shared<const Program>(compile(std::move(graph_), options_, abort()));
  }
  Napi::Value result(Napi::Env env) override {
    return ProgramWrap::create(env, std::move(program_));
  }

 private:
  Graph graph_;
  CompileOptions options_;
  std::shared_ptr<const Program> program_;
};

class BindJob final : public Job {
 public:
  BindJob(Napi::Env env, std::shared_ptr<const Program> program,
          std::vector<std::shared_ptr<Buffer>> buffers)
      : Job(env, "bind"), program_(std::move(program)), buffers_(std::move(buffers)) {}
  void begin() override {
    for (const std::shared_ptr<Buffer>& buffer : buffers_) ++buffer->runs;
  }
  void execute() override { session_ = std::make_shared<Session>(program_, buffers_, abort()); }
  Napi::Value result(Napi::Env env) override {
    return SessionWrap::create(env, std::move(session_));
  }
  void finish() override {
    for (const std::shared_ptr<Buffer>& buffer : buffers_) --buffer->runs;
  }

 private:
  std::shared_ptr<const Program> program_;
  std::vector<std::shared_ptr<Buffer>> buffers_;
  std::shared_ptr<Session> session_;
};

class RunJob final : public Job {
 public:
  RunJob(Napi::Env env, std::shared_ptr<Session> session)
      : Job(env, "run"), session_(std::move(session)) {}

  void copy_inputs(Napi::Array inputs) {
    const std::vector<InputSlot>& slots = session_->program().inputs;
    expect_length("inputs", inputs, slots.size());
    for (uint32_t i = 0; i < slots.size(); ++i) {
      const Span<uint8_t> bytes = bytes_of(tensor_at(inputs, i, slots[i].name, slots[i].spec));
      data_.inputs.emplace_back(bytes.size(), "input " + slots[i].name);
      std::memcpy(data_.inputs.back().data(), bytes.data(), bytes.size());
    }
  }

  void keep_outputs(Napi::Array outputs) {
    const std::vector<OutputSlot>& slots = session_->program().outputs;
    expect_length("outputs", outputs, slots.size());
    for (uint32_t i = 0; i < slots.size(); ++i) {
      tensor_at(outputs, i, slots[i].name, slots[i].spec);
      data_.outputs.emplace_back(static_cast<size_t>(slots[i].spec.bytes()),
                                 "output " + slots[i].name);
    }
    keep(outputs);
    outputs_index_ = kept().size() - 1;
  }

  // `times`: an array to fill with the lists of milliseconds of each instruction, or another value.
  void keep_times(Napi::Value times) {
    if (!times.IsArray()) return;
    keep(times.As<Napi::Object>());
    data_.milliseconds.resize(session_->program().run.size());
  }

  void begin() override { session_->begin_use(); }

  void execute() override {
    const auto start = std::chrono::steady_clock::now();
    session_->run(data_, abort());
    milliseconds_ =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  }

  Napi::Value result(Napi::Env env) override {
    const std::vector<OutputSlot>& slots = session_->program().outputs;
    for (uint32_t i = 0; i < slots.size(); ++i) {
      const Span<uint8_t> to = bytes_of(tensor_at(kept()[outputs_index_].Value().As<Napi::Array>(),
                                                  i, slots[i].name, slots[i].spec));
      std::memcpy(to.data(), data_.outputs[i].data(), to.size());
    }
    for (uint32_t i = 0; i < data_.milliseconds.size(); ++i) {
      Napi::Array times = Napi::Array::New(env);
      for (const double ms : data_.milliseconds[i])
        times.Set(times.Length(), Napi::Number::New(env, ms));
      kept()[outputs_index_ + 1].Set(i, times);
    }
    Napi::Object object = Napi::Object::New(env);
    object.Set("ms", Napi::Number::New(env, milliseconds_));
    return object;
  }

  void finish() override { session_->end_use(); }

 private:
  static void expect_length(const char* what, Napi::Array list, size_t length) {
    if (list.Length() == length) return;
    throw Error(ErrorCode::option, "run: expected " + std::to_string(length) + " " + what +
                                       ", got " + std::to_string(list.Length()));
  }

  std::shared_ptr<Session> session_;
  RunData data_;
  size_t outputs_index_ = 0;
  double milliseconds_ = 0;
};

}  // namespace

Napi::Function ProgramWrap::define(Napi::Env env) {
  return DefineClass(
      env, "NativeProgram",
      {InstanceMethod<&ProgramWrap::plan>("plan"), InstanceMethod<&ProgramWrap::print>("print"),
       InstanceMethod<&ProgramWrap::bind>("bind"),
       InstanceMethod<&ProgramWrap::dispose>("dispose")});
}

Napi::Object ProgramWrap::create(Napi::Env env, std::shared_ptr<const Program> program) {
  Napi::Object object = AddonData::of(env).program_class.New({});
  Unwrap(object)->program_ = std::move(program);
  return object;
}

const std::shared_ptr<const Program>& ProgramWrap::program(const char* where) const {
  if (!program_)
    throw Error(ErrorCode::option,
                std::string(where) + ": expected a live program, got a disposed one");
  return program_;
}

Napi::Value ProgramWrap::plan(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return plan_to_js(info.Env(), *program("plan"), thread_pool()->threads());
  });
}

Napi::Value ProgramWrap::print(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    return Napi::String::New(info.Env(), smalti::print(*program("print")));
  });
}

Napi::Value ProgramWrap::bind(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Array list = array_argument(info, 0, "bind");
    std::vector<std::shared_ptr<Buffer>> buffers;
    const Napi::Function buffer_class = AddonData::of(info.Env()).buffer_class.Value();
    for (uint32_t i = 0; i < list.Length(); ++i) {
      const Napi::Value value = list.Get(i);
      const bool is_buffer = value.IsObject() && value.As<Napi::Object>().InstanceOf(buffer_class);
      if (!is_buffer)
        throw Error(ErrorCode::option,
                    "bind: expected an array of NativeBuffer, got another value");
      buffers.push_back(BufferWrap::Unwrap(value.As<Napi::Object>())->buffer("bind"));
    }
    auto job = std::make_unique<BindJob>(info.Env(), program("bind"), std::move(buffers));
    job->stop_by(info[1]);
    return AddonData::of(info.Env()).start(std::move(job));
  });
}

void ProgramWrap::dispose(const Napi::CallbackInfo&) { program_.reset(); }

Napi::Function SessionWrap::define(Napi::Env env) {
  return DefineClass(
      env, "NativeSession",
      {InstanceMethod<&SessionWrap::run>("run"), InstanceMethod<&SessionWrap::dispose>("dispose")});
}

Napi::Object SessionWrap::create(Napi::Env env, std::shared_ptr<Session> session) {
  Napi::Object object = AddonData::of(env).session_class.New({});
  Unwrap(object)->session_ = std::move(session);
  return object;
}

Napi::Value SessionWrap::run(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    if (!session_)
      throw Error(ErrorCode::option, "run: expected a live session, got a disposed one");
    auto job = std::make_unique<RunJob>(info.Env(), session_);
    job->copy_inputs(array_argument(info, 0, "run"));
    job->keep_outputs(array_argument(info, 1, "run"));
    job->keep_times(info[3]);
    job->stop_by(info[2]);
    return AddonData::of(info.Env()).start(std::move(job));
  });
}

void SessionWrap::dispose(const Napi::CallbackInfo&) { session_.reset(); }

Napi::Value start_compile(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Span<uint8_t> bytes = bytes_argument(info, 0, "compile");
    CompileOptions options;
    if (!info[1].IsUndefined()) options.isa = text_argument(info, 1, "compile");
    if (info[3].IsObject()) {
      const Napi::Object choices = info[3].As<Napi::Object>();
      options.winograd = choices.Get("winograd").ToBoolean();
      options.quantize = quantize_named(choices.Get("quantize").ToString());
    }
    Graph graph = decode({bytes.data(), bytes.size()});
    auto job = std::make_unique<CompileJob>(info.Env(), std::move(graph), std::move(options));
    job->stop_by(info[2]);
    return AddonData::of(info.Env()).start(std::move(job));
  });
}

}  // namespace smalti
