#include "base/log.hh"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace tenon {

namespace log_detail {

std::atomic<LogLevel> level{LogLevel::kWarning};

namespace {

spdlog::level::level_enum to_spdlog(LogLevel wanted) {
  switch (wanted) {
    case LogLevel::kTrace: return spdlog::level::trace;
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
    case LogLevel::kOff: break;
  }
  return spdlog::level::off;
}

/// Leaked on purpose: threads may log while static objects are being destroyed.
spdlog::logger& logger() {
  static spdlog::logger* const instance = [] {
    auto* made = new spdlog::logger("tenon", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made->set_pattern("%n: %^%l%$: %v");    // "tenon: warning: ..."
    made->set_level(spdlog::level::trace);  // the level is decided before we get here
    made->flush_on(spdlog::level::trace);
    return made;
  }();
  return *instance;
}

}  // namespace

void write(LogLevel wanted, fmt::string_view format, fmt::format_args arguments) {
  const std::string text = fmt::vformat(format, arguments);
  logger().log(to_spdlog(wanted), spdlog::string_view_t(text.data(), text.size()));
}

}  // namespace log_detail

void set_log_level(LogLevel level) { log_detail::level.store(level, std::memory_order_relaxed); }

}  // namespace tenon
