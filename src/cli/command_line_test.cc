#include "cli/command_line.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "cli/help.hh"
#include "cli/run_options.hh"

namespace tenon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Words = std::vector<std::string>;

ParsedCommand parsed(const Words& words) {
  Result<ParsedCommand> result = parse_command_line(words);
  EXPECT_TRUE(result) << (result ? "" : result.error().message());
  return result ? *result : ParsedCommand{};
}

std::string error_of(const Words& words) {
  const Result<ParsedCommand> result = parse_command_line(words);
  EXPECT_FALSE(result);
  return result ? "" : result.error().message();
}

TEST(CommandLine, OptionsInBothSpellingsAndACommand) {
  const ParsedCommand command = parsed({"run", "--cpus", "2", "--memory=1G", "--json", "--", "sh", "-c", "exit 7"});
  EXPECT_EQ(command.kind, ParsedCommand::Kind::kVerb);
  EXPECT_EQ(command.verb->name, "run");
  EXPECT_EQ(command.value("--cpus"), "2");
  EXPECT_EQ(command.value("--memory"), "1G");
  EXPECT_TRUE(command.has("--json"));
  EXPECT_FALSE(command.has("--stats"));
  EXPECT_THAT(command.operands, ElementsAre("sh", "-c", "exit 7"));
}

TEST(CommandLine, CommandNeedsNoSeparator) {
  EXPECT_THAT(parsed({"run", "--json", "ls", "-l", "--help"}).operands, ElementsAre("ls", "-l", "--help"));
  EXPECT_EQ(parsed({"run", "ls", "--cpus", "9"}).value("--cpus"), std::nullopt);
}

TEST(CommandLine, WordsAfterTheSeparatorAreNeverOurs) {
  EXPECT_THAT(parsed({"run", "--", "--cpus", "4"}).operands, ElementsAre("--cpus", "4"));
  EXPECT_THAT(parsed({"run", "--", "a", "--", "b"}).operands, ElementsAre("a", "--", "b"));
  EXPECT_THAT(parsed({"run", "grep", "--", "-x"}).operands, ElementsAre("grep", "--", "-x"));
  EXPECT_THAT(parsed({"run", "--"}).operands, ElementsAre());
}

TEST(CommandLine, EmptyAndOddArgumentsSurvive) {
  EXPECT_THAT(parsed({"run", "--", "printf", "", " ", "[a,b]", "\xFF"}).operands,
              ElementsAre("printf", "", " ", "[a,b]", "\xFF"));
  EXPECT_EQ(parsed({"run", "--append", "a=1 b=2"}).value("--append"), "a=1 b=2");
  EXPECT_EQ(parsed({"run", "--append=--debug"}).value("--append"), "--debug");
}

TEST(CommandLine, LastOfTwoWins) { EXPECT_EQ(parsed({"run", "--cpus", "1", "--cpus", "3"}).value("--cpus"), "3"); }

TEST(CommandLine, VerbsOfTwoWords) {
  EXPECT_EQ(parsed({"image", "fetch", "--flavour", "generic"}).verb->name, "image fetch");
  EXPECT_THAT(parsed({"image", "rm", "cloud", "generic"}).operands, ElementsAre("cloud", "generic"));
}

TEST(CommandLine, HelpAndVersion) {
  EXPECT_EQ(parsed({}).kind, ParsedCommand::Kind::kHelp);
  EXPECT_EQ(parsed({"--help"}).kind, ParsedCommand::Kind::kHelp);
  EXPECT_EQ(parsed({"image", "--help"}).kind, ParsedCommand::Kind::kHelp);
  EXPECT_EQ(parsed({"--version"}).kind, ParsedCommand::Kind::kVersion);
  for (const Words& words : {Words{"run", "--help"}, Words{"run", "-h"}, Words{"help", "run"}}) {
    EXPECT_EQ(parsed(words).kind, ParsedCommand::Kind::kVerbHelp);
    EXPECT_EQ(parsed(words).verb->name, "run");
  }
}

TEST(CommandLine, MistakesGetASuggestion) {
  EXPECT_THAT(error_of({"rum"}), HasSubstr("did you mean 'run'?"));
  EXPECT_THAT(error_of({"image", "fech"}), HasSubstr("did you mean 'fetch'?"));
  EXPECT_THAT(error_of({"image"}), HasSubstr("ls, fetch, rm"));
  EXPECT_THAT(error_of({"run", "--cpu", "2"}), HasSubstr("did you mean '--cpus'?"));
  EXPECT_THAT(error_of({"run", "--mem=1G"}), HasSubstr("did you mean '--memory'?"));
  EXPECT_THAT(error_of({"run", "--engine", "kmv"}), HasSubstr("did you mean 'kvm'?"));
  EXPECT_THAT(error_of({"--versoin"}), HasSubstr("did you mean '--version'?"));
  EXPECT_EQ(error_of({"run", "--frobnicate"}).find("did you mean"), std::string::npos);
}

TEST(CommandLine, MissingValueAndSurplusWordsAreErrors) {
  EXPECT_THAT(error_of({"run", "--cpus"}), HasSubstr("--cpus"));
  EXPECT_THAT(error_of({"image", "ls", "surplus"}), HasSubstr("surplus"));
}

TEST(CommandLine, Sizes) {
  EXPECT_EQ(parse_size("512M").value_or(0), uint64_t{512} << 20);
  EXPECT_EQ(parse_size("2g").value_or(0), uint64_t{2} << 30);
  EXPECT_EQ(parse_size("1TiB").value_or(0), uint64_t{1} << 40);
  EXPECT_EQ(parse_size("64KB").value_or(0), uint64_t{64} << 10);
  for (const char* text :
       {"", "512", "M", "1.5G", "-1G", "1X", "1MM", "99999999999999999999M", "18446744073709551615K", "1 G"})
    EXPECT_FALSE(parse_size(text)) << text;
}

TEST(CommandLine, Numbers) {
  EXPECT_EQ(parse_number("12", "x", 1, 12).value_or(0), 12u);
  for (const char* text : {"", "0", "13", "1x", " 1", "+1", "-1"}) EXPECT_FALSE(parse_number(text, "x", 1, 12)) << text;
}

TEST(CommandTable, NamesAreUniqueAndEveryTextIsThere) {
  std::set<std::string_view> verbs;
  for (const VerbRow& verb : verb_table()) {
    EXPECT_TRUE(verbs.insert(verb.name).second) << verb.name;
    EXPECT_FALSE(verb.summary.empty()) << verb.name;
    std::set<std::string_view> options;
    for (const OptionRow& row : verb.options) {
      EXPECT_TRUE(options.insert(row.name).second) << row.name;
      EXPECT_TRUE(row.name.starts_with("--")) << row.name;
      EXPECT_FALSE(row.help.empty()) << row.name;
    }
  }
}

TEST(CommandTable, HelpNamesEveryVerbAndOption) {
  const std::string overview = overview_text();
  for (const VerbRow& verb : verb_table()) {
    EXPECT_THAT(overview, HasSubstr(std::string(verb.name)));
    const std::string help = verb_help_text(verb);
    for (const OptionRow& row : verb.options) EXPECT_THAT(help, HasSubstr(std::string(row.name)));
    for (const ExampleRow& row : verb.examples) EXPECT_THAT(help, HasSubstr(std::string(row.command)));
  }
}

TEST(CommandTable, ExamplesParse) {
  for (const VerbRow& verb : verb_table())
    for (const ExampleRow& row : verb.examples) {
      std::string text(row.command);
      text = text.substr(text.rfind("tenon ") + 6);
      Words words;
      for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find(' ', at), text.size());
        words.push_back(text.substr(at, end - at));
        at = end + 1;
      }
      EXPECT_EQ(parsed(words).verb, &verb) << row.command;
    }
}

TEST(RunOptions, EveryOptionOfTheTableChangesSomething) {
  // A row without a setter would be accepted and ignored.
  const ParsedCommand all = parsed(
      {"run",    "--engine", "jit",       "--cpus",   "3", "--memory",         "1G",      "--huge-pages",  "--kernel",
       "k",      "--append", "a",         "--name",   "n", "--flavour",        "generic", "--personality", "none",
       "--json", "--stats",  "--verbose", "--initrd", "i", "--engine-options", "cache=9"});
  EXPECT_EQ(all.options.size(), find_verb("run")->options.size());
  const Result<RunOptions> options = RunOptions::from(all);
  ASSERT_TRUE(options);
  EXPECT_EQ(options->engine, "jit");
  EXPECT_EQ(options->engine_options, "cache=9");
  EXPECT_EQ(options->cpus, 3u);
  EXPECT_EQ(options->memory_bytes, uint64_t{1} << 30);
  EXPECT_EQ(options->kernel, "k");
  EXPECT_EQ(options->initrd, "i");
  EXPECT_EQ(options->append, "a");
  EXPECT_EQ(options->name, "n");
  EXPECT_EQ(options->flavour, "generic");
  EXPECT_EQ(options->personality, "none");
  EXPECT_TRUE(options->huge_pages && options->json && options->stats && options->verbose);
}

TEST(RunOptions, BadValuesAreRefused) {
  for (const Words& words :
       {Words{"run", "--engine", "interp", "--engine-options", "strict-flags"}, Words{"run", "--cpus", "0"},
        Words{"run", "--cpus", "many"}, Words{"run", "--memory", "1M"}, Words{"run", "--memory", "12"},
        Words{"run", "--name", "a b"}, Words{"run", "--name", ""}, Words{"run", "--initrd", "x", "--", "ls"}})
    EXPECT_FALSE(RunOptions::from(parsed(words))) << words[1] << words[2];
}

}  // namespace
}  // namespace tenon
