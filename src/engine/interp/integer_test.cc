// Integer instructions where they meet memory, modes and faults. Results of register forms are compared with the host
// CPU by tests/differential; here is what a host in user mode cannot show.
#include "engine/interp/interp_test_support.hh"

namespace tenon::interp {
namespace {

using x86::kRax, x86::kRbx, x86::kRcx, x86::kRdx, x86::kRsi, x86::kRdi, x86::kRbp, x86::kRsp, x86::kR8, x86::kR9,
    x86::kR10;

GUEST_CODE(report_fault, "64", R"(
  pop r8                 # error code
  mov r9, cr2
  mov r10, [rsp]
)" DONE);
GUEST_CODE(report_trap, "64", "mov r10, [rsp]\n" DONE);

/// A 64-bit guest whose faults end it with R8 = error code, R9 = CR2, R10 = RIP.
class IntegerTest : public testing::Test {
 protected:
  void enter(std::span<const uint8_t> code) {
    machine.enter_64(code);
    machine.load(TestMachine::kHandlers, report_fault);
    machine.load(TestMachine::kHandlers + 0x40, report_trap);
    for (const unsigned vector : {10u, 11u, 12u, 13u, 14u, 17u}) machine.set_gate_64(vector, TestMachine::kHandlers);
    for (const unsigned vector : {0u, 1u, 3u, 4u, 5u, 6u})
      machine.set_gate_64(vector, TestMachine::kHandlers + 0x40, 3);
  }
  void run(std::span<const uint8_t> code) {
    enter(code);
    machine.run_to_done();
  }
  TestMachine machine;
};

// --- String instructions

GUEST_CODE(copy_pages, "64", "cld\n rep movsb\n" DONE);

TEST_F(IntegerTest, RepMovsCopiesAcrossPages) {
  enter(copy_pages);
  for (uint64_t i = 0; i < 10000; ++i) machine.poke<uint8_t>(0x40123 + i, static_cast<uint8_t>(i * 7));
  machine.state.gpr[kRsi] = 0x40123;
  machine.state.gpr[kRdi] = 0x50456;
  machine.state.gpr[kRcx] = 10000;
  machine.run_to_done();
  for (uint64_t i = 0; i < 10000; ++i) ASSERT_EQ(machine.peek<uint8_t>(0x50456 + i), static_cast<uint8_t>(i * 7)) << i;
  EXPECT_EQ(machine.gpr(kRsi), 0x40123u + 10000);
  EXPECT_EQ(machine.gpr(kRdi), 0x50456u + 10000);
  EXPECT_EQ(machine.gpr(kRcx), 0u);
  EXPECT_EQ(machine.peek<uint8_t>(0x50456 + 10000), 0u);
}

TEST_F(IntegerTest, RepMovsStopsExactlyAtAFaultingPage) {
  enter(copy_pages);
  machine.set_page(0x52000, 0);
  machine.state.gpr[kRsi] = 0x40000;
  machine.state.gpr[kRdi] = 0x51f00;
  machine.state.gpr[kRcx] = 0x1000;
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(kRcx), 0x1000u - 0x100);
  EXPECT_EQ(machine.gpr(kRdi), 0x52000u);
  EXPECT_EQ(machine.gpr(kRsi), 0x40100u);
  EXPECT_EQ(machine.gpr(kR9), 0x52000u);
  EXPECT_EQ(machine.gpr(kR10), TestMachine::kCode + 1);
}

TEST_F(IntegerTest, RepMovsWithOverlapRepeatsThePattern) {
  enter(copy_pages);
  machine.poke<uint32_t>(0x40000, 0x44332211);
  machine.state.gpr[kRsi] = 0x40000;
  machine.state.gpr[kRdi] = 0x40004;
  machine.state.gpr[kRcx] = 0x2000;
  machine.run_to_done();
  EXPECT_EQ(machine.peek<uint32_t>(0x40000 + 0x1ffc), 0x44332211u);
}

GUEST_CODE(copy_down, "64", "std\n rep movsq\n cld\n" DONE);

TEST_F(IntegerTest, RepMovsDownwards) {
  enter(copy_down);
  for (uint64_t i = 0; i < 1024; ++i) machine.poke<uint64_t>(0x40000 + 8 * i, i);
  machine.state.gpr[kRsi] = 0x40000 + 8 * 1023;
  machine.state.gpr[kRdi] = 0x40800 + 8 * 1023;  // overlaps upwards: right only when done from the end
  machine.state.gpr[kRcx] = 1024;
  machine.run_to_done();
  for (uint64_t i = 0; i < 1024; ++i) ASSERT_EQ(machine.peek<uint64_t>(0x40800 + 8 * i), i);
}

GUEST_CODE(fill_code, "64", R"(
  lea rdi, [rip + 1f]
  mov al, 0x90
  mov ecx, 2
  rep stosb
1: ud2
  mov ebx, 7
)" DONE);

TEST_F(IntegerTest, RepStosOverTheFollowingInstruction) {
  run(fill_code);
  EXPECT_EQ(machine.gpr(kRbx), 7u);
}

GUEST_CODE(scan, "64", "mov al, 5\n repne scasb\n setz bl\n" DONE);
GUEST_CODE(compare, "64", "repe cmpsb\n seta bl\n" DONE);

TEST_F(IntegerTest, ScasAndCmpsStopAtTheElementThatDecides) {
  enter(scan);
  machine.poke<uint8_t>(0x41005, 5);
  machine.state.gpr[kRdi] = 0x40f00;
  machine.state.gpr[kRcx] = 0x1000;
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(kRdi), 0x41006u);
  EXPECT_EQ(machine.gpr(kRcx), 0x1000u - 0x106);
  EXPECT_EQ(machine.gpr(kRbx) & 0xff, 1u);
  enter(compare);
  machine.poke<uint8_t>(0x50800, 9);
  machine.state.gpr[kRsi] = 0x50000;
  machine.state.gpr[kRdi] = 0x60000;
  machine.state.gpr[kRcx] = 0x1000;
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(kRcx), 0x1000u - 0x801);
  EXPECT_EQ(machine.gpr(kRbx) & 0xff, 1u);
}

GUEST_CODE(interrupted_fill, "64", "sti\n xor ebx, ebx\n rep stosq\n" DONE);
GUEST_CODE(note_counter, "64", "mov rbx, rcx\n iretq");

TEST_F(IntegerTest, InterruptsComeBetweenIterationsOfRep) {
  enter(interrupted_fill);
  machine.load(0x5000, note_counter);
  machine.set_gate_64(0x40, 0x5000);
  machine.state.gpr[kRdi] = 0x180000;
  machine.state.gpr[kRcx] = 0x20000;
  machine.set_page(0x190000, 0x40000000 | 7);  // a device: its first write raises the interrupt
  class InterruptingIo : public TestIo {
   public:
    void write_mmio(Gpa gpa, unsigned size_bytes, uint64_t value) override {
      if (mmio_writes.empty()) {
        interrupt = 0x40;
        signal->raise(VcpuSignal::kInterrupt);
      }
      TestIo::write_mmio(gpa, size_bytes, value);
    }
  } io;
  io.signal = &machine.signal;
  ASSERT_TRUE(machine.vcpu->set_state(machine.state));
  ASSERT_EQ(machine.vcpu->run(io).reason, Halt::Reason::kStopped);
  machine.state = machine.vcpu->get_state();
  EXPECT_EQ(machine.gpr(kRcx), 0u);
  EXPECT_EQ(machine.gpr(kRbx), 0x20000u - 0x10000 / 8 - 1);
  EXPECT_EQ(io.mmio_writes.size(), 512u);
  EXPECT_EQ(machine.gpr(kRdi), 0x180000u + 0x100000);
}

// --- Stack

GUEST_CODE(push_fault, "64", "mov eax, 1\n push rax\n" DONE);
GUEST_CODE(pop_fault, "64", "pop [0x200000]\n" DONE);

TEST_F(IntegerTest, FaultingPushAndPopLeaveRsp) {
  for (const auto code : {push_fault, pop_fault}) {
    enter(code);
    machine.set_page(0x200000, 0);
    machine.state.gpr[kRsp] = code.data() == push_fault.data() ? 0x201000 : 0x38000;
    machine.poke<uint64_t>(TestMachine::kTss + 0x24, TestMachine::kStack);  // IST1
    machine.poke<uint64_t>(TestMachine::kIdt + 14 * 16,
                           machine.peek<uint64_t>(TestMachine::kIdt + 14 * 16) | uint64_t{1} << 32);
    machine.run_to_done();
    // The pushed RSP is 5 slots above the handler's, which has popped the error code.
    EXPECT_EQ(machine.peek<uint64_t>(machine.gpr(kRsp) + 24), code.data() == push_fault.data() ? 0x201000u : 0x38000u);
    EXPECT_EQ(machine.gpr(kR9), code.data() == push_fault.data() ? 0x200ff8u : 0x200000u);
  }
}

GUEST_CODE(stack_forms, "64", R"(
  push rsp
  pop rax                 # RSP before the push
  mov rbx, 0x1111
  push rbx
  pop rsp                 # the value, not the value plus 8
  mov rcx, rsp
  mov rsp, 0x30000
  push word ptr 0x1234
  mov rdx, rsp
  mov rsp, 0x30000
  mov rbp, 0x2f000
  enter 16, 3
  mov rsi, rsp
  mov rdi, rbp
  leave
  mov r8, rsp
)" DONE);

TEST_F(IntegerTest, StackCorners) {
  enter(stack_forms);
  machine.poke<uint64_t>(0x2f000 - 8, 0xaaaa);
  machine.poke<uint64_t>(0x2f000 - 16, 0xbbbb);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(kRax), 0x30000u);
  EXPECT_EQ(machine.gpr(kRcx), 0x1111u);
  EXPECT_EQ(machine.gpr(kRdx), 0x30000u - 2);
  EXPECT_EQ(machine.gpr(kRdi), 0x30000u - 8);
  EXPECT_EQ(machine.gpr(kRsi), 0x30000u - 8 - 24 - 16);
  EXPECT_EQ(machine.peek<uint64_t>(0x30000 - 8), 0x2f000u);
  EXPECT_EQ(machine.peek<uint64_t>(0x30000 - 16), 0xaaaau);
  EXPECT_EQ(machine.peek<uint64_t>(0x30000 - 24), 0xbbbbu);
  EXPECT_EQ(machine.peek<uint64_t>(0x30000 - 32), 0x30000u - 8);
  EXPECT_EQ(machine.gpr(kR8), 0x30000u);
  EXPECT_EQ(machine.gpr(kRbp), 0x2f000u);
}

GUEST_CODE(pusha_32, "32", R"(
  mov eax, 1
  mov ecx, 2
  mov edx, 3
  mov ebx, 4
  mov ebp, 6
  mov esi, 7
  mov edi, 8
  pushad
  xor eax, eax
  xor edi, edi
  popad
  pushaw
)" DONE);

TEST(Integer32, PushaAndPopa) {
  TestMachine machine;
  machine.enter_32(pusha_32);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(kRax), 1u);
  EXPECT_EQ(machine.gpr(kRdi), 8u);
  EXPECT_EQ(machine.gpr(kRsp), TestMachine::kStack - 16);
  EXPECT_EQ(machine.peek<uint16_t>(TestMachine::kStack - 10), TestMachine::kStack & 0xffff);  // SP
  EXPECT_EQ(machine.peek<uint16_t>(TestMachine::kStack - 16), 8u);                            // DI
}

GUEST_CODE(decimal_32, "32", R"(
  mov al, 0x79
  add al, 0x35
  daa
  mov bl, al          # 79 + 35 = 114
  setc bh
  mov al, 0x12
  sub al, 0x34
  das
  mov cl, al          # 12 - 34 = 78 with borrow
  setc ch
  mov ax, 0x0008
  add al, 7
  aaa                 # 15: AH 1, AL 5
  mov dx, ax
  mov al, 63
  aam
  mov si, ax          # 6, 3
  aad
  mov di, ax
)" DONE);

TEST(Integer32, DecimalAdjustments) {
  TestMachine machine;
  machine.enter_32(decimal_32);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(kRbx) & 0xffff, 0x0114u);
  EXPECT_EQ(machine.gpr(kRcx) & 0xffff, 0x0178u);
  EXPECT_EQ(machine.gpr(kRdx) & 0xffff, 0x0105u);
  EXPECT_EQ(machine.gpr(kRsi) & 0xffff, 0x0603u);
  EXPECT_EQ(machine.gpr(kRdi) & 0xffff, 63u);
}

GUEST_CODE(real_mode, "16", R"(
  mov ax, 0x2000
  mov es, ax
  mov ds, ax
  mov di, 0xfffe
  mov cx, 2
  mov ax, 0x5566
  cld
  rep stosw               # wraps from FFFE to 0000
  mov bx, 0x10
  mov word ptr [bx + 2], 0x1234
  mov cx, 3
  xor dx, dx
1: inc dx
  loop 1b
  call 2f
  jmp 3f
2: mov bp, sp
  ret 4
3:
)" DONE);

TEST(Integer16, RealModeAddressesAndWraps) {
  TestMachine machine;
  machine.enter_16(real_mode);
  machine.run_to_done();
  EXPECT_EQ(machine.peek<uint16_t>(0x2fffe), 0x5566u);
  EXPECT_EQ(machine.peek<uint16_t>(0x20000), 0x5566u);
  EXPECT_EQ(machine.peek<uint16_t>(0x20012), 0x1234u);
  EXPECT_EQ(machine.gpr(kRdi) & 0xffff, 2u);
  EXPECT_EQ(machine.gpr(kRdx) & 0xffff, 3u);
  EXPECT_EQ(machine.gpr(kRbp) & 0xffff, 0x6ffeu);
  EXPECT_EQ(machine.gpr(kRsp) & 0xffff, 0x7004u);
}

// --- Bits and exchanges in memory

GUEST_CODE(bit_strings, "64", R"(
  mov rsi, 0x40100
  mov rax, -9               # byte -2, bit 7
  bts [rsi], rax
  mov rax, 1000
  lock bts qword ptr [rsi], rax
  mov ecx, 65
  btc dword ptr [rsi], ecx
  btr dword ptr [rsi], ecx
  setc bl
  bt dword ptr [rsi], 37    # an immediate stays inside: bit 5
  setc bh
)" DONE);

TEST_F(IntegerTest, BitOffsetsReachBeyondTheOperand) {
  enter(bit_strings);
  machine.poke<uint32_t>(0x40100, 1u << 5);
  machine.run_to_done();
  EXPECT_EQ(machine.peek<uint8_t>(0x400fe), 0x80u);
  EXPECT_EQ(machine.peek<uint8_t>(0x40100 + 125), 1u);
  EXPECT_EQ(machine.peek<uint32_t>(0x40108), 0u);
  EXPECT_EQ(machine.gpr(kRbx) & 0xffff, 0x0101u);
}

GUEST_CODE(exchanges, "64", R"(
  mov rsi, 0x40000
  mov eax, 5
  mov ecx, 9
  lock cmpxchg dword ptr [rsi], ecx     # [rsi] is 5
  setz bl
  mov ecx, 11
  cmpxchg dword ptr [rsi], ecx          # is 9: EAX becomes 9
  setz bh
  mov edx, 3
  lock xadd dword ptr [rsi], edx        # 12; EDX 9
  mov r8d, 7
  xchg [rsi + 4], r8b
  mov r9d, edx
  mov rdi, 0x40010
  mov rax, 1
  mov rdx, 2
  push rbx
  mov rbx, 3
  mov rcx, 4
  lock cmpxchg16b [rdi]
  setz r10b
  pop rbx
)" DONE);

TEST_F(IntegerTest, LockedExchanges) {
  enter(exchanges);
  machine.poke<uint32_t>(0x40000, 5);
  machine.poke<uint8_t>(0x40004, 0x42);
  machine.poke<uint64_t>(0x40010, 1);
  machine.poke<uint64_t>(0x40018, 2);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(kRbx) & 0xffff, 0x0001u);
  EXPECT_EQ(machine.peek<uint32_t>(0x40000), 12u);
  EXPECT_EQ(machine.gpr(kR9), 9u);
  EXPECT_EQ(machine.peek<uint8_t>(0x40004), 7u);
  EXPECT_EQ(machine.gpr(kR8), 0x42u);
  EXPECT_EQ(machine.peek<uint64_t>(0x40010), 3u);
  EXPECT_EQ(machine.peek<uint64_t>(0x40018), 4u);
  EXPECT_EQ(machine.gpr(kR10) & 0xff, 1u);
}

GUEST_CODE(split_lock, "64", "mov rsi, 0x40ffd\n mov eax, 0x01010101\n lock add dword ptr [rsi], eax\n" DONE);

TEST_F(IntegerTest, LockAcrossAPage) {
  enter(split_lock);
  machine.poke<uint32_t>(0x40ffd, 0x44332211);
  machine.run_to_done();
  EXPECT_EQ(machine.peek<uint32_t>(0x40ffd), 0x45342312u);
}

GUEST_CODE(misaligned_16b, "64", "mov rdi, 0x40008\n cmpxchg16b [rdi]\n" DONE);

TEST_F(IntegerTest, Cmpxchg16bMustBeAligned) {
  run(misaligned_16b);
  EXPECT_EQ(machine.gpr(kR10), TestMachine::kCode + 7);
  EXPECT_EQ(machine.gpr(kR8), 0u);
}

// --- Faults of arithmetic and branches

GUEST_CODE(divide_zero, "64", "xor ecx, ecx\n mov eax, 7\n div ecx\n" DONE);
GUEST_CODE(divide_overflow, "64", "mov ecx, -1\n mov eax, 0x80000000\n cdq\n idiv ecx\n" DONE);
GUEST_CODE(divide_minimum, "64", "mov cl, 1\n mov ax, -128\n idiv cl\n mov bl, al\n" DONE);

TEST_F(IntegerTest, DivideErrors) {
  run(divide_zero);
  EXPECT_EQ(machine.gpr(kR10), TestMachine::kCode + 7);
  EXPECT_EQ(machine.gpr(kRax), 7u);
  run(divide_overflow);
  EXPECT_EQ(machine.gpr(kR10), TestMachine::kCode + 11);
  run(divide_minimum);
  EXPECT_EQ(machine.gpr(kRbx) & 0xff, 0x80u);
}

GUEST_CODE(jump_noncanonical, "64", "mov rax, 0x0000800000000000\n jmp rax\n");
GUEST_CODE(return_noncanonical, "64", "mov rax, 0x0000800000000000\n push rax\n ret\n");

TEST_F(IntegerTest, BranchToANonCanonicalAddressFaultsAtTheBranch) {
  run(jump_noncanonical);
  EXPECT_EQ(machine.gpr(kR10), TestMachine::kCode + 10);
  EXPECT_EQ(machine.gpr(kR8), 0u);
  run(return_noncanonical);
  EXPECT_EQ(machine.gpr(kR10), TestMachine::kCode + 11);
}

GUEST_CODE(traps_32, "32", R"(
  mov eax, 5
  mov esi, 0x40000
  bound eax, [esi]
  mov ebx, 1
  mov eax, 11
  bound eax, [esi]        # 10 is the last
)" DONE);
GUEST_CODE(done_32, "32", "mov edx, [esp]\n" DONE);

TEST(Integer32, BoundRaisesOutsideItsRange) {
  TestMachine machine;
  machine.enter_32(traps_32);
  machine.load(TestMachine::kHandlers, done_32);
  machine.poke<uint64_t>(TestMachine::kIdt + 5 * 8, 0x00008e0000280000 | TestMachine::kHandlers);
  machine.poke<uint32_t>(0x40000, static_cast<uint32_t>(-3));
  machine.poke<uint32_t>(0x40004, 10);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(kRbx), 1u);
  EXPECT_EQ(machine.gpr(kRdx), TestMachine::kCode + 5 + 5 + 2 + 5 + 5);
}

GUEST_CODE(high_bytes, "64", R"(
  mov eax, 0x11223344
  mov ah, al
  add ah, 1
  mov cl, 4
  ror ah, cl
  mov ebx, 0x8000
  movzx edx, bh
  movsx esi, bh
  xchg ah, bl
)" DONE);

TEST_F(IntegerTest, HighByteRegisters) {
  run(high_bytes);
  EXPECT_EQ(machine.gpr(kRax), 0x11220044u);
  EXPECT_EQ(machine.gpr(kRbx), 0x8054u);
  EXPECT_EQ(machine.gpr(kRdx), 0x80u);
  EXPECT_EQ(machine.gpr(kRsi), 0xffffff80u);
}

GUEST_CODE(shift_zero, "64", "stc\n mov eax, 1\n xor ecx, ecx\n stc\n shl rax, cl\n setc bl\n rcl rax, 1\n" DONE);

TEST_F(IntegerTest, ShiftByZeroKeepsTheFlags) {
  run(shift_zero);
  EXPECT_EQ(machine.gpr(kRbx) & 0xff, 1u);
  EXPECT_EQ(machine.gpr(kRax), 3u);
}

GUEST_CODE(direct_offsets, "64", R"(
  movabs eax, [0x40000]
  add eax, 1
  movabs [0x40008], rax
  mov al, 3
  mov rbx, 0x40010
  xlatb
  mov ecx, eax
)" DONE);

TEST_F(IntegerTest, DirectOffsetsAndXlat) {
  enter(direct_offsets);
  machine.poke<uint32_t>(0x40000, 41);
  machine.poke<uint8_t>(0x40013, 0x99);
  machine.run_to_done();
  EXPECT_EQ(machine.peek<uint64_t>(0x40008), 42u);
  EXPECT_EQ(machine.gpr(kRcx) & 0xff, 0x99u);
}

}  // namespace
}  // namespace tenon::interp
