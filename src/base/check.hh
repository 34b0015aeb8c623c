// CHECK stops the process on a bug of ours. Never use it on anything a guest, an image or an API client controls.
#pragma once

namespace tenon {

/// Prints `file:line: check failed: condition` to standard error and aborts.
[[noreturn]] void check_failed(const char* condition, const char* file, int line) noexcept;

}  // namespace tenon

#define CHECK(condition) \
  (static_cast<bool>(condition) ? static_cast<void>(0) : ::tenon::check_failed(#condition, __FILE__, __LINE__))
