// What crosses the boundary: versions, NULL, struct sizes, garbage, the texts of errors. Not for: what
// runs and renders (abi_jobs.cpp).
#include <algorithm>
#include <functional>

#include "abi.hpp"

namespace {

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
  Picture picture, target;
  const auto untouched = target.bytes;
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
    if (code != SEMBLANCE_INVALID_LAYER || error.message[0] == '\0' || error.hint[0] == '\0' ||
        job != nullptr) {
      std::fprintf(stderr, "descriptor %zu: code %d: %s\n", i, code, error.message);
      std::exit(1);
    }
    // As source and as target of the call that does everything: refused before anything is written.
    const auto good = target.pixels();
    CHECK(api->edit(e, &p, nullptr, slow.c_str(), &good, nullptr, nullptr, nullptr, nullptr,
                    &error) == SEMBLANCE_INVALID_LAYER);
    CHECK(api->edit(e, &good, nullptr, slow.c_str(), &p, nullptr, nullptr, nullptr, nullptr,
                    &error) == SEMBLANCE_INVALID_LAYER);
    CHECK(target.bytes == untouched);
  }
  api->engine_destroy(e);
}

void garbage_masks() {
  semblance_engine *e = engine();
  Picture picture;
  const auto untouched = picture.bytes;
  const auto p = picture.pixels();
  const std::vector<std::uint8_t> ones(96 * 64, 255);
  const std::vector<std::function<void(semblance_mask &)>> spoils = {
      [](auto &m) { m.data = nullptr; },         [](auto &m) { m.data_size -= 1; },
      [](auto &m) { m.data_size = 0; },          [](auto &m) { m.samples = 0; },
      [](auto &m) { m.samples = 2; },            [](auto &m) { m.samples = 3; },
      [](auto &m) { m.samples = -1; },           [](auto &m) { m.samples = 4; },
      [](auto &m) { m.rect.width = 0; },         [](auto &m) { m.rect.height = 0; },
      [](auto &m) { m.rect.width = ~0u; },       [](auto &m) { m.rect.height = ~0u; },
      [](auto &m) { m.row_stride = 0; },         [](auto &m) { m.row_stride = 95; },
      [](auto &m) { m.row_stride = INT64_MIN; }, [](auto &m) { m.row_stride = INT64_MAX; },
      [](auto &m) { m.rect.x = INT64_MAX; },     [](auto &m) { m.rect.y = INT64_MIN; },
      [](auto &m) { m.rect.x = 96; },            [](auto &m) { m.rect.y = -64; },
  };
  for (std::size_t i = 0; i < spoils.size(); ++i) {
    auto m = semblance::make<semblance_mask>();
    m.samples = SEMBLANCE_SAMPLES_U8;
    m.data = ones.data();
    m.data_size = ones.size();
    m.row_stride = 96;
    m.rect = {0, 0, 96, 64};
    spoils[i](m);
    auto error = semblance::make<semblance_error>();
    const std::int32_t code = api->edit(e, &p, &m, slow.c_str(), &p, nullptr, nullptr, nullptr,
                                        nullptr, &error);
    if (code != SEMBLANCE_INVALID_MASK || error.message[0] == '\0' || error.hint[0] == '\0' ||
        picture.bytes != untouched) {
      std::fprintf(stderr, "mask %zu: code %d: %s\n", i, code, error.message);
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

} // namespace

const Checks &boundary_checks() {
  static const Checks checks = {
      {"version", version},
      {"null_arguments", null_arguments},
      {"errors_are_bounded", errors_are_bounded},
      {"struct_sizes", struct_sizes},
      {"garbage_pixels", garbage_pixels},
      {"garbage_masks", garbage_masks},
      {"garbage_texts", garbage_texts},
      {"overlap_is_refused", overlap_is_refused},
  };
  return checks;
}
