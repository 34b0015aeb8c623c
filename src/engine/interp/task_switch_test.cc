// Task switches by JMP, CALL, task gate and IRET, and the TSS's bitmaps.
#include "engine/interp/task_switch.hh"

#include "engine/interp/event.hh"
#include "engine/interp/far_transfer.hh"
#include "engine/interp/system_test_support.hh"

namespace tenon::interp {
namespace {

using Machine = TestMachine;
constexpr uint64_t kNewTss = 0x6000;
constexpr uint16_t kOldSelector = 0x30, kNewSelector = 0x38, kTaskGateSelector = 0x40, kTss16Selector = 0x48,
                   kUserCode = 0x50;

class TaskSwitchTest : public testing::Test {
 protected:
  Cpu& enter() {
    machine_.enter_32({});
    machine_.poke<uint64_t>(Machine::kGdt + kOldSelector, make_descriptor(Machine::kTss, 0x2067, 0x008b));
    machine_.poke<uint64_t>(Machine::kGdt + kNewSelector, make_descriptor(kNewTss, 0x67, 0x0089));
    machine_.poke<uint64_t>(Machine::kGdt + kTaskGateSelector, make_gate(kNewSelector, 0, 0x85));
    machine_.poke<uint64_t>(Machine::kGdt + kTss16Selector, make_descriptor(kNewTss, 0x2b, 0x0081));
    machine_.poke<uint64_t>(Machine::kGdt + kUserCode, make_descriptor(0, 0xfffff, 0xc0fb));
    machine_.state.gdtr.limit = 0x5f;
    machine_.state.segments[x86::kCs].selector = 0x28;
    machine_.state.tr = {.base = Machine::kTss, .limit = 0x2067, .attributes = 0x8b, .selector = kOldSelector};
    machine_.state.gpr[x86::kRbx] = 0xb0b0;
    put32(0x1c, 0xabcdef000);  // CR3: not loaded without paging
    put32(0x20, 0x5000);
    put32(0x24, 0x2 | x86::kCf);
    put32(0x28, 0xa);      // EAX
    put32(0x34, 0xb);      // EBX
    put32(0x38, 0x2e000);  // ESP
    const uint32_t selectors[] = {0x10, 0x28, 0x10, 0x10, 0, 0x10};
    for (unsigned i = 0; i < 6; ++i) put32(0x48 + 4 * i, selectors[i]);
    put32(0x60, 0);
    put32(0x64, 0);
    return prepare(machine_);
  }
  void put32(uint64_t offset, uint64_t value) {
    machine_.poke<uint32_t>(kNewTss + offset, static_cast<uint32_t>(value));
  }
  uint8_t type_of(uint16_t selector) { return machine_.peek<uint8_t>(Machine::kGdt + selector + 5) & 0xf; }
  Machine machine_;
};

TEST_F(TaskSwitchTest, JumpReplacesTheTask) {
  Cpu& cpu = enter();
  EXPECT_TRUE(far_jump(cpu, kNewSelector, 0, 0x10007));
  EXPECT_EQ(cpu.rip, 0x5000u);
  EXPECT_EQ(cpu.gpr[x86::kRbx], 0xbu);
  EXPECT_EQ(cpu.gpr[x86::kRsp], 0x2e000u);
  EXPECT_EQ(cpu.rflags(), x86::kFlagsOne | x86::kCf);
  EXPECT_EQ(cpu.state.cr0 & x86::kCr0Ts, uint64_t{x86::kCr0Ts});
  EXPECT_EQ(cpu.state.cr3, 0u);
  EXPECT_EQ(cpu.state.tr.selector, kNewSelector);
  EXPECT_EQ(cpu.state.tr.type(), 11u);
  EXPECT_TRUE(cpu.state.segments[x86::kFs].unusable());
  EXPECT_EQ(type_of(kOldSelector), 9);
  EXPECT_EQ(type_of(kNewSelector), 11);
  EXPECT_EQ(machine_.peek<uint32_t>(Machine::kTss + 0x20), 0x10007u);
  EXPECT_EQ(machine_.peek<uint32_t>(Machine::kTss + 0x34), 0xb0b0u);
  EXPECT_EQ(machine_.peek<uint16_t>(Machine::kTss + 0x4c), 0x28);
}

TEST_F(TaskSwitchTest, CallNestsAndIretReturns) {
  Cpu& cpu = enter();
  EXPECT_TRUE(far_call(cpu, kTaskGateSelector, 0, 4, 0x10007));
  EXPECT_NE(cpu.rflags() & x86::kNt, 0u);
  EXPECT_EQ(machine_.peek<uint16_t>(kNewTss), kOldSelector);
  EXPECT_EQ(type_of(kOldSelector), 11);
  cpu.gpr[x86::kRax] = 0x77;
  EXPECT_TRUE(interrupt_return(cpu, 4, 0x5001));
  EXPECT_EQ(cpu.rip, 0x10007u);
  EXPECT_EQ(cpu.gpr[x86::kRbx], 0xb0b0u);
  EXPECT_EQ(cpu.rflags() & x86::kNt, 0u);
  EXPECT_EQ(type_of(kNewSelector), 9);
  EXPECT_EQ(machine_.peek<uint32_t>(kNewTss + 0x20), 0x5001u);
  EXPECT_EQ(machine_.peek<uint32_t>(kNewTss + 0x28), 0x77u);
  EXPECT_EQ(machine_.peek<uint32_t>(kNewTss + 0x24) & x86::kNt, 0u);
}

TEST_F(TaskSwitchTest, DoubleFaultThroughATaskGatePushesItsErrorCode) {
  Cpu& cpu = enter();
  machine_.poke<uint64_t>(Machine::kIdt + 8 * 8, make_gate(kNewSelector, 0, 0x85));
  cpu.raise(x86::kDoubleFault, 0);
  deliver_fault(cpu);
  EXPECT_EQ(cpu.rip, 0x5000u);
  EXPECT_EQ(cpu.gpr[x86::kRsp], 0x2e000u - 4);
  EXPECT_EQ(machine_.peek<uint32_t>(0x2e000 - 4), 0u);
  EXPECT_EQ(machine_.peek<uint32_t>(Machine::kTss + 0x20), Machine::kCode);
}

TEST_F(TaskSwitchTest, ChecksBeforeTheSwitchFaultInTheOldTask) {
  Cpu& cpu = enter();
  machine_.poke<uint8_t>(Machine::kGdt + kNewSelector + 5, 0x8b);  // busy
  EXPECT_FALSE(far_jump(cpu, kNewSelector, 0, 0x10007));
  expect_fault(cpu, x86::kGeneralProtection, kNewSelector);
  machine_.poke<uint8_t>(Machine::kGdt + kNewSelector + 5, 0x09);  // not present
  EXPECT_FALSE(far_jump(cpu, kNewSelector, 0, 0x10007));
  expect_fault(cpu, x86::kSegmentNotPresent, kNewSelector);
  machine_.poke<uint64_t>(Machine::kGdt + kNewSelector, make_descriptor(kNewTss, 0x66, 0x0089));
  EXPECT_FALSE(far_jump(cpu, kNewSelector, 0, 0x10007));
  expect_fault(cpu, x86::kInvalidTss, kNewSelector);
  EXPECT_EQ(cpu.rip, Machine::kCode);
  EXPECT_EQ(cpu.state.tr.selector, kOldSelector);
  EXPECT_EQ(type_of(kOldSelector), 11);
}

TEST_F(TaskSwitchTest, BadSegmentsFaultInTheNewTask) {
  struct Case {
    unsigned offset;
    uint32_t value;
    unsigned vector;
    uint32_t error;
  };
  const Case cases[] = {
      {0x4c, 0, x86::kInvalidTss, 0},        // CS null
      {0x4c, 0x10, x86::kInvalidTss, 0x10},  // CS is data
      {0x50, 0x18, x86::kInvalidTss, 0x18},  // SS of another level
      {0x54, 0x68, x86::kInvalidTss, 0x68},  // DS beyond the GDT
      {0x60, 0x28, x86::kInvalidTss, 0x28},  // LDT is code
  };
  for (const Case& test : cases) {
    Cpu& cpu = enter();
    put32(test.offset, test.value);
    EXPECT_FALSE(far_jump(cpu, kNewSelector, 0, 0x10007));
    expect_fault(cpu, test.vector, test.error);
    EXPECT_EQ(cpu.rip, 0x5000u);
    EXPECT_EQ(cpu.state.tr.selector, kNewSelector);
  }
}

TEST_F(TaskSwitchTest, TrapFlagOfTheTssRaisesDebug) {
  Cpu& cpu = enter();
  put32(0x64, 1);
  cpu.state.dr7 |= 0x3;  // L0, G0
  EXPECT_TRUE(far_jump(cpu, kNewSelector, 0, 0x10007));
  EXPECT_EQ(cpu.debug_hits, 1u << 15);
  EXPECT_EQ(cpu.state.dr7 & 3, 2u);
}

TEST_F(TaskSwitchTest, SixteenBitTss) {
  Cpu& cpu = enter();
  machine_.poke<uint16_t>(kNewTss + 0x0e, 0x5000);
  machine_.poke<uint16_t>(kNewTss + 0x10, 0x0002);
  machine_.poke<uint16_t>(kNewTss + 0x12, 0xaaaa);
  machine_.poke<uint16_t>(kNewTss + 0x1a, 0xe000);
  const uint16_t selectors[] = {0x10, 0x28, 0x10, 0x10};
  for (unsigned i = 0; i < 4; ++i) machine_.poke<uint16_t>(kNewTss + 0x22 + 2 * i, selectors[i]);
  machine_.poke<uint16_t>(kNewTss + 0x2a, 0);
  EXPECT_TRUE(far_call(cpu, kTss16Selector, 0, 4, 0x10007));
  EXPECT_EQ(cpu.rip, 0x5000u);
  EXPECT_EQ(cpu.gpr[x86::kRax] & 0xffff, 0xaaaau);
  EXPECT_EQ(cpu.gpr[x86::kRsp] & 0xffff, 0xe000u);
  EXPECT_EQ(cpu.state.tr.type(), 3u);
  EXPECT_TRUE(interrupt_return(cpu, 4, 0x5001));
  EXPECT_EQ(cpu.rip, 0x10007u);
}

TEST_F(TaskSwitchTest, ToVirtual8086) {
  Cpu& cpu = enter();
  put32(0x24, x86::kFlagsOne | x86::kVm);
  put32(0x4c, 0x1234);
  EXPECT_TRUE(far_jump(cpu, kNewSelector, 0, 0x10007));
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.state.segments[x86::kCs].base, 0x12340u);
}

TEST_F(TaskSwitchTest, IoBitmap) {
  Cpu& cpu = enter();
  machine_.poke<uint16_t>(Machine::kTss + 0x66, 0x68);
  machine_.poke<uint8_t>(Machine::kTss + 0x68 + 0x3f8 / 8, 0xf0);
  EXPECT_TRUE(io_bitmap_allows(cpu, 0x3f8, 4));
  EXPECT_FALSE(io_bitmap_allows(cpu, 0x3fa, 4));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  // 16 ports from 3f0: the second byte is looked at too.
  machine_.poke<uint8_t>(Machine::kTss + 0x68 + 0x400 / 8, 0x01);
  machine_.poke<uint8_t>(Machine::kTss + 0x68 + 0x3f8 / 8, 0x00);
  EXPECT_TRUE(io_bitmap_allows(cpu, 0x3fe, 2));
  EXPECT_FALSE(io_bitmap_allows(cpu, 0x3ff, 2));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  // The map ends with the segment: both bytes must be inside.
  EXPECT_TRUE(io_bitmap_allows(cpu, 0xfff7, 1));
  EXPECT_FALSE(io_bitmap_allows(cpu, 0xfff8, 1));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  cpu.state.tr.attributes = 0x83;  // a 16-bit TSS has no map
  EXPECT_FALSE(io_bitmap_allows(cpu, 0, 1));
  expect_fault(cpu, x86::kGeneralProtection, 0);
}

}  // namespace
}  // namespace tenon::interp
