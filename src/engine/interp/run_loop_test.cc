// The run loop and traces: events at instruction boundaries, self-modifying code, single-stepping, precise faults.
#include "engine/interp/interp_test_support.hh"

namespace tenon::interp {
namespace {

GUEST_CODE(sum_loop, "64", R"(
  xor eax, eax
  mov ecx, 1000
1: add rax, rcx
  dec ecx
  jnz 1b
)" DONE);

TEST(RunLoop, CountsALoopAndItsInstructions) {
  TestMachine machine;
  machine.enter_64(sum_loop);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRax), 500500u);
  const uint64_t instructions = machine.vcpu->stats().instructions;
  EXPECT_GE(instructions, 3003u);
  EXPECT_LE(instructions, 3010u);
}

GUEST_CODE(in_trace_patch, "64", R"(
  lea rdi, [rip + 1f]
  mov byte ptr [rdi + 1], 7      # the immediate of the MOV in the same trace
1: mov al, 1
  mov bl, al
)" DONE);

TEST(RunLoop, StoreIntoTheRunningTraceTakesEffectAtTheNextInstruction) {
  TestMachine machine;
  machine.enter_64(in_trace_patch);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx) & 0xff, 7u);
}

GUEST_CODE(patch_loop, "64", R"(
  lea rdi, [rip + 2f]
  xor ebx, ebx
  mov ecx, 200
1: mov [rdi + 1], ecx
  call 2f
  add rbx, rax
  dec ecx
  jnz 1b
)" DONE R"(
2: mov eax, 0
  ret
)");

TEST(RunLoop, CodePatchedBeforeEachCallIsSeenEachTime) {
  TestMachine machine;
  machine.enter_64(patch_loop);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx), 200u * 201 / 2);
}

GUEST_CODE(cross_page, "64", R"(
  mov rax, 0x1122334455667788
)" DONE);

TEST(RunLoop, InstructionAcrossTwoPages) {
  for (unsigned before = 1; before <= 9; ++before) {
    TestMachine machine;
    machine.enter_64(cross_page, 0x12000 - before);
    machine.run_to_done();
    EXPECT_EQ(machine.gpr(x86::kRax), 0x1122334455667788u) << before;
  }
}

GUEST_CODE(cross_page_remap, "64", R"(
1: mov eax, 0x11111111
  ret
)");
GUEST_CODE(cross_page_caller, "64", R"(
  mov rsi, 0x103090                # PTE of page 0x12000
  mov rdi, 0x11ffd
  call rdi
  mov ebx, eax
  mov qword ptr [rsi], 0x14007     # another page behind the instruction's second half
  invlpg [0x12000]
  call rdi
)" DONE);

TEST(RunLoop, InstructionAcrossTwoPagesFollowsARemapOfTheSecond) {
  TestMachine machine;
  machine.load(0x11ffd, cross_page_remap);
  machine.load(0x14000, cross_page_remap.subspan(3));
  machine.poke<uint16_t>(0x14000, 0x2222);
  machine.enter_64(cross_page_caller);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx), 0x11111111u);
  EXPECT_EQ(machine.gpr(x86::kRax), 0x22221111u);
}

GUEST_CODE(fault_in_trace, "64", R"(
  mov eax, 1
  mov ebx, 2
  push rax
  add [0x200000], rbx
  mov ebx, 3
)" DONE);
GUEST_CODE(fault_handler, "64", R"(
  pop r8             # error code
  mov r9, cr2
  pop r10            # RIP
)" DONE);

TEST(RunLoop, FaultInTheMiddleOfATraceIsPrecise) {
  TestMachine machine;
  machine.enter_64(fault_in_trace);
  machine.load(TestMachine::kHandlers, fault_handler);
  machine.set_gate_64(14, TestMachine::kHandlers);
  machine.set_page(0x200000, 0);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRax), 1u);
  EXPECT_EQ(machine.gpr(x86::kRbx), 2u);
  EXPECT_EQ(machine.gpr(x86::kR8), 2u);  // write, not present
  EXPECT_EQ(machine.gpr(x86::kR9), 0x200000u);
  EXPECT_EQ(machine.gpr(x86::kR10), TestMachine::kCode + 11);
}

GUEST_CODE(fetch_fault, "64", "mov rax, 0x200010\n jmp rax");

TEST(RunLoop, FetchFromAMissingPageFaultsAtTheTarget) {
  TestMachine machine;
  machine.enter_64(fetch_fault);
  machine.load(TestMachine::kHandlers, fault_handler);
  machine.set_gate_64(14, TestMachine::kHandlers);
  machine.set_page(0x200000, 0);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kR8), 0x10u);  // fetch (NXE), not present
  EXPECT_EQ(machine.gpr(x86::kR9), 0x200010u);
  EXPECT_EQ(machine.gpr(x86::kR10), 0x200010u);
}

// --- Interrupts

GUEST_CODE(sti_shadow, "64", R"(
  xor eax, eax
  out 0x80, al        # raises the interrupt
  sti
  inc eax
  inc eax
  inc eax
)" DONE);
GUEST_CODE(interrupt_handler, "64", R"(
  mov ebx, eax
)" DONE);

TEST(RunLoop, InterruptComesOneInstructionAfterSti) {
  TestMachine machine;
  machine.enter_64(sti_shadow);
  machine.load(TestMachine::kHandlers, interrupt_handler);
  machine.set_gate_64(0x40, TestMachine::kHandlers);
  machine.io.on_port = [&](uint16_t, uint32_t) {
    machine.io.interrupt = 0x40;
    machine.signal.raise(VcpuSignal::kInterrupt);
  };
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx), 1u);
}

GUEST_CODE(popf_window, "64", R"(
  xor eax, eax
  out 0x80, al
  push 0x202
  popfq
  inc eax
  inc eax
)" DONE);

TEST(RunLoop, InterruptComesRightAfterPopfThatSetsIf) {
  TestMachine machine;
  machine.enter_64(popf_window);
  machine.load(TestMachine::kHandlers, interrupt_handler);
  machine.set_gate_64(0x40, TestMachine::kHandlers);
  machine.io.on_port = [&](uint16_t, uint32_t) {
    machine.io.interrupt = 0x40;
    machine.signal.raise(VcpuSignal::kInterrupt);
  };
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx), 0u);
}

GUEST_CODE(halt_then_interrupt, "64", R"(
  sti
  hlt
  mov ecx, 5
)" DONE);
GUEST_CODE(returning_handler, "64", "inc ebx\n iretq");

TEST(RunLoop, HaltSleepsUntilAnInterruptAndGoesOnAfterIt) {
  TestMachine machine;
  machine.enter_64(halt_then_interrupt);
  machine.load(TestMachine::kHandlers, returning_handler);
  machine.set_gate_64(0x40, TestMachine::kHandlers);
  machine.io.interrupt = 0x40;
  machine.signal.raise(VcpuSignal::kInterrupt);
  machine.state.gpr[x86::kRbx] = 0;
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx), 1u);
  EXPECT_EQ(machine.gpr(x86::kRcx), 5u);
}

GUEST_CODE(spin, "64", "1: inc rax\n jmp 1b");

TEST(RunLoop, TimerDeadlineIsNoticedWhileRunning) {
  TestMachine machine;
  machine.enter_64(spin);
  machine.signal.set_deadline_ns(0);
  class StopOnTimer : public TestIo {
   public:
    void timer_expired() override {
      TestIo::timer_expired();
      signal->raise(VcpuSignal::kStop);
    }
  } io;
  io.signal = &machine.signal;
  ASSERT_TRUE(machine.vcpu->set_state(machine.state));
  EXPECT_EQ(machine.vcpu->run(io).reason, Halt::Reason::kStopped);
  EXPECT_EQ(io.timer_expirations, 1u);
}

GUEST_CODE(single_step, "64", R"(
  mov ebx, 0
  push 0x102
  popfq               # sets TF: the trap comes after the next instruction
  mov eax, 1
  mov eax, 2
  mov eax, 3
  push 0x2
  popfq               # clears it; this instruction still traps
  mov eax, 4
)" DONE);
GUEST_CODE(step_handler, "64", "inc ebx\n mov r8, [rsp]\n mov r9, dr6\n iretq");

TEST(RunLoop, TrapFlagStepsEveryInstruction) {
  TestMachine machine;
  machine.enter_64(single_step);
  machine.load(TestMachine::kHandlers, step_handler);
  machine.set_gate_64(1, TestMachine::kHandlers);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx), 5u);
  EXPECT_EQ(machine.gpr(x86::kRax) & 0xff, 4u);
  EXPECT_NE(machine.gpr(x86::kR9) & (1u << 14), 0u);
}

GUEST_CODE(breakpoint, "64", R"(
  lea rax, [rip + 1f]
  mov dr0, rax
  mov rax, 0x401
  mov dr7, rax
  mov ecx, 1
1: mov ecx, 2
  mov edx, 3
)" DONE);
GUEST_CODE(breakpoint_handler, "64", R"(
  mov r8, [rsp]
  mov r9d, ecx
  inc ebx
  bts qword ptr [rsp + 16], 16    # RF
  iretq
)");

TEST(RunLoop, InstructionBreakpointFaultsBeforeTheInstructionAndRfPassesIt) {
  TestMachine machine;
  machine.enter_64(breakpoint);
  machine.load(TestMachine::kHandlers, breakpoint_handler);
  machine.set_gate_64(1, TestMachine::kHandlers);
  machine.state.gpr[x86::kRbx] = 0;
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx), 1u);
  EXPECT_EQ(machine.gpr(x86::kR9), 1u);
  EXPECT_EQ(machine.gpr(x86::kRdx), 3u);
}

GUEST_CODE(triple, "64", "ud2");

TEST(RunLoop, TripleFaultHalts) {
  TestMachine machine;
  machine.enter_64(triple);
  machine.state.idtr.limit = 0;
  EXPECT_EQ(machine.run().reason, Halt::Reason::kTripleFault);
}

GUEST_CODE(startup_code, "16", "mov ax, 0x1234\n out 0xf4, al\n 1: jmp 1b");

TEST(RunLoop, WaitsForStartupAndBeginsInRealMode) {
  TestMachine machine;
  machine.load(0x8000, startup_code);
  machine.state = machine.vcpu->get_state();
  machine.state.activity = x86::Activity::kWaitForStartup;
  machine.signal.raise(VcpuSignal::kStartup);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRax) & 0xffff, 0x1234u);
  EXPECT_EQ(machine.state.segments[x86::kCs].base, 0x8000u);
}

TEST(RunLoop, InitTakesTheProcessorToItsResetState) {
  TestMachine machine;
  machine.enter_64(spin);
  machine.load(0x8000, startup_code);
  machine.signal.raise(VcpuSignal::kInit | VcpuSignal::kStop);
  machine.run();
  EXPECT_EQ(machine.io.inits, 1u);
  EXPECT_EQ(machine.state.cr0 & x86::kCr0Pe, 0u);
  EXPECT_EQ(machine.state.rip, 0xfff0u);
}

GUEST_CODE(rip_displacement, "64", "lea rax, [rip + 0x7fffffff]\n" DONE);

TEST(RunLoop, RipRelativeAtTheEndOfTheDisplacementRange) {
  TestMachine machine;
  machine.enter_64(rip_displacement);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRax), TestMachine::kCode + 7 + 0x7fffffff);
}

GUEST_CODE(limit_crossing, "16", "nop\n nop\n nop\n nop\n");

TEST(RunLoop, RunningPastTheCodeSegmentLimitFaults) {
  TestMachine machine;
  machine.enter_16(limit_crossing, 0xfffc);
  // Vector 13 of the real-mode table: 0000:8000.
  machine.poke<uint32_t>(13 * 4, 0x00008000);
  machine.load(0x8000, startup_code);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRax) & 0xffff, 0x1234u);
  EXPECT_EQ(machine.peek<uint16_t>(0x7000 - 6),
            0u);  // IP 10000h is not stored as 16 bits; the fault is at offset 0x10000
}

}  // namespace
}  // namespace tenon::interp
