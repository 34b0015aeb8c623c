#include "devices/chip/acpi_pm.hh"

#include <gtest/gtest.h>

#include "vm/fake_clock.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

constexpr uint64_t kStatus = 0, kEnable = 2, kControl = 4, kTimer = 8, kGpeStatus = 0x20, kGpeEnable = 0x22;

struct AcpiPmTest : testing::Test {
  FakeClock clock;
  Bus ports{"port"};
  RecordingInterrupts interrupts;
  unsigned power_offs = 0;
  AcpiPm pm{clock, IrqLine(interrupts, Gsi{9}), [this] { ++power_offs; }};
};

TEST_F(AcpiPmTest, TimerRunsAt3579545Hz) {
  clock.advance_ns(kNanosecondsPerSecond);
  EXPECT_EQ(pm.bus_read(kTimer, 4), 3'579'545u);
  pm.bus_write(kTimer, 4, 0);
  EXPECT_EQ(pm.bus_read(kTimer, 4), 3'579'545u);
  EXPECT_EQ(pm.bus_read(kTimer + 1, 1), 3'579'545u >> 8 & 0xff);
  clock.advance_ns(1'200 * kNanosecondsPerSecond);
  EXPECT_EQ(pm.bus_read(kTimer, 4), (1'201ull * 3'579'545) & 0xffffffff) << "32 bits wide";
}

TEST_F(AcpiPmTest, SmiCommandSwitchesAcpiMode) {
  EXPECT_EQ(pm.bus_read(kControl, 2), 0u);
  pm.bus_write(kControl, 2, 1);
  EXPECT_EQ(pm.bus_read(kControl, 2), 0u) << "SCI_EN is not the guest's to write";
  pm.write_smi(0, AcpiPm::kAcpiEnable);
  EXPECT_EQ(pm.bus_read(kControl, 2), 1u);
  pm.write_smi(0, AcpiPm::kAcpiDisable);
  EXPECT_EQ(pm.bus_read(kControl, 2), 0u);
  pm.write_smi(1, 0x5a);
  EXPECT_EQ(pm.read_smi(1), 0x5a);
}

TEST_F(AcpiPmTest, PowerButtonRaisesTheSci) {
  pm.write_smi(0, AcpiPm::kAcpiEnable);
  pm.bus_write(kEnable, 2, 1u << 8);
  pm.press_power_button();
  EXPECT_TRUE(interrupts.level(9));
  EXPECT_EQ(pm.bus_read(kStatus, 4), 0x01000100u) << "status and enable in one access";
  pm.bus_write(kStatus, 2, 1u << 8);
  EXPECT_FALSE(interrupts.level(9));
}

TEST_F(AcpiPmTest, NoSciOutsideAcpiMode) {
  pm.bus_write(kEnable, 2, 1u << 8);
  pm.press_power_button();
  EXPECT_FALSE(interrupts.level(9));
  pm.write_smi(0, AcpiPm::kAcpiEnable);
  EXPECT_TRUE(interrupts.level(9));
}

TEST_F(AcpiPmTest, GeneralPurposeEvents) {
  pm.write_smi(0, AcpiPm::kAcpiEnable);
  pm.raise_event(3);
  pm.raise_event(16);
  EXPECT_FALSE(interrupts.level(9));
  pm.bus_write(kGpeEnable, 1, 0x08);
  EXPECT_TRUE(interrupts.level(9));
  pm.bus_write(kGpeStatus, 1, 0x08);
  EXPECT_FALSE(interrupts.level(9));
}

TEST_F(AcpiPmTest, SleepType5PowersOff) {
  pm.bus_write(kControl, 2, 5u << 10);
  EXPECT_EQ(power_offs, 0u);
  pm.bus_write(kControl, 2, 3u << 10 | 1u << 13);
  EXPECT_EQ(power_offs, 0u) << "S3 is not there";
  pm.bus_write(kControl, 2, 5u << 10 | 1u << 13);
  EXPECT_EQ(power_offs, 1u);
  EXPECT_EQ(pm.bus_read(kControl, 2), 5u << 10) << "SLP_EN reads zero";
  pm.bus_write(kControl + 1, 1, 0x34);  // the same as a byte
  EXPECT_EQ(power_offs, 2u);
}

TEST_F(AcpiPmTest, TimerCarryOnlyTicksTheHostWhenEnabled) {
  pm.write_smi(0, AcpiPm::kAcpiEnable);
  EXPECT_EQ(clock.next_deadline_ns(), kNoDeadline);
  pm.bus_write(kEnable, 2, 1);
  ASSERT_TRUE(clock.advance_to_next_timer());
  EXPECT_NEAR(static_cast<double>(clock.now_ns()), 2147483648.0 / 3579545 * 1e9, 1000);
  EXPECT_TRUE(interrupts.level(9));
  EXPECT_EQ(clock.next_deadline_ns(), kNoDeadline);
  pm.bus_write(kStatus, 2, 1);
  EXPECT_FALSE(interrupts.level(9));
  EXPECT_NE(clock.next_deadline_ns(), kNoDeadline);
}

TEST_F(AcpiPmTest, StateSurvivesAndHostileStateDoesNot) {
  pm.write_smi(0, AcpiPm::kAcpiEnable);
  pm.bus_write(kEnable, 2, 1u << 8);
  pm.press_power_button();
  SavedState state = pm.save();
  AcpiPm other(clock, IrqLine(interrupts, Gsi{10}), nullptr);
  ASSERT_TRUE(other.restore(state));
  EXPECT_EQ(other.bus_read(kStatus, 4), 0x01000100u);
  EXPECT_EQ(interrupts.rises(10), 0u);
  other.bus_write(kControl, 2, 5u << 10 | 1u << 13);  // no callback: nothing happens
  state.bytes[1] = std::byte{0xff};                   // reserved status bits
  EXPECT_FALSE(other.restore(state));
}

TEST_F(AcpiPmTest, MapsItsPorts) {
  ASSERT_TRUE(pm.map(ports));
  ports.write(AcpiPm::kSmiCommandPort, 1, AcpiPm::kAcpiEnable);
  EXPECT_EQ(ports.read(AcpiPm::kPm1ControlPort, 2), 1u);
}

}  // namespace
}  // namespace tenon
