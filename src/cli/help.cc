#include "cli/help.hh"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace tenon {

namespace {

constexpr OptionRow kHelpRow = {"--help", "", "", "this text"};

void append_option(std::string& text, const OptionRow& row, size_t width) {
  const std::string left = row.is_flag() ? std::string(row.name) : fmt::format("{} {}", row.name, row.value);
  fmt::format_to(std::back_inserter(text), "  {:<{}}  {}", left, width, row.help);
  if (!row.default_text.empty()) fmt::format_to(std::back_inserter(text), " [{}]", row.default_text);
  text += '\n';
}

void append_examples(std::string& text, std::span<const ExampleRow> examples) {
  if (examples.empty()) return;
  size_t width = 0;
  for (const ExampleRow& row : examples) width = std::max(width, row.command.size());
  text += "\nExamples:\n";
  for (const ExampleRow& row : examples)
    fmt::format_to(std::back_inserter(text), "  {:<{}}  # {}\n", row.command, width, row.purpose);
}

}  // namespace

std::string version_text() { return "tenon " TENON_VERSION "\n"; }

std::string overview_text() {
  std::string text =
      "tenon runs virtual machines as ordinary processes.\n\nUsage: tenon COMMAND [OPTIONS]\n\nCommands:\n";
  for (const VerbRow& verb : verb_table())
    fmt::format_to(std::back_inserter(text), "  {:<12} {}\n", verb.name, verb.summary);
  text += "\n'tenon COMMAND --help' explains one of them; 'tenon --version' says which tenon this is.\n";
  append_examples(text, find_verb("run")->examples.first(3));
  return text;
}

std::string verb_help_text(const VerbRow& verb) {
  std::string text = fmt::format("Usage: tenon {}{}{}{}\n\n{}.\n", verb.name, verb.options.empty() ? "" : " [OPTIONS]",
                                 verb.operands.empty() ? "" : " ", verb.operands, verb.summary);
  text[text.find("\n\n") + 2] = static_cast<char>(std::toupper(text[text.find("\n\n") + 2]));
  if (!verb.details.empty()) text.append("\n").append(verb.details).append("\n");
  size_t width = kHelpRow.name.size();
  for (const OptionRow& row : verb.options)
    width = std::max(width, row.name.size() + (row.is_flag() ? 0 : 1 + row.value.size()));
  text += "\nOptions:\n";
  for (const OptionRow& row : verb.options) append_option(text, row, width);
  append_option(text, kHelpRow, width);
  append_examples(text, verb.examples);
  return text;
}

}  // namespace tenon
