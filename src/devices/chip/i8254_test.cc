#include "devices/chip/i8254.hh"

#include <gtest/gtest.h>

#include "vm/fake_clock.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

/// Nanoseconds after which `ticks` have passed.
uint64_t ns(uint64_t ticks) { return ticks * kNanosecondsPerSecond / I8254::kFrequencyHz + 1; }

struct I8254Test : testing::Test {
  void program(unsigned channel, unsigned mode, uint16_t count, bool is_bcd = false) {
    pit.write(0x43, static_cast<uint8_t>(channel << 6 | 3u << 4 | mode << 1 | (is_bcd ? 1 : 0)));
    pit.write(static_cast<uint16_t>(0x40 + channel), static_cast<uint8_t>(count));
    pit.write(static_cast<uint16_t>(0x40 + channel), static_cast<uint8_t>(count >> 8));
  }
  uint16_t read_count(unsigned channel) {
    const auto port = static_cast<uint16_t>(0x40 + channel);
    const uint8_t low = pit.read(port);
    return static_cast<uint16_t>(low | pit.read(port) << 8);
  }
  uint16_t latch(unsigned channel) {
    pit.write(0x43, static_cast<uint8_t>(channel << 6));
    return read_count(channel);
  }
  uint8_t status(unsigned channel) {
    pit.write(0x43, static_cast<uint8_t>(0xe0 | 2u << channel));
    return pit.read(static_cast<uint16_t>(0x40 + channel));
  }
  FakeClock clock;
  RecordingInterrupts interrupts;
  I8254 pit{clock, IrqLine(interrupts, Gsi{2})};
};

TEST_F(I8254Test, Mode0RaisesOnceAtTerminalCount) {
  program(0, 0, 1000);
  EXPECT_FALSE(interrupts.level(2));
  clock.advance_ns(ns(400));
  EXPECT_EQ(latch(0), 600);
  clock.advance_ns(ns(600));
  EXPECT_TRUE(interrupts.level(2));
  EXPECT_EQ(interrupts.rises(2), 1u);
  EXPECT_EQ(clock.next_deadline_ns(), kNoDeadline);
  clock.advance_ns(ns(10));
  EXPECT_GT(latch(0), 0xff00);  // wraps and goes on
  program(0, 0, 1000);
  EXPECT_FALSE(interrupts.level(2));
}

TEST_F(I8254Test, Mode0FirstByteStopsTheCount) {
  program(0, 0, 1000);
  pit.write(0x40, 0x10);
  clock.advance_ns(ns(5000));
  EXPECT_EQ(interrupts.rises(2), 0u);
  pit.write(0x40, 0x00);
  clock.advance_ns(ns(16));
  EXPECT_EQ(interrupts.rises(2), 1u);
}

TEST_F(I8254Test, Mode2IsPeriodicWithItsPhaseKept) {
  program(0, 2, 11932);  // about 100 Hz
  clock.advance_ns(kNanosecondsPerSecond);
  EXPECT_EQ(interrupts.rises(2), 1u + 99u) << "OUT starts high, then one edge a period";
  EXPECT_EQ(status(0) & 0x3f, 0x34);
}

TEST_F(I8254Test, Mode3CountsByTwo) {
  program(2, 3, 100);
  pit.write(0x61, 1);
  EXPECT_EQ(latch(2), 100);
  clock.advance_ns(ns(10));
  EXPECT_EQ(latch(2), 80);
  EXPECT_NE(pit.read(0x61) & 0x20, 0);
  clock.advance_ns(ns(45));
  EXPECT_EQ(pit.read(0x61) & 0x20, 0);
}

TEST_F(I8254Test, Mode4StrobesAfterTerminalCount) {
  program(0, 4, 100);
  EXPECT_TRUE(interrupts.level(2));
  clock.advance_ns(ns(102));
  EXPECT_EQ(interrupts.rises(2), 2u);
  EXPECT_EQ(clock.next_deadline_ns(), kNoDeadline);
}

TEST_F(I8254Test, Mode1And5WaitForTheGate) {
  program(2, 1, 100);
  EXPECT_NE(pit.read(0x61) & 0x20, 0);
  pit.write(0x61, 1);
  EXPECT_EQ(pit.read(0x61) & 0x20, 0);
  clock.advance_ns(ns(60));
  pit.write(0x61, 0);
  pit.write(0x61, 1);  // retriggered
  clock.advance_ns(ns(60));
  EXPECT_EQ(pit.read(0x61) & 0x20, 0);
  clock.advance_ns(ns(41));
  EXPECT_NE(pit.read(0x61) & 0x20, 0);
  program(0, 5, 100);
  clock.advance_ns(ns(1000));
  EXPECT_EQ(clock.next_deadline_ns(), kNoDeadline) << "channel 0's gate never rises";
}

// The way kernels measure their TSC: channel 2 in mode 0, gated by port 0x61.
TEST_F(I8254Test, GateStopsChannel2) {
  program(2, 0, 1000);
  clock.advance_ns(ns(100));
  EXPECT_EQ(latch(2), 1000);
  pit.write(0x61, 1);
  clock.advance_ns(ns(300));
  EXPECT_EQ(latch(2), 700);
  pit.write(0x61, 0);
  clock.advance_ns(ns(300));
  EXPECT_EQ(latch(2), 700);
  pit.write(0x61, 1);
  clock.advance_ns(ns(701));
  EXPECT_NE(pit.read(0x61) & 0x20, 0);
}

TEST_F(I8254Test, LatchHoldsUntilReadAndSecondLatchIsIgnored) {
  program(0, 2, 10000);
  pit.write(0x43, 0x00);
  clock.advance_ns(ns(100));
  pit.write(0x43, 0x00);
  EXPECT_EQ(read_count(0), 10000);
  EXPECT_LT(read_count(0), 10000);
}

TEST_F(I8254Test, ReadBackLatchesStatusBeforeCount) {
  program(0, 2, 10000);
  pit.write(0x43, 0xc2);
  EXPECT_EQ(pit.read(0x40), 0xb4);
  EXPECT_EQ(read_count(0), 10000);
  pit.write(0x43, 0x34);
  EXPECT_EQ(status(0), 0xf4) << "null count: nothing loaded since the control word";
}

TEST_F(I8254Test, SingleByteModes) {
  pit.write(0x43, 0x10);  // low byte only, mode 0
  pit.write(0x40, 200);
  EXPECT_EQ(pit.read(0x40), 200);
  EXPECT_EQ(pit.read(0x40), 200);
  pit.write(0x43, 0x20);  // high byte only
  pit.write(0x40, 2);
  EXPECT_EQ(pit.read(0x40), 2);
}

TEST_F(I8254Test, BcdCountsDecimals) {
  program(0, 0, 0x1000, true);
  clock.advance_ns(ns(1));
  EXPECT_EQ(latch(0), 0x0999);
  program(0, 2, 0x0000, true);
  EXPECT_EQ(latch(0), 0x0000);
  clock.advance_ns(ns(1));
  EXPECT_EQ(latch(0), 0x9999);
}

TEST_F(I8254Test, NobodyListeningArmsNoTimer) {
  program(0, 2, 11932);
  EXPECT_NE(clock.next_deadline_ns(), kNoDeadline);
  pit.set_listening(false);
  EXPECT_EQ(clock.next_deadline_ns(), kNoDeadline);
  clock.advance_ns(kNanosecondsPerSecond);
  pit.set_listening(true);
  const unsigned before = interrupts.rises(2);
  clock.advance_ns(ns(11932));
  EXPECT_EQ(interrupts.rises(2), before + 1);
}

TEST_F(I8254Test, AShortPeriodDoesNotSpinTheHost) {
  program(0, 2, 1);
  clock.advance_ns(1'000'000);
  EXPECT_LE(interrupts.rises(2), 1'000'000 / I8254::kEdgeSpacingNsMin + 2);
}

TEST_F(I8254Test, RefreshBitToggles) {
  const uint8_t before = pit.read(0x61) & 0x10;
  clock.advance_ns(15'085);
  EXPECT_NE(pit.read(0x61) & 0x10, before);
}

TEST_F(I8254Test, StateSurvivesAndHostileStateDoesNot) {
  program(0, 2, 1000);
  clock.advance_ns(ns(100));
  SavedState state = pit.save();
  I8254 other(clock, IrqLine(interrupts, Gsi{3}));
  ASSERT_TRUE(other.restore(state));
  EXPECT_EQ(interrupts.rises(3), 0u);
  clock.advance_ns(ns(900));
  EXPECT_EQ(interrupts.rises(3), 1u);
  state.bytes[20] = state.bytes[21] = std::byte{0};  // a period of zero would divide by zero
  EXPECT_FALSE(other.restore(state));
}

}  // namespace
}  // namespace tenon
