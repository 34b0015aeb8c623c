// RunPlan: what kind of run this is, decided once from the options and from what stdin, stdout and stderr are.
#pragma once

#include <string>
#include <vector>

#include "cli/run_options.hh"

namespace tenon {

struct StandardStreams {
  bool stdin_is_terminal = false;
  bool stdout_is_terminal = false;
  bool stderr_is_terminal = false;
};

struct RunPlan {
  enum class Kind : uint8_t {
    kConsole,          // a person at the serial console
    kPipes,            // COMMAND on pipes
    kTerminalCommand,  // COMMAND on a pseudo-terminal
    kTranscript,       // the built-in script on pipes, without stdin
  };
  Kind kind = Kind::kConsole;
  std::vector<std::string> command = {};  // what the guest runs; empty with kConsole

  static RunPlan make(const RunOptions& options, const StandardStreams& streams);

  bool has_command() const { return kind != Kind::kConsole; }
  /// Whether our stdin is read at all, and whether its terminal goes raw for that.
  bool forwards_stdin() const { return kind != Kind::kTranscript; }
  bool wants_raw_terminal(const StandardStreams& streams) const {
    return streams.stdin_is_terminal && (kind == Kind::kConsole || kind == Kind::kTerminalCommand);
  }
};

/// The kernel's command line for this run; `options.append` comes last, so that it wins.
std::string kernel_command_line(const RunOptions& options);

}  // namespace tenon
