// What runs: edits, jobs, cancels, threads, forks. Not for: arguments that are refused
// (abi_boundary.cpp).
#include <algorithm>
#include <stdexcept>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#ifdef __x86_64__
#include <xmmintrin.h>
#endif

#include "abi.hpp"

namespace {

semblance_job *start(semblance_engine *e, const std::string &json, std::int32_t kind,
                     std::int32_t if_busy = SEMBLANCE_IF_BUSY_WAIT) {
  Picture picture;
  const auto p = picture.pixels();
  semblance_job *job = nullptr;
  auto error = semblance::make<semblance_error>();
  if (api->job_start(e, &p, nullptr, json.c_str(), kind, if_busy, &job, &error) != SEMBLANCE_OK) {
    std::fprintf(stderr, "job_start: %s\n", error.message);
    std::exit(1);
  }
  return job; // the picture is gone: nothing of it may be kept
}

void until_running(semblance_job *job) {
  auto state = semblance::make<semblance_job_state>();
  do {
    CHECK(api->job_wait(job, 1, &state, nullptr) == SEMBLANCE_OK);
  } while (state.state == SEMBLANCE_STATE_WAITING);
  CHECK(state.state == SEMBLANCE_STATE_RUNNING);
}

std::int32_t outcome(semblance_job *job) {
  semblance_result *result = nullptr;
  CHECK(api->job_wait(job, 20000, nullptr, nullptr) == SEMBLANCE_OK);
  const std::int32_t code = api->job_take(job, &result, nullptr);
  api->result_free(result);
  return code;
}

long resident_kb() {
  long pages = 0;
  std::FILE *f = std::fopen("/proc/self/statm", "r");
  CHECK(std::fscanf(f, "%*d %ld", &pages) == 1);
  std::fclose(f);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

std::int32_t go_on(void *, const semblance_job_state *) { return SEMBLANCE_CONTINUE; }

void edit_in_place_and_apart() {
  semblance_engine *e = engine();
  Picture src, apart, here;
  std::fill(apart.bytes.begin(), apart.bytes.end(), std::uint8_t{0x3C});
  const auto before = src.bytes;
  auto s = src.pixels(), a = apart.pixels(), h = here.pixels();
  auto tally = semblance::make<semblance_tally>();
  auto error = semblance::make<semblance_error>();
  semblance_result *result = nullptr;
  std::int32_t code = api->edit(e, &s, nullptr, recipe().c_str(), &a, go_on, nullptr, &tally,
                                &result, &error);
  if (code != SEMBLANCE_OK) {
    std::fprintf(stderr, "edit: %s\n", error.message);
    std::exit(1);
  }
  CHECK(error.code == SEMBLANCE_OK && src.bytes == before);
  CHECK(tally.changed + tally.kept == 96 * 64);
  CHECK(tally.changed > 0);
  CHECK(api->edit(e, &h, nullptr, recipe().c_str(), &h, nullptr, nullptr, nullptr, nullptr,
                  &error) == SEMBLANCE_OK);
  for (std::uint32_t y = 0; y < src.height; ++y) {
    const std::size_t row = y * src.stride;
    CHECK(std::memcmp(&apart.bytes[row], &here.bytes[row], src.width * 4) == 0);
    for (std::size_t i = src.width * 4; i < src.stride; ++i) { // the gap between rows
      CHECK(apart.bytes[row + i] == 0x3C && here.bytes[row + i] == 0xA5);
    }
    for (std::size_t x = 0; x < src.width; ++x) { // alpha
      CHECK(apart.bytes[row + x * 4 + 3] == before[row + x * 4 + 3]);
    }
  }
  // The result goes on rendering: a band by itself, bottom-up, gives the same bytes.
  Picture flipped;
  auto f = flipped.pixels();
  f.data = flipped.bytes.data() + (f.rect.height - 1) * flipped.stride;
  f.row_stride = -f.row_stride;
  CHECK(api->result_render(result, &s, nullptr, &f, nullptr, &error) == SEMBLANCE_OK);
  for (std::uint32_t y = 0; y < src.height; ++y) {
    CHECK(std::memcmp(&apart.bytes[y * src.stride],
                      &flipped.bytes[(src.height - 1 - y) * src.stride], src.width * 4) == 0);
  }
  semblance_rect band{0, 16, 96, 8}, need{};
  CHECK(api->result_input_needed(result, &band, &need, &error) == SEMBLANCE_OK);
  CHECK(need.y <= 16 && need.y + need.height >= 24);
  semblance_rect extent{};
  CHECK(api->result_extent(result, &extent, &error) == SEMBLANCE_OK && extent.width > 0);
  char *json = nullptr;
  CHECK(api->result_recipe(result, &json, &error) == SEMBLANCE_OK && std::strstr(json, "\"seed\""));
  api->string_free(json);
  CHECK(api->result_report(result, &json, &error) == SEMBLANCE_OK && json[0] == '{');
  api->string_free(json);
  api->engine_destroy(e);
  // A result outlives its engine.
  CHECK(api->result_render(result, &s, nullptr, &a, nullptr, &error) == SEMBLANCE_OK);
  api->result_free(result);
}

void previews_show_the_result() {
  semblance_engine *e = engine();
  Picture src, out, whole;
  auto s = src.pixels(), o = out.pixels(), w = whole.pixels();
  auto tally = semblance::make<semblance_tally>();
  auto error = semblance::make<semblance_error>();
  semblance_result *result = nullptr;
  CHECK(api->edit(e, &s, nullptr, recipe().c_str(), &w, nullptr, nullptr, &tally, &result,
                  &error) == SEMBLANCE_OK);
  CHECK(tally.selected == 96 * 64 && tally.changed <= tally.selected);
  // At the layer's own size it is the render.
  const semblance_rect layer{0, 0, 96, 64};
  CHECK(api->result_render_reduced(result, &layer, &s, nullptr, &o, &tally, &error) ==
        SEMBLANCE_OK);
  CHECK(out.bytes == whole.bytes);
  // A copy of half the size, in place, with a mask of its own.
  Picture half(48, 32);
  const auto before = half.bytes;
  auto h = half.pixels();
  const std::vector<std::uint8_t> ones(10 * 8, 255);
  auto mask = semblance::make<semblance_mask>();
  mask.samples = SEMBLANCE_SAMPLES_U8;
  mask.data = ones.data();
  mask.data_size = ones.size();
  mask.row_stride = 10;
  mask.rect = {5, 6, 10, 8};
  CHECK(api->result_render_reduced(result, &layer, &h, &mask, &h, &tally, &error) ==
        SEMBLANCE_OK);
  CHECK(tally.selected == 10 * 8 && tally.changed + tally.kept == 48 * 32);
  for (std::size_t y = 0; y < 32; ++y) {
    for (std::size_t x = 0; x < 48; ++x) {
      const std::size_t at = y * half.stride + x * 4;
      const bool inside = x >= 5 && x < 15 && y >= 6 && y < 14;
      CHECK(inside || std::memcmp(&half.bytes[at], &before[at], 4) == 0);
      CHECK(half.bytes[at + 3] == before[at + 3]);
    }
  }
  const auto kept = out.bytes;
  for (const semblance_rect &part : {semblance_rect{0, 0, 0, 64}, semblance_rect{0, 0, 96, 0},
                                     semblance_rect{INT64_MAX, 0, 96, 64},
                                     semblance_rect{0, INT64_MIN, 96, 64}}) {
    CHECK(api->result_render_reduced(result, &part, &o, nullptr, &o, nullptr, &error) ==
          SEMBLANCE_INVALID_LAYER);
    CHECK(std::strcmp(error.parameter, "part") == 0 && error.hint[0] != '\0');
  }
  CHECK(api->result_render_reduced(result, nullptr, &o, nullptr, &o, nullptr, &error) ==
        SEMBLANCE_INVALID_PARAMETER);
  CHECK(api->result_render_reduced(nullptr, &layer, &o, nullptr, &o, nullptr, &error) ==
        SEMBLANCE_INVALID_PARAMETER);
  CHECK(out.bytes == kept);
  api->result_free(result);
  api->engine_destroy(e);
}

void a_large_layer_is_cancelled() {
  semblance_engine *e = engine();
  Picture large(4000, 3000);
  const auto before = large.bytes;
  auto p = large.pixels();
  auto error = semblance::make<semblance_error>();
  const auto stop = [](void *, const semblance_job_state *) -> std::int32_t { return 0; };
  CHECK(api->edit(e, &p, nullptr, recipe().c_str(), &p, stop, nullptr, nullptr, nullptr, &error) ==
        SEMBLANCE_CANCELLED);
  CHECK(large.bytes == before);
  api->engine_destroy(e);
}

void callbacks() {
  semblance_engine *e = engine();
  Picture picture;
  const auto before = picture.bytes;
  auto p = picture.pixels();
  auto error = semblance::make<semblance_error>();
  for (const semblance_progress_fn f : {
           +[](void *, const semblance_job_state *) -> std::int32_t { return 0; },
           +[](void *, const semblance_job_state *) -> std::int32_t { return 1; },
           +[](void *, const semblance_job_state *) -> std::int32_t { return -1; },
           +[](void *, const semblance_job_state *) -> std::int32_t { return SEMBLANCE_CONTINUE + 1; },
           +[](void *, const semblance_job_state *) -> std::int32_t { throw 5; },
       }) {
    CHECK(api->edit(e, &p, nullptr, slow.c_str(), &p, f, nullptr, nullptr, nullptr, &error) ==
          SEMBLANCE_CANCELLED);
    CHECK(picture.bytes == before);
  }
  struct Seen {
    std::thread::id thread;
    float fraction = 0;
    int calls = 0;
  } seen{std::this_thread::get_id()};
  const auto watch = [](void *user, const semblance_job_state *s) -> std::int32_t {
    auto *seen = static_cast<Seen *>(user);
    CHECK(std::this_thread::get_id() == seen->thread && s->fraction >= seen->fraction);
    seen->fraction = s->fraction;
    ++seen->calls;
    return SEMBLANCE_CONTINUE;
  };
  CHECK(api->edit(e, &p, nullptr, recipe(10).c_str(), &p, watch, &seen, nullptr, nullptr, &error) ==
        SEMBLANCE_OK);
  CHECK(seen.calls > 0);
  api->engine_destroy(e);
}

void previews_supersede() {
  semblance_engine *e = engine();
  semblance_job *first = start(e, slow, SEMBLANCE_JOB_PREVIEW);
  until_running(first);
  semblance_job *second = start(e, slow, SEMBLANCE_JOB_PREVIEW, SEMBLANCE_IF_BUSY_REFUSE);
  semblance_job *third = start(e, recipe(), SEMBLANCE_JOB_PREVIEW, SEMBLANCE_IF_BUSY_REFUSE);
  CHECK(outcome(first) == SEMBLANCE_SUPERSEDED);
  CHECK(outcome(second) == SEMBLANCE_SUPERSEDED);
  CHECK(outcome(third) == SEMBLANCE_OK);
  for (semblance_job *job : {first, second, third}) {
    api->job_free(job);
  }
  api->engine_destroy(e);
}

void busy_and_cancel() {
  semblance_engine *e = engine();
  semblance_job *first = start(e, slow, SEMBLANCE_JOB_FINAL);
  until_running(first);
  Picture picture;
  const auto p = picture.pixels();
  semblance_job *refused = nullptr;
  auto error = semblance::make<semblance_error>();
  CHECK(api->job_start(e, &p, nullptr, recipe().c_str(), SEMBLANCE_JOB_FINAL,
                       SEMBLANCE_IF_BUSY_REFUSE, &refused, &error) == SEMBLANCE_BUSY);
  CHECK(refused == nullptr && error.hint[0] != '\0');
  semblance_job *second = start(e, recipe(), SEMBLANCE_JOB_FINAL);
  semblance_result *early = nullptr;
  CHECK(api->job_take(second, &early, &error) == SEMBLANCE_UNSUPPORTED && early == nullptr);
  std::thread([&] { api->job_cancel(first); }).join();
  CHECK(outcome(first) == SEMBLANCE_CANCELLED);
  CHECK(outcome(first) == SEMBLANCE_CANCELLED);
  CHECK(outcome(second) == SEMBLANCE_OK);
  CHECK(outcome(second) == SEMBLANCE_UNSUPPORTED); // taken before
  api->job_cancel(second);
  api->job_free(first);
  api->job_free(second);
  api->engine_destroy(e);
}

void destroy_while_busy() {
  semblance_engine *e = engine();
  semblance_job *running = start(e, slow, SEMBLANCE_JOB_FINAL);
  semblance_job *waiting = start(e, slow, SEMBLANCE_JOB_FINAL);
  until_running(running);
  api->engine_destroy(e);
  auto state = semblance::make<semblance_job_state>();
  CHECK(api->job_poll(running, &state, nullptr) == SEMBLANCE_OK);
  CHECK(state.state == SEMBLANCE_STATE_FAILED);
  CHECK(outcome(running) == SEMBLANCE_CANCELLED && outcome(waiting) == SEMBLANCE_CANCELLED);
  api->job_free(running);
  api->job_free(waiting);
}

void queries_from_eight_threads() {
  semblance_engine *e = engine();
  semblance_job *job = start(e, slow, SEMBLANCE_JOB_FINAL);
  std::vector<std::thread> crowd;
  for (int t = 0; t < 8; ++t) {
    crowd.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        for (const auto query : {api->engine_describe, api->engine_attributes, api->engine_parameters}) {
          char *json = nullptr;
          CHECK(query(e, &json, nullptr) == SEMBLANCE_OK && (json[0] == '{' || json[0] == '['));
          api->string_free(json);
        }
        auto state = semblance::make<semblance_job_state>();
        CHECK(api->job_poll(job, &state, nullptr) == SEMBLANCE_OK);
        auto entry = semblance::make<semblance_log_entry>();
        api->log_poll(e, &entry);
        api->engine_purge(e);
      }
    });
  }
  for (auto &thread : crowd) {
    thread.join();
  }
  api->job_cancel(job);
  CHECK(outcome(job) == SEMBLANCE_CANCELLED);
  api->job_free(job);
  api->engine_destroy(e);
}

void load_and_log() {
  semblance_engine *e = engine();
  auto error = semblance::make<semblance_error>();
  CHECK(api->engine_load(e, go_on, nullptr, &error) == SEMBLANCE_OK);
  semblance_job *job = nullptr;
  CHECK(api->engine_load_start(e, &job, &error) == SEMBLANCE_OK);
  CHECK(api->job_wait(job, -1, nullptr, &error) == SEMBLANCE_OK);
  auto *result = reinterpret_cast<semblance_result *>(1);
  CHECK(api->job_take(job, &result, &error) == SEMBLANCE_OK && result == nullptr);
  api->job_free(job);
  auto entry = semblance::make<semblance_log_entry>();
  int lines = 0;
  bool done = false;
  while (api->log_poll(e, &entry) == 1) {
    ++lines;
    done = done || std::strstr(entry.text, "load: done") != nullptr;
    CHECK(entry.time_us > 1500000000000000u && entry.level >= 1 && entry.level <= 4);
  }
  CHECK(done && lines >= 3);
  api->engine_destroy(e);
}

void cycles_stay_flat() {
  const auto cycle = [] {
    dlclose(dlopen(library_path.c_str(), RTLD_NOW));
    semblance_engine *e = engine();
    Picture picture;
    auto p = picture.pixels();
    auto error = semblance::make<semblance_error>();
    CHECK(api->edit(e, &p, nullptr, recipe().c_str(), &p, nullptr, nullptr, nullptr, nullptr,
                    &error) == SEMBLANCE_OK);
    api->job_free(start(e, slow, SEMBLANCE_JOB_FINAL));
    api->engine_destroy(e);
  };
  for (int i = 0; i < 5; ++i) {
    cycle();
  }
  const int threads_before = threads();
  // The allocator's arenas fill up at first, which one window can catch; a leak grows in every one.
  long least = 1L << 40;
  for (int window = 0; window < 3; ++window) {
    const long kb_before = resident_kb();
    for (int i = 0; i < 15; ++i) {
      cycle();
    }
    least = std::min(least, resident_kb() - kb_before);
  }
  // A pool's threads are told to end and not waited for.
  for (int i = 0; i < 100 && threads() > threads_before; ++i) {
    usleep(100000);
  }
  CHECK(threads() <= threads_before);
  if (least > 3 * 1024) {
    std::fprintf(stderr, "15 cycles grew by at least %ld kB, three times in a row\n", least);
    std::exit(1);
  }
}

void forked_child_is_told() {
  semblance_engine *e = engine();
  semblance_job *job = start(e, slow, SEMBLANCE_JOB_FINAL);
  until_running(job);
  const pid_t child = fork();
  if (child == 0) {
    alarm(10);
    char *json = nullptr;
    semblance_engine *other = nullptr;
    int wrong = api->engine_describe(e, &json, nullptr) != SEMBLANCE_FORKED;
    wrong += api->engine_create(nullptr, &other, nullptr) != SEMBLANCE_FORKED;
    wrong += api->job_wait(job, -1, nullptr, nullptr) != SEMBLANCE_FORKED;
    api->job_cancel(job);
    api->job_free(job);
    api->engine_destroy(e);
    _exit(wrong);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  api->job_free(job);
  api->engine_destroy(e);
}

void floating_point_mode_is_kept() {
#ifdef __x86_64__
  // Flush to zero, denormals are zero, round towards zero: what an audio host may have set.
  const unsigned theirs = 0x1F80u | 0x8040u | 0x6000u;
  Picture plain, odd;
  semblance_engine *e = engine();
  auto p = plain.pixels(), o = odd.pixels();
  CHECK(api->edit(e, &p, nullptr, recipe().c_str(), &p, nullptr, nullptr, nullptr, nullptr,
                  nullptr) == SEMBLANCE_OK);
  api->engine_destroy(e);
  _mm_setcsr(theirs);
  e = engine();
  const std::int32_t code = api->edit(e, &o, nullptr, recipe().c_str(), &o, nullptr, nullptr,
                                      nullptr, nullptr, nullptr);
  const unsigned after = _mm_getcsr();
  _mm_setcsr(0x1F80u);
  CHECK(code == SEMBLANCE_OK && (after & 0xFFC0u) == (theirs & 0xFFC0u));
  CHECK(plain.bytes == odd.bytes);
  api->engine_destroy(e);
#endif
}

void cpp_header() {
  const semblance::Api a(open_library());
  try {
    const semblance::Engine e(a, "{");
    CHECK(!"not reached");
  } catch (const semblance::Error &error) {
    CHECK(error.code() == SEMBLANCE_INVALID_PARAMETER && error.what()[0] != '\0');
  }
  const semblance::Engine e(a, options());
  const auto begins = [](const std::string &json, const std::string &head) {
    return json.compare(0, head.size(), head) == 0;
  };
  CHECK(begins(e.attributes(), R"({"semblance":1,"attributes":[)"));
  CHECK(begins(e.parameters(), R"({"semblance":1,"parameters":[)"));
  CHECK(begins(e.describe(), R"({"semblance":1,)"));
  Picture picture, other;
  try {
    (void)e.edit(picture.pixels(), nullptr, slow, picture.pixels(),
           [](const semblance_job_state &) -> bool { throw std::logic_error("mine"); });
    CHECK(!"not reached");
  } catch (const std::logic_error &error) {
    CHECK(std::string(error.what()) == "mine");
  }
  semblance::Job job = e.start(picture.pixels(), nullptr, recipe());
  job.wait();
  semblance::Result result = job.take();
  CHECK(result.render(picture.pixels(), nullptr, other.pixels()).changed > 0);
  const semblance::Result moved = std::move(result);
  CHECK(begins(moved.report(), R"({"semblance":1,)"));
}

} // namespace

const Checks &job_checks() {
  static const Checks checks = {
      {"edit_in_place_and_apart", edit_in_place_and_apart},
      {"previews_show_the_result", previews_show_the_result},
      {"a_large_layer_is_cancelled", a_large_layer_is_cancelled},
      {"callbacks", callbacks},
      {"previews_supersede", previews_supersede},
      {"busy_and_cancel", busy_and_cancel},
      {"destroy_while_busy", destroy_while_busy},
      {"queries_from_eight_threads", queries_from_eight_threads},
      {"load_and_log", load_and_log},
      {"cycles_stay_flat", cycles_stay_flat},
      {"forked_child_is_told", forked_child_is_told},
      {"floating_point_mode_is_kept", floating_point_mode_is_kept},
      {"cpp_header", cpp_header},
  };
  return checks;
}
