// Delivery of exceptions and interrupts in every mode, and IRET back.
#include "engine/interp/event.hh"

#include "engine/interp/far_transfer.hh"
#include "engine/interp/segment.hh"
#include "engine/interp/system_test_support.hh"

namespace tenon::interp {
namespace {

using Machine = TestMachine;
constexpr uint64_t kHandler = 0x5000;
constexpr uint64_t kUserStack = 0x31000;

uint64_t stack64(const Machine& machine, uint64_t rsp, unsigned slot) { return machine.peek<uint64_t>(rsp + 8 * slot); }

/// 64-bit code at CPL 3.
void enter_user_64(Machine& machine) {
  machine.enter_64({});
  machine.state.segments[x86::kCs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xa0fb, .selector = 0x23};
  machine.state.segments[x86::kSs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xc0f3, .selector = 0x1b};
  machine.state.gpr[x86::kRsp] = kUserStack;
  machine.state.rflags = x86::kFlagsOne | x86::kIf | x86::kZf;
}

// --- IA-32e mode.

TEST(EventLong, InterruptFromUserSwitchesToRsp0) {
  Machine machine;
  enter_user_64(machine);
  machine.set_gate_64(0x40, kHandler);
  machine.poke<uint64_t>(Machine::kTss + 4, 0x30008);  // not aligned: delivery aligns
  Cpu& cpu = prepare(machine);
  deliver_interrupt(cpu, 0x40);
  EXPECT_EQ(cpu.rip, kHandler);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(cpu.gpr[x86::kRsp], 0x30000u - 40);
  const uint64_t rsp = cpu.gpr[x86::kRsp];
  EXPECT_EQ(stack64(machine, rsp, 0), Machine::kCode);
  EXPECT_EQ(stack64(machine, rsp, 1), 0x23u);
  EXPECT_EQ(stack64(machine, rsp, 2), x86::kFlagsOne | x86::kIf | x86::kZf);
  EXPECT_EQ(stack64(machine, rsp, 3), kUserStack);
  EXPECT_EQ(stack64(machine, rsp, 4), 0x1bu);
  EXPECT_EQ(cpu.state.segments[x86::kSs].selector, 0);
  EXPECT_TRUE(cpu.state.segments[x86::kSs].unusable());
  EXPECT_EQ(cpu.rflags() & x86::kIf, 0u);

  // And back with a 64-bit IRET.
  EXPECT_TRUE(interrupt_return(cpu, 8, cpu.rip + 2));
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.rip, Machine::kCode);
  EXPECT_EQ(cpu.gpr[x86::kRsp], kUserStack);
  EXPECT_EQ(cpu.rflags(), x86::kFlagsOne | x86::kIf | x86::kZf);
}

TEST(EventLong, TrapGateKeepsIf) {
  Machine machine;
  enter_user_64(machine);
  machine.set_gate_64(0x41, kHandler, 0, 15);
  Cpu& cpu = prepare(machine);
  deliver_interrupt(cpu, 0x41);
  EXPECT_NE(cpu.rflags() & x86::kIf, 0u);
}

TEST(EventLong, SameLevelAlignsTheStackAndPushesSs) {
  Machine machine;
  machine.enter_64({});
  machine.set_gate_64(0x40, kHandler);
  machine.state.gpr[x86::kRsp] = 0x2fff5;
  Cpu& cpu = prepare(machine);
  deliver_interrupt(cpu, 0x40);
  EXPECT_EQ(cpu.gpr[x86::kRsp], 0x2fff0u - 40);
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 3), 0x2fff5u);
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 4), 0x10u);
  EXPECT_EQ(cpu.state.segments[x86::kSs].selector, 0x10);
}

TEST(EventLong, InterruptStackTable) {
  Machine machine;
  machine.enter_64({});
  machine.set_gate_64(8, kHandler);
  machine.poke<uint8_t>(Machine::kIdt + 8 * 16 + 4, 2);  // IST2
  machine.poke<uint64_t>(Machine::kTss + 36 + 8, 0x29018);
  Cpu& cpu = prepare(machine);
  cpu.raise(x86::kDoubleFault, 0);
  deliver_fault(cpu);
  EXPECT_EQ(cpu.gpr[x86::kRsp], 0x29010u - 48);
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 0), 0u);  // error code
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 1), Machine::kCode);
}

TEST(EventLong, FaultsPushRfAndTrapsDoNot) {
  Machine machine;
  machine.enter_64({});
  machine.set_gate_64(x86::kInvalidOpcode, kHandler);
  machine.set_gate_64(x86::kDebug, kHandler);
  Cpu& cpu = prepare(machine);
  cpu.raise(x86::kInvalidOpcode);
  deliver_fault(cpu);
  EXPECT_NE(stack64(machine, cpu.gpr[x86::kRsp], 2) & x86::kRf, 0u);
  EXPECT_EQ(cpu.rflags() & x86::kRf, 0u);

  deliver_debug(cpu, 1u << 14, false);
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 2) & x86::kRf, 0u);
  EXPECT_NE(cpu.state.dr6 & 1u << 14, 0u);
  deliver_debug(cpu, 1, true);  // instruction breakpoint
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 2) & x86::kRf, 0u);
  cpu.state.dr7 |= 1u << 13;
  deliver_debug(cpu, 1u << 13, true);  // general detect
  EXPECT_NE(stack64(machine, cpu.gpr[x86::kRsp], 2) & x86::kRf, 0u);
  EXPECT_EQ(cpu.state.dr7 & 1u << 13, 0u);
}

TEST(EventLong, SoftwareInterruptNeedsTheGatesDpl) {
  Machine machine;
  enter_user_64(machine);
  machine.set_gate_64(0x80, kHandler, 0);
  machine.set_gate_64(0x81, kHandler, 3);
  machine.set_gate_64(x86::kGeneralProtection, kHandler + 16);
  Cpu& cpu = prepare(machine);
  cpu.rip = Machine::kCode + 2;
  software_interrupt(cpu, 0x80, SoftwareInterrupt::kIntN, Machine::kCode);
  EXPECT_EQ(cpu.rip, kHandler + 16);
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 0), 0x80u * 8 + 2);  // IDT, not EXT
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 1), Machine::kCode);
  EXPECT_NE(stack64(machine, cpu.gpr[x86::kRsp], 3) & x86::kRf, 0u);

  enter_user_64(machine);
  prepare(machine);
  cpu.rip = Machine::kCode + 2;
  software_interrupt(cpu, 0x81, SoftwareInterrupt::kIntN, Machine::kCode);
  EXPECT_EQ(cpu.rip, kHandler);
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 0), Machine::kCode + 2);

  // INT1 does not look at the DPL.
  machine.set_gate_64(1, kHandler + 32, 0);
  enter_user_64(machine);
  prepare(machine);
  cpu.rip = Machine::kCode + 1;
  software_interrupt(cpu, 1, SoftwareInterrupt::kInt1, Machine::kCode);
  EXPECT_EQ(cpu.rip, kHandler + 32);
}

TEST(EventLong, FaultsOfExternalDeliveryCarryExt) {
  Machine machine;
  machine.enter_64({});
  machine.set_gate_64(0x40, kHandler);
  machine.poke<uint8_t>(Machine::kIdt + 0x40 * 16 + 5, 0x0e);  // not present
  machine.set_gate_64(x86::kSegmentNotPresent, kHandler + 16);
  machine.set_gate_64(x86::kGeneralProtection, kHandler + 32);
  Cpu& cpu = prepare(machine);
  deliver_interrupt(cpu, 0x40);
  EXPECT_EQ(cpu.rip, kHandler + 16);
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 0), 0x40u * 8 + 3);
  // Beyond the limit of the IDT; a 16-bit gate type; a 32-bit code segment.
  cpu.state.idtr.limit = 0x40 * 16 - 1;
  deliver_interrupt(cpu, 0x40);
  EXPECT_EQ(cpu.rip, kHandler + 32);
  cpu.state.idtr.limit = 0xfff;
  machine.poke<uint8_t>(Machine::kIdt + 0x40 * 16 + 5, 0x86);
  deliver_interrupt(cpu, 0x40);
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 0), 0x40u * 8 + 3);
  machine.set_gate_64(0x40, kHandler);
  machine.poke<uint16_t>(Machine::kIdt + 0x40 * 16 + 2, 0x28);
  deliver_interrupt(cpu, 0x40);
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 0), 0x28u + 1);
}

TEST(EventLong, DoubleFaultTable) {
  struct Case {
    uint8_t first;
    bool first_is_contributory;
    unsigned expected;  // vector delivered in the end
  };
  // The first event's gate is not present (#NP, contributory).
  const Case cases[] = {{x86::kDivideError, true, x86::kDoubleFault},
                        {x86::kGeneralProtection, true, x86::kDoubleFault},
                        {x86::kPageFault, true, x86::kDoubleFault},
                        {x86::kInvalidOpcode, false, x86::kSegmentNotPresent},
                        {x86::kAlignmentCheck, false, x86::kSegmentNotPresent}};
  for (const Case& test : cases) {
    Machine machine;
    machine.enter_64({});
    machine.set_gate_64(x86::kDoubleFault, kHandler + 8 * 16);
    machine.set_gate_64(x86::kSegmentNotPresent, kHandler + 11 * 16);
    machine.set_gate_64(test.first, kHandler);
    machine.poke<uint8_t>(Machine::kIdt + test.first * 16 + 5, 0x0e);
    Cpu& cpu = prepare(machine);
    if (test.first == x86::kDivideError || test.first == x86::kInvalidOpcode) {
      cpu.raise(static_cast<x86::Vector>(test.first));
    } else {
      cpu.raise(static_cast<x86::Vector>(test.first), 0);
    }
    deliver_fault(cpu);
    EXPECT_EQ(cpu.rip, kHandler + test.expected * 16) << unsigned{test.first};
    EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 0), test.expected == x86::kDoubleFault ? 0u : test.first * 8u + 3);
  }
}

TEST(EventLong, PageFaultWhilePushingAPageFaultIsADoubleFault) {
  Machine machine;
  machine.enter_64({});
  machine.set_gate_64(x86::kDoubleFault, kHandler);
  machine.set_gate_64(x86::kPageFault, kHandler + 16);
  machine.poke<uint8_t>(Machine::kIdt + 8 * 16 + 4, 1);
  machine.poke<uint64_t>(Machine::kTss + 36, 0x29000);
  machine.state.gpr[x86::kRsp] = 0x500000;  // unmapped
  Cpu& cpu = prepare(machine);
  cpu.raise(x86::kPageFault, 0);
  deliver_fault(cpu);
  EXPECT_EQ(cpu.rip, kHandler);
  EXPECT_EQ(cpu.state.cr2, 0x500000u - 8);
}

TEST(EventLong, ContributoryThenPageFaultIsDeliveredSerially) {
  Machine machine;
  machine.enter_64({});
  machine.set_gate_64(x86::kPageFault, kHandler);
  machine.poke<uint8_t>(Machine::kIdt + 14 * 16 + 4, 1);
  machine.poke<uint64_t>(Machine::kTss + 36, 0x29000);
  machine.set_gate_64(x86::kGeneralProtection, kHandler + 16);
  machine.state.gpr[x86::kRsp] = 0x500000;
  Cpu& cpu = prepare(machine);
  cpu.raise(x86::kGeneralProtection, 0);
  deliver_fault(cpu);
  EXPECT_EQ(cpu.rip, kHandler);
  EXPECT_EQ(stack64(machine, cpu.gpr[x86::kRsp], 0), 2u);  // write, supervisor, not present; no EXT in #PF
}

TEST(EventLong, TripleFaultShutsDown) {
  Machine machine;
  machine.enter_64({});
  Cpu& cpu = prepare(machine);
  cpu.raise(x86::kGeneralProtection, 0);
  deliver_fault(cpu);
  EXPECT_EQ(cpu.state.activity, x86::Activity::kShutdown);
}

TEST(EventLong, NmiIsBlockedUntilIret) {
  Machine machine;
  machine.enter_64({});
  machine.set_gate_64(2, kHandler);
  Cpu& cpu = prepare(machine);
  deliver_nmi(cpu);
  EXPECT_EQ(cpu.rip, kHandler);
  EXPECT_TRUE(cpu.state.nmi_blocked);
  EXPECT_TRUE(interrupt_return(cpu, 8, 0));
  EXPECT_FALSE(cpu.state.nmi_blocked);
  EXPECT_EQ(cpu.rip, Machine::kCode);
}

// --- Protected mode. Selectors: 28 ring-0 code, 10 ring-0 data, 3b ring-3 code, 1b ring-3 data.

constexpr uint16_t kTss32Selector = 0x30;

void enter_protected(Machine& machine, bool user) {
  machine.enter_32({});
  machine.poke<uint64_t>(Machine::kGdt + 0x30, make_descriptor(Machine::kTss, 0x2067, 0x008b));
  machine.poke<uint64_t>(Machine::kGdt + 0x38, make_descriptor(0, 0xfffff, 0xc0fb));
  machine.poke<uint64_t>(Machine::kGdt + 0x40, make_descriptor(0, 0xffff, 0x009b));  // 16-bit code
  machine.poke<uint32_t>(Machine::kTss + 4, 0x30000);
  machine.poke<uint16_t>(Machine::kTss + 8, 0x10);
  machine.state.gdtr.limit = 0xff;
  machine.state.tr.limit = 0x2067;
  machine.state.tr.selector = kTss32Selector;
  machine.state.segments[x86::kCs].selector = 0x28;
  if (!user) return;
  machine.state.segments[x86::kCs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xc0fb, .selector = 0x3b};
  machine.state.segments[x86::kSs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xc0f3, .selector = 0x1b};
  machine.state.segments[x86::kDs] = machine.state.segments[x86::kSs];
  machine.state.gpr[x86::kRsp] = kUserStack;
}

void set_gate_32(Machine& machine, unsigned vector, uint64_t gate) {
  machine.poke<uint64_t>(Machine::kIdt + 8 * vector, gate);
}

TEST(EventProtected, InnerLevelThrough32BitGate) {
  Machine machine;
  enter_protected(machine, true);
  set_gate_32(machine, x86::kGeneralProtection, make_gate(0x28, kHandler, 0x8e));
  machine.state.rflags = x86::kFlagsOne | x86::kIf | x86::kNt | x86::kTf;
  Cpu& cpu = prepare(machine);
  cpu.raise(x86::kGeneralProtection, 0x18);
  deliver_fault(cpu);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(cpu.rip, kHandler);
  EXPECT_EQ(cpu.gpr[x86::kRsp], 0x30000u - 24);
  const uint32_t expected[] = {0x18, Machine::kCode, 0x3b, 0x10000 | 0x4000 | 0x300 | 2, kUserStack, 0x1b};
  for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(machine.peek<uint32_t>(cpu.gpr[x86::kRsp] + 4 * i), expected[i]) << i;
  EXPECT_EQ(cpu.rflags(), uint64_t{x86::kFlagsOne});
  EXPECT_EQ(cpu.state.segments[x86::kSs].selector, 0x10);

  cpu.gpr[x86::kRsp] += 4;  // the handler drops the error code
  EXPECT_TRUE(interrupt_return(cpu, 4, 0));
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.gpr[x86::kRsp], kUserStack);
  EXPECT_EQ(cpu.state.segments[x86::kDs].selector, 0x1b);
}

TEST(EventProtected, IretToOuterLevelDropsPrivilegedSegments) {
  Machine machine;
  enter_protected(machine, false);
  const uint32_t frame[] = {Machine::kCode, 0x3b, 2, kUserStack, 0x1b};
  for (unsigned i = 0; i < 5; ++i) machine.poke<uint32_t>(Machine::kStack + 4 * i, frame[i]);
  Cpu& cpu = prepare(machine);
  EXPECT_TRUE(interrupt_return(cpu, 4, 0));
  EXPECT_TRUE(cpu.state.segments[x86::kDs].unusable());
  EXPECT_TRUE(cpu.state.segments[x86::kEs].unusable());
  uint32_t value = 0;
  EXPECT_FALSE(cpu.load<uint32_t>(x86::kDs, 0, value));
  expect_fault(cpu, x86::kGeneralProtection, 0);
}

TEST(EventProtected, SixteenBitGatePushesWords) {
  Machine machine;
  enter_protected(machine, false);
  set_gate_32(machine, 0x40, make_gate(0x28, 0x5000, 0x87));  // 16-bit trap gate
  machine.state.rflags |= x86::kIf;
  Cpu& cpu = prepare(machine);
  deliver_interrupt(cpu, 0x40);
  EXPECT_EQ(cpu.gpr[x86::kRsp], Machine::kStack - 6);
  EXPECT_EQ(machine.peek<uint16_t>(Machine::kStack - 4), 0x28);
  EXPECT_NE(cpu.rflags() & x86::kIf, 0u);
}

TEST(EventProtected, BadInnerStackIsInvalidTss) {
  Machine machine;
  enter_protected(machine, true);
  set_gate_32(machine, 0x40, make_gate(0x28, kHandler, 0xee));
  machine.poke<uint16_t>(Machine::kTss + 8, 0x1b);  // ring-3 stack for ring 0
  Cpu& cpu = prepare(machine);
  cpu.rip = 2;
  machine.poke<uint64_t>(Machine::kIdt + 8 * 10, make_gate(0x28, kHandler, 0x85));
  software_interrupt(cpu, 0x40, SoftwareInterrupt::kIntN, 0);
  // #TS cannot be delivered either: its stack is as bad. Contributory twice, then #DF: shutdown.
  EXPECT_EQ(cpu.state.activity, x86::Activity::kShutdown);
}

// --- Virtual-8086 mode.

void enter_virtual_8086(Machine& machine, unsigned iopl) {
  enter_protected(machine, true);
  machine.state.rflags = x86::kFlagsOne | x86::kVm | x86::kIf | uint64_t{iopl} << 12;
  for (unsigned i = 0; i < x86::kSegmentCount; ++i) {
    machine.state.segments[i] = {.base = 0x1000u * (i + 1),
                                 .limit = 0xffff,
                                 .attributes = 0xf3,
                                 .selector = static_cast<uint16_t>(0x100 * (i + 1))};
  }
  machine.state.rip = 0x10;
  machine.state.gpr[x86::kRsp] = 0x100;
}

TEST(EventVirtual8086, ToRing0WithAllSegmentsAndBack) {
  Machine machine;
  enter_virtual_8086(machine, 3);
  set_gate_32(machine, 0x21, make_gate(0x28, kHandler, 0xee));
  Cpu& cpu = prepare(machine);
  EXPECT_EQ(cpu.cpl, 3);
  cpu.rip = 0x12;
  software_interrupt(cpu, 0x21, SoftwareInterrupt::kIntN, 0x10);
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(cpu.rip, kHandler);
  EXPECT_EQ(cpu.rflags() & x86::kVm, 0u);
  const uint32_t expected[] = {0x12, 0x200, 0x23202, 0x100, 0x300, 0x100, 0x400, 0x500, 0x600};
  for (unsigned i = 0; i < 9; ++i) EXPECT_EQ(machine.peek<uint32_t>(cpu.gpr[x86::kRsp] + 4 * i), expected[i]) << i;
  EXPECT_TRUE(cpu.state.segments[x86::kDs].unusable());
  EXPECT_TRUE(interrupt_return(cpu, 4, 0));
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.rip, 0x12u);
  EXPECT_EQ(cpu.state.segments[x86::kGs].base, 0x6000u);
  EXPECT_EQ(cpu.rflags() & x86::kVm, uint64_t{x86::kVm});
}

TEST(EventVirtual8086, IntNNeedsIopl3WithoutVme) {
  Machine machine;
  enter_virtual_8086(machine, 0);
  set_gate_32(machine, 0x21, make_gate(0x28, kHandler, 0xee));
  set_gate_32(machine, 13, make_gate(0x28, kHandler + 16, 0x8e));
  Cpu& cpu = prepare(machine);
  cpu.rip = 0x12;
  software_interrupt(cpu, 0x21, SoftwareInterrupt::kIntN, 0x10);
  EXPECT_EQ(cpu.rip, kHandler + 16);
  EXPECT_EQ(machine.peek<uint32_t>(cpu.gpr[x86::kRsp]), 0u);
  EXPECT_EQ(machine.peek<uint32_t>(cpu.gpr[x86::kRsp] + 4), 0x10u);
}

TEST(EventVirtual8086, VmeRedirectsByBitmap) {
  Machine machine;
  enter_virtual_8086(machine, 0);
  machine.state.cr4 = x86::kCr4Vme;
  machine.state.rflags |= x86::kVif;
  machine.poke<uint16_t>(Machine::kTss + 0x66, 0x88);  // I/O map at 88H, redirection map at 68H
  machine.poke<uint16_t>(0x21 * 4, 0x77);              // IVT
  machine.poke<uint16_t>(0x21 * 4 + 2, 0x1234);
  set_gate_32(machine, 13, make_gate(0x28, kHandler, 0x8e));
  Cpu& cpu = prepare(machine);
  cpu.rip = 0x12;
  software_interrupt(cpu, 0x21, SoftwareInterrupt::kIntN, 0x10);
  EXPECT_EQ(cpu.rip, 0x77u);
  EXPECT_EQ(cpu.state.segments[x86::kCs].base, 0x12340u);
  EXPECT_EQ(cpu.gpr[x86::kRsp], 0x100u - 6);
  // The image has IOPL 3 and IF = VIF; VIF, not IF, is cleared.
  EXPECT_EQ(machine.peek<uint16_t>(0x3000 + 0x100 - 2), 0x3202);
  EXPECT_EQ(cpu.rflags() & (x86::kIf | x86::kVif), uint64_t{x86::kIf});
  // A 16-bit IRET gives VIF back.
  EXPECT_TRUE(interrupt_return(cpu, 2, 0));
  EXPECT_EQ(cpu.rip, 0x12u);
  EXPECT_NE(cpu.rflags() & x86::kVif, 0u);
  // With the bit set it is #GP at IOPL 0.
  machine.poke<uint8_t>(Machine::kTss + 0x68 + 4, 2);
  software_interrupt(cpu, 0x21, SoftwareInterrupt::kIntN, 0x10);
  EXPECT_EQ(cpu.rip, kHandler);
}

// --- Real mode.

GUEST_CODE(real_int, "16", R"(
  mov word ptr ds:[0x84], 0x8100
  mov word ptr ds:[0x86], 0
  sti
  stc
  int 0x21
  mov bx, 0x1111
)" DONE);
GUEST_CODE(real_handler, "16", R"(
  mov si, sp
  mov cx, ss:[si + 4]
  pushf
  pop dx
  clc
  iret
)");

// The program sets up IVT entry 21h; the handler looks at the pushed flags.
TEST(EventReal, IntAndIret) {
  Machine machine;
  machine.enter_16(real_int);
  machine.load(0x8100, real_handler);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx) & 0xffff, 0x1111u);
  EXPECT_EQ(machine.gpr(x86::kRcx) & 0x201, 0x201u);  // IF and CF as they were
  EXPECT_EQ(machine.gpr(x86::kRdx) & 0x300, 0u);      // IF and TF clear in the handler
  EXPECT_EQ(machine.gpr(x86::kRsp) & 0xffff, 0x7000u);
  EXPECT_NE(machine.state.rflags & x86::kCf, 0u);
}

TEST(EventReal, NoRoomInTheTableShutsDown) {
  Machine machine;
  machine.enter_16(real_int);
  machine.state.idtr.limit = 3;
  EXPECT_EQ(machine.run().reason, Halt::Reason::kTripleFault);
}

}  // namespace
}  // namespace tenon::interp
