// Log: diagnostics for the person who runs Tenon, on standard error, never mixed into a guest's output.
//
// Off below warnings unless asked for (`-v`), and never on a path that a guest can drive at will: count there instead.
// Threads: any. A level that is off costs one load; its arguments are not formatted.
#pragma once

#include <fmt/core.h>

#include <atomic>
#include <cstdint>
#include <utility>

namespace tenon {

enum class LogLevel : uint8_t { kTrace, kDebug, kInfo, kWarning, kError, kOff };

namespace log_detail {

extern std::atomic<LogLevel> level;
void write(LogLevel level, fmt::string_view format, fmt::format_args arguments);

template <typename... Arguments>
void write_if_on(LogLevel wanted, fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  if (wanted < level.load(std::memory_order_relaxed)) return;
  write(wanted, format, fmt::make_format_args(arguments...));
}

}  // namespace log_detail

/// Messages below `level` are dropped. kWarning at start.
void set_log_level(LogLevel level);
inline LogLevel log_level() { return log_detail::level.load(std::memory_order_relaxed); }

template <typename... Arguments>
void log_debug(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  log_detail::write_if_on(LogLevel::kDebug, format, std::forward<Arguments>(arguments)...);
}
template <typename... Arguments>
void log_info(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  log_detail::write_if_on(LogLevel::kInfo, format, std::forward<Arguments>(arguments)...);
}
template <typename... Arguments>
void log_warning(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  log_detail::write_if_on(LogLevel::kWarning, format, std::forward<Arguments>(arguments)...);
}
template <typename... Arguments>
void log_error(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
  log_detail::write_if_on(LogLevel::kError, format, std::forward<Arguments>(arguments)...);
}

}  // namespace tenon
