#include "devices/chip/i8259.hh"

#include <gtest/gtest.h>

namespace tenon {
namespace {

struct I8259Test : testing::Test {
  I8259Test() {
    pic.connect_output([this](bool level) { intr = level; });
    initialise();
  }
  /// What PC software writes: vectors 0x20 and 0x28, master with slave on 2, all unmasked.
  void initialise(uint8_t icw4 = 0x01) {
    pic.write(0x20, 0x11);
    pic.write(0x21, 0x20);
    pic.write(0x21, 0x04);
    pic.write(0x21, icw4);
    pic.write(0xa0, 0x11);
    pic.write(0xa1, 0x28);
    pic.write(0xa1, 0x02);
    pic.write(0xa1, icw4);
    pic.write(0x21, 0x00);
    pic.write(0xa1, 0x00);
  }
  void pulse(unsigned irq) {
    pic.set_irq(irq, true);
    pic.set_irq(irq, false);
  }
  uint8_t read_register(uint16_t port, uint8_t ocw3) {
    pic.write(port, ocw3);
    return pic.read(port);
  }
  uint8_t isr() { return read_register(0x20, 0x0b); }
  uint8_t irr() { return read_register(0x20, 0x0a); }

  I8259Pair pic;
  bool intr = false;
};

TEST_F(I8259Test, FullyNestedPriorities) {
  pulse(3);
  pulse(1);
  EXPECT_TRUE(intr);
  EXPECT_EQ(irr(), 0x0a);
  EXPECT_EQ(pic.acknowledge(), 0x21);
  EXPECT_FALSE(intr) << "3 is below 1";
  EXPECT_EQ(isr(), 0x02);
  pulse(0);
  EXPECT_TRUE(intr) << "0 is above 1";
  EXPECT_EQ(pic.acknowledge(), 0x20);
  pic.write(0x20, 0x20);
  pic.write(0x20, 0x20);
  EXPECT_EQ(pic.acknowledge(), 0x23);
}

TEST_F(I8259Test, SlaveComesThroughTheCascade) {
  pulse(9);
  EXPECT_EQ(pic.acknowledge(), 0x29);
  EXPECT_EQ(isr(), 0x04);
  pulse(8);
  EXPECT_FALSE(intr) << "the cascade is in service: 8 waits, though it is above 9";
  pic.write(0xa0, 0x20);
  pic.write(0x20, 0x20);
  EXPECT_EQ(pic.acknowledge(), 0x28);
}

TEST_F(I8259Test, SpecialFullyNestedModeLetsTheSlaveNest) {
  initialise(0x11);
  pulse(9);
  pic.acknowledge();
  pulse(8);
  EXPECT_TRUE(intr);
  EXPECT_EQ(pic.acknowledge(), 0x28);
}

TEST_F(I8259Test, SpuriousInterrupts) {
  EXPECT_EQ(pic.acknowledge(), 0x27);
  EXPECT_EQ(isr(), 0);
  pic.write(0x4d1, 0x02);  // IRQ 9 by level: it goes away before the acknowledge
  pic.set_irq(9, true);
  EXPECT_TRUE(intr);
  pic.set_irq(9, false);
  EXPECT_FALSE(intr);
  EXPECT_EQ(pic.acknowledge(), 0x27);
}

TEST_F(I8259Test, LevelTriggeredInputRequestsAgain) {
  pic.write(0x4d1, 0x08);  // IRQ 11
  pic.set_irq(11, true);
  EXPECT_EQ(pic.acknowledge(), 0x2b);
  pic.write(0xa0, 0x20);
  pic.write(0x20, 0x20);
  EXPECT_EQ(pic.acknowledge(), 0x2b);
  pic.set_irq(11, false);
  pic.write(0xa0, 0x20);
  pic.write(0x20, 0x20);
  EXPECT_FALSE(intr);
}

TEST_F(I8259Test, ElcrKeepsTheFixedInputsEdgeTriggered) {
  pic.write(0x4d0, 0xff);
  pic.write(0x4d1, 0xff);
  EXPECT_EQ(pic.read(0x4d0), 0xf8);
  EXPECT_EQ(pic.read(0x4d1), 0xde);
}

TEST_F(I8259Test, MaskHoldsARequestBack) {
  pic.write(0x21, 0x10);
  pulse(4);
  EXPECT_FALSE(intr);
  EXPECT_EQ(irr(), 0x10);
  pic.write(0x21, 0x00);
  EXPECT_TRUE(intr);
  EXPECT_EQ(pic.read(0x21), 0x00);
}

TEST_F(I8259Test, SpecificEoiAndSetPriority) {
  pulse(5);
  pic.acknowledge();
  pic.write(0x20, 0x64);  // specific EOI of 4: nothing
  EXPECT_EQ(isr(), 0x20);
  pic.write(0x20, 0x65);
  EXPECT_EQ(isr(), 0x00);
  pic.write(0x20, 0xc4);  // 4 lowest: 5 highest
  pulse(0);
  pulse(5);
  EXPECT_EQ(pic.acknowledge(), 0x25);
}

TEST_F(I8259Test, RotateOnEoiMakesTheServedOneLowest) {
  pulse(0);
  pic.acknowledge();
  pic.write(0x20, 0xa0);
  pulse(0);
  pulse(7);
  EXPECT_EQ(pic.acknowledge(), 0x27);
}

TEST_F(I8259Test, AutoEoiWithRotation) {
  initialise(0x03);
  pulse(4);
  EXPECT_EQ(pic.acknowledge(), 0x24);
  EXPECT_EQ(isr(), 0x00);
  pic.write(0x20, 0x80);  // rotate in auto-EOI mode
  pulse(4);
  pic.acknowledge();
  pulse(4);
  pulse(5);
  EXPECT_EQ(pic.acknowledge(), 0x25);
}

TEST_F(I8259Test, SpecialMaskModeLetsLowerOnesThrough) {
  pulse(3);
  pic.acknowledge();
  pulse(6);
  EXPECT_FALSE(intr);
  pic.write(0x21, 0x08);
  EXPECT_FALSE(intr);
  pic.write(0x20, 0x68);
  EXPECT_TRUE(intr);
  EXPECT_EQ(pic.acknowledge(), 0x26);
  pic.write(0x20, 0x20);
  EXPECT_EQ(isr(), 0x08) << "a non-specific EOI does not end the masked one";
}

TEST_F(I8259Test, PollIsTheAcknowledge) {
  EXPECT_EQ(read_register(0x20, 0x0c), 0x00);
  pulse(3);
  EXPECT_EQ(read_register(0x20, 0x0c), 0x83);
  EXPECT_FALSE(intr);
  EXPECT_EQ(isr(), 0x08);
}

TEST_F(I8259Test, SingleModeSkipsIcw3AndNoIcw4EndsEarly) {
  pic.write(0x20, 0x12);
  pic.write(0x21, 0x40);
  pic.write(0x21, 0xfe);  // already the mask
  EXPECT_EQ(pic.read(0x21), 0xfe);
  pulse(0);
  EXPECT_EQ(pic.acknowledge(), 0x40);
}

TEST_F(I8259Test, ResetMasksEverything) {
  pic.reset();
  EXPECT_TRUE(pic.is_masked(0));
  EXPECT_TRUE(pic.is_masked(8));
  pulse(0);
  EXPECT_FALSE(intr);
  pic.set_irq(2, true);
  pic.set_irq(16, true);
}

TEST_F(I8259Test, StateSurvivesAndHostileStateDoesNot) {
  pulse(3);
  pulse(1);
  pic.acknowledge();
  SavedState state = pic.save();
  I8259Pair other;
  ASSERT_TRUE(other.restore(state));
  other.write(0x20, 0x20);
  EXPECT_EQ(other.acknowledge(), 0x23);
  state.bytes[6] = std::byte{8};  // lowest_priority
  EXPECT_FALSE(other.restore(state));
}

}  // namespace
}  // namespace tenon
