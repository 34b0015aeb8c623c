#include "cli/run_options.hh"

#include <fmt/format.h>

#include <algorithm>

namespace tenon {

namespace {

constexpr uint32_t kCpusMax = 1024;
constexpr uint64_t kMemoryMin = uint64_t{16} << 20;
constexpr uint64_t kMemoryMax = uint64_t{4} << 40;
constexpr size_t kHostNameMax = 63;  // of one label, RFC 1035 2.3.4

using Text = const std::string&;

Result<void> set_cpus(RunOptions& options, Text text) {
  options.cpus = static_cast<uint32_t>(TRY(parse_number(text, "--cpus", 1, kCpusMax)));
  return {};
}

Result<void> set_memory(RunOptions& options, Text text) {
  const uint64_t size = TRY(parse_size(text));
  if (size < kMemoryMin || size > kMemoryMax)
    return fail(ErrorCode::kInvalidArgument, fmt::format("--memory {}: want 16M to 4T", text));
  options.memory_bytes = size;
  return {};
}

Result<void> set_name(RunOptions& options, Text text) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
  };
  if (text.empty() || text.size() > kHostNameMax || text[0] == '-' || !std::ranges::all_of(text, allowed))
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("--name '{}': want 1 to {} letters, digits and '-', as in a host name", text, kHostNameMax));
  options.name = text;
  return {};
}

Result<void> set_initrd(RunOptions& options, Text text) {
  options.initrd = text == "none" ? "" : text;
  return {};
}

template <auto member>
Result<void> set_text(RunOptions& options, Text text) {
  options.*member = text;
  return {};
}

template <auto member>
Result<void> set_flag(RunOptions& options, Text) {
  options.*member = true;
  return {};
}

struct Setter {
  std::string_view option;
  Result<void> (*set)(RunOptions&, Text);
};

// clang-format off
constexpr Setter kSetters[] = {
  {"--engine",         set_text<&RunOptions::engine>},
  {"--cpus",           set_cpus},
  {"--memory",         set_memory},
  {"--huge-pages",     set_flag<&RunOptions::huge_pages>},
  {"--kernel",         set_text<&RunOptions::kernel>},
  {"--initrd",         set_initrd},
  {"--append",         set_text<&RunOptions::append>},
  {"--name",           set_name},
  {"--flavour",        set_text<&RunOptions::flavour>},
  {"--personality",    set_text<&RunOptions::personality>},
  {"--json",           set_flag<&RunOptions::json>},
  {"--stats",          set_flag<&RunOptions::stats>},
  {"--verbose",        set_flag<&RunOptions::verbose>},
  {"--engine-options", set_text<&RunOptions::engine_options>},
};
// clang-format on

}  // namespace

Result<RunOptions> RunOptions::from(const ParsedCommand& parsed) {
  RunOptions options;
  for (const Setter& setter : kSetters)
    if (const std::optional<std::string> text = parsed.value(setter.option)) TRY(setter.set(options, *text));
  if (!options.engine_options.empty() && options.engine != "auto" && options.engine != "jit")
    return fail(ErrorCode::kInvalidArgument, "--engine-options: only the jit engine has any; use --engine jit");
  options.command = parsed.operands;
  if (!options.command.empty() && !options.has_our_init())
    return fail(ErrorCode::kInvalidArgument,
                "--initrd replaces the init that would run COMMAND; leave out one of the two");
  return options;
}

}  // namespace tenon
