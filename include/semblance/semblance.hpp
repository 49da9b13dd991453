// semblance.hpp: semblance.h for C++17, with owners and exceptions. Header-only.
//
// For: the same calls with RAII, std::string and errors thrown as semblance::Error. Not for: anything
// that semblance.h cannot do; its comments are the reference, and its thread tags hold here too.
//
//     semblance::Api api(semblance_get_api);               // or a pointer from dlsym
//     semblance::Engine engine(api, R"({"semblance": 1})");
//     engine.edit(src, nullptr, recipe, dst, [](const semblance_job_state &s) { return true; });
//
// Everything moves and nothing copies. An Api is a pointer to a table that lives as long as the
// process: copy it freely.
#ifndef SEMBLANCE_HPP
#define SEMBLANCE_HPP

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "semblance.h"

namespace semblance {

// A failed call. what() is the message, with the hint in brackets.
class Error : public std::runtime_error {
public:
  explicit Error(const semblance_error &e)
      : std::runtime_error(e.hint[0] == '\0' ? std::string(e.message)
                                             : std::string(e.message) + " (" + e.hint + ")"),
        error_(e) {}

  std::int32_t code() const noexcept { return error_.code; }
  const char *message() const noexcept { return error_.message; }
  const char *hint() const noexcept { return error_.hint; }
  const char *parameter() const noexcept { return error_.parameter; }

private:
  semblance_error error_;
};

// A struct of semblance.h, zeroed, with its struct_size set.
template <class T> T make() noexcept {
  T value{};
  value.struct_size = sizeof(T);
  return value;
}

// The function table.
class Api {
public:
  // `get_api` is semblance_get_api, linked or found with dlsym. Throws std::runtime_error when the
  // library does not serve the major version that this header is of.
  explicit Api(semblance_get_api_fn get_api) : table_(get_api(SEMBLANCE_MAJOR)) {
    if (table_ == nullptr) {
      throw std::runtime_error("this libsemblance does not serve version 1 of its interface");
    }
  }

  const semblance_api *operator->() const noexcept { return table_; }
  const semblance_api *get() const noexcept { return table_; }

  // Runs call(&error) and throws what it reports.
  template <class Call> void check(Call &&call) const {
    auto error = make<semblance_error>();
    if (call(&error) != SEMBLANCE_OK) {
      throw Error(error);
    }
  }

  // Runs call(&json, &error) and takes over the string.
  template <class Call> std::string string(Call &&call) const {
    char *json = nullptr;
    check([&](semblance_error *error) { return call(&json, error); });
    const std::unique_ptr<char, void (*)(char *)> owned(json, table_->string_free);
    return std::string(json);
  }

private:
  const semblance_api *table_;
};

// Goes on while it returns true. May throw: the call is cancelled and the exception comes out of it.
using Progress = std::function<bool(const semblance_job_state &)>;

namespace detail {

// A C callback around a Progress; keeps an exception until the C call is over.
struct Watcher {
  const Progress *progress;
  std::exception_ptr thrown;

  static std::int32_t SEMBLANCE_CALL call(void *user, const semblance_job_state *state) noexcept {
    auto *self = static_cast<Watcher *>(user);
    try {
      return (*self->progress)(*state) ? SEMBLANCE_CONTINUE : 0;
    } catch (...) {
      self->thrown = std::current_exception();
      return 0;
    }
  }

  semblance_progress_fn function() const noexcept {
    return *progress ? &Watcher::call : semblance_progress_fn{};
  }
};

// An owner of a handle that is given back through one function of the table.
template <class Handle, void(SEMBLANCE_CALL *semblance_api::*Free)(Handle *)> class Owner {
public:
  Owner(Api api, Handle *handle) noexcept : api_(api), handle_(handle) {}
  Owner(Owner &&other) noexcept : api_(other.api_), handle_(std::exchange(other.handle_, nullptr)) {}
  Owner &operator=(Owner &&other) noexcept {
    std::swap(api_, other.api_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  Owner(const Owner &) = delete;
  Owner &operator=(const Owner &) = delete;
  ~Owner() { (api_.get()->*Free)(handle_); }

  const Api &api() const noexcept { return api_; }
  Handle *get() const noexcept { return handle_; }

private:
  Api api_;
  Handle *handle_;
};

} // namespace detail

// A finished edit.
class Result : public detail::Owner<semblance_result, &semblance_api::result_free> {
public:
  using Owner::Owner;

  semblance_rect extent() const {
    semblance_rect rect{};
    api().check([&](auto *e) { return api()->result_extent(get(), &rect, e); });
    return rect;
  }

  semblance_rect input_needed(const semblance_rect &rect) const {
    semblance_rect needed{};
    api().check([&](auto *e) { return api()->result_input_needed(get(), &rect, &needed, e); });
    return needed;
  }

  // `mask` may be null.
  semblance_tally render(const semblance_pixels &src, const semblance_mask *mask,
                         const semblance_pixels &dst) const {
    auto tally = make<semblance_tally>();
    api().check([&](auto *e) { return api()->result_render(get(), &src, mask, &dst, &tally, e); });
    return tally;
  }

  // `src` shows the layer's rectangle `part` at another size. `mask` may be null.
  semblance_tally render_reduced(const semblance_rect &part, const semblance_pixels &src,
                                 const semblance_mask *mask, const semblance_pixels &dst) const {
    auto tally = make<semblance_tally>();
    api().check([&](auto *e) {
      return api()->result_render_reduced(get(), &part, &src, mask, &dst, &tally, e);
    });
    return tally;
  }

  std::string recipe() const {
    return api().string([&](char **s, auto *e) { return api()->result_recipe(get(), s, e); });
  }

  std::string report() const {
    return api().string([&](char **s, auto *e) { return api()->result_report(get(), s, e); });
  }
};

// Work under way, or ended. Its destructor cancels and joins.
class Job : public detail::Owner<semblance_job, &semblance_api::job_free> {
public:
  using Owner::Owner;

  semblance_job_state poll() const {
    auto state = make<semblance_job_state>();
    api().check([&](auto *e) { return api()->job_poll(get(), &state, e); });
    return state;
  }

  // Negative: for ever.
  semblance_job_state wait(std::int64_t timeout_ms = -1) const {
    auto state = make<semblance_job_state>();
    api().check([&](auto *e) { return api()->job_wait(get(), timeout_ms, &state, e); });
    return state;
  }

  void cancel() const noexcept { api()->job_cancel(get()); }

  // Throws the job's own error when it failed. Null handle inside from a job that only loads.
  Result take() const {
    semblance_result *result = nullptr;
    api().check([&](auto *e) { return api()->job_take(get(), &result, e); });
    return Result(api(), result);
  }
};

// A model, its attributes and its line of jobs.
class Engine : public detail::Owner<semblance_engine, &semblance_api::engine_destroy> {
public:
  // Empty options are the defaults.
  explicit Engine(Api api, const std::string &options_json = {})
      : Owner(api, create(api, options_json)) {}

  void load(const Progress &progress = {}) const {
    watched(progress, [&](auto function, void *user, auto *e) {
      return api()->engine_load(get(), function, user, e);
    });
  }

  Job load_start() const {
    semblance_job *job = nullptr;
    api().check([&](auto *e) { return api()->engine_load_start(get(), &job, e); });
    return Job(api(), job);
  }

  std::string describe() const {
    return api().string([&](char **s, auto *e) { return api()->engine_describe(get(), s, e); });
  }
  std::string attributes() const {
    return api().string([&](char **s, auto *e) { return api()->engine_attributes(get(), s, e); });
  }
  std::string parameters() const {
    return api().string([&](char **s, auto *e) { return api()->engine_parameters(get(), s, e); });
  }

  void purge() const noexcept { api()->engine_purge(get()); }

  // The oldest entry of the log, if there is one.
  std::optional<semblance_log_entry> log_poll() const {
    auto entry = make<semblance_log_entry>();
    return api()->log_poll(get(), &entry) == 1 ? std::optional(entry) : std::nullopt;
  }

  // `mask` may be null.
  Job start(const semblance_pixels &layer, const semblance_mask *mask, const std::string &recipe,
            std::int32_t kind = SEMBLANCE_JOB_FINAL,
            std::int32_t if_busy = SEMBLANCE_IF_BUSY_WAIT) const {
    semblance_job *job = nullptr;
    api().check([&](auto *e) {
      return api()->job_start(get(), &layer, mask, recipe.c_str(), kind, if_busy, &job, e);
    });
    return Job(api(), job);
  }

  // All in one. `mask` may be null, `tally` too.
  Result edit(const semblance_pixels &src, const semblance_mask *mask, const std::string &recipe,
              const semblance_pixels &dst, const Progress &progress = {},
              semblance_tally *tally = nullptr) const {
    Result result(api(), nullptr);
    watched(progress, [&](auto function, void *user, auto *e) {
      semblance_result *made = nullptr;
      const std::int32_t code = api()->edit(get(), &src, mask, recipe.c_str(), &dst, function,
                                            user, tally, &made, e);
      result = Result(api(), made); // owned even if the callback threw as the work ended
      return code;
    });
    return result;
  }

private:
  static semblance_engine *create(const Api &api, const std::string &options) {
    semblance_engine *engine = nullptr;
    api.check([&](auto *e) { return api->engine_create(options.c_str(), &engine, e); });
    return engine;
  }

  template <class Call> void watched(const Progress &progress, Call &&call) const {
    detail::Watcher watcher{&progress, nullptr};
    auto error = make<semblance_error>();
    const std::int32_t code = call(watcher.function(), &watcher, &error);
    if (watcher.thrown) {
      std::rethrow_exception(watcher.thrown);
    }
    if (code != SEMBLANCE_OK) {
      throw Error(error);
    }
  }
};

} // namespace semblance

#endif // SEMBLANCE_HPP
