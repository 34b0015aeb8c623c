// RunOptions: what `tenon run` was asked for, checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hh"
#include "cli/command_line.hh"

namespace tenon {

struct RunOptions {
  std::string engine = "auto";
  std::string engine_options;
  uint32_t cpus = 1;
  uint64_t memory_bytes = uint64_t{512} << 20;
  bool huge_pages = false;
  std::optional<std::string> kernel;  // none: the cached one of `flavour`
  std::optional<std::string> initrd;  // none: ours; "" after --initrd none: no initrd at all
  std::string append;
  std::string name = "tenon";
  std::string flavour = "cloud";
  std::string personality = "kvm";
  bool json = false;
  bool stats = false;
  bool verbose = false;
  std::vector<std::string> command;

  static Result<RunOptions> from(const ParsedCommand& parsed);

  /// Whether the guest's init is ours and so speaks the control protocol.
  bool has_our_init() const { return !initrd.has_value(); }
};

}  // namespace tenon
