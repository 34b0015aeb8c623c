#include "devices/chip/i8042.hh"

#include <gtest/gtest.h>

#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

struct I8042Test : testing::Test {
  uint8_t command(uint8_t value) {
    controller.write(0x64, value);
    return controller.read(0x60);
  }
  RecordingInterrupts interrupts;
  unsigned resets = 0;
  I8042 controller{IrqLine(interrupts, Gsi{1}), [this] { ++resets; }};
};

TEST_F(I8042Test, AnswersTheProbesOfADriverAtOnce) {
  EXPECT_EQ(controller.read(0x64) & 0x03, 0) << "nothing to flush, ready for a command";
  EXPECT_EQ(command(0xaa), 0x55);
  EXPECT_EQ(command(0xab), 0x00);
  EXPECT_NE(command(0xa9), 0x00) << "no auxiliary port";
  EXPECT_EQ(command(0x20), 0x64);
  EXPECT_EQ(controller.read(0x64) & 0x01, 0);
}

TEST_F(I8042Test, CommandByteIsWritable) {
  controller.write(0x64, 0x60);
  controller.write(0x60, 0x47);
  EXPECT_EQ(command(0x20), 0x47);
  controller.write(0x64, 0xad);
  EXPECT_EQ(command(0x20), 0x57);
  controller.write(0x64, 0x7f);
  controller.write(0x60, 0x99);
  EXPECT_EQ(command(0x3f), 0x99);
}

TEST_F(I8042Test, TheAbsentKeyboardTimesOutAtOnceWithAnInterrupt) {
  controller.write(0x64, 0x60);
  controller.write(0x60, 0x01);
  controller.write(0x60, 0xf2);
  EXPECT_TRUE(interrupts.level(1));
  EXPECT_EQ(controller.read(0x64) & 0x41, 0x41);
  EXPECT_EQ(controller.read(0x60), 0xfe);
  EXPECT_FALSE(interrupts.level(1));
  EXPECT_EQ(controller.read(0x64) & 0x41, 0x00);
}

TEST_F(I8042Test, ResetByPulseOutputPortAndFastReset) {
  controller.write(0x64, 0xff);
  EXPECT_EQ(resets, 0u) << "no bit pulsed";
  controller.write(0x64, 0xfe);
  EXPECT_EQ(resets, 1u);
  controller.write(0x64, 0xd1);
  controller.write(0x60, 0x02);
  EXPECT_EQ(resets, 2u);
  controller.write(0x92, 0x01);
  EXPECT_EQ(resets, 3u);
}

TEST_F(I8042Test, A20IsRemembered) {
  EXPECT_EQ(controller.read(0x92), 0x02);
  controller.write(0x64, 0xdd);
  EXPECT_EQ(controller.read(0x92), 0x00);
  EXPECT_EQ(command(0xd0) & 0x02, 0x00);
  controller.write(0x64, 0xd1);
  controller.write(0x60, 0x03);
  EXPECT_EQ(controller.read(0x92), 0x02);
}

TEST_F(I8042Test, StateSurvivesAndHostileStateDoesNot) {
  controller.write(0x64, 0xd2);
  SavedState state = controller.save();
  controller.reset();
  ASSERT_TRUE(controller.restore(state));
  controller.write(0x60, 0x42);
  EXPECT_EQ(controller.read(0x60), 0x42);
  state.bytes[36] = std::byte{0xaa};  // a command that takes no data
  EXPECT_FALSE(controller.restore(state));
}

}  // namespace
}  // namespace tenon
