// One check of the ABI in a process of its own: abi LIBRARY MODEL_FOLDER CHECK. Exit 0 is a pass;
// what failed goes to stderr. The library is loaded as a host does, by dlopen.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>
#include <xmmintrin.h>

#include "semblance/semblance.hpp"

namespace {

#define CHECK(condition)                                                                         \
  do {                                                                                           \
    if (!(condition)) {                                                                          \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);               \
      std::exit(1);                                                                              \
    }                                                                                            \
  } while (0)

std::string library_path;
std::string model_folder;
const semblance_api *api;

semblance_get_api_fn open_library() {
  void *library = dlopen(library_path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    std::exit(1);
  }
  return reinterpret_cast<semblance_get_api_fn>(dlsym(library, "semblance_get_api"));
}

std::string options() {
  return R"({"semblance": 1, "threads": 2, "log_level": "debug", "model_folder": ")" +
         model_folder + "\"}";
}

// Quick: the tiny model, few steps. `slow` would take minutes.
std::string recipe(int steps = 3, int seed = 0) {
  return R"({"semblance": 1, "steps": )" + std::to_string(steps) + R"(, "seed": )" +
         std::to_string(seed) +
         R"(, "text": {"from": "a photo of hills", "to": "a photo of hills, at night", "strength": 1}})";
}
const std::string slow = recipe(1000);

struct Picture {
  std::uint32_t width, height;
  std::size_t stride;
  std::vector<std::uint8_t> bytes;

  explicit Picture(std::uint32_t w = 96, std::uint32_t h = 64)
      : width(w), height(h), stride(w * 4 + 12), bytes(stride * h, 0xA5) {
    for (std::uint32_t y = 0; y < h; ++y) {
      for (std::uint32_t x = 0; x < w; ++x) {
        const std::uint8_t p[4] = {static_cast<std::uint8_t>(255 * x / w),
                                   static_cast<std::uint8_t>(255 * y / h),
                                   static_cast<std::uint8_t>((x * y) & 255),
                                   static_cast<std::uint8_t>(x % 7 == 0 ? 128 : 255)};
        std::memcpy(&bytes[y * stride + x * 4], p, 4);
      }
    }
  }

  semblance_pixels pixels() {
    auto p = semblance::make<semblance_pixels>();
    p.samples = SEMBLANCE_SAMPLES_U8;
    p.order = SEMBLANCE_ORDER_RGBA;
    p.alpha = SEMBLANCE_ALPHA_STRAIGHT;
    p.data = bytes.data();
    p.data_size = bytes.size();
    p.row_stride = static_cast<std::int64_t>(stride);
    p.rect = {0, 0, width, height};
    return p;
  }
};

semblance_engine *engine(const std::string &json = options()) {
  semblance_engine *e = nullptr;
  auto error = semblance::make<semblance_error>();
  if (api->engine_create(json.c_str(), &e, &error) != SEMBLANCE_OK) {
    std::fprintf(stderr, "engine_create: %s\n", error.message);
    std::exit(1);
  }
  return e;
}

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

int threads() {
  int n = 0;
  DIR *d = opendir("/proc/self/task");
  while (const dirent *entry = readdir(d)) {
    n += entry->d_name[0] != '.';
  }
  closedir(d);
  return n;
}

long resident_kb() {
  long pages = 0;
  std::FILE *f = std::fopen("/proc/self/statm", "r");
  CHECK(std::fscanf(f, "%*d %ld", &pages) == 1);
  std::fclose(f);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

bool is_utf8(const char *s) {
  for (; *s != '\0'; ++s) {
    const auto b = static_cast<unsigned char>(*s);
    const int more = b < 0x80 ? 0 : b < 0xC0 ? -1 : b < 0xE0 ? 1 : b < 0xF0 ? 2 : 3;
    if (more < 0) {
      return false;
    }
    for (int i = 0; i < more; ++i) {
      if ((static_cast<unsigned char>(*++s) & 0xC0) != 0x80) {
        return false;
      }
    }
  }
  return true;
}

std::int32_t go_on(void *, const semblance_job_state *) { return SEMBLANCE_CONTINUE; }

// ------------------------------------------------------------------------------------ checks --

void version() {
  const auto get = open_library();
  CHECK(get(0) == nullptr && get(2) == nullptr && get(~0u) == nullptr);
  CHECK(get(1) == api && api->major == 1 && api->struct_size == sizeof(semblance_api));
  CHECK(SEMBLANCE_HAS(api, edit));
  CHECK(std::strchr(api->version(), '.') != nullptr);
  CHECK(std::strcmp(api->code_name(0), "ok") == 0);
  CHECK(std::strcmp(api->code_name(SEMBLANCE_INTERNAL), "internal") == 0);
  CHECK(std::strcmp(api->phase_name(SEMBLANCE_PHASE_INVERT), "invert") == 0);
  for (const int n : {-1, 19, 1 << 30}) {
    CHECK(std::strcmp(api->code_name(n), "unknown") == 0);
    CHECK(std::strcmp(api->phase_name(n), "unknown") == 0);
  }
  CHECK(api->get_extension("semblance.learn.draft/1") == nullptr);
  CHECK(api->get_extension(nullptr) == nullptr);
  CHECK(threads() == 1);
}

void null_arguments() {
  const std::int32_t bad = SEMBLANCE_INVALID_PARAMETER;
  api->engine_destroy(nullptr);
  api->job_free(nullptr);
  api->job_cancel(nullptr);
  api->result_free(nullptr);
  api->string_free(nullptr);
  api->engine_purge(nullptr);
  auto entry = semblance::make<semblance_log_entry>();
  CHECK(api->log_poll(nullptr, &entry) == 0);

  auto error = semblance::make<semblance_error>();
  char *json = nullptr;
  semblance_engine *none = nullptr;
  semblance_job *job = nullptr;
  semblance_result *result = nullptr;
  semblance_rect rect{};
  auto state = semblance::make<semblance_job_state>();
  Picture picture;
  const auto p = picture.pixels();
  CHECK(api->engine_create(nullptr, nullptr, &error) == bad);
  CHECK(std::strstr(error.message, "engine = NULL") && std::strcmp(error.parameter, "engine") == 0);
  CHECK(api->engine_load(nullptr, nullptr, nullptr, nullptr) == bad);
  CHECK(api->engine_load_start(nullptr, &job, nullptr) == bad);
  CHECK(api->engine_describe(nullptr, &json, &error) == bad);
  CHECK(api->engine_attributes(nullptr, &json, &error) == bad);
  CHECK(api->engine_parameters(nullptr, &json, &error) == bad);
  CHECK(api->job_start(nullptr, &p, nullptr, "{}", 1, 1, &job, &error) == bad);
  CHECK(api->job_poll(nullptr, &state, &error) == bad);
  CHECK(api->job_wait(nullptr, 0, &state, &error) == bad);
  CHECK(api->job_take(nullptr, &result, &error) == bad);
  CHECK(api->result_extent(nullptr, &rect, &error) == bad);
  CHECK(api->result_input_needed(nullptr, &rect, &rect, &error) == bad);
  CHECK(api->result_render(nullptr, &p, nullptr, &p, nullptr, &error) == bad);
  CHECK(api->result_recipe(nullptr, &json, &error) == bad);
  CHECK(api->result_report(nullptr, &json, &error) == bad);
  CHECK(api->edit(nullptr, &p, nullptr, "{}", &p, nullptr, nullptr, nullptr, nullptr, nullptr) == bad);

  none = engine();
  CHECK(api->engine_describe(none, nullptr, &error) == bad);
  CHECK(api->log_poll(none, nullptr) == 0);
  CHECK(api->job_start(none, nullptr, nullptr, "{}", 1, 1, &job, &error) == bad);
  CHECK(api->job_start(none, &p, nullptr, nullptr, 1, 1, &job, &error) == bad);
  CHECK(api->job_start(none, &p, nullptr, "{}", 1, 1, nullptr, &error) == bad);
  CHECK(api->edit(none, &p, nullptr, "{}", nullptr, nullptr, nullptr, nullptr, nullptr, &error) == bad);
  CHECK(job == nullptr && json == nullptr && result == nullptr);
  api->engine_destroy(none);
}

void errors_are_bounded() {
  std::string key = "{\"semblance\": 1, \"x";
  for (int i = 0; i < 2000; ++i) {
    key += "\xC3\xA4";
  }
  key += "\": 1}";
  semblance_engine *e = nullptr;
  auto error = semblance::make<semblance_error>();
  CHECK(api->engine_create(key.c_str(), &e, &error) == SEMBLANCE_INVALID_PARAMETER && e == nullptr);
  CHECK(std::strlen(error.message) >= 509 && std::strlen(error.message) < 512);
  CHECK(is_utf8(error.message) && is_utf8(error.hint));
  // A host of another version: no byte beyond its struct is written, and tiny ones not at all.
  for (const std::uint32_t size : {0u, 3u, 4u, 8u, 100u}) {
    semblance_error small;
    std::memset(&small, 0x5A, sizeof small);
    small.struct_size = size;
    CHECK(api->engine_create("{", &e, &small) == SEMBLANCE_INVALID_PARAMETER);
    CHECK(small.struct_size == size);
    const auto *bytes = reinterpret_cast<const unsigned char *>(&small);
    for (std::size_t i = std::max(size, 4u); i < sizeof small; ++i) {
      CHECK(bytes[i] == 0x5A);
    }
    CHECK(size < 8 || small.code == SEMBLANCE_INVALID_PARAMETER);
  }
}

void struct_sizes() {
  semblance_engine *e = engine();
  Picture picture;
  struct {
    semblance_pixels pixels;
    char later[64];
  } longer{picture.pixels(), {}};
  longer.pixels.struct_size = sizeof longer;
  semblance_job *job = nullptr;
  CHECK(api->job_start(e, &longer.pixels, nullptr, recipe().c_str(), SEMBLANCE_JOB_FINAL,
                       SEMBLANCE_IF_BUSY_WAIT, &job, nullptr) == SEMBLANCE_OK);
  api->job_free(job);
  auto error = semblance::make<semblance_error>();
  for (const std::uint32_t size : {0u, 4u, 87u}) {
    auto p = picture.pixels();
    p.struct_size = size;
    CHECK(api->job_start(e, &p, nullptr, recipe().c_str(), 2, 1, &job, &error) ==
          SEMBLANCE_INVALID_PARAMETER);
    CHECK(std::strstr(error.message, "struct_size") != nullptr && error.hint[0] != '\0');
  }
  auto mask = semblance::make<semblance_mask>();
  mask.struct_size = 8;
  const auto p = picture.pixels();
  CHECK(api->job_start(e, &p, &mask, recipe().c_str(), 2, 1, &job, &error) ==
        SEMBLANCE_INVALID_PARAMETER);
  api->engine_destroy(e);
}

void garbage_pixels() {
  semblance_engine *e = engine();
  Picture picture;
  const std::vector<std::function<void(semblance_pixels &)>> spoils = {
      [](auto &p) { p.data = nullptr; },          [](auto &p) { p.data_size = 10; },
      [](auto &p) { p.samples = 0; },             [](auto &p) { p.samples = 99; },
      [](auto &p) { p.order = -5; },              [](auto &p) { p.order = 7; },
      [](auto &p) { p.alpha = 0; },               [](auto &p) { p.alpha = 3; },
      [](auto &p) { p.rect.width = 0; },          [](auto &p) { p.rect.height = 0; },
      [](auto &p) { p.rect.width = ~0u; },        [](auto &p) { p.rect.height = ~0u; },
      [](auto &p) { p.row_stride = 1; },          [](auto &p) { p.row_stride = 0; },
      [](auto &p) { p.row_stride = INT64_MIN; },  [](auto &p) { p.row_stride = INT64_MAX; },
      [](auto &p) { p.color = 4; },               [](auto &p) { p.color = SEMBLANCE_COLOR_ICC; },
      [](auto &p) { p.icc_size = 500; },          [](auto &p) { p.reserved = 7; },
      [](auto &p) { p.rect.x = INT64_MAX; },      [](auto &p) { p.rect.y = INT64_MIN; },
      [](auto &p) { p.row_stride = INT64_MIN, p.data_size = UINT64_MAX; },
  };
  for (std::size_t i = 0; i < spoils.size(); ++i) {
    auto p = picture.pixels();
    spoils[i](p);
    semblance_job *job = nullptr;
    auto error = semblance::make<semblance_error>();
    const std::int32_t code = api->job_start(e, &p, nullptr, recipe().c_str(), 2, 1, &job, &error);
    if (code != SEMBLANCE_INVALID_LAYER || error.message[0] == '\0' || job != nullptr) {
      std::fprintf(stderr, "descriptor %zu: code %d: %s\n", i, code, error.message);
      std::exit(1);
    }
  }
  api->engine_destroy(e);
}

void garbage_texts() {
  semblance_engine *e = engine();
  Picture picture;
  const auto p = picture.pixels();
  const std::string long_text(3u << 20, ' ');
  const std::vector<std::string> bad = {
      "", "{", "[]", "null", "\xFF\xFE", "{\"semblance\": 2}", "{\"semblance\": 1, \"stepps\": 3}",
      "{\"semblance\": 1, \"steps\": 0}", "{\"semblance\": 1, \"steps\": -1}",
      "{\"semblance\": 1, \"steps\": 1e99}", "{\"semblance\": 1, \"text\": {\"from\": 3}}",
      std::string(100000, '['), long_text};
  for (const auto &text : bad) {
    semblance_job *job = nullptr;
    auto error = semblance::make<semblance_error>();
    const std::int32_t code = api->job_start(e, &p, nullptr, text.c_str(), 2, 1, &job, &error);
    if ((code != SEMBLANCE_INVALID_RECIPE && code != SEMBLANCE_INVALID_PARAMETER) || job != nullptr) {
      std::fprintf(stderr, "recipe %.40s: code %d: %s\n", text.c_str(), code, error.message);
      std::exit(1);
    }
  }
  for (const int n : {0, 3, -1}) {
    semblance_job *job = nullptr;
    CHECK(api->job_start(e, &p, nullptr, recipe().c_str(), n, 1, &job, nullptr) == 1);
    CHECK(api->job_start(e, &p, nullptr, recipe().c_str(), 1, n, &job, nullptr) == 1);
  }
  api->engine_destroy(e);
}

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

void overlap_is_refused() {
  semblance_engine *e = engine();
  Picture picture;
  const auto before = picture.bytes;
  auto src = picture.pixels();
  auto error = semblance::make<semblance_error>();
  std::vector<semblance_pixels> bad(5, src);
  bad[0].data = picture.bytes.data() + picture.stride, bad[0].rect.height -= 1;
  bad[0].data_size -= picture.stride;
  bad[1].rect.width /= 2;
  bad[2].rect.x = 1;
  bad[3].data = picture.bytes.data() + (src.rect.height - 1) * picture.stride;
  bad[3].row_stride = -src.row_stride;
  bad[4].order = SEMBLANCE_ORDER_BGRA;
  for (const auto &dst : bad) {
    CHECK(api->edit(e, &src, nullptr, slow.c_str(), &dst, nullptr, nullptr, nullptr, nullptr,
                    &error) == SEMBLANCE_INVALID_LAYER);
    CHECK(std::strcmp(error.parameter, "dst") == 0);
  }
  auto mask = semblance::make<semblance_mask>();
  mask.samples = SEMBLANCE_SAMPLES_U8;
  mask.data = picture.bytes.data();
  mask.data_size = picture.bytes.size();
  mask.row_stride = 96;
  mask.rect = {0, 0, 96, 64};
  CHECK(api->edit(e, &src, &mask, slow.c_str(), &src, nullptr, nullptr, nullptr, nullptr, &error) ==
        SEMBLANCE_INVALID_MASK);
  CHECK(picture.bytes == before);
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
  const long kb_before = resident_kb();
  for (int i = 0; i < 20; ++i) {
    cycle();
  }
  // A pool's threads are told to end and not waited for.
  for (int i = 0; i < 100 && threads() > threads_before; ++i) {
    usleep(100000);
  }
  CHECK(threads() <= threads_before);
  const long grown = resident_kb() - kb_before;
  if (grown > 8 * 1024) {
    std::fprintf(stderr, "20 cycles grew by %ld kB\n", grown);
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
  CHECK(e.attributes()[0] == '[' && e.parameters()[0] == '[' && e.describe()[0] == '{');
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
  CHECK(moved.report()[0] == '{');
}

const std::map<std::string, void (*)()> checks = {
    {"version", version},
    {"null_arguments", null_arguments},
    {"errors_are_bounded", errors_are_bounded},
    {"struct_sizes", struct_sizes},
    {"garbage_pixels", garbage_pixels},
    {"garbage_texts", garbage_texts},
    {"edit_in_place_and_apart", edit_in_place_and_apart},
    {"overlap_is_refused", overlap_is_refused},
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

} // namespace

int main(int argc, char **argv) {
  const auto check = argc == 4 ? checks.find(argv[3]) : checks.end();
  if (check == checks.end()) {
    std::fprintf(stderr, "usage: %s LIBRARY MODEL_FOLDER CHECK\n", argv[0]);
    return 2;
  }
  library_path = argv[1];
  model_folder = argv[2];
  api = open_library()(SEMBLANCE_MAJOR);
  CHECK(api != nullptr);
  check->second();
  return 0;
}
