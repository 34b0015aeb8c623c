#include "machine/loader/modules.hh"

#include <fmt/format.h>

namespace tenon {

namespace {

constexpr uint64_t kModuleCommandLinesSize = 0x10000;

}  // namespace

Result<std::vector<PlacedModule>> place_modules(BootImage& image, const BootRequest& request) {
  if (request.modules.size() > kModulesMax)
    return fail(ErrorCode::kUnsupported,
                fmt::format("{} modules: at most {} are supported", request.modules.size(), kModulesMax));
  std::vector<PlacedModule> placed;
  const Gpa floor = image.end_of_high_segments();
  Gpa ceiling(kPciHoleStart);
  Gpa command_line = low_memory::kModuleCommandLines;
  for (const BootModule& module : request.modules) {
    const auto place = highest_place(request.memory, module.bytes.size(), kPageSize, floor, ceiling);
    if (!place)
      return fail(ErrorCode::kOutOfRange,
                  fmt::format("module {} of {} MiB does not fit between the kernel's end at {:#x} and {:#x}: give the "
                              "machine more memory",
                              module.name, module.bytes.size() / kMiB + 1, floor.value(), ceiling.value()));
    const uint64_t text_end = command_line.value() + module.command_line.size() + 1;
    if (text_end > low_memory::kModuleCommandLines.value() + kModuleCommandLinesSize)
      return fail(ErrorCode::kOutOfRange, "the modules' command lines together pass 64 KiB");
    image.add(*place, module.bytes, "module " + module.name);
    image.add_string(command_line, module.command_line, "command line of module " + module.name);
    placed.push_back({{*place, module.bytes.size()}, command_line});
    ceiling = *place;
    command_line = Gpa(text_end);
  }
  return placed;
}

Result<void> add_command_line(BootImage& image, const std::string& text) {
  if (text.size() >= low_memory::kCommandLineSizeMax)
    return fail(ErrorCode::kOutOfRange, fmt::format("kernel command line of {} bytes: at most {} fit", text.size(),
                                                    low_memory::kCommandLineSizeMax - 1));
  image.add_string(low_memory::kCommandLine, text, "kernel command line");
  return {};
}

}  // namespace tenon
