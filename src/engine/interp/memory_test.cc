// Guest memory access through segments, paging and the soft TLB.
#include "engine/interp/memory.hh"

#include <thread>

#include "engine/interp/system_test_support.hh"

namespace tenon::interp {
namespace {

using Machine = TestMachine;
constexpr uint64_t kP = 1, kW = 2, kU = 4;

class MemoryTest : public testing::Test {
 protected:
  Cpu& enter() {
    machine_.enter_64({});
    return prepare(machine_);
  }
  Cpu& enter_user() {
    machine_.enter_64({});
    machine_.state.segments[x86::kCs].attributes |= 0x60;
    machine_.state.segments[x86::kSs].attributes |= 0x60;
    return prepare(machine_);
  }
  Machine machine_;
};

TEST_F(MemoryTest, FillsAndHitsTheTlb) {
  Cpu& cpu = enter();
  machine_.poke<uint64_t>(0x20008, 0x1122334455667788);
  uint64_t value = 0;
  EXPECT_TRUE(cpu.load<uint64_t>(x86::kDs, 0x20008, value));
  EXPECT_EQ(value, 0x1122334455667788u);
  const uint64_t misses = cpu.counters.tlb_misses;
  EXPECT_TRUE(cpu.load<uint64_t>(x86::kDs, 0x20010, value));
  EXPECT_EQ(cpu.counters.tlb_misses, misses);
  EXPECT_TRUE(cpu.store<uint32_t>(x86::kDs, 0x20000, 7));  // D was clear: no write entry yet
  EXPECT_EQ(cpu.counters.tlb_misses, misses + 1);
  EXPECT_TRUE(cpu.store<uint32_t>(x86::kDs, 0x20004, 8));
  EXPECT_EQ(cpu.counters.tlb_misses, misses + 1);
  EXPECT_EQ(machine_.peek<uint64_t>(0x20000), 0x800000007u);
}

TEST_F(MemoryTest, PageCrossingIsAllOrNothing) {
  Cpu& cpu = enter();
  EXPECT_TRUE(cpu.store<uint64_t>(x86::kDs, 0x20ffc, 0x1122334455667788));
  EXPECT_EQ(machine_.peek<uint64_t>(0x20ffc), 0x1122334455667788u);
  machine_.set_page(0x21000, 0x21000 | kP | kU);  // read-only
  cpu.flush_tlb(false);
  EXPECT_FALSE(cpu.store<uint64_t>(x86::kDs, 0x20ffc, 0));
  EXPECT_EQ(cpu.state.cr2, 0x21000u);
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent | x86::kPfWrite);
  EXPECT_EQ(machine_.peek<uint64_t>(0x20ffc), 0x1122334455667788u);
}

TEST_F(MemoryTest, WriteProtectionFollowsCr0) {
  Cpu& cpu = enter();
  machine_.set_page(0x21000, 0x21000 | kP);
  cpu.flush_tlb(false);
  EXPECT_FALSE(cpu.store<uint8_t>(x86::kDs, 0x21000, 1));
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent | x86::kPfWrite);
  cpu.state.cr0 &= ~uint64_t{x86::kCr0Wp};
  cpu.update_mode();
  EXPECT_TRUE(cpu.store<uint8_t>(x86::kDs, 0x21000, 1));
  EXPECT_TRUE(cpu.store<uint8_t>(x86::kDs, 0x21001, 1));
}

TEST_F(MemoryTest, UserMayNotTouchSupervisorPages) {
  Cpu& cpu = enter_user();
  machine_.set_page(0x21000, 0x21000 | kP | kW);
  cpu.flush_tlb(false);
  uint8_t byte = 0;
  EXPECT_FALSE(cpu.load<uint8_t>(x86::kDs, 0x21000, byte));
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent | x86::kPfUser);
  // The processor's own accesses may, and what they leave in the TLB does not help the user.
  EXPECT_TRUE(cpu.load_linear(0x21000, byte, Privilege::kSupervisor));
  EXPECT_FALSE(cpu.load<uint8_t>(x86::kDs, 0x21000, byte));
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent | x86::kPfUser);
}

TEST_F(MemoryTest, SmapOpensWithAcForExplicitAccessOnly) {
  Cpu& cpu = enter();
  cpu.state.cr4 |= x86::kCr4Smap;
  cpu.update_mode();
  uint8_t byte = 0;
  EXPECT_FALSE(cpu.load<uint8_t>(x86::kDs, 0x21000, byte));
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent);
  cpu.set_rflags(cpu.rflags() | x86::kAc);
  EXPECT_TRUE(cpu.load<uint8_t>(x86::kDs, 0x21000, byte));
  EXPECT_FALSE(cpu.load_linear(0x21000, byte, Privilege::kSupervisor));
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent);
  cpu.set_rflags(cpu.rflags() & ~x86::kAc);
  EXPECT_FALSE(cpu.load<uint8_t>(x86::kDs, 0x21000, byte));  // the entry of the other mode does not count
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent);
}

TEST_F(MemoryTest, NonCanonicalIsGpOrSs) {
  Cpu& cpu = enter();
  uint64_t value = 0;
  EXPECT_FALSE(cpu.load<uint64_t>(x86::kDs, 0x800000000000, value));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_FALSE(cpu.load<uint64_t>(x86::kSs, 0x7ffffffffffc, value));  // the last byte is beyond
  expect_fault(cpu, x86::kStackFault, 0);
  // One that wraps at 2^64 is canonical at both ends: an access to the last page like any other.
  EXPECT_FALSE(cpu.store<uint64_t>(x86::kSs, ~uint64_t{3}, 0));
  expect_fault(cpu, x86::kPageFault, x86::kPfWrite);
}

TEST_F(MemoryTest, MmioReachesTheMachine) {
  Cpu& cpu = enter();
  machine_.set_page(0x21000, 0xfee00000 | kP | kW);
  cpu.flush_tlb(false);
  uint32_t value = 0;
  EXPECT_TRUE(cpu.load<uint32_t>(x86::kDs, 0x21020, value));
  EXPECT_EQ(value, 0xfee00020u ^ 0x5555);
  EXPECT_TRUE(cpu.store<uint16_t>(x86::kDs, 0x210b0, 0xbeef));
  ASSERT_EQ(machine_.io.mmio_writes.size(), 1u);
  EXPECT_EQ(machine_.io.mmio_writes[0].gpa, 0xfee000b0u);
  EXPECT_EQ(machine_.io.mmio_writes[0].size_bytes, 2u);
  EXPECT_EQ(machine_.io.mmio_writes[0].value, 0xbeefu);
  // RAM and MMIO in one access.
  EXPECT_TRUE(cpu.store<uint32_t>(x86::kDs, 0x20fff, 0x44332211));
  EXPECT_EQ(machine_.peek<uint8_t>(0x20fff), 0x11);
  ASSERT_EQ(machine_.io.mmio_writes.size(), 3u);  // 2 + 1 bytes
  EXPECT_EQ(machine_.io.mmio_writes[1].value, 0x3322u);
  EXPECT_EQ(machine_.io.mmio_writes[2].gpa, 0xfee00002u);
}

TEST_F(MemoryTest, ReadModifyWrite) {
  Cpu& cpu = enter();
  auto* host = static_cast<uint32_t*>(cpu.begin_rmw(x86::kDs, 0x20100, 4, true));
  ASSERT_NE(host, nullptr);
  *host = 5;
  cpu.finish_rmw();
  EXPECT_EQ(machine_.peek<uint32_t>(0x20100), 5u);
  // Across a page: through the buffer, with the world stopped.
  machine_.poke<uint32_t>(0x20ffe, 0x01020304);
  void* buffer = cpu.begin_rmw(x86::kDs, 0x20ffe, 4, true);
  ASSERT_EQ(buffer, cpu.rmw_buffer);
  EXPECT_EQ(load_host<uint32_t>(buffer), 0x01020304u);
  store_host<uint32_t>(buffer, 0x0a0b0c0d);
  cpu.finish_rmw();
  EXPECT_EQ(machine_.peek<uint32_t>(0x20ffe), 0x0a0b0c0du);
  // A fault in the second page.
  machine_.set_page(0x21000, 0);
  cpu.flush_tlb(false);
  EXPECT_EQ(cpu.begin_rmw(x86::kDs, 0x20ffe, 4, true), nullptr);
  expect_fault(cpu, x86::kPageFault, x86::kPfWrite);
  // On MMIO.
  machine_.set_page(0x21000, 0xfee00000 | kP | kW);
  cpu.flush_tlb(false);
  buffer = cpu.begin_rmw(x86::kDs, 0x21000, 4, true);
  EXPECT_EQ(load_host<uint32_t>(buffer), 0xfee00000u ^ 0x5555);
  cpu.finish_rmw();
  EXPECT_EQ(machine_.io.mmio_writes.size(), 1u);
}

TEST_F(MemoryTest, InvlpgDropsAllOfALargePage) {
  Cpu& cpu = enter();
  machine_.poke<uint64_t>(Machine::kPageTables + 0x2008, 0x200000 | 0x87);  // 2 MiB page
  cpu.flush_tlb(false);
  uint8_t byte = 0;
  machine_.poke<uint8_t>(0x212345, 1);
  machine_.poke<uint8_t>(0x12345, 2);
  EXPECT_TRUE(cpu.load<uint8_t>(x86::kDs, 0x212345, byte));
  EXPECT_EQ(byte, 1);
  machine_.poke<uint64_t>(Machine::kPageTables + 0x2008, 0x87);  // remapped to 0
  EXPECT_TRUE(cpu.load<uint8_t>(x86::kDs, 0x212345, byte));
  EXPECT_EQ(byte, 1);
  cpu.flush_tlb_page(0x3ff000);  // another piece of the same page
  EXPECT_TRUE(cpu.load<uint8_t>(x86::kDs, 0x212345, byte));
  EXPECT_EQ(byte, 2);
}

TEST_F(MemoryTest, FlushesManyTimes) {
  Cpu& cpu = enter();
  uint8_t byte = 0;
  for (unsigned i = 0; i < 10000; ++i) {
    ASSERT_TRUE(cpu.load<uint8_t>(x86::kDs, 0x20000, byte));
    machine_.set_page(0x20000, i % 2 == 0 ? 0 : 0x20000 | 7);
    cpu.flush_tlb(i % 3 == 0);
    if (i % 2 == 0) {
      ASSERT_FALSE(cpu.load<uint8_t>(x86::kDs, 0x20000, byte));
      clear_fault(cpu);
      machine_.set_page(0x20000, 0x20000 | 7);
    }
  }
}

TEST_F(MemoryTest, AlignmentCheck) {
  Cpu& cpu = enter_user();
  cpu.state.cr0 |= x86::kCr0Am;
  cpu.set_rflags(cpu.rflags() | x86::kAc);
  cpu.update_mode();
  uint32_t value = 0;
  EXPECT_TRUE(cpu.load<uint32_t>(x86::kDs, 0x20004, value));
  EXPECT_FALSE(cpu.load<uint32_t>(x86::kDs, 0x20002, value));
  expect_fault(cpu, x86::kAlignmentCheck, 0);
  // It comes before a page fault, as processors do it.
  machine_.set_page(0x21000, 0);
  cpu.flush_tlb(false);
  EXPECT_FALSE(cpu.load<uint32_t>(x86::kDs, 0x21002, value));
  expect_fault(cpu, x86::kAlignmentCheck, 0);
  EXPECT_FALSE(cpu.load<uint32_t>(x86::kDs, 0x21004, value));
  expect_fault(cpu, x86::kPageFault, x86::kPfUser);
}

TEST_F(MemoryTest, DataBreakpoints) {
  Cpu& cpu = enter();
  cpu.state.dr[1] = 0x20010;
  cpu.state.dr7 = 0x400 | 1u << 2 | 1u << 20 | 3u << 22;  // L1, writes, 4 bytes
  cpu.update_mode();
  uint32_t value = 0;
  EXPECT_TRUE(cpu.load<uint32_t>(x86::kDs, 0x20010, value));
  EXPECT_EQ(cpu.debug_hits, 0u);
  EXPECT_TRUE(cpu.store<uint8_t>(x86::kDs, 0x20014, 1));
  EXPECT_EQ(cpu.debug_hits, 0u);
  EXPECT_TRUE(cpu.store<uint8_t>(x86::kDs, 0x20013, 1));
  EXPECT_EQ(cpu.debug_hits, 2u);
  cpu.debug_hits = 0;
  EXPECT_TRUE(cpu.store<uint64_t>(x86::kDs, 0x2000c, 1));
  EXPECT_EQ(cpu.debug_hits, 2u);
}

TEST_F(MemoryTest, LimitsAndTypes) {
  machine_.enter_32({});
  Cpu& cpu = prepare(machine_);
  x86::Segment& data = cpu.state.segments[x86::kDs];
  uint32_t value = 0;
  const auto set = [&](uint32_t limit, uint32_t attributes) {
    data.limit = limit;
    data.attributes = attributes;
    cpu.update_mode();
  };
  set(0x20fff, 0x4093);
  EXPECT_TRUE(cpu.load<uint32_t>(x86::kDs, 0x20ffc, value));
  EXPECT_FALSE(cpu.load<uint32_t>(x86::kDs, 0x20ffd, value));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  set(0x20fff, 0x4097);  // expand-down, 32-bit
  EXPECT_FALSE(cpu.load<uint32_t>(x86::kDs, 0x20fff, value));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_TRUE(cpu.load<uint32_t>(x86::kDs, 0x21000, value));
  set(0xfff, 0x0097);  // 16-bit: up to FFFFH
  EXPECT_TRUE(cpu.load<uint32_t>(x86::kDs, 0xfffc, value));
  EXPECT_FALSE(cpu.load<uint32_t>(x86::kDs, 0xfffd, value));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  set(0xffffffff, 0xc091);  // read-only
  EXPECT_TRUE(cpu.load<uint32_t>(x86::kDs, 0, value));
  EXPECT_FALSE(cpu.store<uint32_t>(x86::kDs, 0, value));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  set(0xffffffff, 0xc099);  // execute-only
  EXPECT_FALSE(cpu.load<uint32_t>(x86::kDs, 0, value));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  cpu.state.segments[x86::kSs].limit = 0xfff;
  cpu.update_mode();
  EXPECT_FALSE(cpu.load<uint32_t>(x86::kSs, 0x1000, value));
  expect_fault(cpu, x86::kStackFault, 0);
}

TEST_F(MemoryTest, FetchRights) {
  Cpu& cpu = enter();
  constexpr uint64_t kXd = uint64_t{1} << 63;
  machine_.set_page(0x21000, 0x21000 | kP | kW);
  machine_.set_page(0x22000, 0x22000 | kP | kW | kU | kXd);
  Translation out;
  EXPECT_TRUE(cpu.translate_fetch(0x21123, out));
  EXPECT_EQ(out.gpa.value(), 0x21123u);
  EXPECT_FALSE(cpu.translate_fetch(0x22123, out));
  EXPECT_EQ(cpu.state.cr2, 0x22123u);
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent | x86::kPfFetch);
  cpu.state.cr4 |= x86::kCr4Smep;
  cpu.update_mode();
  EXPECT_FALSE(cpu.translate_fetch(0x20000, out));  // a user page
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent | x86::kPfFetch);
  EXPECT_TRUE(cpu.translate_fetch(0x21000, out));
  EXPECT_FALSE(cpu.translate_fetch(0x800000000000, out));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  cpu.state.segments[x86::kSs].attributes |= 0x60;
  cpu.update_mode();
  EXPECT_TRUE(cpu.translate_fetch(0x20000, out));
  EXPECT_FALSE(cpu.translate_fetch(0x21000, out));
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent | x86::kPfFetch | x86::kPfUser);
}

GUEST_CODE(split_increments, "64", R"(
  mov ecx, 3000
1: lock inc dword ptr [0x20ffe]
  dec ecx
  jnz 1b
)" DONE);
GUEST_CODE(byte_increments, "64", R"(
  mov ecx, 300000
1: lock inc byte ptr [0x21001]
  dec ecx
  jnz 1b
)" DONE);

/// A locked operand across two pages is atomic against other vCPUs, whether they split too or not.
TEST(SplitLock, AtomicAgainstOtherVcpus) {
  for (const bool both_split : {true, false}) {
    Machine machine;
    machine.enter_64(both_split ? split_increments : byte_increments, 0x12000);
    const x86::CpuState other_state = machine.state;
    machine.enter_64(split_increments);
    VcpuSignal signal;
    TestIo io;
    io.signal = &signal;
    InterpVcpu other(VcpuConfig{.id = VcpuId{1}, .cpuid = machine.cpuid, .signal = &signal}, machine.memory,
                     machine.clock, machine.safepoint);
    ASSERT_TRUE(other.prepare());
    ASSERT_TRUE(other.set_state(other_state));
    std::thread thread([&] { other.run(io); });
    machine.run_to_done();
    thread.join();
    const uint32_t wanted = both_split ? 6000 : 3000 + (300000u % 256 << 24);
    EXPECT_EQ(machine.peek<uint32_t>(0x20ffe), wanted);
  }
}

}  // namespace
}  // namespace tenon::interp
