// `tenon run`.
#pragma once

#include "base/result.hh"
#include "cli/command_line.hh"

namespace tenon {

/// Runs the virtual machine to its end; returns tenon's exit status.
Result<int> run_run_command(const ParsedCommand& parsed);

}  // namespace tenon
