// CLI, STI, PUSHF and POPF where privilege decides: SDM Vol. 2 "Decision Table for CLI/STI Results", POPF Table 4-16,
// Vol. 3 21.3.
#include "engine/interp/interp_test_support.hh"

namespace tenon::interp {
namespace {

using x86::kIf, x86::kIopl, x86::kVif, x86::kVip, x86::kTf;

GUEST_CODE(end_64, "64", DONE);
GUEST_CODE(end_32, "32", DONE);

/// Runs `code` at CPL 3 in 64-bit mode with `rflags` until #UD or #GP; what was pushed says which and with what flags.
class UserFlagsTest : public testing::Test {
 protected:
  void run(std::span<const uint8_t> code, uint64_t rflags, uint64_t cr4 = 0) {
    machine.enter_64(code);
    machine.load(TestMachine::kHandlers, end_64);
    machine.set_gate_64(6, TestMachine::kHandlers);
    machine.set_gate_64(13, TestMachine::kHandlers);
    machine.state.segments[x86::kCs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xa0fb, .selector = 0x23};
    machine.state.segments[x86::kSs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xc0f3, .selector = 0x1b};
    machine.state.gpr[x86::kRsp] = 0x38000;
    machine.state.rflags = rflags | x86::kFlagsOne;
    machine.state.cr4 |= cr4;
    machine.run_to_done();
    // #GP pushes an error code below RIP, CS, RFLAGS, RSP, SS; TSS.RSP0 is kStack.
    faulted = machine.gpr(x86::kRsp) == TestMachine::kStack - 48;
    pushed = machine.peek<uint64_t>(TestMachine::kStack - 24);
  }
  TestMachine machine;
  bool faulted = false;
  uint64_t pushed = 0;
};

GUEST_CODE(cli, "64", "cli\n ud2");
GUEST_CODE(sti, "64", "sti\n nop\n ud2");

TEST_F(UserFlagsTest, CliAndStiNeedIopl) {
  run(cli, kIf);
  EXPECT_TRUE(faulted);
  run(cli, kIf | kIopl);
  EXPECT_FALSE(faulted);
  EXPECT_EQ(pushed & kIf, 0u);
  run(sti, 0);
  EXPECT_TRUE(faulted);
  run(sti, kIopl);
  EXPECT_FALSE(faulted);
  EXPECT_NE(pushed & kIf, 0u);
}

TEST_F(UserFlagsTest, ProtectedModeVirtualInterrupts) {
  run(cli, kIf | kVif, x86::kCr4Pvi);
  EXPECT_FALSE(faulted);
  EXPECT_NE(pushed & kIf, 0u);
  EXPECT_EQ(pushed & kVif, 0u);
  run(sti, kIf, x86::kCr4Pvi);
  EXPECT_FALSE(faulted);
  EXPECT_NE(pushed & kVif, 0u);
  run(sti, kIf | kVip, x86::kCr4Pvi);
  EXPECT_TRUE(faulted);
}

GUEST_CODE(popf_all, "64", "push 0x3203\n popfq\n ud2");
GUEST_CODE(popf_none, "64", "push 0\n popfq\n ud2");

TEST_F(UserFlagsTest, PopfKeepsIoplAndIf) {
  run(popf_all, 0);  // asks for IOPL 3, IF, CF
  EXPECT_FALSE(faulted);
  EXPECT_EQ(pushed & (kIopl | kIf | x86::kCf), uint64_t{x86::kCf});
  run(popf_none, kIf | kIopl);
  EXPECT_EQ(pushed & (kIopl | kIf), uint64_t{kIopl});
}

/// Virtual-8086 code at 1000:0000 until #UD or #GP through 32-bit gates.
class Virtual8086Test : public testing::Test {
 protected:
  void run(std::span<const uint8_t> code, uint64_t rflags, uint64_t cr4) {
    machine.enter_32(code, 0x10000);
    machine.load(TestMachine::kHandlers, end_32);
    for (const unsigned vector : {6u, 13u}) {
      machine.poke<uint64_t>(TestMachine::kIdt + vector * 8, 0x00008e0000280000 | TestMachine::kHandlers);
    }
    machine.poke<uint32_t>(TestMachine::kTss + 4, 0x38000);  // ESP0, SS0
    machine.poke<uint32_t>(TestMachine::kTss + 8, 0x10);
    machine.poke<uint16_t>(TestMachine::kTss + 102, 0x68);
    for (x86::Segment& segment : machine.state.segments) {
      segment = {.base = 0x20000, .limit = 0xffff, .attributes = 0xf3, .selector = 0x2000};
    }
    machine.state.segments[x86::kCs] = {.base = 0x10000, .limit = 0xffff, .attributes = 0xf3, .selector = 0x1000};
    machine.state.rip = 0;
    machine.state.gpr[x86::kRsp] = 0x8000;
    machine.state.rflags = rflags | x86::kVm | x86::kFlagsOne;
    machine.state.cr4 = cr4;
    machine.run_to_done();
    faulted = machine.gpr(x86::kRsp) == 0x38000 - 40;
    pushed = machine.peek<uint32_t>(0x38000 - 28);
  }
  uint16_t stack_top() { return machine.peek<uint16_t>(0x27ffe); }
  TestMachine machine;
  bool faulted = false;
  uint64_t pushed = 0;
};

GUEST_CODE(vm_pushf, "16", "pushf\n ud2");
GUEST_CODE(vm_popf, "16", "push 0x200\n popf\n ud2");
GUEST_CODE(vm_popf_tf, "16", "push 0x100\n popf\n ud2");
GUEST_CODE(vm_cli, "16", "cli\n ud2");

TEST_F(Virtual8086Test, WithoutVmeEverythingNeedsIopl3) {
  for (const auto code : {vm_pushf, vm_popf, vm_cli}) {
    run(code, kIf, 0);
    EXPECT_TRUE(faulted);
    run(code, kIf | kIopl, 0);
    EXPECT_FALSE(faulted);
  }
  EXPECT_EQ(pushed & kIf, 0u);  // CLI with IOPL 3
}

TEST_F(Virtual8086Test, VmeGivesVifForIf) {
  run(vm_pushf, kIf | kVif, x86::kCr4Vme);
  EXPECT_FALSE(faulted);
  EXPECT_EQ(stack_top() & (kIf | kIopl), uint64_t{kIf | kIopl});
  run(vm_pushf, kIf, x86::kCr4Vme);
  EXPECT_EQ(stack_top() & (kIf | kIopl), uint64_t{kIopl});
  run(vm_popf, kIf, x86::kCr4Vme);
  EXPECT_FALSE(faulted);
  EXPECT_NE(pushed & kVif, 0u);
  run(vm_popf, kIf | kVip, x86::kCr4Vme);
  EXPECT_TRUE(faulted);
  run(vm_popf_tf, kIf, x86::kCr4Vme);
  EXPECT_TRUE(faulted);
  run(vm_cli, kIf | kVif, x86::kCr4Vme);
  EXPECT_FALSE(faulted);
  EXPECT_EQ(pushed & (kIf | kVif), uint64_t{kIf});
}

}  // namespace
}  // namespace tenon::interp
