#include "cli/command_line.hh"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <numeric>

#include "base/bits.hh"

namespace tenon {

namespace {

using Words = std::vector<std::string>;

constexpr size_t kSuggestionDistanceMax = 2;

/// Levenshtein distance; a swap of neighbours counts as two.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::string did_you_mean(std::string_view word, const Words& candidates) {
  const std::string suggestion = nearest(word, candidates);
  return suggestion.empty() ? "" : fmt::format("; did you mean '{}'?", suggestion);
}

Error usage_error(std::string message, const VerbRow* verb = nullptr) {
  const std::string help = verb != nullptr ? fmt::format("tenon {} --help", verb->name) : "tenon --help";
  return Error(ErrorCode::kInvalidArgument, fmt::format("{} (see '{}')", message, help));
}

bool is_help(std::string_view word) { return word == "--help" || word == "-h" || word == "help"; }

/// The verb at the front of `words`, which may have two words; removes it.
Result<const VerbRow*> take_verb(Words& words) {
  std::string name;
  for (size_t count = 1; count <= 2 && count <= words.size(); ++count) {
    name += (count > 1 ? " " : "") + words[count - 1];
    const VerbRow* verb = find_verb(name);
    if (verb == nullptr) continue;
    words.erase(words.begin(), words.begin() + static_cast<ptrdiff_t>(count));
    return verb;
  }
  Words names;
  Words second_words;
  for (const VerbRow& verb : verb_table()) {
    names.emplace_back(verb.name);
    if (verb.name.starts_with(words[0] + " ")) second_words.emplace_back(verb.name.substr(words[0].size() + 1));
  }
  if (!second_words.empty() && words.size() < 2)
    return std::unexpected(
        usage_error(fmt::format("'tenon {}' wants one of: {}", words[0], fmt::join(second_words, ", "))));
  if (!second_words.empty())
    return std::unexpected(usage_error(
        fmt::format("unknown command '{} {}'{}", words[0], words[1], did_you_mean(words[1], second_words))));
  if (words[0].starts_with("-")) {
    return std::unexpected(
        usage_error(fmt::format("unknown option '{}'{}", words[0], did_you_mean(words[0], {"--help", "--version"}))));
  }
  return std::unexpected(usage_error(fmt::format("unknown command '{}'{}", words[0], did_you_mean(words[0], names))));
}

Result<void> check_choice(const OptionRow& row, const std::string& value, const VerbRow& verb) {
  if (row.value.find('|') == std::string_view::npos) return {};
  Words choices;
  for (std::string_view rest = row.value; !rest.empty();) {
    const size_t end = std::min(rest.find('|'), rest.size());
    choices.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  if (std::ranges::find(choices, value) != choices.end()) return {};
  return std::unexpected(usage_error(
      fmt::format("{} '{}' is none of {}{}", row.name, value, fmt::join(choices, ", "), did_you_mean(value, choices)),
      &verb));
}

/// CLI11 reads the words that belong to the verb; the first one it does not know and all after it are left over.
Result<Words> read_options(ParsedCommand& parsed, Words words) {
  const VerbRow& verb = *parsed.verb;
  CLI::App app;
  app.set_help_flag();
  app.prefix_command();
  std::map<std::string, std::string> values;
  bool help = false;
  app.add_flag("-h,--help", help);
  for (const OptionRow& row : verb.options) {
    const std::string name(row.name);
    CLI::Option* option = row.is_flag() ? app.add_flag(name) : app.add_option(name, values[name]);
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }
  // CLI11 reports by throwing; its exceptions end here.
  try {
    std::ranges::reverse(words);
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    return std::unexpected(usage_error(error.what(), &verb));
  }
  if (help) parsed.kind = ParsedCommand::Kind::kVerbHelp;
  for (const OptionRow& row : verb.options) {
    const std::string name(row.name);
    if (app.count(name) == 0) continue;
    TRY(check_choice(row, values[name], verb));
    parsed.options[name] = values[name];
  }
  return app.remaining();
}

}  // namespace

std::optional<std::string> ParsedCommand::value(std::string_view name) const {
  const auto found = options.find(std::string(name));
  if (found == options.end()) return std::nullopt;
  return found->second;
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = kSuggestionDistanceMax + 1;
  for (const std::string& candidate : candidates) {
    // An unfinished word ("--mem") counts as near, too.
    const bool prefix = word.size() >= 3 && candidate.starts_with(word);
    const size_t distance = prefix ? 1 : edit_distance(word, candidate);
    if (distance < best_distance && distance < candidate.size()) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

Result<ParsedCommand> parse_command_line(const std::vector<std::string>& arguments) {
  ParsedCommand parsed;
  Words words = arguments;
  if (words.empty() || is_help(words[0])) {
    // "tenon help run" is "tenon run --help".
    if (words.size() < 2) return parsed;
    words.erase(words.begin());
    parsed.verb = TRY(take_verb(words));
    parsed.kind = ParsedCommand::Kind::kVerbHelp;
    return parsed;
  }
  if (words[0] == "--version") {
    parsed.kind = ParsedCommand::Kind::kVersion;
    return parsed;
  }
  // "tenon image --help" has no verb of its own: the list of verbs answers it.
  if (words.size() == 2 && is_help(words[1]) && find_verb(words[0]) == nullptr) return parsed;
  parsed.verb = TRY(take_verb(words));
  parsed.kind = ParsedCommand::Kind::kVerb;

  // What follows "--" is never ours, whatever it looks like.
  const auto separator = std::ranges::find(words, "--");
  const Words after(separator == words.end() ? words.end() : separator + 1, words.end());
  Words rest = TRY(read_options(parsed, Words(words.begin(), separator)));
  if (!rest.empty() && rest[0].starts_with("-") && rest[0].size() > 1) {
    Words names = {"--help"};
    for (const OptionRow& row : parsed.verb->options) names.emplace_back(row.name);
    const std::string name = rest[0].substr(0, rest[0].find('='));
    return std::unexpected(
        usage_error(fmt::format("unknown option '{}'{}", name, did_you_mean(name, names)), parsed.verb));
  }
  if (!rest.empty() && separator != words.end()) rest.emplace_back("--");  // it belongs to the command
  rest.insert(rest.end(), after.begin(), after.end());
  if (!rest.empty() && parsed.verb->operands.empty())
    return std::unexpected(usage_error(fmt::format("unexpected '{}'", rest[0]), parsed.verb));
  parsed.operands = std::move(rest);
  return parsed;
}

Result<uint64_t> parse_number(std::string_view text, std::string_view what, uint64_t low, uint64_t high) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value < low || value > high)
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{} '{}': want a number from {} to {}", what, text, low, high));
  return value;
}

Result<uint64_t> parse_size(std::string_view text) {
  constexpr std::string_view kUnits = "KMGT";
  const auto bad = [text] {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("size '{}': want a whole number and a unit, like 512M or 2G", text));
  };
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  std::string_view unit = text.substr(digits);
  for (const std::string_view ending : {"iB", "B"}) {
    if (unit.size() > ending.size() && unit.ends_with(ending)) unit.remove_suffix(ending.size());
  }
  uint64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + digits, value);
  if (digits == 0 || parsed.ec != std::errc() || unit.size() != 1) return bad();
  const size_t power = kUnits.find(unit[0] >= 'a' ? static_cast<char>(unit[0] - 'a' + 'A') : unit[0]);
  if (power == std::string_view::npos) return bad();
  const unsigned shift = static_cast<unsigned>(10 * (power + 1));
  if (value > (UINT64_MAX >> shift)) return bad();
  return value << shift;
}

}  // namespace tenon
