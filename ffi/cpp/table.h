// The one thing that Rust needs of the C++ side. See table.cpp.
#pragma once

#include <cstdint>

namespace semblance::ffi {

// The table for `major` as const semblance_api *, or nullptr. Typed as bytes because cxx knows no
// void pointers.
const char *table(std::uint32_t major) noexcept;

} // namespace semblance::ffi
