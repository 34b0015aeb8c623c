// From argv to a verb of the table with its options and operands. Errors are for the person who typed it, with a
// suggestion where something known is near.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"
#include "cli/command_table.hh"

namespace tenon {

struct ParsedCommand {
  enum class Kind : uint8_t { kVerb, kHelp, kVerbHelp, kVersion };
  Kind kind = Kind::kHelp;
  const VerbRow* verb = nullptr;               // kVerb, kVerbHelp
  std::map<std::string, std::string> options;  // by full name; a flag has the value ""
  std::vector<std::string> operands;

  bool has(std::string_view name) const { return options.contains(std::string(name)); }
  std::optional<std::string> value(std::string_view name) const;
};

/// `arguments` without argv[0].
Result<ParsedCommand> parse_command_line(const std::vector<std::string>& arguments);

/// The candidate that `word` was probably meant to be, or an empty string.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

/// "512M" and the like to bytes: a whole number and one of K, M, G, T (binary, with or without "iB" or "B").
Result<uint64_t> parse_size(std::string_view text);

/// A decimal number from `low` to `high`; `what` names it in the error.
Result<uint64_t> parse_number(std::string_view text, std::string_view what, uint64_t low, uint64_t high);

}  // namespace tenon
