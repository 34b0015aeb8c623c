// Far JMP, CALL, RET and IRET: gates, levels, modes, and what each check faults with.
#include "engine/interp/far_transfer.hh"

#include "engine/interp/system_handlers.hh"
#include "engine/interp/system_test_support.hh"

namespace tenon::interp {
namespace {

using Machine = TestMachine;

// Selectors beyond the harness's own (08 64-bit code, 10 data, 18 user data, 20 user 64-bit code, 28 32-bit code).
constexpr uint16_t kUserCode = 0x38, kConforming = 0x40, kCode16 = 0x48, kGate = 0x50, kNotPresent = 0x60,
                   kBothBits = 0x68;
constexpr uint64_t kUserStack = 0x31000;

void extend_gdt(Machine& machine) {
  machine.poke<uint64_t>(Machine::kGdt + kUserCode, make_descriptor(0, 0xfffff, 0xc0fb));
  machine.poke<uint64_t>(Machine::kGdt + kConforming, make_descriptor(0, 0xfffff, 0xc09f));
  machine.poke<uint64_t>(Machine::kGdt + kCode16, make_descriptor(0, 0xffff, 0x009b));
  machine.poke<uint64_t>(Machine::kGdt + kNotPresent, make_descriptor(0, 0xfffff, 0xc01b));
  machine.poke<uint64_t>(Machine::kGdt + kBothBits, make_descriptor(0, 0xfffff, 0xe09b));
  machine.state.gdtr.limit = 0x7f;
}

class FarTransferTest : public testing::Test {
 protected:
  Cpu& enter_protected(bool user = false) {
    machine_.enter_32({});
    extend_gdt(machine_);
    machine_.poke<uint32_t>(Machine::kTss + 4, 0x30000);
    machine_.poke<uint16_t>(Machine::kTss + 8, 0x10);
    machine_.state.segments[x86::kCs].selector = 0x28;
    if (user) {
      machine_.state.segments[x86::kCs] = {
          .base = 0, .limit = 0xffffffff, .attributes = 0xc0fb, .selector = kUserCode | 3};
      machine_.state.segments[x86::kSs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xc0f3, .selector = 0x1b};
      machine_.state.gpr[x86::kRsp] = kUserStack;
    }
    return prepare(machine_);
  }
  Cpu& enter_long(bool user = false) {
    machine_.enter_64({});
    extend_gdt(machine_);
    if (user) {
      machine_.state.segments[x86::kCs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xa0fb, .selector = 0x23};
      machine_.state.segments[x86::kSs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xc0f3, .selector = 0x1b};
      machine_.state.gpr[x86::kRsp] = kUserStack;
    }
    return prepare(machine_);
  }
  void push_frame(uint64_t rsp, unsigned width, std::initializer_list<uint64_t> values) {
    for (const uint64_t value : values) {
      if (width == 8) machine_.poke<uint64_t>(rsp, value);
      if (width == 4) machine_.poke<uint32_t>(rsp, static_cast<uint32_t>(value));
      if (width == 2) machine_.poke<uint16_t>(rsp, static_cast<uint16_t>(value));
      rsp += width;
    }
  }
  Machine machine_;
};

TEST_F(FarTransferTest, JumpChecks) {
  Cpu& cpu = enter_protected();
  struct Case {
    uint16_t selector;
    uint64_t offset;
    unsigned vector;
    uint32_t error;
  };
  const Case cases[] = {
      {0, 0, x86::kGeneralProtection, 0},
      {3, 0, x86::kGeneralProtection, 0},
      {0x80, 0, x86::kGeneralProtection, 0x80},            // beyond the table
      {0x0c, 0, x86::kGeneralProtection, 0x0c},            // no LDT
      {0x10, 0, x86::kGeneralProtection, 0x10},            // data
      {kUserCode, 0, x86::kGeneralProtection, kUserCode},  // DPL 3 from CPL 0
      {0x2b, 0, x86::kGeneralProtection, 0x28},            // RPL above CPL
      {kNotPresent, 0, x86::kSegmentNotPresent, kNotPresent},
      {kCode16, 0x10000, x86::kGeneralProtection, 0},  // beyond the limit
  };
  for (const Case& test : cases) {
    EXPECT_FALSE(far_jump(cpu, test.selector, test.offset, 0)) << test.selector;
    expect_fault(cpu, test.vector, test.error);
    EXPECT_EQ(cpu.rip, Machine::kCode);
  }
  EXPECT_TRUE(far_jump(cpu, kCode16, 0x1234, 0));
  EXPECT_EQ(cpu.rip, 0x1234u);
  EXPECT_EQ(cpu.code_size, x86::CodeSize::k16);
}

TEST_F(FarTransferTest, JumpSetsTheAccessedBit) {
  Cpu& cpu = enter_protected();
  machine_.poke<uint64_t>(Machine::kGdt + kCode16, make_descriptor(0, 0xffff, 0x009a));
  EXPECT_TRUE(far_jump(cpu, kCode16, 0, 0));
  EXPECT_EQ(machine_.peek<uint8_t>(Machine::kGdt + kCode16 + 5), 0x9b);
}

TEST_F(FarTransferTest, ConformingCodeKeepsCpl) {
  Cpu& cpu = enter_protected(true);
  EXPECT_TRUE(far_jump(cpu, kConforming, 0x5000, 0));
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.state.segments[x86::kCs].selector, kConforming | 3);
}

TEST_F(FarTransferTest, LongAndDefaultBitsTogetherAreRefused) {
  Cpu& cpu = enter_long();
  EXPECT_FALSE(far_jump(cpu, kBothBits, 0, 0));
  expect_fault(cpu, x86::kGeneralProtection, kBothBits);
  EXPECT_FALSE(far_jump(cpu, 0x08, 0x800000000000, 0));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_TRUE(far_jump(cpu, 0x28, 0x5000, 0));  // to compatibility mode
  EXPECT_FALSE(cpu.in_long_mode);
  EXPECT_EQ(cpu.code_size, x86::CodeSize::k32);
}

TEST_F(FarTransferTest, CallAndReturnSameLevel) {
  Cpu& cpu = enter_protected();
  EXPECT_TRUE(far_call(cpu, kCode16, 0x5000, 4, 0x10007));
  EXPECT_EQ(cpu.gpr[x86::kRsp], Machine::kStack - 8);
  EXPECT_EQ(machine_.peek<uint32_t>(Machine::kStack - 8), 0x10007u);
  EXPECT_EQ(machine_.peek<uint32_t>(Machine::kStack - 4), 0x28u);
  EXPECT_TRUE(far_return(cpu, 4, 12));
  EXPECT_EQ(cpu.rip, 0x10007u);
  EXPECT_EQ(cpu.gpr[x86::kRsp], Machine::kStack + 12);
}

TEST_F(FarTransferTest, CallGateToInnerLevelCopiesParameters) {
  Cpu& cpu = enter_protected(true);
  machine_.poke<uint64_t>(Machine::kGdt + kGate, make_gate(0x28, 0x5000, 0xec, 2));
  push_frame(kUserStack, 4, {0x111, 0x222});
  EXPECT_TRUE(far_call(cpu, kGate | 3, 0, 4, 0x10007));
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(cpu.rip, 0x5000u);
  const uint32_t expected[] = {0x10007, kUserCode | 3, 0x111, 0x222, kUserStack, 0x1b};
  for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(machine_.peek<uint32_t>(0x30000 - 24 + 4 * i), expected[i]) << i;
  // RET 8 releases the parameters on both stacks.
  EXPECT_TRUE(far_return(cpu, 4, 8));
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.gpr[x86::kRsp], kUserStack + 8);
  EXPECT_EQ(cpu.rip, 0x10007u);
}

TEST_F(FarTransferTest, CallGateChecks) {
  Cpu& cpu = enter_protected(true);
  const auto call = [&](uint64_t gate) {
    machine_.poke<uint64_t>(Machine::kGdt + kGate, gate);
    return far_call(cpu, kGate | 3, 0, 4, 0x10007);
  };
  EXPECT_FALSE(call(make_gate(0x28, 0x5000, 0x8c)));  // DPL 0
  expect_fault(cpu, x86::kGeneralProtection, kGate);
  EXPECT_FALSE(call(make_gate(0x28, 0x5000, 0x6c)));  // not present
  expect_fault(cpu, x86::kSegmentNotPresent, kGate);
  EXPECT_FALSE(call(make_gate(0, 0x5000, 0xec)));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_FALSE(call(make_gate(0x10, 0x5000, 0xec)));  // data
  expect_fault(cpu, x86::kGeneralProtection, 0x10);
  EXPECT_FALSE(call(make_gate(kNotPresent, 0x5000, 0xec)));
  expect_fault(cpu, x86::kSegmentNotPresent, kNotPresent);
  // JMP through a gate does not change the level.
  machine_.poke<uint64_t>(Machine::kGdt + kGate, make_gate(0x28, 0x5000, 0xec));
  EXPECT_FALSE(far_jump(cpu, kGate | 3, 0, 0));
  expect_fault(cpu, x86::kGeneralProtection, 0x28);
  machine_.poke<uint64_t>(Machine::kGdt + kGate, make_gate(kUserCode, 0x5000, 0xec));
  EXPECT_TRUE(far_jump(cpu, kGate | 3, 0, 0));
  EXPECT_EQ(cpu.cpl, 3);
  // The inner stack's fault names the stack.
  machine_.poke<uint16_t>(Machine::kTss + 8, 0x1b);
  EXPECT_FALSE(call(make_gate(0x28, 0x5000, 0xec)));
  expect_fault(cpu, x86::kInvalidTss, 0x18);
}

TEST_F(FarTransferTest, LongCallGate) {
  Cpu& cpu = enter_long(true);
  machine_.poke<uint64_t>(Machine::kGdt + kGate, make_gate(0x08, 0x5000, 0xec));
  machine_.poke<uint64_t>(Machine::kGdt + kGate + 8, 0);
  EXPECT_TRUE(far_call(cpu, kGate | 3, 0, 4, 0x10007));
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_EQ(cpu.gpr[x86::kRsp], Machine::kStack - 32);
  const uint64_t expected[] = {0x10007, 0x23, kUserStack, 0x1b};
  for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(machine_.peek<uint64_t>(Machine::kStack - 32 + 8 * i), expected[i]) << i;
  EXPECT_TRUE(cpu.state.segments[x86::kSs].unusable());
  EXPECT_TRUE(far_return(cpu, 8, 0));
  EXPECT_EQ(cpu.cpl, 3);
  // A type in the upper half is refused; so is code that is not 64-bit.
  machine_.poke<uint64_t>(Machine::kGdt + kGate + 8, uint64_t{0x100} << 32);
  EXPECT_FALSE(far_call(cpu, kGate | 3, 0, 4, 0));
  expect_fault(cpu, x86::kGeneralProtection, kGate);
  machine_.poke<uint64_t>(Machine::kGdt + kGate + 8, 0);
  machine_.poke<uint64_t>(Machine::kGdt + kGate, make_gate(0x28, 0x5000, 0xec));
  EXPECT_FALSE(far_call(cpu, kGate | 3, 0, 4, 0));
  expect_fault(cpu, x86::kGeneralProtection, 0x28);
}

TEST_F(FarTransferTest, ReturnsNeverGoInwards) {
  Cpu& cpu = enter_protected(true);
  push_frame(kUserStack, 4, {0x5000, 0x28, 2, 0, 0x10});
  EXPECT_FALSE(far_return(cpu, 4, 0));
  expect_fault(cpu, x86::kGeneralProtection, 0x28);
  EXPECT_FALSE(interrupt_return(cpu, 4, 0));
  expect_fault(cpu, x86::kGeneralProtection, 0x28);
  EXPECT_EQ(cpu.gpr[x86::kRsp], kUserStack);
}

TEST_F(FarTransferTest, IretReadsTheStackWithTheUsersRights) {
  Cpu& cpu = enter_long(true);
  push_frame(kUserStack, 8, {0x5000, 0x23, 2, kUserStack, 0x1b});
  machine_.set_page(kUserStack, kUserStack | 3);  // a supervisor page
  cpu.flush_tlb(false);
  EXPECT_FALSE(interrupt_return(cpu, 8, 0));
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent | x86::kPfUser);
  EXPECT_FALSE(far_return(cpu, 8, 0));
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent | x86::kPfUser);
}

TEST_F(FarTransferTest, UserIretKeepsIoplAndIf) {
  Cpu& cpu = enter_long(true);
  cpu.set_rflags(x86::kFlagsOne | x86::kIf);
  push_frame(kUserStack, 8, {0x5000, 0x23, 0x3000 | x86::kCf | x86::kAc | x86::kVif | 2, kUserStack, 0x1b});
  EXPECT_TRUE(interrupt_return(cpu, 8, 0));
  EXPECT_EQ(cpu.rflags(), x86::kFlagsOne | x86::kIf | x86::kCf | x86::kAc);
}

TEST_F(FarTransferTest, LongIretForms) {
  Cpu& cpu = enter_long();
  // 32-bit operands in 64-bit code still pop SS:ESP.
  push_frame(Machine::kStack, 4, {0x5000, 0x08, 2, 0x2f000, 0x10});
  EXPECT_TRUE(interrupt_return(cpu, 4, 0));
  EXPECT_EQ(cpu.gpr[x86::kRsp], 0x2f000u);
  push_frame(0x2f000, 2, {0x6000, 0x08, 2, 0x7000, 0x10});
  EXPECT_TRUE(interrupt_return(cpu, 2, 0));
  EXPECT_EQ(cpu.rip, 0x6000u);
  EXPECT_EQ(cpu.gpr[x86::kRsp], 0x7000u);
  // A null SS to 64-bit code at CPL 0, not to compatibility mode.
  push_frame(0x7000, 8, {0x5000, 0x08, 2, 0x7000, 0});
  EXPECT_TRUE(interrupt_return(cpu, 8, 0));
  push_frame(0x7000, 8, {0x5000, 0x28, 2, 0x7000, 0});
  EXPECT_FALSE(interrupt_return(cpu, 8, 0));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  // Non-canonical RIP faults before the level changes.
  push_frame(0x7000, 8, {0x800000000000, 0x23, 2, kUserStack, 0x1b});
  EXPECT_FALSE(interrupt_return(cpu, 8, 0));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_EQ(cpu.cpl, 0);
  // NT is #GP in IA-32e mode.
  cpu.set_rflags(cpu.rflags() | x86::kNt);
  EXPECT_FALSE(interrupt_return(cpu, 8, 0));
  expect_fault(cpu, x86::kGeneralProtection, 0);
}

TEST_F(FarTransferTest, IretToCompatibilityModeUserAndStackFaults) {
  Cpu& cpu = enter_long();
  push_frame(Machine::kStack, 8, {0x5000, kUserCode | 3, 2, 0x1ffff0000, 0x1b});
  EXPECT_TRUE(interrupt_return(cpu, 8, 0));
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_FALSE(cpu.in_long_mode);
  EXPECT_EQ(cpu.gpr[x86::kRsp], 0xffff0000u);
  EXPECT_EQ(cpu.stack_address_size, 4);

  enter_long();
  push_frame(Machine::kStack, 8, {0x5000, 0x23, 2, kUserStack, 0x10});  // SS of another level
  EXPECT_FALSE(interrupt_return(cpu, 8, 0));
  expect_fault(cpu, x86::kGeneralProtection, 0x10);
  machine_.poke<uint64_t>(Machine::kGdt + 0x18, 0x00cf73000000ffff);  // not present
  push_frame(Machine::kStack, 8, {0x5000, 0x23, 2, kUserStack, 0x1b});
  EXPECT_FALSE(interrupt_return(cpu, 8, 0));
  expect_fault(cpu, x86::kStackFault, 0x18);
}

// --- Whole programs.

GUEST_CODE(syscall_round_trip, "64", R"(
  mov ecx, 0xc0000081
  mov eax, 0
  mov edx, 0x00100008
  wrmsr
  mov ecx, 0xc0000082
  lea rax, [rip + 3f]
  xor edx, edx
  wrmsr
  mov ecx, 0xc0000084
  mov eax, 0x202
  xor edx, edx
  wrmsr
  lea rcx, [rip + 1f]
  mov r11d, 0x203
  sysretq
1: mov ebx, 1
  mov r8, cs
  syscall
  ud2
3: mov r9, cs
  mov r10, ss
)" DONE);

TEST(FastSystemCall, SyscallAndSysret) {
  Machine machine;
  machine.enter_64(syscall_round_trip);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx), 1u);
  EXPECT_EQ(machine.gpr(x86::kR8), 0x23u);
  EXPECT_EQ(machine.gpr(x86::kR9), 0x08u);
  EXPECT_EQ(machine.gpr(x86::kR10), 0x10u);
  EXPECT_EQ(machine.gpr(x86::kR11), 0x203u);
  EXPECT_EQ(machine.state.rflags & x86::kIf, 0u);
}

TEST(FastSystemCall, SysretToNonCanonicalFaultsAtCpl0) {
  Machine machine;
  machine.enter_64({});
  machine.state.gpr[x86::kRcx] = 0x800000000000;
  Cpu& cpu = prepare(machine);
  Step step;
  step.insn.operand_size = 8;
  EXPECT_FALSE(sysret(cpu, &step));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  EXPECT_EQ(cpu.cpl, 0);
  step.insn.operand_size = 4;
  cpu.state.star = uint64_t{0x33} << 48;
  EXPECT_TRUE(sysret(cpu, &step));
  EXPECT_EQ(cpu.rip, 0u);
  EXPECT_EQ(cpu.code_size, x86::CodeSize::k32);
  EXPECT_EQ(cpu.state.segments[x86::kCs].selector, 0x33);
  cpu.state.efer &= ~uint64_t{x86::kEferSce};
  EXPECT_FALSE(sysret(cpu, &step));
  expect_fault(cpu, x86::kInvalidOpcode);
}

TEST(FastSystemCall, SysenterAndSysexit) {
  Machine machine;
  machine.enter_64({});
  Cpu& cpu = prepare(machine);
  Step step;
  step.insn.operand_size = 8;
  EXPECT_FALSE(sysenter(cpu, &step));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  cpu.state.sysenter_cs = 0x08;
  cpu.gpr[x86::kRcx] = kUserStack;
  cpu.gpr[x86::kRdx] = 0x5000;
  EXPECT_TRUE(sysexit(cpu, &step));
  EXPECT_EQ(cpu.cpl, 3);
  EXPECT_EQ(cpu.state.segments[x86::kCs].selector, 0x2b);
  EXPECT_EQ(cpu.state.segments[x86::kSs].selector, 0x33);
  EXPECT_EQ(cpu.gpr[x86::kRsp], kUserStack);
  EXPECT_FALSE(sysexit(cpu, &step));
  expect_fault(cpu, x86::kGeneralProtection, 0);
  cpu.state.sysenter_esp = 0x29000;
  cpu.state.sysenter_eip = 0x6000;
  cpu.set_rflags(cpu.rflags() | x86::kIf);
  EXPECT_TRUE(sysenter(cpu, &step));
  EXPECT_EQ(cpu.cpl, 0);
  EXPECT_TRUE(cpu.in_long_mode);
  EXPECT_EQ(cpu.gpr[x86::kRsp], 0x29000u);
  EXPECT_EQ(cpu.rflags() & x86::kIf, 0u);
}

GUEST_CODE(real_to_protected, "16", R"(
  mov eax, cr0
  or al, 1
  mov cr0, eax
  .byte 0x66, 0xea
  .long 0x8100
  .word 0x28
)");
GUEST_CODE(protected_to_real, "32", R"(
  mov ax, 0x10
  mov ds, ax
  mov ss, ax
  mov ebx, 0x12345678
  mov dword ptr [0x20000], ebx
  .byte 0xea
  .long 0x8200
  .word 0x48
)");
GUEST_CODE(real_again, "16", R"(
  mov eax, cr0
  and al, 0xfe
  mov cr0, eax
  .byte 0xea
  .word 0x8300
  .word 0
)");
GUEST_CODE(real_end, "16", R"(
  xor ax, ax
  mov ds, ax
  mov ecx, 0x20000
  mov edx, [ecx]
)" DONE);

/// Into protected mode and back, keeping 4-GiB limits in DS ("unreal" mode).
TEST(ModeSwitch, RealProtectedReal) {
  Machine machine;
  machine.enter_32({});  // fills the GDT
  extend_gdt(machine);
  machine.enter_16(real_to_protected);
  machine.load(0x8100, protected_to_real);
  machine.load(0x8200, real_again);
  machine.load(0x8300, real_end);
  machine.state.gdtr = {.base = Machine::kGdt, .limit = 0xff};
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx), 0x12345678u);
  EXPECT_EQ(machine.gpr(x86::kRdx), 0x12345678u);
  EXPECT_EQ(machine.state.cr0 & x86::kCr0Pe, 0u);
}

}  // namespace
}  // namespace tenon::interp
