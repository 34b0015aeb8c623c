#include "devices/chip/cmos_rtc.hh"

#include <gtest/gtest.h>

#include "vm/fake_clock.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

struct CmosRtcTest : testing::Test {
  uint8_t read(uint8_t index) {
    rtc.write(0x70, index);
    return rtc.read(0x71);
  }
  void write(uint8_t index, uint8_t value) {
    rtc.write(0x70, index);
    rtc.write(0x71, value);
  }
  void set_date(uint8_t century, uint8_t year, uint8_t month, uint8_t day) {
    write(9, year);
    write(8, month);
    write(7, day);
    write(0x32, century);
  }
  FakeClock clock;  // 2023-11-14 22:13:20 UTC, a Tuesday
  RecordingInterrupts interrupts;
  CmosRtc rtc{clock, IrqLine(interrupts, Gsi{8})};
};

TEST_F(CmosRtcTest, ShowsTheWallClockInBcd) {
  EXPECT_EQ(read(0), 0x20);
  EXPECT_EQ(read(2), 0x13);
  EXPECT_EQ(read(4), 0x22);
  EXPECT_EQ(read(6), 3);
  EXPECT_EQ(read(7), 0x14);
  EXPECT_EQ(read(8), 0x11);
  EXPECT_EQ(read(9), 0x23);
  EXPECT_EQ(read(0x32), 0x20);
  clock.advance_ns(40 * kNanosecondsPerSecond);
  EXPECT_EQ(read(0), 0x00);
  EXPECT_EQ(read(2), 0x14);
}

TEST_F(CmosRtcTest, BinaryAndTwelveHourModes) {
  write(11, 0x04);  // binary, 12 hours
  EXPECT_EQ(read(4), 0x80 | 10);
  EXPECT_EQ(read(2), 13);
  write(4, 12);  // 12 AM
  write(11, 0x06);
  EXPECT_EQ(read(4), 0);
}

TEST_F(CmosRtcTest, SettingTheTimeWithSetHeld) {
  clock.set_wall_time_at_start_ns(1'675'123'200 * kNanosecondsPerSecond);  // 2023-01-31
  write(11, 0x82);
  set_date(0x20, 0x24, 0x02, 0x29);  // the month comes while the day is still 31
  write(4, 0x12);
  write(2, 0x34);
  write(0, 0x56);
  clock.advance_ns(5 * kNanosecondsPerSecond);
  EXPECT_EQ(read(0), 0x56) << "held";
  write(11, 0x02);
  EXPECT_EQ(read(7), 0x29);
  EXPECT_EQ(read(8), 0x02);
  EXPECT_EQ(read(9), 0x24);
  EXPECT_EQ(read(4), 0x12);
  clock.advance_ns(4 * kNanosecondsPerSecond);
  EXPECT_EQ(read(0), 0x00);
  EXPECT_EQ(read(2), 0x35);
}

TEST_F(CmosRtcTest, DayBeyondTheMonthIsPulledIn) {
  set_date(0x20, 0x23, 0x02, 0x31);
  EXPECT_EQ(read(7), 0x28);
  write(0, 0xff);  // no such second
  EXPECT_EQ(read(0), 0x59);
}

TEST_F(CmosRtcTest, UpdateInProgressJustBeforeTheSecond) {
  EXPECT_EQ(read(10), 0x26);
  clock.advance_ns(kNanosecondsPerSecond - 100'000);
  EXPECT_EQ(read(10), 0xa6);
  clock.advance_ns(100'000);
  EXPECT_EQ(read(10), 0x26);
}

TEST_F(CmosRtcTest, NoTimerWithoutAnEnabledInterrupt) {
  EXPECT_EQ(clock.next_deadline_ns(), kNoDeadline);
  clock.advance_ns(3 * kNanosecondsPerSecond);
  EXPECT_EQ(read(12), 0x50) << "flags are set whatever is enabled: PF, UF";
  EXPECT_EQ(read(12), 0x00);
}

TEST_F(CmosRtcTest, UpdateInterruptEverySecondOnceAcknowledged) {
  write(11, 0x12);
  clock.advance_ns(kNanosecondsPerSecond);
  EXPECT_TRUE(interrupts.level(8));
  EXPECT_EQ(clock.next_deadline_ns(), kNoDeadline) << "nothing to do until register C is read";
  EXPECT_EQ(read(12) & 0x90, 0x90);
  EXPECT_FALSE(interrupts.level(8));
  clock.advance_ns(kNanosecondsPerSecond);
  EXPECT_EQ(interrupts.rises(8), 2u);
}

TEST_F(CmosRtcTest, PeriodicInterruptAtItsRate) {
  write(10, 0x26);  // 1024 Hz
  write(11, 0x42);
  unsigned count = 0;
  for (const uint64_t end = clock.now_ns() + kNanosecondsPerSecond; clock.next_deadline_ns() <= end; ++count) {
    ASSERT_TRUE(clock.advance_to_next_timer());
    EXPECT_EQ(read(12) & 0xc0, 0xc0);
  }
  EXPECT_EQ(count, 1024u);
}

TEST_F(CmosRtcTest, AlarmAtATimeAndWithDontCare) {
  write(1, 0x30);
  write(3, 0x13);
  write(5, 0x22);
  write(11, 0x22);
  clock.advance_ns(9 * kNanosecondsPerSecond);
  EXPECT_FALSE(interrupts.level(8));
  clock.advance_ns(kNanosecondsPerSecond);
  EXPECT_TRUE(interrupts.level(8));
  EXPECT_EQ(read(12) & 0xa0, 0xa0);
  EXPECT_EQ(clock.next_deadline_ns(), clock.now_ns() + 86400 * kNanosecondsPerSecond);
  write(3, 0xff);
  write(5, 0xc0);  // every minute at second 30
  EXPECT_EQ(clock.next_deadline_ns(), clock.now_ns() + 60 * kNanosecondsPerSecond);
  write(3, 0x99);  // never
  EXPECT_EQ(clock.next_deadline_ns(), kNoDeadline);
}

TEST_F(CmosRtcTest, MemoryAndReadOnlyRegisters) {
  rtc.set_memory(CmosRtc::kShutdownIndex, 0x0a);
  rtc.set_memory(3, 0x77);  // not memory
  EXPECT_EQ(read(0x0f), 0x0a);
  EXPECT_NE(read(3), 0x77);
  write(0x80 | 0x7f, 0x5a);  // bit 7 is the NMI mask
  EXPECT_EQ(read(0x7f), 0x5a);
  write(13, 0);
  EXPECT_EQ(read(13), 0x80);
  write(12, 0xff);
  EXPECT_EQ(read(12), 0x00);
  EXPECT_EQ(rtc.read(0x70), 0xff);
}

TEST_F(CmosRtcTest, AnAlarmThatPassedWhileSavedFiresAfterRestore) {
  write(1, 0x30);
  write(3, 0x13);
  write(5, 0x22);
  write(11, 0x22);
  const SavedState state = rtc.save();
  clock.advance_ns(60 * kNanosecondsPerSecond);
  CmosRtc other(clock, IrqLine(interrupts, Gsi{9}));
  ASSERT_TRUE(other.restore(state));
  clock.advance_ns(0);
  EXPECT_TRUE(interrupts.level(9));
}

TEST_F(CmosRtcTest, StateSurvivesAndHostileStateDoesNot) {
  set_date(0x20, 0x30, 0x06, 0x15);
  write(0x40, 0x99);
  SavedState state = rtc.save();
  CmosRtc other(clock, IrqLine(interrupts, Gsi{9}));
  ASSERT_TRUE(other.restore(state));
  other.write(0x70, 9);
  EXPECT_EQ(other.read(0x71), 0x30);
  state.bytes[157] = std::byte{7};  // weekday_offset
  EXPECT_FALSE(other.restore(state));
}

}  // namespace
}  // namespace tenon
