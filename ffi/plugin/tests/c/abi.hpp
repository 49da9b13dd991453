// What the checks of the ABI share: the library's table, a picture, an engine of the tiny model.
// Not for: what one of the files alone needs.
#ifndef SEMBLANCE_TESTS_ABI_HPP
#define SEMBLANCE_TESTS_ABI_HPP

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <dlfcn.h>
#include <map>
#include <string>
#include <vector>

#include "semblance/semblance.hpp"

#define CHECK(condition)                                                                         \
  do {                                                                                           \
    if (!(condition)) {                                                                          \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);               \
      std::exit(1);                                                                              \
    }                                                                                            \
  } while (0)

using Checks = std::map<std::string, void (*)()>;

const Checks &boundary_checks(); // abi_boundary.cpp
const Checks &job_checks();      // abi_jobs.cpp

inline std::string library_path;
inline std::string model_folder;
inline const semblance_api *api;

inline semblance_get_api_fn open_library() {
  void *library = dlopen(library_path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    std::exit(1);
  }
  return reinterpret_cast<semblance_get_api_fn>(dlsym(library, "semblance_get_api"));
}

inline std::string options() {
  return R"({"semblance": 1, "threads": 2, "log_level": "debug", "model_folder": ")" +
         model_folder + "\"}";
}

// Quick: the tiny model, few steps. `slow` would take minutes.
inline std::string recipe(int steps = 3, int seed = 0) {
  return R"({"semblance": 1, "steps": )" + std::to_string(steps) + R"(, "seed": )" +
         std::to_string(seed) +
         R"(, "text": {"from": "a photo of hills", "to": "a photo of hills, at night", "strength": 1}})";
}
inline const std::string slow = recipe(1000);

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

inline semblance_engine *engine(const std::string &json = options()) {
  semblance_engine *e = nullptr;
  auto error = semblance::make<semblance_error>();
  if (api->engine_create(json.c_str(), &e, &error) != SEMBLANCE_OK) {
    std::fprintf(stderr, "engine_create: %s\n", error.message);
    std::exit(1);
  }
  return e;
}

inline int threads() {
  int n = 0;
  DIR *d = opendir("/proc/self/task");
  while (const dirent *entry = readdir(d)) {
    n += entry->d_name[0] != '.';
  }
  closedir(d);
  return n;
}

#endif
