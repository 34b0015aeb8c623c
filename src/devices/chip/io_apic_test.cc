#include "devices/chip/io_apic.hh"

#include <gtest/gtest.h>

#include "devices/chip/local_apic.hh"
#include "vm/fake_clock.hh"

namespace tenon {
namespace {

constexpr uint32_t kLevel = 1u << 15, kMasked = 1u << 16, kRemoteIrr = 1u << 14;

struct IoApicTest : testing::Test {
  IoApicTest() { write_local(apic::kSvr, 0x1ff); }

  void write_local(uint32_t reg, uint32_t value) { local.write_mmio(Gpa(apic::kDefaultBase + reg), 4, value); }
  uint32_t read(uint8_t index) {
    io_apic.bus_write(0x00, 4, index);
    return static_cast<uint32_t>(io_apic.bus_read(0x10, 4));
  }
  void write(uint8_t index, uint32_t value) {
    io_apic.bus_write(0x00, 4, index);
    io_apic.bus_write(0x10, 4, value);
  }
  void route(unsigned pin, uint32_t low, uint32_t high = 0) {
    write(static_cast<uint8_t>(0x11 + 2 * pin), high);
    write(static_cast<uint8_t>(0x10 + 2 * pin), low);
  }
  int acknowledge() { return local.acknowledge_interrupt(); }
  void eoi() { write_local(apic::kEoi, 0); }

  FakeClock clock;
  VcpuSignal signal;
  ApicBus bus{4};
  LocalApic local{{.id = VcpuId{0}, .is_bootstrap = true}, signal, clock, bus};
  Bus mmio{"mmio"};
  IoApic io_apic{bus};
};

TEST_F(IoApicTest, IndirectRegisterSelect) {
  EXPECT_EQ(read(1), 0x00170020u);
  write(0, 0xffffffff);
  EXPECT_EQ(read(0), 0x0f000000u);
  EXPECT_EQ(read(0x10), kMasked);
  EXPECT_EQ(read(0x3f), 0u);
  EXPECT_EQ(read(0x40), 0xffffffffu);
  write(0xff, 0x12345678);
  EXPECT_EQ(io_apic.bus_read(0x00, 1), 0xffu);
}

TEST_F(IoApicTest, OddWidths) {
  write(0x10, kMasked | 0x31);
  io_apic.bus_write(0x10, 1, 0x77);
  io_apic.bus_write(0x12, 4, 0x77);
  EXPECT_EQ(io_apic.bus_read(0x10, 1), 0x31u);
  EXPECT_EQ(io_apic.bus_read(0x12, 2), 1u);
  EXPECT_EQ(io_apic.bus_read(0x20, 8), 0u);
}

TEST_F(IoApicTest, ReadOnlyBitsStay) {
  write(0x10, 0xffffffff & ~uint32_t{kLevel});
  EXPECT_EQ(read(0x10), 0x00012fffu);
}

TEST_F(IoApicTest, EdgeSendsOnceAndIsLostWhileMasked) {
  route(4, 0x34);
  io_apic.set_pin(4, true);
  EXPECT_EQ(acknowledge(), 0x34);
  eoi();
  io_apic.set_pin(4, true);
  EXPECT_EQ(acknowledge(), -1);
  io_apic.set_pin(4, false);
  route(4, kMasked | 0x34);
  io_apic.set_pin(4, true);
  route(4, 0x34);
  EXPECT_EQ(acknowledge(), -1);
}

TEST_F(IoApicTest, LevelRepeatsAfterEoiWhileAsserted) {
  route(16, kLevel | 0x41);
  io_apic.set_pin(16, true);
  EXPECT_EQ(read(0x30), kLevel | kRemoteIrr | 0x41);
  EXPECT_EQ(acknowledge(), 0x41);
  EXPECT_EQ(acknowledge(), -1);
  eoi();
  EXPECT_EQ(acknowledge(), 0x41);
  io_apic.set_pin(16, false);
  eoi();
  EXPECT_EQ(acknowledge(), -1);
  EXPECT_EQ(read(0x30), kLevel | 0x41);
}

TEST_F(IoApicTest, LevelIsSeenWhenUnmasked) {
  route(17, kMasked | kLevel | 0x42);
  io_apic.set_pin(17, true);
  EXPECT_EQ(acknowledge(), -1);
  route(17, kLevel | 0x42);
  EXPECT_EQ(acknowledge(), 0x42);
}

TEST_F(IoApicTest, EoiRegisterEndsOneVector) {
  route(16, kLevel | 0x41);
  route(17, kLevel | 0x42);
  io_apic.set_pin(16, true);
  io_apic.set_pin(17, true);
  io_apic.set_pin(16, false);
  io_apic.set_pin(17, false);
  io_apic.bus_write(0x40, 4, 0x41);
  EXPECT_EQ(read(0x30), kLevel | 0x41);
  EXPECT_EQ(read(0x32), kLevel | kRemoteIrr | 0x42);
}

TEST_F(IoApicTest, SwitchingToEdgeClearsRemoteIrr) {
  route(16, kLevel | 0x41);
  io_apic.set_pin(16, true);
  route(16, kMasked | 0x41);
  route(16, kMasked | kLevel | 0x41);
  EXPECT_EQ(read(0x30), kMasked | kLevel | 0x41);
}

TEST_F(IoApicTest, NobodyThereLeavesNoRemoteIrr) {
  route(16, kLevel | 0x41, 9u << 24);
  io_apic.set_pin(16, true);
  EXPECT_EQ(read(0x30), kLevel | 0x41);
}

TEST_F(IoApicTest, NmiEntriesAreEdges) {
  route(3, kLevel | 4u << 8);
  io_apic.set_pin(3, true);
  EXPECT_NE(signal.take(VcpuSignal::kNmi), 0u);
  EXPECT_EQ(read(0x16) & kRemoteIrr, 0u);
}

TEST_F(IoApicTest, MaskListenerHearsOfWrites) {
  unsigned calls = 0;
  io_apic.set_mask_listener([&] { ++calls; });
  EXPECT_TRUE(io_apic.is_masked(2));
  route(2, 0x30);
  EXPECT_FALSE(io_apic.is_masked(2));
  EXPECT_EQ(calls, 2u);
  EXPECT_TRUE(io_apic.is_masked(99));
  io_apic.set_pin(99, true);
}

TEST_F(IoApicTest, StateSurvivesAndHostileStateDoesNot) {
  route(16, kLevel | 0x41);
  io_apic.set_pin(16, true);
  SavedState state = io_apic.save();
  io_apic.reset();
  EXPECT_EQ(read(0x30), kMasked);
  ASSERT_TRUE(io_apic.restore(state));
  EXPECT_EQ(read(0x30), kLevel | kRemoteIrr | 0x41);
  state.bytes[1] = std::byte{0x40};  // remote IRR on an edge-triggered entry
  EXPECT_FALSE(io_apic.restore(state));
}

TEST_F(IoApicTest, MapsItsWindow) {
  ASSERT_TRUE(io_apic.map(mmio));
  mmio.write(0xfec00000, 4, 1);
  EXPECT_EQ(mmio.read(0xfec00010, 4), 0x00170020u);
}

}  // namespace
}  // namespace tenon
