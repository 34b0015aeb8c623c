// x87 through the whole interpreter: pending exceptions, instruction and operand pointers, environment images, faults
// of stores, control-register rules. That each instruction computes what the host computes is the differential test's.
#include "engine/interp/vector_test_support.hh"

namespace tenon::interp {
namespace {

unsigned run_and_get_fault(VectorMachine& machine) {
  machine.run_to_done();
  return machine.fault_vector();
}

GUEST_CODE(arithmetic, "64", R"(
  fninit
  fld qword ptr [0x20000]       # 1.5
  fiadd word ptr [0x20008]      # 3
  fmul st, st(0)                # 20.25
  fst qword ptr [0x20010]
  fistp dword ptr [0x20018]     # rounds to even
  fld1
  fldz
  fxch
  fstp tbyte ptr [0x20020]
  fstp dword ptr [0x20030]
  fldpi
  fbstp [0x20040]
  fnstsw ax
)" DONE);

TEST(X87, ComputesAndStoresEverySize) {
  VectorMachine machine;
  machine.prepare_64(arithmetic);
  machine.poke<uint64_t>(0x20000, 0x3ff8000000000000);
  machine.poke<uint16_t>(0x20008, 3);
  machine.poke<uint32_t>(0x20030, 0xffffffff);
  machine.poke<uint16_t>(0x2002a, 0xbeef);
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.peek<uint64_t>(0x20010), 0x4034400000000000u);
  EXPECT_EQ(machine.peek<uint32_t>(0x20018), 20u);
  EXPECT_EQ(machine.peek<uint64_t>(0x20020), 0x8000000000000000u);
  EXPECT_EQ(machine.peek<uint16_t>(0x20028), 0x3fffu);
  EXPECT_EQ(machine.peek<uint16_t>(0x2002a), 0xbeefu);  // 80 bits, not one more
  EXPECT_EQ(machine.peek<uint32_t>(0x20030), 0u);
  EXPECT_EQ(machine.peek<uint64_t>(0x20040), 3u);
  EXPECT_EQ(machine.gpr(x86::kRax) & 0x3fff, 0x20u);  // PE, empty stack
  EXPECT_EQ(machine.x87_tags(), 0);
}

// --- Exceptions.

GUEST_CODE(pending, "64", R"(
  fninit
  mov word ptr [0x20000], 0x37b   # ZM clear
  fldcw [0x20000]
  mov ebx, 0x20010
  fld1
1: fdiv dword ptr [rbx + 8]       # by zero: nothing happens yet
  fnstsw ax                       # does not wait
  fnstcw [0x20002]
  lea r12, [rip + 1b]
  lea r13, [rip + 2f]
2: fld1                           # waits
)" DONE);

TEST(X87, UnmaskedExceptionIsRaisedByTheNextWaitingInstruction) {
  VectorMachine machine;
  machine.prepare_64(pending);
  ASSERT_EQ(run_and_get_fault(machine), x86::kX87Error);
  EXPECT_EQ(machine.fault_rip(), machine.gpr(x86::kR13));
  EXPECT_EQ(machine.gpr(x86::kRax) & 0xffff, 0xb884u);
  EXPECT_EQ(machine.x87_status(), 0xb884u);
  EXPECT_EQ(machine.legacy<uint64_t>(8), machine.gpr(x86::kR12));  // FIP
  EXPECT_EQ(machine.legacy<uint64_t>(16), 0x20018u);               // FDP: the operand's offset
  EXPECT_EQ(machine.legacy<uint16_t>(6), 0x073u);                  // FOP: D8 73
  EXPECT_EQ(machine.legacy<uint64_t>(32), 0x8000000000000000u);    // ST(0) is unchanged
}

GUEST_CODE(fwait_pending, "64",
           "fld1\n fninit\n mov word ptr [0x20000], 0x37b\n fldcw [0x20000]\n fld1\n fldz\n fdivp\n fwait" DONE);
GUEST_CODE(mmx_pending, "64",
           "fninit\n mov word ptr [0x20000], 0x37b\n fldcw [0x20000]\n fld1\n fldz\n fdivp\n paddb mm0, mm1" DONE);
GUEST_CODE(cleared_pending, "64", R"(
  fninit
  mov word ptr [0x20000], 0x37b
  fldcw [0x20000]
  fld1
  fldz
  fdivp
  fnclex
  fwait
)" DONE);

TEST(X87, FwaitAndMmxReportPendingExceptionsAndFnclexClearsThem) {
  VectorMachine waiting, mmx, cleared;
  waiting.prepare_64(fwait_pending);
  waiting.set_x87_control_status(0x37f, 0);
  EXPECT_EQ(run_and_get_fault(waiting), x86::kX87Error);
  mmx.prepare_64(mmx_pending);
  EXPECT_EQ(run_and_get_fault(mmx), x86::kX87Error);
  EXPECT_NE(mmx.x87_tags(), 0xff);
  cleared.prepare_64(cleared_pending);
  EXPECT_EQ(run_and_get_fault(cleared), VectorMachine::kNoFault);
}

GUEST_CODE(unmask_later, "64", R"(
  fninit
  fld1
  fldz
  fdivp                           # ZE is masked
  mov word ptr [0x20000], 0x37b
  fldcw [0x20000]                 # now it is not: pending
  lea r13, [rip + 1f]
1: fwait
)" DONE);

TEST(X87, UnmaskingASetFlagMakesItPending) {
  VectorMachine machine;
  machine.prepare_64(unmask_later);
  ASSERT_EQ(run_and_get_fault(machine), x86::kX87Error);
  EXPECT_EQ(machine.fault_rip(), machine.gpr(x86::kR13));
  EXPECT_EQ(machine.x87_status() & 0x8084, 0x8084);
}

GUEST_CODE(store_stopped, "64", R"(
  fninit
  mov word ptr [0x20000], 0x37e   # IM clear
  fldcw [0x20000]
  fldln2
  fchs
  fsqrt                           # invalid: pending, ST(0) stays
  fnclex
  fld tbyte ptr [0x20010]         # 2^100
  fistp dword ptr [0x20020]       # does not fit: no store, no pop
  fnstsw ax
)" DONE);

TEST(X87, UnmaskedInvalidOperandStopsAStore) {
  VectorMachine machine;
  machine.prepare_64(store_stopped);
  machine.poke<uint64_t>(0x20010, 0x8000000000000000);
  machine.poke<uint16_t>(0x20018, 16383 + 100);
  machine.poke<uint32_t>(0x20020, 0x5a5a5a5a);
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.peek<uint32_t>(0x20020), 0x5a5a5a5au);
  EXPECT_EQ(machine.gpr(x86::kRax) & 0x3881, 0x3081u);
  EXPECT_EQ(machine.x87_top(), 6u);
}

GUEST_CODE(store_fault, "64", "fninit\n fldpi\n mov ebx, 0x3feffc\n fstp qword ptr [rbx]" DONE);

TEST(X87, FaultingStoreDoesNotPop) {
  VectorMachine machine;
  machine.prepare_64(store_fault);
  machine.set_page(VectorMachine::kUnmapped, 0);
  ASSERT_EQ(run_and_get_fault(machine), x86::kPageFault);
  EXPECT_EQ(machine.x87_top(), 7u);
  EXPECT_EQ(machine.x87_status() & 0x3f, 0);  // the precision flag of the conversion is not set either
  EXPECT_EQ(machine.peek<uint32_t>(0x3feffc), 0u);
}

// --- Flags.

GUEST_CODE(flags, "64", R"(
  fninit
  fld1
  fldz
  stc
  fcomi st, st(1)                 # 0 < 1: CF
  pushfq
  pop rax
  fcmovb st, st(1)                # taken
  fcomi st, st(1)                 # equal: ZF
  pushfq
  pop rbx
  fcmovne st, st(0)
  fucomip st, st(1)
)" DONE);

TEST(X87, FcomiAndFcmovUseTheGuestsFlags) {
  VectorMachine machine;
  machine.prepare_64(flags);
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.gpr(x86::kRax) & x86::kArithmeticFlags, uint64_t{x86::kCf});
  EXPECT_EQ(machine.gpr(x86::kRbx) & x86::kArithmeticFlags, uint64_t{x86::kZf});
  EXPECT_EQ(machine.x87_top(), 7u);
}

// --- Environment and state images.

GUEST_CODE(environment_32, "64", R"(
  fninit
  fld1
  lea r12, [rip + 1f]
1: fldz
  fnstenv [0x20000]
  fnstcw [0x20040]
  data16 fnstenv [0x20020]
  fldenv [0x20050]
)" DONE);

TEST(X87, EnvironmentImages) {
  VectorMachine machine;
  machine.prepare_64(environment_32);
  const uint32_t image[7] = {0x037f, 0x0800, 0xfffc, 0x12345678, 0x01230000, 0x9abcdef0, 0};
  for (unsigned i = 0; i < 7; ++i) machine.poke<uint32_t>(0x20050 + 4 * i, image[i]);
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.peek<uint32_t>(0x20000), 0xffff037fu);
  EXPECT_EQ(machine.peek<uint32_t>(0x20004), 0xffff3000u);
  EXPECT_EQ(machine.peek<uint32_t>(0x20008), 0xffff1fffu);  // ST(1) valid in 7, ST(0) zero in 6
  EXPECT_EQ(machine.peek<uint32_t>(0x2000c), machine.gpr(x86::kR12));
  EXPECT_EQ(machine.peek<uint32_t>(0x20018), 0xffff0000u);
  EXPECT_EQ(machine.peek<uint16_t>(0x20040), 0x037fu);
  EXPECT_EQ(machine.peek<uint16_t>(0x20022), 0x3000u);
  EXPECT_EQ(machine.peek<uint16_t>(0x20026), machine.gpr(x86::kR12) & 0xffff);
  EXPECT_EQ(machine.peek<uint16_t>(0x2002e), 0u);  // 14 bytes
  // FLDENV: TOP = 1, physical register 0 in use; the registers stay where they were: 7 holds 1.0, now ST(6).
  EXPECT_EQ(machine.x87_top(), 1u);
  EXPECT_EQ(machine.x87_tags(), 1);
  EXPECT_EQ(machine.legacy<uint64_t>(32 + 6 * 16), 0x8000000000000000u);
  EXPECT_EQ(machine.legacy<uint64_t>(8), 0x12345678u);
  EXPECT_EQ(machine.legacy<uint64_t>(16), 0x9abcdef0u);
  EXPECT_EQ(machine.legacy<uint16_t>(6), 0x123u);
}

GUEST_CODE(environment_real, "16", R"(
  fninit
  fld1
  fnsave [0x2000]
  fld1
  frstor [0x2000]
)" DONE);

TEST(X87, RealModeStateImage) {
  VectorMachine machine;
  machine.enter_16(environment_real);
  machine.run_to_done();
  EXPECT_EQ(machine.peek<uint16_t>(0x2000), 0x037fu);
  EXPECT_EQ(machine.peek<uint16_t>(0x2002), 0x3800u);
  EXPECT_EQ(machine.peek<uint16_t>(0x2004), 0x3fffu);
  EXPECT_EQ(machine.peek<uint16_t>(0x2006), TestMachine::kRealCode + 2);  // FIP of FLD1
  EXPECT_EQ(machine.peek<uint64_t>(0x2000 + 14), 0x8000000000000000u);
  EXPECT_EQ(machine.peek<uint16_t>(0x2000 + 14 + 8), 0x3fffu);
  EXPECT_EQ(machine.x87_top(), 7u);
  EXPECT_EQ(machine.x87_tags(), 0x80);
}

GUEST_CODE(save_and_restore, "64", R"(
  fninit
  fldpi
  fldl2e
  fnsave [0x20000]
  fnstsw ax
  frstor [0x20000]
  fstp tbyte ptr [0x20100]
  fstp tbyte ptr [0x20110]
)" DONE);

TEST(X87, FnsaveInitialisesAndFrstorBringsBack) {
  VectorMachine machine;
  machine.prepare_64(save_and_restore);
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.gpr(x86::kRax) & 0xffff, 0u);
  EXPECT_EQ(machine.peek<uint64_t>(0x20110), 0xc90fdaa22168c235u);
  EXPECT_EQ(machine.peek<uint16_t>(0x20118), 0x4000u);
  EXPECT_EQ(machine.peek<uint64_t>(0x20100), 0xb8aa3b295c17f0bcu);
}

GUEST_CODE(reserved_control, "64",
           "fninit\n mov dword ptr [0x20000], 0xffff\n fldcw [0x20000]\n fnstcw [0x20002]" DONE);

TEST(X87, ReservedControlBitsReadAsOnCurrentProcessors) {
  VectorMachine machine;
  machine.prepare_64(reserved_control);
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.peek<uint16_t>(0x20002), 0x1f7fu);
}

// --- CR0 and WAIT.

GUEST_CODE(one_wait, "64", "lea r13, [rip + 1f]\n1: fwait" DONE);

TEST(X87, WaitLooksAtMpWithTsOnly) {
  const struct {
    uint64_t cr0;
    unsigned vector;
  } cases[] = {
      {0, VectorMachine::kNoFault},
      {x86::kCr0Ts, VectorMachine::kNoFault},
      {x86::kCr0Mp, VectorMachine::kNoFault},
      {x86::kCr0Em, VectorMachine::kNoFault},
      {x86::kCr0Mp | x86::kCr0Ts, x86::kDeviceNotAvailable},
  };
  for (const auto& test : cases) {
    VectorMachine machine;
    machine.prepare_64(one_wait);
    machine.set_x87_control_status(0x37f, 0);
    machine.state.cr0 |= test.cr0;
    EXPECT_EQ(run_and_get_fault(machine), test.vector) << std::hex << test.cr0;
  }
}

}  // namespace
}  // namespace tenon::interp
