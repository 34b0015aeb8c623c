#include "cli/announcer.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace tenon {
namespace {

using testing::HasSubstr;

/// What `say` prints on stderr with one style.
template <typename Say>
std::string said(Announcer::Style style, Say say) {
  Announcer announcer(style);
  testing::internal::CaptureStderr();
  say(announcer);
  return testing::internal::GetCapturedStderr();
}

const StartFacts kFacts = {.name = "demo",
                           .engine = "interp",
                           .engine_reason = "no /dev/kvm",
                           .kernel = "bzImage 6.1",
                           .memory_bytes = uint64_t{512} << 20,
                           .cpus = 2};

TEST(Announcer, StartIsOneLineWithEngineKernelMemoryAndReason) {
  EXPECT_EQ(said(Announcer::Style::kText, [](Announcer& a) { a.started(kFacts); }),
            "tenon: bzImage 6.1, 512 MiB, 2 vCPUs, engine interp (no /dev/kvm)\n");
}

TEST(Announcer, SilentSaysNothingButErrors) {
  const std::string text = said(Announcer::Style::kSilent, [](Announcer& a) {
    a.started(kFacts);
    a.ready("shell", 1.5);
    a.hint("x");
    a.exited(0, 2);
    a.error("it broke", {"last line"});
  });
  EXPECT_EQ(text, "tenon: it broke\ntenon: the guest's last console lines:\n  | last line\n");
}

TEST(Announcer, EveryEventIsOneLineOfJson) {
  const std::string text = said(Announcer::Style::kJson, [](Announcer& a) {
    a.started(kFacts);
    a.ready("shell", 1.23456);
    a.hint("not for programs");
    a.error("guest said \xFF\"", {"\xC3"});  // no valid UTF-8
    a.stats("vcpu0", {{"halts", uint64_t{3}}, {"expansion", 4.5}});
    a.exited(7, 2);
  });
  std::vector<nlohmann::json> events;
  for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1)
    events.push_back(nlohmann::json::parse(text.substr(at, text.find('\n', at) - at)));
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0]["event"], "start");
  EXPECT_EQ(events[0]["cpus"], 2);
  EXPECT_EQ(events[1]["seconds"], 1.235);
  EXPECT_EQ(events[2]["event"], "error");
  EXPECT_EQ(events[3]["halts"], 3);
  EXPECT_EQ(events[3]["expansion"], 4.5);
  EXPECT_EQ(events[4]["status"], 7);
}

TEST(Announcer, RawTerminalNeedsACarriageReturn) {
  const std::string text = said(Announcer::Style::kText, [](Announcer& a) {
    a.set_raw_terminal(true);
    a.hint_on_new_line("left");
  });
  EXPECT_EQ(text, "\r\ntenon: left\r\n");
}

}  // namespace
}  // namespace tenon
