#include "host/guest_session.hh"

#include <gtest/gtest.h>

namespace tenon {
namespace {

using namespace console_protocol;

/// Plays the guest, and writes down what the client hears.
class GuestSessionTest : public testing::Test, public GuestSession::Client {
 protected:
  void guest_ready() override { events_ += "ready "; }
  void guest_started() override { events_ += "started "; }
  void guest_output(StreamId stream, std::span<const uint8_t> bytes) override {
    events_ += (stream == StreamId::kStdout ? "out:" : "err:") + std::to_string(bytes.size()) + " ";
  }
  void guest_takes_input() override { events_ += "room "; }
  void guest_closed_input() override { events_ += "closed "; }
  void guest_exited(ExitKind kind, uint32_t value) override {
    events_ += "exit:" + std::to_string(static_cast<int>(kind)) + ":" + std::to_string(value) + " ";
  }
  void guest_restarts() override { events_ += "restart "; }
  void guest_incompatible(const std::string& reason) override { events_ += "incompatible:" + reason; }

  void guest_sends(FrameType type, std::span<const uint8_t> payload = {}) {
    const FrameHeader header = make_header(type, payload.size());
    std::vector<uint8_t> frame(sizeof header);
    std::memcpy(frame.data(), &header, sizeof header);
    frame.insert(frame.end(), payload.begin(), payload.end());
    session_.receive(frame);
  }
  template <typename Wire>
  void guest_sends_struct(FrameType type, const Wire& wire) {
    guest_sends(type, std::span(reinterpret_cast<const uint8_t*>(&wire), sizeof wire));
  }
  void boot() { guest_sends_struct(FrameType::kReady, Ready{.version = kProtocolVersion}); }
  void boot_and_start(std::vector<std::string> arguments = {"true"}) {
    boot();
    ASSERT_TRUE(session_.start({.mode = StartMode::kPipes, .hostname = "demo", .arguments = std::move(arguments)}));
  }
  std::string taken_events() { return std::exchange(events_, ""); }

  std::vector<std::pair<FrameType, std::string>> sent_;
  FrameParser sent_parser_;
  std::string events_;
  GuestSession session_{*this, [this](std::span<const uint8_t> bytes) {
                          sent_parser_.feed(bytes, [this](FrameType type, std::span<const uint8_t> payload) {
                            sent_.emplace_back(type, std::string(payload.begin(), payload.end()));
                          });
                        }};
};

TEST_F(GuestSessionTest, StartRecordCarriesNameEnvironmentAndArguments) {
  boot();
  ASSERT_TRUE(session_.start({.mode = StartMode::kTerminal,
                              .stderr_pipe = true,
                              .rows = 24,
                              .columns = 80,
                              .hostname = "demo",
                              .directory = "/tmp",
                              .environment = {"TERM=xterm"},
                              .arguments = {"ls", "-l"}}));
  ASSERT_EQ(sent_.size(), 2u);
  EXPECT_EQ(sent_[0].first, FrameType::kStartData);
  const std::string expected("\x02\x01\x18\0\x50\0hdemo\0d/tmp\0eTERM=xterm\0als\0a-l\0", 6 + 6 + 6 + 12 + 4 + 4);
  EXPECT_EQ(sent_[0].second, expected);
  EXPECT_EQ(sent_[1].first, FrameType::kStart);
}

TEST_F(GuestSessionTest, NothingIsSentBeforeTheGuestIsReady) {
  session_.set_window(1, 2);
  session_.send_signal(15);
  session_.end_input();
  EXPECT_EQ(session_.input_room(), 0u);
  EXPECT_TRUE(sent_.empty());
}

TEST_F(GuestSessionTest, LongCommandLineWaitsForCredit) {
  boot_and_start({"echo", std::string(40'000, 'x')});
  size_t record_bytes = 0;
  for (const auto& [type, payload] : sent_) record_bytes += payload.size();
  EXPECT_EQ(record_bytes, kInputWindow);
  EXPECT_EQ(session_.input_room(), 0u);
  for (int i = 0; i < 3; ++i) guest_sends_struct(FrameType::kInputCredit, Credit{.stream = 0, .bytes = kInputWindow});
  EXPECT_EQ(sent_.back().first, FrameType::kStart);
}

TEST_F(GuestSessionTest, TooLongCommandLineIsAnError) {
  boot();
  const Result<void> started = session_.start({.arguments = {std::string(kStartRecordMax, 'x')}});
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code(), ErrorCode::kOutOfRange);
}

TEST_F(GuestSessionTest, InputFollowsCredit) {
  boot_and_start();
  const size_t room = session_.input_room();
  ASSERT_GT(room, kFramePayloadMax);
  session_.send_input(std::vector<uint8_t>(room, 'i'));
  EXPECT_EQ(session_.input_room(), 0u);
  guest_sends_struct(FrameType::kInputCredit, Credit{.stream = 0, .bytes = 100});
  EXPECT_EQ(session_.input_room(), 100u);
  // More credit than was ever taken does not grow the window.
  guest_sends_struct(FrameType::kInputCredit, Credit{.stream = 0, .bytes = 0xFFFFFFFF});
  EXPECT_EQ(session_.input_room(), kInputWindow);
}

TEST_F(GuestSessionTest, OutputBeyondTheWindowIsDropped) {
  boot_and_start();
  taken_events();
  const std::vector<uint8_t> piece(kFramePayloadMax, 'o');
  for (uint32_t i = 0; i < kOutputWindow / kFramePayloadMax; ++i) guest_sends(FrameType::kOutput, piece);
  taken_events();
  guest_sends(FrameType::kOutput, piece);
  EXPECT_EQ(taken_events(), "");
  EXPECT_EQ(session_.dropped_bytes(), kFramePayloadMax);
  session_.output_passed_on(StreamId::kStdout, kFramePayloadMax);
  guest_sends(FrameType::kOutput, piece);
  EXPECT_EQ(taken_events(), "out:4096 ");
}

TEST_F(GuestSessionTest, StreamsHaveTheirOwnWindows) {
  boot_and_start();
  const std::vector<uint8_t> piece(kFramePayloadMax, 'o');
  for (uint32_t i = 0; i < kOutputWindow / kFramePayloadMax; ++i) guest_sends(FrameType::kOutput, piece);
  taken_events();
  guest_sends(FrameType::kErrorOutput, piece);
  EXPECT_EQ(taken_events(), "err:4096 ");
}

TEST_F(GuestSessionTest, ExitEndsTheSession) {
  boot_and_start();
  guest_sends(FrameType::kStarted);
  guest_sends_struct(FrameType::kExit, Exit{.kind = 1, .value = 9});
  guest_sends_struct(FrameType::kExit, Exit{.kind = 0, .value = 0});
  guest_sends(FrameType::kOutput, std::vector<uint8_t>{1});
  EXPECT_EQ(taken_events(), "ready started exit:1:9 ");
  const size_t frames = sent_.size();
  session_.output_passed_on(StreamId::kStdout, 1);
  EXPECT_EQ(sent_.size(), frames);
}

TEST_F(GuestSessionTest, NonsenseIsIgnored) {
  guest_sends(FrameType::kExit, std::vector<uint8_t>{0, 0, 0, 0, 0});  // before ready
  boot_and_start();
  guest_sends_struct(FrameType::kExit, Exit{.kind = 7, .value = 0});
  guest_sends(FrameType::kExit);
  guest_sends(FrameType::kInputCredit, std::vector<uint8_t>{1, 2, 3});
  guest_sends(static_cast<FrameType>(0x77), std::vector<uint8_t>{1});
  EXPECT_EQ(taken_events(), "ready ");
}

TEST_F(GuestSessionTest, RestartedGuestStartsAfresh) {
  boot_and_start();
  guest_sends(FrameType::kRestart);
  boot();
  EXPECT_EQ(taken_events(), "ready restart ready ");
  EXPECT_TRUE(session_.start({.mode = StartMode::kConsoleShell}));
}

TEST_F(GuestSessionTest, OtherVersionIsRefusedWithBothNumbers) {
  guest_sends_struct(FrameType::kReady, Ready{.version = 99});
  EXPECT_NE(taken_events().find("version 99"), std::string::npos);
  boot();
  EXPECT_EQ(taken_events(), "");
}

}  // namespace
}  // namespace tenon
