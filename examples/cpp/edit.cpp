// edit.cpp: what an editor does, in C++17: a job polled from a timer, then the result rendered tile
// by tile into another buffer.
//
//   c++ -std=c++17 -Iinclude examples/cpp/edit.cpp -Ltarget/release -lsemblance -o edit
//   LD_LIBRARY_PATH=target/release ./edit in.ppm out.ppm
//       '{"semblance": 1, "attributes": [{"name": "sunset", "strength": 0.8}]}'
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "semblance/semblance.hpp"

namespace {

struct Picture {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::vector<std::uint8_t> rgb;

  // Rows from..to of the picture, as a part of the layer.
  semblance_pixels rows(std::uint32_t from, std::uint32_t to) {
    auto p = semblance::make<semblance_pixels>();
    const std::size_t stride = std::size_t{width} * 3;
    p.samples = SEMBLANCE_SAMPLES_U8;
    p.order = SEMBLANCE_ORDER_RGB;
    p.alpha = SEMBLANCE_ALPHA_NONE;
    p.color = SEMBLANCE_COLOR_SRGB;
    p.data = rgb.data() + from * stride;
    p.data_size = (to - from) * stride;
    p.row_stride = static_cast<std::int64_t>(stride);
    p.rect = {0, from, width, to - from};
    return p;
  }
};

Picture read_ppm(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  std::string magic;
  unsigned most = 0;
  Picture p;
  if (!(in >> magic >> p.width >> p.height >> most) || magic != "P6" || most != 255 ||
      p.width == 0 || p.width > 65536 || p.height == 0 || p.height > 65536) {
    throw std::runtime_error(path + ": is not a binary PPM of 8 bits (P6, 255)");
  }
  in.get();
  p.rgb.resize(std::size_t{p.width} * p.height * 3);
  if (!in.read(reinterpret_cast<char *>(p.rgb.data()), static_cast<std::streamsize>(p.rgb.size()))) {
    throw std::runtime_error(path + ": ends too early");
  }
  return p;
}

void write_ppm(const std::string &path, const Picture &p) {
  std::ofstream out(path, std::ios::binary);
  out << "P6\n" << p.width << ' ' << p.height << "\n255\n";
  out.write(reinterpret_cast<const char *>(p.rgb.data()),
            static_cast<std::streamsize>(p.rgb.size()));
  if (!out.flush()) {
    throw std::runtime_error(path + ": cannot be written");
  }
}

std::string engine_options(const std::string &folder) {
  std::string json = R"({"semblance": 1, "model_folder": ")";
  for (const char c : folder) {
    json += c == '"' || c == '\\' ? std::string{'\\', c} : std::string{c};
  }
  return json + "\"}";
}

void edit(const std::string &in, const std::string &out, const std::string &recipe,
          const std::string &options) {
  Picture layer = read_ppm(in);
  const semblance::Api api(semblance_get_api);
  const semblance::Engine engine(api, options);

  const semblance::Job job = engine.start(layer.rows(0, layer.height), nullptr, recipe,
                                          SEMBLANCE_JOB_PREVIEW, SEMBLANCE_IF_BUSY_WAIT);
  for (auto state = job.poll(); state.state < SEMBLANCE_STATE_DONE; state = job.wait(100)) {
    std::cerr << '\r' << static_cast<int>(100 * state.fraction) << " % "
              << api->phase_name(state.phase) << "      ";
  }
  std::cerr << '\n';
  const semblance::Result result = job.take();

  // Any rectangle on demand: here bands of 64 rows, each with the rows around it that it needs.
  Picture edited{layer.width, layer.height, std::vector<std::uint8_t>(layer.rgb.size())};
  std::uint64_t changed = 0;
  for (std::uint32_t y = 0; y < layer.height; y += 64) {
    const auto dst = edited.rows(y, std::min(y + 64, layer.height));
    const auto need = result.input_needed(dst.rect);
    const auto top = static_cast<std::uint32_t>(std::clamp<std::int64_t>(need.y, 0, y));
    const auto end = std::clamp<std::int64_t>(need.y + need.height, y + dst.rect.height, layer.height);
    changed += result.render(layer.rows(top, static_cast<std::uint32_t>(end)), nullptr, dst).changed;
  }
  write_ppm(out, edited);
  std::cout << changed << " pixels changed\n" << result.recipe() << '\n';
  while (const auto entry = engine.log_poll()) {
    std::cerr << "log: " << entry->text << '\n';
  }
}

} // namespace

int main(int argc, char **argv) {
  if (argc < 4 || argc > 5) {
    std::cerr << "usage: " << argv[0] << " IN.ppm OUT.ppm RECIPE [MODEL_FOLDER]\n";
    return 2;
  }
  try {
    edit(argv[1], argv[2], argv[3], argc > 4 ? engine_options(argv[4]) : "");
  } catch (const semblance::Error &e) {
    std::cerr << "error " << e.code() << ": " << e.what() << '\n';
    return 1;
  } catch (const std::exception &e) {
    std::cerr << e.what() << '\n';
    return 1;
  }
  return 0;
}
