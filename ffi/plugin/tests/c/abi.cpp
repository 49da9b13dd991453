// One check of the ABI in a process of its own: abi LIBRARY MODEL_FOLDER CHECK. Exit 0 is a pass;
// what failed goes to stderr. The library is loaded as a host does, by dlopen.
#include "abi.hpp"

int main(int argc, char **argv) {
  Checks checks = boundary_checks();
  checks.insert(job_checks().begin(), job_checks().end());
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
