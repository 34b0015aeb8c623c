// tenon: reads the command line and calls the verb. Every error ends here, as one line on stderr and a status of 125.
#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <vector>

#include "cli/command_line.hh"
#include "cli/exit_status.hh"
#include "cli/help.hh"
#include "cli/image_command.hh"
#include "cli/run_command.hh"
#include "host/terminal.hh"

namespace tenon {

namespace {

Result<int> run_verb(const ParsedCommand& parsed) {
  if (parsed.verb->name == "run") return run_run_command(parsed);
  return run_image_command(parsed);
}

Result<int> run(const std::vector<std::string>& arguments) {
  const ParsedCommand parsed = TRY(parse_command_line(arguments));
  switch (parsed.kind) {
    case ParsedCommand::Kind::kHelp: fmt::print("{}", overview_text()); return exit_status::kSuccess;
    case ParsedCommand::Kind::kVerbHelp: fmt::print("{}", verb_help_text(*parsed.verb)); return exit_status::kSuccess;
    case ParsedCommand::Kind::kVersion: fmt::print("{}", version_text()); return exit_status::kSuccess;
    case ParsedCommand::Kind::kVerb: return run_verb(parsed);
  }
  return exit_status::kTenonError;
}

}  // namespace

}  // namespace tenon

int main(int argc, char** argv) {
  tenon::open_missing_standard_descriptors();
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const tenon::Result<int> status = tenon::run(arguments);
  if (status) return *status;
  fmt::print(stderr, "tenon: {}\n", status.error().message());
  return tenon::exit_status::kTenonError;
}
