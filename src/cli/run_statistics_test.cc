#include "cli/run_statistics.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tenon {
namespace {

using testing::ElementsAre;

std::vector<std::string> subjects(const std::vector<StatisticsLine>& lines) {
  std::vector<std::string> names;
  for (const StatisticsLine& line : lines) names.push_back(line.subject);
  return names;
}

Announcer::Value value(const std::vector<StatisticsLine>& lines, std::string_view subject, std::string_view name) {
  for (const StatisticsLine& line : lines)
    for (const Announcer::Counter& counter : line.counters)
      if (line.subject == subject && counter.name == name) return counter.value;
  ADD_FAILURE() << subject << " has no " << name;
  return uint64_t{0};
}

VcpuStats translating(uint64_t instructions) {
  VcpuStats vcpu;
  vcpu.instructions = instructions;
  vcpu.translation.instructions_translated = 50;
  vcpu.translation.translation_ns = 10'000;
  vcpu.translation.guest_bytes_translated = 200;
  vcpu.translation.code_bytes_made = 900;
  vcpu.translation.look_ups = 3;
  vcpu.interpreted[0] = {"Iret", instructions};
  vcpu.interpreted[1] = {"Sti", 5};
  return vcpu;
}

TEST(RunStatistics, AnEngineThatTranslatesNothingHasOneLine) {
  MachineStats stats;
  stats.vcpus.resize(1);
  EXPECT_THAT(subjects(statistics_lines(stats, 1)), ElementsAre("board", "vcpu0"));
}

TEST(RunStatistics, RatesAndRatios) {
  MachineStats stats;
  stats.vcpus.push_back(translating(3000));
  const auto lines = statistics_lines(stats, 1.5);
  EXPECT_THAT(subjects(lines),
              ElementsAre("board", "vcpu0", "vcpu0.translations", "vcpu0.cache", "vcpu0.exits", "vcpu0.interpreted"));
  EXPECT_EQ(value(lines, "vcpu0", "instructions_per_second"), Announcer::Value(uint64_t{2000}));
  EXPECT_EQ(value(lines, "vcpu0.translations", "ns_per_5_instructions"), Announcer::Value(1000.0));
  EXPECT_EQ(value(lines, "vcpu0.translations", "expansion"), Announcer::Value(4.5));
  EXPECT_EQ(value(lines, "vcpu0.interpreted", "Iret"), Announcer::Value(uint64_t{3000}));
}

TEST(RunStatistics, SumOfSeveral) {
  MachineStats stats;
  stats.vcpus = {translating(100), translating(3)};
  stats.vcpus[1].interpreted[2] = {"Hlt", 1};
  const auto lines = statistics_lines(stats, 1);
  EXPECT_EQ(value(lines, "vcpus", "instructions"), Announcer::Value(uint64_t{103}));
  EXPECT_EQ(value(lines, "vcpus.translations", "code_bytes"), Announcer::Value(uint64_t{1800}));
  EXPECT_EQ(value(lines, "vcpus.translations", "expansion"), Announcer::Value(4.5));
  ASSERT_EQ(lines.back().subject, "vcpus.interpreted");
  ASSERT_EQ(lines.back().counters.size(), 3u);
  EXPECT_EQ(lines.back().counters[0].name, "Iret");
  EXPECT_EQ(lines.back().counters[1].name, "Sti");
  EXPECT_EQ(lines.back().counters[1].value, Announcer::Value(uint64_t{10}));
}

TEST(RunStatistics, NoTimeAndNoCodeAreNoDivision) {
  MachineStats stats;
  stats.vcpus.emplace_back().translation.look_ups = 1;
  const auto lines = statistics_lines(stats, 0);
  EXPECT_EQ(value(lines, "vcpu0", "instructions_per_second"), Announcer::Value(uint64_t{0}));
  EXPECT_EQ(value(lines, "vcpu0.translations", "expansion"), Announcer::Value(0.0));
}

}  // namespace
}  // namespace tenon
