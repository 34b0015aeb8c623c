#include "devices/chip/local_apic.hh"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <thread>
#include <vector>

#include "vm/fake_clock.hh"

namespace tenon {
namespace {

using apic::DeliveryMode;

constexpr uint64_t kEnabledBase = apic::kDefaultBase | 1u << 11;
constexpr uint64_t kX2apicBase = kEnabledBase | 1u << 10;

/// `count` vCPUs, software-enabled, in xAPIC mode.
struct Board {
  explicit Board(unsigned count, uint64_t tsc_hz = FakeClock::kTscHz) : clock(tsc_hz), bus(1024) {
    for (unsigned i = 0; i < count; ++i) add(i);
  }
  LocalApic& add(unsigned id) {
    signals.push_back(std::make_unique<VcpuSignal>());
    apics.push_back(std::make_unique<LocalApic>(LocalApic::Config{.id = VcpuId{id}, .is_bootstrap = id == 0},
                                                *signals.back(), clock, bus));
    write(*apics.back(), apic::kSvr, 0x1ff);
    return *apics.back();
  }
  static void write(LocalApic& apic, uint32_t reg, uint32_t value) {
    apic.write_mmio(Gpa(apic::kDefaultBase + reg), 4, value);
  }
  static uint32_t read(LocalApic& apic, uint32_t reg) {
    return static_cast<uint32_t>(apic.read_mmio(Gpa(apic::kDefaultBase + reg), 4));
  }
  void enter_x2apic() {
    for (auto& apic : apics)
      ASSERT_TRUE(apic->write_msr(apic::kMsrApicBase, kX2apicBase | (apic->id() == 0 ? 1u << 8 : 0)));
  }
  LocalApic& operator[](size_t i) { return *apics[i]; }
  /// Which vCPUs have `bits` raised; takes them.
  std::vector<unsigned> raised(uint32_t bits) {
    std::vector<unsigned> result;
    for (unsigned i = 0; i < signals.size(); ++i)
      if (signals[i]->take(bits) != 0) result.push_back(i);
    return result;
  }
  /// Which vCPUs have an interrupt to deliver; acknowledges and ends it.
  std::vector<unsigned> interrupted() {
    std::vector<unsigned> result;
    for (unsigned i = 0; i < apics.size(); ++i) {
      if (apics[i]->acknowledge_interrupt() < 0) continue;
      result.push_back(i);
      if (apics[i]->is_x2apic()) {
        apics[i]->write_msr(0x80b, 0);
      } else {
        write(*apics[i], apic::kEoi, 0);
      }
    }
    return result;
  }
  void msi(uint32_t destination, uint8_t vector, uint32_t address_bits = 0, uint32_t data_bits = 0) {
    bus.send_msi({.address = 0xfee00000 | (destination & 0xff) << 12 | (destination >> 8) << 5 | address_bits,
                  .data = vector | data_bits});
  }

  FakeClock clock;
  ApicBus bus;
  std::vector<std::unique_ptr<VcpuSignal>> signals;
  std::vector<std::unique_ptr<LocalApic>> apics;
};

using Ids = std::vector<unsigned>;

TEST(LocalApic, VersionHasSevenLvtEntriesAndBroadcastSuppression) {
  Board board(1);
  EXPECT_EQ(Board::read(board[0], apic::kVersion), 0x01060015u);
}

TEST(LocalApic, DeliversByPriorityAndHoldsBackLowerClasses) {
  Board board(1);
  board.msi(0, 0x31);
  board.msi(0, 0x52);
  board.msi(0, 0x35);
  EXPECT_NE(board.signals[0]->take(VcpuSignal::kInterrupt), 0u);
  EXPECT_EQ(board[0].acknowledge_interrupt(), 0x52);
  EXPECT_EQ(Board::read(board[0], apic::kPpr), 0x50u);
  EXPECT_EQ(board[0].acknowledge_interrupt(), -1);
  board.signals[0]->take(VcpuSignal::kInterrupt);
  Board::write(board[0], apic::kEoi, 0);
  EXPECT_NE(board.signals[0]->take(VcpuSignal::kInterrupt), 0u) << "EOI asks for attention again";
  EXPECT_EQ(board[0].acknowledge_interrupt(), 0x35);
  EXPECT_EQ(board[0].acknowledge_interrupt(), -1) << "same class";
}

TEST(LocalApic, TprAndCr8AreTheSameRegister) {
  Board board(1);
  board[0].write_cr8(5);
  EXPECT_EQ(Board::read(board[0], apic::kTpr), 0x50u);
  board.msi(0, 0x5f);
  EXPECT_FALSE(board[0].interrupt_pending());
  board.signals[0]->take(VcpuSignal::kInterrupt);
  Board::write(board[0], apic::kTpr, 0x4f);
  EXPECT_EQ(board[0].read_cr8(), 4);
  EXPECT_TRUE(board[0].interrupt_pending());
  EXPECT_NE(board.signals[0]->take(VcpuSignal::kInterrupt), 0u);
}

TEST(LocalApic, IllegalVectorsBecomeErrors) {
  Board board(2);
  Board::write(board[0], apic::kLvtError, 0xfe);
  Board::write(board[0], apic::kIcrLow, 0x05);  // fixed, vector 5
  EXPECT_EQ(Board::read(board[0], apic::kEsr), 0u) << "only a write makes it readable";
  Board::write(board[0], apic::kEsr, 0);
  EXPECT_EQ(Board::read(board[0], apic::kEsr), apic::kErrorSendIllegalVector);
  EXPECT_EQ(board[0].acknowledge_interrupt(), 0xfe);
  board.msi(0, 3);
  (void)Board::read(board[0], 0x040);  // reserved register
  Board::write(board[0], apic::kEsr, 0);
  EXPECT_EQ(Board::read(board[0], apic::kEsr),
            uint32_t{apic::kErrorReceiveIllegalVector | apic::kErrorIllegalRegister});
}

TEST(LocalApic, IllegalVectorInTheErrorEntryDoesNotRecurse) {
  Board board(1);
  Board::write(board[0], apic::kLvtError, 0x03);
  board.msi(0, 3);
  EXPECT_FALSE(board[0].interrupt_pending());
}

TEST(LocalApic, SoftwareDisableMasksTheLvtAndRefusesFixedInterrupts) {
  Board board(1);
  Board::write(board[0], apic::kLvtTimer, 0x40);
  Board::write(board[0], apic::kSvr, 0xff);
  EXPECT_EQ(Board::read(board[0], apic::kLvtTimer), 0x10040u);
  Board::write(board[0], apic::kLvtTimer, 0x41);
  EXPECT_EQ(Board::read(board[0], apic::kLvtTimer), 0x10041u);
  board.msi(0, 0x40);
  EXPECT_FALSE(board[0].interrupt_pending());
  board.msi(0, 0, 0, 4u << 8);
  EXPECT_EQ(board.raised(VcpuSignal::kNmi), Ids{0});
}

TEST(LocalApic, MmioTakesAlignedDwordsOnlyAndReadsAnyWidth) {
  Board board(1);
  Board::write(board[0], apic::kTpr, 0x35);
  board[0].write_mmio(Gpa(apic::kDefaultBase + apic::kTpr), 1, 0x99);
  board[0].write_mmio(Gpa(apic::kDefaultBase + apic::kTpr + 4), 4, 0x99);
  EXPECT_EQ(board[0].read_mmio(Gpa(apic::kDefaultBase + apic::kTpr), 1), 0x35u);
  EXPECT_EQ(board[0].read_mmio(Gpa(apic::kDefaultBase + apic::kTpr), 8), 0x35u);
  EXPECT_EQ(board[0].read_mmio(Gpa(apic::kDefaultBase + apic::kVersion + 2), 1), 0x06u);
  EXPECT_EQ(board[0].read_mmio(Gpa(apic::kDefaultBase + apic::kTpr + 4), 4), 0u);
  EXPECT_EQ(board[0].read_mmio(Gpa(apic::kDefaultBase + 0xffc), 4), 0u);
}

// SDM Vol. 3 Figure 11-27.
TEST(LocalApic, ApicBaseTransitions) {
  Board board(1);
  LocalApic& apic = board[0];
  EXPECT_FALSE(apic.write_msr(apic::kMsrApicBase, apic::kDefaultBase | 1u << 10)) << "invalid state";
  EXPECT_FALSE(apic.write_msr(apic::kMsrApicBase, kEnabledBase | 1)) << "reserved bit";
  EXPECT_FALSE(apic.write_msr(apic::kMsrApicBase, kEnabledBase | 1ull << 60)) << "beyond the physical address";
  EXPECT_TRUE(apic.write_msr(apic::kMsrApicBase, kX2apicBase));
  EXPECT_FALSE(apic.claims(Gpa(apic::kDefaultBase)));
  EXPECT_FALSE(apic.write_msr(apic::kMsrApicBase, kEnabledBase)) << "x2APIC to xAPIC";
  EXPECT_TRUE(apic.write_msr(apic::kMsrApicBase, apic::kDefaultBase));
  EXPECT_FALSE(apic.write_msr(apic::kMsrApicBase, kX2apicBase)) << "disabled to x2APIC";
  EXPECT_TRUE(apic.write_msr(apic::kMsrApicBase, kEnabledBase));
  EXPECT_EQ(Board::read(apic, apic::kSvr), 0xffu) << "nothing survives the disabled state";
  EXPECT_TRUE(apic.write_msr(apic::kMsrApicBase, 0x12345000 | 1u << 11));
  EXPECT_TRUE(apic.claims(Gpa(0x12345fff)));
  EXPECT_FALSE(apic.claims(Gpa(apic::kDefaultBase)));
}

TEST(LocalApic, X2apicMsrsFaultOnReservedBitsAndMissingRegisters) {
  Board board(1);
  uint64_t value = 0;
  EXPECT_FALSE(board[0].read_msr(0x802, value)) << "xAPIC mode";
  board.enter_x2apic();
  LocalApic& apic = board[0];
  EXPECT_TRUE(apic.read_msr(0x802, value));
  EXPECT_EQ(value, 0u);
  EXPECT_FALSE(apic.write_msr(0x802, 1));
  EXPECT_FALSE(apic.read_msr(0x80b, value)) << "EOI is write-only";
  EXPECT_FALSE(apic.write_msr(0x80b, 1));
  EXPECT_TRUE(apic.write_msr(0x80b, 0));
  EXPECT_FALSE(apic.read_msr(0x80e, value)) << "no DFR";
  EXPECT_FALSE(apic.read_msr(0x831, value)) << "no ICR high half";
  EXPECT_FALSE(apic.write_msr(0x808, 0x100));
  EXPECT_TRUE(apic.write_msr(0x808, 0xff));
  EXPECT_FALSE(apic.write_msr(0x828, 1)) << "ESR takes only zero";
  EXPECT_FALSE(apic.write_msr(0x830, 1u << 20));
  EXPECT_FALSE(apic.write_msr(0x83f, 0x100));
  EXPECT_FALSE(apic.read_msr(0x83f, value));
  EXPECT_FALSE(apic.read_msr(0x8ff, value));
  EXPECT_TRUE(apic.write_msr(0x832, 0x20000 | 0xec));
  EXPECT_TRUE(apic.read_msr(0x80d, value));
  EXPECT_EQ(value, 1u);
}

TEST(LocalApic, SelfIpiAndShorthands) {
  Board board(3);
  Board::write(board[1], apic::kIcrLow, 1u << 18 | 0x41);
  EXPECT_EQ(board.interrupted(), Ids{1});
  Board::write(board[1], apic::kIcrLow, 2u << 18 | 0x41);
  EXPECT_EQ(board.interrupted(), (Ids{0, 1, 2}));
  Board::write(board[1], apic::kIcrLow, 3u << 18 | 0x41);
  EXPECT_EQ(board.interrupted(), (Ids{0, 2}));
  board.enter_x2apic();
  board[2].write_msr(0x83f, 0x77);
  EXPECT_EQ(board[2].acknowledge_interrupt(), 0x77);
}

TEST(LocalApic, InitAndStartup) {
  Board board(2);
  Board::write(board[0], apic::kIcrHigh, 1u << 24);
  Board::write(board[0], apic::kIcrLow, 0x0000c500);  // INIT, level, assert
  EXPECT_EQ(board.raised(VcpuSignal::kInit), Ids{1});
  Board::write(board[0], apic::kIcrLow, 0x00008500);  // INIT de-assert
  EXPECT_EQ(board.raised(VcpuSignal::kInit), Ids{});
  Board::write(board[0], apic::kIcrLow, 0x00000609);
  EXPECT_EQ(board.raised(VcpuSignal::kStartup), Ids{1});
  EXPECT_EQ(board[1].startup_vector(), 9);
  board.msi(1, 0x50);
  board[1].init_received();
  EXPECT_FALSE(board[1].interrupt_pending());
  EXPECT_EQ(Board::read(board[1], apic::kId), 1u << 24);
}

TEST(LocalApic, FlatAndClusterLogicalDestinations) {
  Board board(4);
  for (unsigned i = 0; i < 4; ++i) Board::write(board[i], apic::kLdr, 1u << (24 + i));
  const auto logical = [&](uint32_t destination) {
    Board::write(board[0], apic::kIcrHigh, destination << 24);
    Board::write(board[0], apic::kIcrLow, 1u << 11 | 0x61);
    return board.interrupted();
  };
  EXPECT_EQ(logical(0x0a), (Ids{1, 3}));
  EXPECT_EQ(logical(0xff), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(logical(0x80), Ids{});
  for (unsigned i = 0; i < 4; ++i) {
    Board::write(board[i], apic::kDfr, 0x0fffffff);
    Board::write(board[i], apic::kLdr, (i / 2) << 28 | 1u << (24 + i % 2));  // clusters {0, 1} and {2, 3}
  }
  EXPECT_EQ(logical(0x13), (Ids{2, 3}));
  EXPECT_EQ(logical(0x01), Ids{0});
}

TEST(LocalApic, X2apicDestinationsReachHighIds) {
  Board board(1);
  LocalApic& high = board.add(0x123);
  board.enter_x2apic();
  EXPECT_TRUE(board[0].write_msr(0x830, uint64_t{0x123} << 32 | 0x42));
  EXPECT_EQ(high.acknowledge_interrupt(), 0x42);
  high.write_msr(0x80b, 0);
  // Cluster 0x12, bit 3.
  EXPECT_TRUE(board[0].write_msr(0x830, uint64_t{0x00120008} << 32 | 1u << 11 | 0x43));
  EXPECT_EQ(high.acknowledge_interrupt(), 0x43);
  high.write_msr(0x80b, 0);
  EXPECT_TRUE(board[0].write_msr(0x830, uint64_t{0xffffffff} << 32 | 0x44));
  EXPECT_EQ(board.interrupted(), (Ids{0, 1}));
  EXPECT_TRUE(board[0].write_msr(0x830, uint64_t{0xff} << 32 | 0x45));
  EXPECT_EQ(board.interrupted(), Ids{}) << "0xff is an ordinary ID in x2APIC mode";
  board.msi(0x123, 0x46);
  EXPECT_EQ(board.interrupted(), Ids{1}) << "extended destination ID";
}

TEST(ApicBus, MsiModes) {
  Board board(3);
  board.msi(0xff, 0x51);
  EXPECT_EQ(board.interrupted(), (Ids{0, 1, 2}));
  board.bus.send_msi({.address = 0xfec00000, .data = 0x51});
  board.bus.send_msi({.address = 0x1fee00000, .data = 0x51});
  EXPECT_EQ(board.interrupted(), Ids{});
  board.msi(1, 0x51, 0, 1u << 15);  // level de-assert
  EXPECT_EQ(board.interrupted(), Ids{});
  board.msi(9, 0x51);  // nobody there
  EXPECT_EQ(board.interrupted(), Ids{});
}

TEST(ApicBus, LowestPriorityChoosesTheLeastBusyAndSpreadsByVector) {
  Board board(3);
  for (unsigned i = 0; i < 3; ++i) Board::write(board[i], apic::kLdr, 1u << (24 + i));
  board[0].write_cr8(3);
  board[2].write_cr8(2);
  const uint32_t logical = 1u << 2;
  board.msi(7, 0x61, logical, 1u << 8);
  EXPECT_EQ(board.interrupted(), Ids{1});
  board[0].write_cr8(0);
  board[2].write_cr8(0);
  Ids seen;
  for (uint8_t vector = 0x60; vector < 0x63; ++vector) {
    board.msi(7, vector, logical, 1u << 8);
    const Ids one = board.interrupted();
    ASSERT_EQ(one.size(), 1u);
    seen.push_back(one[0]);
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(seen, (Ids{0, 1, 2}));
  Board::write(board[1], apic::kSvr, 0xff);  // software-disabled: not a candidate
  board.msi(2, 0x61, logical, 1u << 8);
  EXPECT_EQ(board.interrupted(), Ids{});
}

struct EoiRecorder final : EoiListener {
  void end_of_interrupt(uint8_t vector) override { vectors.push_back(vector); }
  std::vector<uint8_t> vectors;
};

TEST(LocalApic, OnlyLevelTriggeredEoiIsBroadcast) {
  Board board(1);
  EoiRecorder recorder;
  board.bus.set_eoi_listener(recorder);
  board.msi(0, 0x51);
  board.interrupted();
  EXPECT_TRUE(recorder.vectors.empty());
  board.msi(0, 0x52, 0, 3u << 14);  // level, assert
  board.interrupted();
  EXPECT_EQ(recorder.vectors, std::vector<uint8_t>{0x52});
  Board::write(board[0], apic::kSvr, 0x11ff);  // suppress broadcasts
  board.msi(0, 0x52, 0, 3u << 14);
  board.interrupted();
  EXPECT_EQ(recorder.vectors.size(), 1u);
}

TEST(LocalApic, ExtIntComesThroughLint0WhateverThePriority) {
  Board board(1);
  LocalApic& apic = board[0];
  apic.connect_external([] { return uint8_t{0x20}; });
  apic.set_lint(LocalApic::Lint::kLint0, true);
  EXPECT_FALSE(apic.interrupt_pending()) << "LINT0 is masked after reset";
  apic.set_virtual_wire_mode();
  EXPECT_NE(board.signals[0]->take(VcpuSignal::kInterrupt), 0u);
  apic.write_cr8(15);
  EXPECT_EQ(apic.acknowledge_interrupt(), 0x20);
  apic.set_lint(LocalApic::Lint::kLint0, false);
  EXPECT_FALSE(apic.interrupt_pending());
  ASSERT_TRUE(apic.write_msr(apic::kMsrApicBase, apic::kDefaultBase));
  apic.set_lint(LocalApic::Lint::kLint0, true);
  EXPECT_EQ(apic.acknowledge_interrupt(), 0x20) << "a disabled APIC passes INTR through";
}

TEST(LocalApic, Lint1IsNmiAndLevelLint0WaitsForItsEoi) {
  Board board(1);
  board[0].set_virtual_wire_mode();
  board[0].set_lint(LocalApic::Lint::kLint1, true);
  EXPECT_EQ(board.raised(VcpuSignal::kNmi), Ids{0});
  Board::write(board[0], apic::kLvtLint0, 0x8055);  // fixed, level
  board[0].set_lint(LocalApic::Lint::kLint0, true);
  EXPECT_EQ(Board::read(board[0], apic::kLvtLint0), 0xc055u) << "remote IRR";
  EXPECT_EQ(board[0].acknowledge_interrupt(), 0x55);
  Board::write(board[0], apic::kEoi, 0);
  EXPECT_EQ(board[0].acknowledge_interrupt(), 0x55) << "still asserted";
  board[0].set_lint(LocalApic::Lint::kLint0, false);
  Board::write(board[0], apic::kEoi, 0);
  EXPECT_EQ(board[0].acknowledge_interrupt(), -1);
}

// Timer.

TEST(LocalApicTimer, OneShotCountsDownAndFiresOnce) {
  Board board(1);
  LocalApic& apic = board[0];
  Board::write(apic, apic::kLvtTimer, 0x40);
  Board::write(apic, apic::kDivide, 0x3);  // by 16
  Board::write(apic, apic::kInitialCount, 1000);
  EXPECT_EQ(board.signals[0]->deadline_ns(), 16000u);
  board.clock.advance_ns(8000);
  EXPECT_EQ(Board::read(apic, apic::kCurrentCount), 500u);
  Board::write(apic, apic::kDivide, 0xb);  // by 1: 500 ticks are left
  EXPECT_EQ(board.signals[0]->deadline_ns(), 8500u);
  apic.timer_expired();
  EXPECT_FALSE(apic.interrupt_pending()) << "early call";
  board.clock.advance_ns(500);
  apic.timer_expired();
  EXPECT_EQ(apic.acknowledge_interrupt(), 0x40);
  EXPECT_EQ(board.signals[0]->deadline_ns(), kNoDeadline);
  EXPECT_EQ(Board::read(apic, apic::kCurrentCount), 0u);
}

TEST(LocalApicTimer, DivideConfigurationTable) {
  Board board(1);
  constexpr std::array<std::pair<uint32_t, uint64_t>, 8> kTable = {
      {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}}};
  for (const auto& [value, divisor] : kTable) {
    Board::write(board[0], apic::kLvtTimer, 0x40);
    Board::write(board[0], apic::kDivide, value);
    Board::write(board[0], apic::kInitialCount, 100);
    EXPECT_EQ(board.signals[0]->deadline_ns(), 100 * divisor);
  }
}

TEST(LocalApicTimer, PeriodicSkipsMissedPeriodsAndKeepsItsPhase) {
  Board board(1);
  LocalApic& apic = board[0];
  Board::write(apic, apic::kDivide, 0xb);
  Board::write(apic, apic::kLvtTimer, 0x20041);
  Board::write(apic, apic::kInitialCount, 1000);
  board.clock.advance_ns(3500);
  apic.timer_expired();
  EXPECT_EQ(board.interrupted(), Ids{0});
  EXPECT_EQ(board.interrupted(), Ids{});
  EXPECT_EQ(board.signals[0]->deadline_ns(), 4000u);
  Board::write(apic, apic::kInitialCount, 0);
  EXPECT_EQ(board.signals[0]->deadline_ns(), kNoDeadline);
}

TEST(LocalApicTimer, MaskedTimerHasNoDeadlineAndDeliversNothing) {
  Board board(1);
  LocalApic& apic = board[0];
  Board::write(apic, apic::kDivide, 0xb);
  Board::write(apic, apic::kLvtTimer, 0x10041);
  Board::write(apic, apic::kInitialCount, 1000);
  EXPECT_EQ(board.signals[0]->deadline_ns(), kNoDeadline);
  board.clock.advance_ns(400);
  EXPECT_EQ(Board::read(apic, apic::kCurrentCount), 600u);
  Board::write(apic, apic::kLvtTimer, 0x41);
  EXPECT_EQ(board.signals[0]->deadline_ns(), 1000u);
  Board::write(apic, apic::kLvtTimer, 0x10041);
  board.clock.advance_ns(1000);
  Board::write(apic, apic::kLvtTimer, 0x41);
  EXPECT_FALSE(apic.interrupt_pending()) << "it ran out while masked";
}

TEST(LocalApicTimer, ReadingTheCountAfterExpiryLosesNoInterrupt) {
  Board board(1);
  Board::write(board[0], apic::kDivide, 0xb);
  Board::write(board[0], apic::kLvtTimer, 0x41);
  Board::write(board[0], apic::kInitialCount, 1000);
  board.clock.advance_ns(2000);
  EXPECT_EQ(Board::read(board[0], apic::kCurrentCount), 0u);
  EXPECT_EQ(board[0].acknowledge_interrupt(), 0x41);
}

TEST(LocalApicTimer, TscDeadline) {
  Board board(1, 2'000'000'000);
  LocalApic& apic = board[0];
  uint64_t value = 0;
  EXPECT_TRUE(apic.write_msr(apic::kMsrTscDeadline, 5000)) << "ignored in the other modes";
  EXPECT_TRUE(apic.read_msr(apic::kMsrTscDeadline, value));
  EXPECT_EQ(value, 0u);
  Board::write(apic, apic::kLvtTimer, 0x40042);
  apic.set_tsc_offset(1000);
  EXPECT_TRUE(apic.write_msr(apic::kMsrTscDeadline, 5000));
  EXPECT_EQ(board.signals[0]->deadline_ns(), 2001u);  // 4000 ticks at 2 GHz, rounded up
  Board::write(apic, apic::kInitialCount, 10);        // ignored in TSC-deadline mode
  EXPECT_EQ(Board::read(apic, apic::kCurrentCount), 0u);
  board.clock.advance_ns(2001);
  apic.timer_expired();
  EXPECT_EQ(board.interrupted(), Ids{0});
  EXPECT_TRUE(apic.read_msr(apic::kMsrTscDeadline, value));
  EXPECT_EQ(value, 0u);
  EXPECT_TRUE(apic.write_msr(apic::kMsrTscDeadline, 1)) << "in the past: at once";
  EXPECT_EQ(board.interrupted(), Ids{0});
  EXPECT_TRUE(apic.write_msr(apic::kMsrTscDeadline, ~uint64_t{0}));
  EXPECT_FALSE(apic.interrupt_pending());
  Board::write(apic, apic::kLvtTimer, 0x42);  // leaving the mode disarms
  EXPECT_EQ(board.signals[0]->deadline_ns(), kNoDeadline);
}

// PV EOI.

struct PvEoiTest : testing::Test {
  PvEoiTest() {
    EXPECT_TRUE(memory.add({Gpa(0), 0x200000}, ExtentKind::kPrivate, "ram"));
    board[0].enable_pv_eoi(memory);
    EXPECT_TRUE(board[0].write_msr(kvm_pv::kMsrPvEoi, 0x1000 | 1));
  }
  uint8_t flag() {
    uint8_t value = 0xee;
    EXPECT_TRUE(memory.read_object(Gpa(0x1000), value));
    return value;
  }
  void guest_clears_flag() { EXPECT_TRUE(memory.write_object(Gpa(0x1000), uint8_t{0})); }
  GuestMemory memory;
  Board board{1};
};

TEST_F(PvEoiTest, ClearingTheFlagEndsTheInterrupt) {
  board.msi(0, 0x51);
  EXPECT_EQ(board[0].acknowledge_interrupt(), 0x51);
  EXPECT_EQ(flag(), 1);
  guest_clears_flag();
  board.msi(0, 0x51);
  EXPECT_EQ(board[0].acknowledge_interrupt(), 0x51);
}

TEST_F(PvEoiTest, AnInterruptThatWaitsWithdrawsTheOffer) {
  board.msi(0, 0x51);
  board[0].acknowledge_interrupt();
  board.msi(0, 0x52);
  EXPECT_EQ(board[0].acknowledge_interrupt(), -1);
  EXPECT_EQ(flag(), 0) << "the guest must write EOI now";
  Board::write(board[0], apic::kEoi, 0);
  EXPECT_EQ(board[0].acknowledge_interrupt(), 0x52);
}

TEST_F(PvEoiTest, LevelTriggeredInterruptsAreNotOffered) {
  board.msi(0, 0x51, 0, 3u << 14);
  board[0].acknowledge_interrupt();
  EXPECT_NE(flag(), 1);
  EXPECT_FALSE(board[0].write_msr(kvm_pv::kMsrPvEoi, 0x1000 | 3));
}

// State and threads.

TEST(LocalApic, StateSurvivesSaveAndRestore) {
  Board board(1);
  Board::write(board[0], apic::kDivide, 0xb);
  Board::write(board[0], apic::kLvtTimer, 0x20041);
  Board::write(board[0], apic::kInitialCount, 1000);
  board.msi(0, 0x61);
  board[0].acknowledge_interrupt();
  board.msi(0, 0x71, 0, 3u << 14);
  const SavedState state = board[0].save();
  Board other(1);
  ASSERT_TRUE(other[0].restore(state));
  EXPECT_NE(other.signals[0]->take(VcpuSignal::kInterrupt), 0u);
  EXPECT_EQ(other.signals[0]->deadline_ns(), 1000u);
  EXPECT_EQ(Board::read(other[0], apic::kPpr), 0x60u);
  EXPECT_EQ(other[0].acknowledge_interrupt(), 0x71);
  EXPECT_EQ(other[0].save().bytes.size(), state.bytes.size());
}

TEST(LocalApic, HostileSavedStateIsRefused) {
  Board board(1);
  for (const size_t offset : {0u, 203u, 104u, 72u, 78u}) {
    SavedState state = board[0].save();
    state.bytes[offset] = std::byte{0xff};
    EXPECT_FALSE(board[0].restore(state)) << offset;
  }
}

TEST(LocalApic, ManyThreadsInterruptOneVcpuAndNothingIsLost) {
  Board board(1);
  constexpr unsigned kThreads = 4, kRounds = 2000;
  std::atomic<unsigned> acknowledged[kThreads] = {};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&board, &acknowledged, t] {
      for (unsigned round = 0; round < kRounds; ++round) {
        board.msi(0, static_cast<uint8_t>(0x40 + 0x10 * t));
        while (acknowledged[t].load() <= round) std::this_thread::yield();
      }
    });
  }
  for (unsigned done = 0; done < kThreads * kRounds;) {
    if (board.signals[0]->take(VcpuSignal::kInterrupt) == 0) {
      std::this_thread::yield();
      continue;
    }
    for (int vector = 0; (vector = board[0].acknowledge_interrupt()) >= 0; ++done) {
      Board::write(board[0], apic::kEoi, 0);
      ++acknowledged[(vector - 0x40) / 0x10];
    }
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& count : acknowledged) EXPECT_EQ(count.load(), kRounds);
}

}  // namespace
}  // namespace tenon
