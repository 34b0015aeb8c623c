// The one table of tenon's verbs and options. Parsing and help come from it, completion and man page will.
//
// All texts are constexpr data; a verb's code finds its options by name in the ParsedCommand.
#pragma once

#include <span>
#include <string_view>

namespace tenon {

struct OptionRow {
  std::string_view name;          // "--cpus"
  std::string_view value;         // "N", or the choices "auto|kvm|jit|interp"; empty for a flag
  std::string_view default_text;  // as help shows it; empty where there is none to show
  std::string_view help;

  bool is_flag() const { return value.empty(); }
};

struct ExampleRow {
  std::string_view command;
  std::string_view purpose;
};

struct VerbRow {
  std::string_view name;      // "image fetch"
  std::string_view operands;  // "[-- COMMAND...]"; empty where it takes none
  std::string_view summary;   // one line
  std::string_view details;   // paragraphs for its own help; may be empty
  std::span<const OptionRow> options;
  std::span<const ExampleRow> examples;
};

std::span<const VerbRow> verb_table();
/// nullptr where there is none of that name.
const VerbRow* find_verb(std::string_view name);
const OptionRow* find_option(const VerbRow& verb, std::string_view name);

}  // namespace tenon
