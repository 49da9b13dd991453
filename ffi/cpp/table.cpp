// The function table of semblance.h.
//
// For: what a C compiler must see right: struct sizes, NULL, strings, callbacks. Not for: work; each
// function checks, copies into the bridge's structs, calls Rust, and copies out.
//
// Every function is noexcept and reads no more of a struct than its struct_size says. Outputs are
// written on success only.

#include "semblance-ffi/cpp/table.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <type_traits>

#include "semblance-ffi/src/bridge.rs.h"
#include "semblance/semblance.h"

namespace semblance::ffi {
namespace {

// The layout that hosts were compiled with. Numbers here may only be added.
#define AT(type, field, offset) static_assert(offsetof(type, field) == (offset), #type "." #field)
#define SIZE(type, size) static_assert(sizeof(type) == (size), #type)
SIZE(void *, 8);
SIZE(semblance_error, 840);
AT(semblance_error, code, 4);
AT(semblance_error, message, 8);
AT(semblance_error, hint, 520);
AT(semblance_error, parameter, 776);
SIZE(semblance_rect, 24);
AT(semblance_rect, y, 8);
AT(semblance_rect, width, 16);
AT(semblance_rect, height, 20);
SIZE(semblance_pixels, 88);
AT(semblance_pixels, data, 16);
AT(semblance_pixels, data_size, 24);
AT(semblance_pixels, row_stride, 32);
AT(semblance_pixels, rect, 40);
AT(semblance_pixels, color, 64);
AT(semblance_pixels, icc, 72);
SIZE(semblance_mask, 56);
AT(semblance_mask, data, 8);
AT(semblance_mask, rect, 32);
SIZE(semblance_job_state, 16);
SIZE(semblance_tally, 40);
AT(semblance_tally, selected, 32);
SIZE(semblance_log_entry, 1024);
SIZE(semblance_api, 232);
AT(semblance_api, version, 8);
AT(semblance_api, engine_create, 48);
AT(semblance_api, job_start, 120);
AT(semblance_api, result_extent, 168);
AT(semblance_api, edit, 216);
AT(semblance_api, result_render_reduced, 224);
#undef AT
#undef SIZE

// Texts longer than this are refused; reading stops here for one that was never terminated.
constexpr std::size_t max_text = (std::size_t{1} << 20) + 1;

// ------------------------------------------------------------------------------------ errors --

// Copies as much of `text` as fits, cut between UTF-8 characters, and terminates it.
template <std::size_t N> void copy_text(char (&to)[N], const char *text, std::size_t size) {
  std::size_t n = std::min(size, N - 1);
  if (n < size) {
    // A byte 10xxxxxx continues a character: step back to where that began.
    while (n > 0 && (static_cast<unsigned char>(text[n]) & 0xC0u) == 0x80u) {
      --n;
    }
  }
  std::memcpy(to, text, n);
  std::memset(to + n, 0, N - n);
}

// Writes as much of `ours` as the host's struct holds.
template <class T> void write_struct(T *theirs, T ours) {
  const std::size_t n = std::min<std::size_t>(theirs->struct_size, sizeof(T));
  if (n >= sizeof(ours.struct_size)) {
    ours.struct_size = theirs->struct_size;
    std::memcpy(theirs, &ours, n);
  }
}

std::int32_t report(semblance_error *error, const Outcome &outcome) {
  if (error == nullptr) {
    return outcome.code;
  }
  if (outcome.code == SEMBLANCE_OK) {
    if (error->struct_size >= offsetof(semblance_error, message)) {
      error->code = SEMBLANCE_OK;
    }
    return SEMBLANCE_OK;
  }
  semblance_error ours;
  ours.code = outcome.code;
  copy_text(ours.message, outcome.message.data(), outcome.message.size());
  copy_text(ours.hint, outcome.hint.data(), outcome.hint.size());
  copy_text(ours.parameter, outcome.parameter.data(), outcome.parameter.size());
  write_struct(error, ours);
  return outcome.code;
}

Outcome failure(std::int32_t code, std::string message, const char *parameter, const char *hint) {
  Outcome outcome{};
  outcome.code = code;
  outcome.message = rust::String::lossy(message);
  outcome.parameter = parameter;
  outcome.hint = hint;
  return outcome;
}

Outcome is_null(const char *parameter) {
  return failure(SEMBLANCE_INVALID_PARAMETER,
                 std::string(parameter) + " = NULL: must point to something", parameter,
                 "semblance.h says which arguments may be NULL");
}

// ----------------------------------------------------------------------------------- reading --

rust::Slice<const std::uint8_t> text(const char *s) {
  return {reinterpret_cast<const std::uint8_t *>(s), strnlen(s, max_text)};
}

// The size of a struct at the first release: what every host has. Frozen, unlike sizeof, so that a
// later field does not shut out the hosts of today.
template <class T> constexpr std::size_t first_size = 0;
template <> constexpr std::size_t first_size<semblance_pixels> = 88;
template <> constexpr std::size_t first_size<semblance_mask> = 56;
template <> constexpr std::size_t first_size<semblance_job_state> = 16;
template <> constexpr std::size_t first_size<semblance_tally> = 32;
template <> constexpr std::size_t first_size<semblance_log_entry> = 1024;

template <class T> bool sized(const T *theirs, const char *parameter, Outcome &outcome) {
  static_assert(first_size<T> != 0, "a struct without its first size");
  if (theirs->struct_size >= first_size<T>) {
    return true;
  }
  outcome = failure(SEMBLANCE_INVALID_PARAMETER,
                    std::string(parameter) + ".struct_size = " +
                        std::to_string(theirs->struct_size) + ": must be at least " +
                        std::to_string(first_size<T>),
                    parameter, "set it to sizeof the struct before the call");
  return false;
}

// As `sized`, for an output that may be left out.
template <class T> bool fits(const T *theirs, const char *parameter, Outcome &outcome) {
  return theirs == nullptr || sized(theirs, parameter, outcome);
}

template <class T> T copy_struct(const T *theirs) {
  static_assert(std::is_trivially_copyable_v<T>);
  T ours{};
  std::memcpy(&ours, theirs, std::min<std::size_t>(theirs->struct_size, sizeof(T)));
  return ours;
}

Rect rect(const semblance_rect &r) { return Rect{r.x, r.y, r.width, r.height}; }

bool read(const semblance_pixels *theirs, const char *parameter, Pixels &pixels, Outcome &outcome) {
  if (theirs == nullptr) {
    outcome = is_null(parameter);
    return false;
  }
  if (!sized(theirs, parameter, outcome)) {
    return false;
  }
  const semblance_pixels p = copy_struct(theirs);
  pixels = Pixels{p.samples,
                  p.order,
                  p.alpha,
                  reinterpret_cast<std::size_t>(p.data),
                  p.data_size,
                  p.row_stride,
                  rect(p.rect),
                  p.color,
                  p.reserved,
                  reinterpret_cast<std::size_t>(p.icc),
                  p.icc_size};
  return true;
}

// A mask that may be left out: `found` is what to hand to Rust.
bool read(const semblance_mask *theirs, Mask &mask, const Mask *&found, Outcome &outcome) {
  found = nullptr;
  if (theirs == nullptr) {
    return true;
  }
  if (!sized(theirs, "mask", outcome)) {
    return false;
  }
  const semblance_mask m = copy_struct(theirs);
  mask = Mask{m.samples, reinterpret_cast<std::size_t>(m.data), m.data_size, m.row_stride,
              rect(m.rect)};
  found = &mask;
  return true;
}

// ----------------------------------------------------------------------------------- handles --

// The header's handles are the bridge's under a name that C can say.
template <class To, class From> To *as(From *handle) { return reinterpret_cast<To *>(handle); }
const EngineHandle &of(const semblance_engine *e) { return *as<const EngineHandle>(e); }
const JobHandle &of(const semblance_job *j) { return *as<const JobHandle>(j); }
const ResultHandle &of(const semblance_result *r) { return *as<const ResultHandle>(r); }

semblance_job_state state(const JobState &s) {
  return {sizeof(semblance_job_state), s.state, s.phase, s.fraction};
}

// A query of `handle` that makes a string.
template <class Handle, class Query>
std::int32_t give(const Handle *handle, const char *name, char **json, semblance_error *error,
                  Query query) noexcept {
  Outcome outcome{};
  if (handle == nullptr) {
    return report(error, is_null(name));
  }
  if (json == nullptr) {
    return report(error, is_null("json"));
  }
  char *string = query(of(handle), outcome);
  if (outcome.code == SEMBLANCE_OK) {
    *json = string;
  }
  return report(error, outcome);
}

// The header forbids a callback to throw; one that does all the same cancels.
bool goes_on(semblance_progress_fn progress, void *user, const semblance_job_state &state) {
  try {
    return progress(user, &state) == SEMBLANCE_CONTINUE;
  } catch (...) {
    return false;
  }
}

// Waits for `job`, telling the host ten times a second. Returns false when the wait itself failed.
bool watch(const JobHandle &job, semblance_progress_fn progress, void *user, Outcome &outcome) {
  constexpr std::int64_t interval_ms = 100;
  bool asked = false;
  for (std::int64_t wait = 0;; wait = interval_ms) {
    const JobState now = job_wait(job, progress == nullptr ? -1 : wait, outcome);
    if (outcome.code != SEMBLANCE_OK) {
      return false;
    }
    if (now.state == SEMBLANCE_STATE_DONE || now.state == SEMBLANCE_STATE_FAILED) {
      return true;
    }
    const semblance_job_state shown = state(now);
    if (!asked && !goes_on(progress, user, shown)) {
      asked = true;
      job_cancel(job);
    }
  }
}

// --------------------------------------------------------------------------------- functions --

const char *api_version() noexcept { return version(); }
const char *api_code_name(std::int32_t code) noexcept { return code_name(code); }
const char *api_phase_name(std::int32_t phase) noexcept { return phase_name(phase); }
const void *api_get_extension(const char *) noexcept { return nullptr; }
void api_string_free(char *string) noexcept { string_free(string); }

std::int32_t api_engine_create(const char *options, semblance_engine **engine,
                               semblance_error *error) noexcept {
  Outcome outcome{};
  if (engine == nullptr) {
    return report(error, is_null("engine"));
  }
  EngineHandle *made = engine_create(text(options == nullptr ? "" : options), outcome);
  if (made != nullptr) {
    *engine = as<semblance_engine>(made);
  }
  return report(error, outcome);
}

void api_engine_destroy(semblance_engine *engine) noexcept {
  engine_destroy(as<EngineHandle>(engine));
}

std::int32_t api_engine_load(semblance_engine *engine, semblance_progress_fn progress, void *user,
                             semblance_error *error) noexcept {
  Outcome outcome{};
  if (engine == nullptr) {
    return report(error, is_null("engine"));
  }
  JobHandle *job = engine_load_start(of(engine), outcome);
  if (job == nullptr) {
    return report(error, outcome);
  }
  if (watch(*job, progress, user, outcome)) {
    job_take(*job, outcome);
  }
  job_free(job);
  return report(error, outcome);
}

std::int32_t api_engine_load_start(semblance_engine *engine, semblance_job **job,
                                   semblance_error *error) noexcept {
  Outcome outcome{};
  if (engine == nullptr || job == nullptr) {
    return report(error, is_null(engine == nullptr ? "engine" : "job"));
  }
  JobHandle *made = engine_load_start(of(engine), outcome);
  if (made != nullptr) {
    *job = as<semblance_job>(made);
  }
  return report(error, outcome);
}

std::int32_t api_engine_describe(const semblance_engine *engine, char **json,
                                 semblance_error *error) noexcept {
  return give(engine, "engine", json, error, engine_describe);
}

std::int32_t api_engine_attributes(const semblance_engine *engine, char **json,
                                   semblance_error *error) noexcept {
  return give(engine, "engine", json, error, engine_attributes);
}

std::int32_t api_engine_parameters(const semblance_engine *engine, char **json,
                                   semblance_error *error) noexcept {
  return give(engine, "engine", json, error, engine_parameters);
}

void api_engine_purge(semblance_engine *engine) noexcept {
  if (engine != nullptr) {
    engine_purge(of(engine));
  }
}

std::int32_t api_log_poll(semblance_engine *engine, semblance_log_entry *entry) noexcept {
  Outcome outcome{};
  if (engine == nullptr || entry == nullptr || !sized(entry, "entry", outcome)) {
    return 0;
  }
  const LogEntry taken = log_poll(of(engine));
  if (taken.level == 0) {
    return 0;
  }
  semblance_log_entry ours;
  ours.level = taken.level;
  ours.time_us = taken.time_us;
  ours.lost = taken.lost;
  copy_text(ours.text, taken.text.data(), taken.text.size());
  write_struct(entry, ours);
  return 1;
}

std::int32_t api_job_start(semblance_engine *engine, const semblance_pixels *layer,
                           const semblance_mask *mask, const char *recipe, std::int32_t kind,
                           std::int32_t if_busy, semblance_job **job,
                           semblance_error *error) noexcept {
  Outcome outcome{};
  if (engine == nullptr || recipe == nullptr || job == nullptr) {
    return report(error, is_null(engine == nullptr   ? "engine"
                                 : recipe == nullptr ? "recipe_json"
                                                     : "job"));
  }
  Pixels pixels{};
  Mask selection{};
  const Mask *found = nullptr;
  if (!read(layer, "layer", pixels, outcome) || !read(mask, selection, found, outcome)) {
    return report(error, outcome);
  }
  JobHandle *made = job_start(of(engine), pixels, found, text(recipe), kind, if_busy, outcome);
  if (made != nullptr) {
    *job = as<semblance_job>(made);
  }
  return report(error, outcome);
}

std::int32_t api_job_wait(const semblance_job *job, std::int64_t timeout_ms,
                          semblance_job_state *out, semblance_error *error) noexcept {
  Outcome outcome{};
  if (job == nullptr) {
    return report(error, is_null("job"));
  }
  if (!fits(out, "state", outcome)) {
    return report(error, outcome);
  }
  const JobState now = job_wait(of(job), timeout_ms, outcome);
  if (outcome.code == SEMBLANCE_OK && out != nullptr) {
    write_struct(out, state(now));
  }
  return report(error, outcome);
}

std::int32_t api_job_poll(const semblance_job *job, semblance_job_state *out,
                          semblance_error *error) noexcept {
  if (job != nullptr && out == nullptr) {
    return report(error, is_null("state"));
  }
  return api_job_wait(job, 0, out, error);
}

void api_job_cancel(semblance_job *job) noexcept {
  if (job != nullptr) {
    job_cancel(of(job));
  }
}

std::int32_t api_job_take(semblance_job *job, semblance_result **result,
                          semblance_error *error) noexcept {
  Outcome outcome{};
  if (job == nullptr || result == nullptr) {
    return report(error, is_null(job == nullptr ? "job" : "result"));
  }
  ResultHandle *made = job_take(of(job), outcome);
  if (outcome.code == SEMBLANCE_OK) {
    *result = as<semblance_result>(made);
  }
  return report(error, outcome);
}

void api_job_free(semblance_job *job) noexcept { job_free(as<JobHandle>(job)); }

std::int32_t api_result_extent(const semblance_result *result, semblance_rect *extent,
                               semblance_error *error) noexcept {
  Outcome outcome{};
  if (result == nullptr || extent == nullptr) {
    return report(error, is_null(result == nullptr ? "result" : "extent"));
  }
  const Rect r = result_extent(of(result), outcome);
  if (outcome.code == SEMBLANCE_OK) {
    *extent = {r.x, r.y, r.width, r.height};
  }
  return report(error, outcome);
}

std::int32_t api_result_input_needed(const semblance_result *result, const semblance_rect *wanted,
                                     semblance_rect *needed, semblance_error *error) noexcept {
  Outcome outcome{};
  if (result == nullptr || wanted == nullptr || needed == nullptr) {
    return report(error, is_null(result == nullptr   ? "result"
                                 : wanted == nullptr ? "rect"
                                                     : "needed"));
  }
  const Rect r = result_input_needed(of(result), rect(*wanted), outcome);
  if (outcome.code == SEMBLANCE_OK) {
    *needed = {r.x, r.y, r.width, r.height};
  }
  return report(error, outcome);
}

// The three buffers of a render, read and sized.
struct Buffers {
  Pixels src{};
  Pixels dst{};
  Mask selection{};
  const Mask *mask = nullptr;

  bool read_all(const semblance_pixels *s, const semblance_mask *m, const semblance_pixels *d,
                const semblance_tally *tally, Outcome &outcome) {
    return read(s, "src", src, outcome) && read(m, selection, mask, outcome) &&
           read(d, "dst", dst, outcome) && fits(tally, "tally", outcome);
  }
};

// `part`, where it is not null, is what src shows of the layer at another size.
void render(const ResultHandle &result, const Rect *part, const Buffers &b, semblance_tally *tally,
            Outcome &outcome) {
  const Tally t = result_render(result, part, b.src, b.mask, b.dst, outcome);
  if (outcome.code == SEMBLANCE_OK && tally != nullptr) {
    write_struct(tally, semblance_tally{sizeof(semblance_tally), t.largest_change, t.changed,
                                        t.kept, t.sum_of_change, t.selected});
  }
}

std::int32_t api_result_render(const semblance_result *result, const semblance_pixels *src,
                               const semblance_mask *mask, const semblance_pixels *dst,
                               semblance_tally *tally, semblance_error *error) noexcept {
  Outcome outcome{};
  if (result == nullptr) {
    return report(error, is_null("result"));
  }
  Buffers buffers;
  if (buffers.read_all(src, mask, dst, tally, outcome)) {
    render(of(result), nullptr, buffers, tally, outcome);
  }
  return report(error, outcome);
}

std::int32_t api_result_render_reduced(const semblance_result *result, const semblance_rect *part,
                                       const semblance_pixels *src, const semblance_mask *mask,
                                       const semblance_pixels *dst, semblance_tally *tally,
                                       semblance_error *error) noexcept {
  Outcome outcome{};
  if (result == nullptr || part == nullptr) {
    return report(error, is_null(result == nullptr ? "result" : "part"));
  }
  Buffers buffers;
  if (buffers.read_all(src, mask, dst, tally, outcome)) {
    const Rect shown = rect(*part);
    render(of(result), &shown, buffers, tally, outcome);
  }
  return report(error, outcome);
}

std::int32_t api_result_recipe(const semblance_result *result, char **json,
                               semblance_error *error) noexcept {
  return give(result, "result", json, error, result_recipe);
}

std::int32_t api_result_report(const semblance_result *result, char **json,
                               semblance_error *error) noexcept {
  return give(result, "result", json, error, result_report);
}

void api_result_free(semblance_result *result) noexcept { result_free(as<ResultHandle>(result)); }

std::int32_t api_edit(semblance_engine *engine, const semblance_pixels *src,
                      const semblance_mask *mask, const char *recipe, const semblance_pixels *dst,
                      semblance_progress_fn progress, void *user, semblance_tally *tally,
                      semblance_result **result, semblance_error *error) noexcept {
  Outcome outcome{};
  if (engine == nullptr || recipe == nullptr) {
    return report(error, is_null(engine == nullptr ? "engine" : "recipe_json"));
  }
  Buffers b;
  // The destination is checked before the work, not after it.
  if (!b.read_all(src, mask, dst, tally, outcome) ||
      !check_render(b.src, b.mask, b.dst, outcome)) {
    return report(error, outcome);
  }
  // Reads the buffers on its own thread, which job_free below joins on every way out.
  JobHandle *job = edit_start(of(engine), b.src, b.mask, text(recipe), outcome);
  if (job == nullptr) {
    return report(error, outcome);
  }
  ResultHandle *made = nullptr;
  if (watch(*job, progress, user, outcome)) {
    made = job_take(*job, outcome);
  }
  job_free(job);
  if (made == nullptr) {
    return report(error, outcome);
  }
  render(*made, nullptr, b, tally, outcome);
  if (outcome.code == SEMBLANCE_OK && result != nullptr) {
    *result = as<semblance_result>(made);
  } else {
    result_free(made);
  }
  return report(error, outcome);
}

constexpr semblance_api api_table = {
    sizeof(semblance_api),
    SEMBLANCE_MAJOR,
    api_version,
    api_code_name,
    api_phase_name,
    api_get_extension,
    api_string_free,
    api_engine_create,
    api_engine_destroy,
    api_engine_load,
    api_engine_load_start,
    api_engine_describe,
    api_engine_attributes,
    api_engine_parameters,
    api_engine_purge,
    api_log_poll,
    api_job_start,
    api_job_poll,
    api_job_wait,
    api_job_cancel,
    api_job_take,
    api_job_free,
    api_result_extent,
    api_result_input_needed,
    api_result_render,
    api_result_recipe,
    api_result_report,
    api_result_free,
    api_edit,
    api_result_render_reduced,
};

} // namespace

const char *table(std::uint32_t major) noexcept {
  return major == SEMBLANCE_MAJOR ? reinterpret_cast<const char *>(&api_table) : nullptr;
}

} // namespace semblance::ffi
