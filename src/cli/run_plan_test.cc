#include "cli/run_plan.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/console_tail.hh"
#include "cli/progress.hh"

namespace tenon {
namespace {

using testing::ElementsAre;
using Kind = RunPlan::Kind;

constexpr StandardStreams kTerminal = {
    .stdin_is_terminal = true, .stdout_is_terminal = true, .stderr_is_terminal = true};
constexpr StandardStreams kPiped = {};

TEST(RunPlan, DependsOnCommandAndTerminals) {
  RunOptions shell;
  RunOptions command;
  command.command = {"ls"};
  const StandardStreams output_piped = {
      .stdin_is_terminal = true, .stdout_is_terminal = false, .stderr_is_terminal = true};
  EXPECT_EQ(RunPlan::make(shell, kTerminal).kind, Kind::kConsole);
  EXPECT_EQ(RunPlan::make(shell, kPiped).kind, Kind::kTranscript);
  EXPECT_EQ(RunPlan::make(command, kTerminal).kind, Kind::kTerminalCommand);
  EXPECT_EQ(RunPlan::make(command, output_piped).kind, Kind::kPipes);
  EXPECT_EQ(RunPlan::make(command, kPiped).kind, Kind::kPipes);
  shell.initrd = "other";
  EXPECT_EQ(RunPlan::make(shell, kPiped).kind, Kind::kConsole);
}

TEST(RunPlan, OnlyTerminalRunsGoRaw) {
  RunOptions options;
  EXPECT_TRUE(RunPlan::make(options, kTerminal).wants_raw_terminal(kTerminal));
  EXPECT_FALSE(RunPlan::make(options, kPiped).wants_raw_terminal(kPiped));
  options.command = {"ls"};
  const StandardStreams output_piped = {
      .stdin_is_terminal = true, .stdout_is_terminal = false, .stderr_is_terminal = true};
  EXPECT_FALSE(RunPlan::make(options, output_piped).wants_raw_terminal(output_piped));
}

TEST(RunPlan, AppendComesLastOnTheKernelCommandLine) {
  RunOptions options;
  EXPECT_NE(kernel_command_line(options).find(" quiet"), std::string::npos);
  options.append = "panic=5 debug";
  options.verbose = true;
  EXPECT_TRUE(kernel_command_line(options).ends_with(" panic=5 debug"));
  EXPECT_EQ(kernel_command_line(options).find(" quiet"), std::string::npos);
}

std::vector<std::string> last_lines(std::string_view text, size_t count) {
  ConsoleTail tail;
  tail.append(std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
  return tail.last_lines(count);
}

TEST(ConsoleTail, LastLinesWithoutControlCharacters) {
  EXPECT_THAT(last_lines("one\r\ntwo\r\n\r\n\x1B[31mred\x1B[0m\x07 end", 2), ElementsAre("two", "red end"));
  EXPECT_THAT(last_lines("", 5), ElementsAre());
  EXPECT_THAT(last_lines("\x1B[", 5), ElementsAre());
  EXPECT_THAT(last_lines("only", 5), ElementsAre("only"));
}

TEST(ConsoleTail, KeepsTheEndOfALongConsole) {
  ConsoleTail tail;
  for (int i = 0; i < 10'000; ++i) {
    const std::string line = "line " + std::to_string(i) + "\n";
    tail.append(std::span(reinterpret_cast<const uint8_t*>(line.data()), line.size()));
  }
  EXPECT_THAT(tail.last_lines(2), ElementsAre("line 9998", "line 9999"));
}

TEST(ConsoleTail, KnowsAPanic) {
  ConsoleTail tail;
  const std::string text = "[    1.0] Kernel panic - not syncing: VFS";
  EXPECT_FALSE(tail.has_panic());
  for (const char& byte : text) tail.append(std::span(reinterpret_cast<const uint8_t*>(&byte), 1));
  EXPECT_TRUE(tail.has_panic());
}

TEST(ConsoleTail, DeathIsToldFromThePanicOn) {
  ConsoleTail tail;
  std::string text = "before\r\n[1.0] Kernel panic - not syncing: VFS: no root\r\n";
  for (int i = 0; i < 50; ++i) text += "trace " + std::to_string(i) + "\r\n";
  tail.append(std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
  EXPECT_THAT(tail.death_lines(2), ElementsAre("[1.0] Kernel panic - not syncing: VFS: no root", "trace 0"));
  EXPECT_THAT(tail.death_lines(1000).size(), 51u);
  EXPECT_THAT(tail.last_lines(1), ElementsAre("trace 49"));
}

TEST(Progress, Lines) {
  EXPECT_EQ(Progress::line("fetching x", 0.425), "tenon: fetching x  42%");
  EXPECT_EQ(Progress::line("fetching x", 1), "tenon: fetching x 100%");
  EXPECT_EQ(Progress::line("unpacking", -1), "tenon: unpacking ...");
}

}  // namespace
}  // namespace tenon
