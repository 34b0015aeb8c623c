#include <gtest/gtest.h>

#include <thread>

#include "devices/pci/lpc_bridge.hh"
#include "devices/pci/pci_host.hh"
#include "devices/pci/test_function.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

constexpr uint64_t kMemory = 0xc0000000;
constexpr uint64_t kMsixBase = 0x8'0000'0000;
constexpr uint16_t kCommandMemory = 2, kCommandIo = 1, kCommandMaster = 4;

struct PciTest : testing::Test {
  PciTest() {
    EXPECT_TRUE(host.map());
    EXPECT_TRUE(lpc.add_to(host.bus()));
    EXPECT_TRUE(host.bus().add({.device = 3, .function = 0}, device));
  }
  static uint64_t ecam(unsigned dev, unsigned function, unsigned reg) {
    return pci::kEcamBase + (uint64_t{dev} << 15 | uint64_t{function} << 12 | reg);
  }
  uint64_t read(unsigned reg, unsigned size, unsigned dev = 3, unsigned function = 0) {
    const uint64_t value = mmio.read(ecam(dev, function, reg), size);
    return size == 8 ? value : value & ((uint64_t{1} << 8 * size) - 1);
  }
  void write(unsigned reg, unsigned size, uint64_t value, unsigned dev = 3) {
    mmio.write(ecam(dev, 0, reg), size, value);
  }
  void place_bars() {
    write(0x10, 4, kMemory);
    write(0x18, 4, 0xc000);
    write(0x20, 8, kMsixBase);
    write(0x04, 2, kCommandIo | kCommandMemory | kCommandMaster);
  }
  /// Offset of the capability with `id`, 0 for none.
  unsigned capability(uint8_t id) {
    for (auto offset = static_cast<unsigned>(read(0x34, 1)); offset != 0;
         offset = static_cast<unsigned>(read(offset + 1, 1)))
      if (read(offset, 1) == id) return offset;
    return 0;
  }
  void enable_msix(bool is_masked = false) { write(capability(0x11) + 2, 2, 0x8000 | (is_masked ? 0x4000 : 0)); }
  void program_vector(unsigned vector, uint32_t data, bool is_masked = false) {
    const uint64_t entry = kMsixBase + 16 * vector;
    mmio.write(entry, 8, 0xfee00000);
    mmio.write(entry + 8, 4, data);
    mmio.write(entry + 12, 4, is_masked ? 1 : 0);
  }

  Bus ports{"port"};
  Bus mmio{"mmio"};
  RecordingInterrupts interrupts;
  LpcBridge lpc{0x600};
  TestFunction device;
  PciHost host{ports, mmio, interrupts};
};

TEST_F(PciTest, IdentitiesByEcamAndPorts) {
  EXPECT_EQ(read(0, 4, 0), 0x29c08086u);
  EXPECT_EQ(read(0, 4, 0x1f), 0x29188086u);
  EXPECT_EQ(read(0x0e, 1, 0x1f), 0x80u);
  EXPECT_EQ(read(0, 4), 0x56781234u);
  EXPECT_EQ(read(0, 8), read(4, 4) << 32 | 0x56781234u);
  ports.write(0xcf8, 4, 0x8000f800);
  EXPECT_EQ(ports.read(0xcfc, 4), 0x29188086u);
  EXPECT_EQ(ports.read(0xcfe, 2), 0x2918u);
  EXPECT_EQ(ports.read(0xcff, 1), 0x29u);
  ports.write(0xcf8, 4, 0x00001800);
  EXPECT_EQ(ports.read(0xcfc, 4) & 0xffffffff, 0xffffffffu) << "enable bit clear";
}

TEST_F(PciTest, EmptySlotsAndOtherBusesAreAllOnes) {
  EXPECT_EQ(read(0, 4, 4), 0xffffffffu);
  EXPECT_EQ(read(0, 2, 3, 1), 0xffffu);
  EXPECT_EQ(mmio.read(pci::kEcamBase + (1 << 20), 4) & 0xffffffff, 0xffffffffu);
  mmio.write(pci::kEcamBase + (1 << 20), 4, 0);
  EXPECT_EQ(read(0xfff, 2) & 0xff00, 0xff00u) << "past the end of configuration space";
}

TEST_F(PciTest, ConfigAddressWantsADword) {
  ports.write(0xcf8, 4, 0x80001800);
  ports.write(0xcf8, 2, 0xffff);
  ports.write(0xcfa, 1, 0xff);
  EXPECT_EQ(ports.read(0xcf8, 4), 0x80001800u);
  EXPECT_EQ(ports.read(0xcf8, 1) & 0xff, 0xffu);
  ports.write(0xcf8, 4, 0xffffffff);
  EXPECT_EQ(ports.read(0xcf8, 4), 0x80fffffcu);
}

TEST_F(PciTest, ResetControlSitsInsideConfigAddress) {
  struct Handler final : BusHandler {
    uint64_t bus_read(uint64_t, unsigned) override { return 0x5a; }
    void bus_write(uint64_t, unsigned, uint64_t value) override { written = value; }
    uint64_t written = 0;
  } handler;
  ports.write(0xcf9, 1, 6);
  host.set_reset_control(handler);
  ports.write(0xcf9, 1, 6);
  EXPECT_EQ(handler.written, 6u);
  EXPECT_EQ(ports.read(0xcf9, 1), 0x5au);
  EXPECT_EQ(ports.read(0xcf8, 4), 0u);
}

TEST_F(PciTest, ReadOnlyHeaderFieldsStay) {
  for (unsigned reg = 0; reg < 0x10; reg += 4) write(reg, 4, 0xffffffff);
  EXPECT_EQ(read(0, 4), 0x56781234u);
  EXPECT_EQ(read(4, 2), pci::kCommandWritable);
  EXPECT_EQ(read(8, 4), 0xff000000u);
  EXPECT_EQ(read(0x2c, 4), 0x00071af4u);
  EXPECT_EQ(read(0x3d, 1), 1u);
}

TEST_F(PciTest, BarSizing) {
  write(0x10, 4, 0xffffffff);
  write(0x14, 4, 0xffffffff);
  EXPECT_EQ(read(0x10, 8), 0xffffffffffffc004u);
  write(0x18, 4, 0xffffffff);
  EXPECT_EQ(read(0x18, 4), 0xffffffe1u);
  write(0x1c, 4, 0xffffffff);
  EXPECT_EQ(read(0x1c, 4), 0u) << "no such BAR";
}

TEST_F(PciTest, BarsDecodeMoveAndStop) {
  const uint64_t unclaimed = mmio.unclaimed_count();
  mmio.write(kMemory, 4, 1);
  EXPECT_EQ(mmio.unclaimed_count(), unclaimed + 1);
  place_bars();
  mmio.write(kMemory + 8, 4, 42);
  EXPECT_EQ(device.value(), 42u);
  ports.write(0xc01f, 1, 43);
  EXPECT_EQ(device.value(), 43u);
  write(0x10, 4, kMemory + 0x4000);
  mmio.write(kMemory + 0x4000, 4, 44);
  EXPECT_EQ(device.value(), 44u);
  mmio.write(kMemory, 4, 45);
  EXPECT_EQ(device.value(), 44u);
  write(0x04, 2, kCommandIo);
  mmio.write(kMemory + 0x4000, 4, 46);
  EXPECT_EQ(device.value(), 44u);
}

TEST_F(PciTest, BarOverSomethingElseDoesNotAnswer) {
  place_bars();
  write(0x10, 4, pci::kEcamBase);
  EXPECT_EQ(read(0, 4), 0x56781234u) << "ECAM still answers";
  write(0x10, 4, kMemory);
  mmio.write(kMemory, 4, 9);
  EXPECT_EQ(device.value(), 9u);
  write(0x10, 8, 0xfffffffffffff000);  // the last page: 16 KiB from there would wrap, but the low bits are cut
  write(0x10, 8, kMemory);
  mmio.write(kMemory, 4, 10);
  EXPECT_EQ(device.value(), 10u);
}

TEST_F(PciTest, EcamMovesWithPciexbar) {
  mmio.write(ecam(0, 0, 0x60), 4, 0xa0000001);
  EXPECT_EQ(mmio.read(0xa0000000, 4), 0x29c08086u);
  ports.write(0xcf8, 4, 0x80000060);
  ports.write(0xcfc, 4, 0);
  EXPECT_EQ(mmio.read(0xa0000000, 4) & 0xffffffff, 0xffffffffu);
  host.reset();
  EXPECT_EQ(read(0, 4, 0), 0x29c08086u);
}

TEST_F(PciTest, IntxIsSharedLevelAndCanBeDisabled) {
  TestFunction other;
  ASSERT_TRUE(host.bus().add({.device = 11, .function = 0}, other));
  const uint32_t gsi = pci::intx_gsi(3, pci::IntxPin::kA);
  EXPECT_EQ(gsi, pci::intx_gsi(11, pci::IntxPin::kA));
  device.set_intx(true);
  other.set_intx(true);
  device.set_intx(false);
  EXPECT_TRUE(interrupts.level(gsi));
  EXPECT_EQ(read(0x06, 2, 11) & 8, 8u);
  write(0x04, 2, 0x400, 11);
  EXPECT_FALSE(interrupts.level(gsi));
  write(0x04, 2, 0, 11);
  EXPECT_TRUE(interrupts.level(gsi));
  host.bus().remove({.device = 11, .function = 0});
  EXPECT_FALSE(interrupts.level(gsi));
}

TEST_F(PciTest, MsixCapabilityDescribesItsTable) {
  const unsigned offset = capability(0x11);
  ASSERT_NE(offset, 0u);
  EXPECT_EQ(read(offset + 2, 2), TestFunction::kVectors - 1);
  EXPECT_EQ(read(offset + 4, 4), TestFunction::kMsixBar);
  EXPECT_EQ(read(offset + 8, 4), 2048u | TestFunction::kMsixBar);
}

TEST_F(PciTest, MsixSendsAndHoldsPending) {
  place_bars();
  EXPECT_FALSE(device.notify(1)) << "nothing enabled";
  enable_msix();
  program_vector(1, 0x41);
  EXPECT_TRUE(device.notify(1));
  ASSERT_EQ(interrupts.messages.size(), 1u);
  EXPECT_EQ(interrupts.messages[0].data, 0x41u);
  EXPECT_EQ(interrupts.messages[0].address, 0xfee00000u);
  program_vector(1, 0x42, true);
  device.notify(1);
  device.notify(1);
  device.notify(99);
  EXPECT_EQ(interrupts.messages.size(), 1u);
  EXPECT_EQ(mmio.read(kMsixBase + 2048, 8), 2u);
  mmio.write(kMsixBase + 2048, 8, 0);
  EXPECT_EQ(mmio.read(kMsixBase + 2048, 4), 2u) << "read-only";
  mmio.write(kMsixBase + 16 + 12, 4, 0);
  ASSERT_EQ(interrupts.messages.size(), 2u);
  EXPECT_EQ(interrupts.messages[1].data, 0x42u);
  EXPECT_EQ(mmio.read(kMsixBase + 2048, 4), 0u);
}

TEST_F(PciTest, MsixFunctionMaskAndBusMaster) {
  place_bars();
  program_vector(0, 0x40);
  enable_msix(true);
  device.notify(0);
  EXPECT_TRUE(interrupts.messages.empty());
  enable_msix(false);
  EXPECT_EQ(interrupts.messages.size(), 1u);
  write(0x04, 2, kCommandMemory);
  device.notify(0);
  EXPECT_EQ(interrupts.messages.size(), 1u);
  write(0x04, 2, kCommandMemory | kCommandMaster);
  EXPECT_EQ(interrupts.messages.size(), 2u);
}

TEST_F(PciTest, MsixTableOddAccesses) {
  place_bars();
  program_vector(2, 0x55);
  mmio.write(kMsixBase + 32 + 8, 2, 0x99);
  mmio.write(kMsixBase + 32 + 10, 4, 0x99);
  EXPECT_EQ(mmio.read(kMsixBase + 32 + 8, 4), 0x55u);
  EXPECT_EQ(mmio.read(kMsixBase + 32, 1), 0x00u);
  EXPECT_EQ(mmio.read(kMsixBase + 32 + 2, 2), 0xfee0u);
  mmio.write(kMsixBase + 32, 8, ~uint64_t{0});
  EXPECT_EQ(mmio.read(kMsixBase + 32, 8), ~uint64_t{3});
  EXPECT_EQ(mmio.read(kMsixBase + 16 * TestFunction::kVectors, 8), 0u);
}

TEST_F(PciTest, MsiVectorsMasksAndPending) {
  place_bars();
  const unsigned offset = capability(0x05);
  ASSERT_NE(offset, 0u);
  EXPECT_EQ(read(offset + 2, 2), 0x0184u);  // masks, 64-bit, four vectors
  write(offset + 4, 8, 0xfee01000);
  write(offset + 12, 2, 0x40);
  write(offset + 2, 2, 0x0001 | 2 << 4);
  EXPECT_TRUE(device.notify(3));
  ASSERT_EQ(interrupts.messages.size(), 1u);
  EXPECT_EQ(interrupts.messages[0].data, 0x43u);
  EXPECT_EQ(interrupts.messages[0].address, 0xfee01000u);
  write(offset + 16, 4, 0x4);
  device.notify(2);
  EXPECT_EQ(interrupts.messages.size(), 1u);
  EXPECT_EQ(read(offset + 20, 4), 0x4u);
  write(offset + 16, 4, 0);
  ASSERT_EQ(interrupts.messages.size(), 2u);
  EXPECT_EQ(interrupts.messages[1].data, 0x42u);
  write(offset + 2, 2, 0x0001 | 7 << 4);  // more vectors than there are
  device.notify(3);
  EXPECT_EQ(interrupts.messages[2].data, 0x43u);
  write(offset + 2, 2, 0x0001);  // one vector: all share it
  device.notify(3);
  EXPECT_EQ(interrupts.messages[3].data, 0x40u);
}

TEST_F(PciTest, MsixKeepsIntxOffTheWire) {
  place_bars();
  device.set_intx(true);
  const uint32_t gsi = pci::intx_gsi(3, pci::IntxPin::kA);
  EXPECT_TRUE(interrupts.level(gsi));
  enable_msix();
  EXPECT_FALSE(interrupts.level(gsi));
}

TEST_F(PciTest, SlotsAreTakenOnce) {
  TestFunction other;
  const auto result = host.bus().add({.device = 3, .function = 0}, other);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kBusy);
}

TEST_F(PciTest, ResetTakesTheFunctionOffTheBus) {
  place_bars();
  enable_msix();
  device.set_intx(true);
  device.reset();
  EXPECT_EQ(read(0x04, 2), 0u);
  EXPECT_EQ(read(0x10, 4), 4u);
  EXPECT_FALSE(device.notify(0));
  EXPECT_FALSE(interrupts.level(pci::intx_gsi(3, pci::IntxPin::kA)));
  mmio.write(kMemory, 4, 5);
  EXPECT_NE(device.value(), 5u);
}

TEST_F(PciTest, StateMovesBarsAndPendingVectors) {
  place_bars();
  enable_msix();
  program_vector(1, 0x41, true);
  device.notify(1);
  SavedState state = device.save();
  device.reset();
  ASSERT_TRUE(device.restore(state));
  mmio.write(kMemory, 4, 77);
  EXPECT_EQ(device.value(), 77u);
  EXPECT_EQ(mmio.read(kMsixBase + 2048, 4), 2u);
  state.bytes[0] = std::byte{0};  // another vendor
  EXPECT_FALSE(device.restore(state));
  state.bytes.pop_back();
  EXPECT_FALSE(device.restore(state));
  SavedState host_state = host.save();
  ASSERT_TRUE(host.restore(host_state));
  host_state.bytes[0] = std::byte{1};
  EXPECT_FALSE(host.restore(host_state));
  EXPECT_TRUE(lpc.restore(lpc.save()));
}

TEST_F(PciTest, LpcNamesTheAcpiBlockAndKeepsPirqs) {
  EXPECT_EQ(read(0x40, 4, 0x1f), 0x601u);
  write(0x60, 4, 0x0b0b0b0b, 0x1f);
  EXPECT_EQ(read(0x60, 4, 0x1f), 0x0b0b0b0bu);
  write(0x40, 4, 0xffffffff, 0x1f);
  EXPECT_EQ(read(0x40, 4, 0x1f), 0x601u);
}

/// Counts instead of keeping, so that threads may call it.
struct CountingInterrupts final : InterruptSink {
  void set_gsi(Gsi, bool) override {}
  void send_msi(const MsiMessage&) override { ++count; }
  std::atomic<unsigned> count{0};
};

TEST(MsixTable, MaskingWhileNotifyingLosesNothing) {
  CountingInterrupts interrupts;
  MsixTable table(1);
  table.connect(interrupts);
  table.set_state(true, false);
  constexpr unsigned kRounds = 20000;
  std::thread notifier([&] {
    for (unsigned round = 0; round < kRounds; ++round) {
      const unsigned before = interrupts.count.load();
      table.notify(0);
      while (interrupts.count.load() == before) std::this_thread::yield();  // sent at once or by the unmasking
    }
  });
  while (interrupts.count.load() < kRounds) {
    table.bus_write(12, 4, 1);
    table.bus_write(12, 4, 0);
  }
  notifier.join();
  EXPECT_EQ(interrupts.count.load(), kRounds);
}

}  // namespace
}  // namespace tenon
