#include <fmt/format.h>

#include <charconv>

#include "engine/jit/jit_engine.hh"

namespace tenon {

namespace {

constexpr uint64_t kCacheMebibytesMin = 4;
constexpr uint64_t kCacheMebibytesMax = 1024;

struct OptionRow {
  std::string_view name;
  uint64_t low, high;  // of its value; both 0: takes none
  void (*set)(JitOptions&, uint64_t value);
};

// clang-format off
constexpr OptionRow kOptions[] = {
  {"lockstep",        0, 0, [](JitOptions& options, uint64_t) { options.lockstep = options.strict_flags = true; }},
  {"strict-flags",    0, 0, [](JitOptions& options, uint64_t) { options.strict_flags = true; }},
  {"cache",           kCacheMebibytesMin, kCacheMebibytesMax,
                            [](JitOptions& options, uint64_t value) { options.cache_bytes = value << 20; }},
  {"fault-injection", 0, UINT64_MAX,
                            [](JitOptions& options, uint64_t value) { options.fault_injection = value; }},
};
// clang-format on

Result<void> set_option(JitOptions& options, std::string_view word) {
  const size_t equals = word.find('=');
  const std::string_view name = word.substr(0, equals);
  for (const OptionRow& row : kOptions) {
    if (row.name != name) continue;
    const std::string_view text = equals == std::string_view::npos ? "" : word.substr(equals + 1);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool is_number = !text.empty() && error == std::errc() && end == text.data() + text.size();
    const bool wants_none = row.high == 0;
    if (wants_none ? equals != std::string_view::npos : !is_number || value < row.low || value > row.high)
      return fail(ErrorCode::kInvalidArgument, wants_none
                                                   ? fmt::format("engine option \"{}\": {} takes no value", word, name)
                                                   : fmt::format("engine option \"{}\": want {}=N with N from {} to {}",
                                                                 word, name, row.low, row.high));
    row.set(options, value);
    return {};
  }
  std::string names;
  for (const OptionRow& row : kOptions) names += fmt::format("{}{}", names.empty() ? "" : ", ", row.name);
  return fail(ErrorCode::kInvalidArgument, fmt::format("engine option \"{}\": is none of {}", word, names));
}

}  // namespace

Result<JitOptions> parse_jit_options(std::string_view text) {
  JitOptions options;
  while (!text.empty()) {
    const size_t end = std::min(text.find(','), text.size());
    TRY(set_option(options, text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return options;
}

}  // namespace tenon
