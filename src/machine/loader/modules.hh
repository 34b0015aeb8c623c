// Placement of modules and command lines for the boot protocols that take a list of them: PVH and multiboot.
#pragma once

#include <vector>

#include "machine/loader/boot_image.hh"

namespace tenon {

struct PlacedModule {
  GpaRange range;
  Gpa command_line;
};

constexpr size_t kModulesMax = 64;

/// Puts every module of the request page-aligned above the image's segments and below 3 GiB, highest address first, and
/// their command lines into low memory.
Result<std::vector<PlacedModule>> place_modules(BootImage& image, const BootRequest& request);

/// Puts the command line at low_memory::kCommandLine.
Result<void> add_command_line(BootImage& image, const std::string& text);

}  // namespace tenon
