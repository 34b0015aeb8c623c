// SIMD through the whole interpreter: what the handlers add to the host's instruction (register forms, gates,
// alignment, exceptions, masks, MXCSR), and one known answer from each instruction set extension. That every
// instruction computes what the host computes is the differential test's (tests/differential).
#include <thread>

#include "engine/interp/vector_test_support.hh"

namespace tenon::interp {
namespace {

constexpr Ymm kOnes{~0ull, ~0ull, ~0ull, ~0ull};

unsigned run_and_get_fault(VectorMachine& machine) {
  machine.run_to_done();
  return machine.fault_vector();
}

// --- Registers and encodings.

GUEST_CODE(upper_halves, "64", R"(
  paddd xmm0, xmm8              # legacy: upper half stays
  vpaddd xmm1, xmm8, xmm8       # VEX.128: upper half is cleared
  vpaddd ymm2, ymm8, ymm8
  movaps xmm3, xmm8
  vmovaps xmm4, xmm8
  movd xmm5, eax
  vmovq xmm6, rax
  vptest xmm7, xmm7             # reads only
)" DONE);

TEST(Vector, LegacyKeepsAndVexClearsTheUpperHalf) {
  VectorMachine machine;
  machine.prepare_64(upper_halves);
  for (unsigned i = 0; i < 8; ++i) machine.set_ymm(i, kOnes);
  machine.set_ymm(8, {1, 2, 3, 4});
  machine.state.gpr[x86::kRax] = 0xabcdef0123456789;
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.ymm(0), (Ymm{0xffffffff00000000, 0xffffffff00000001, ~0ull, ~0ull}));
  EXPECT_EQ(machine.ymm(1), (Ymm{2, 4, 0, 0}));
  EXPECT_EQ(machine.ymm(2), (Ymm{2, 4, 6, 8}));
  EXPECT_EQ(machine.ymm(3), (Ymm{1, 2, ~0ull, ~0ull}));
  EXPECT_EQ(machine.ymm(4), (Ymm{1, 2, 0, 0}));
  EXPECT_EQ(machine.ymm(5), (Ymm{0x23456789, 0, ~0ull, ~0ull}));
  EXPECT_EQ(machine.ymm(6), (Ymm{0xabcdef0123456789, 0, 0, 0}));
  EXPECT_EQ(machine.ymm(7), kOnes);
}

GUEST_CODE(zero_upper, "64", "vzeroupper" DONE);
GUEST_CODE(zero_all_32, "32", "vzeroall" DONE);

TEST(Vector, VzeroupperAndVzeroall) {
  VectorMachine machine;
  machine.prepare_64(zero_upper);
  machine.set_ymm(15, kOnes);
  machine.run_to_done();
  EXPECT_EQ(machine.ymm(15), (Ymm{~0ull, ~0ull, 0, 0}));

  VectorMachine narrow;
  narrow.prepare_32(zero_all_32);
  narrow.set_ymm(7, kOnes);
  narrow.set_ymm(8, kOnes);  // out of reach of 32-bit code
  narrow.run_to_done();
  EXPECT_EQ(narrow.ymm(7), Ymm{});
  EXPECT_EQ(narrow.ymm(8), kOnes);
}

// VEX.W1 of VMOVD is ignored outside 64-bit mode: c4 e1 f9 6e c0 / c4 e1 f9 7e c1.
GUEST_CODE(wide_in_32, "32", R"(
  .byte 0xc4, 0xe1, 0xf9, 0x6e, 0xc0
  .byte 0xc4, 0xe1, 0xf9, 0x7e, 0xc1
  .byte 0xc4, 0xe1, 0xfb, 0x2a, 0xd0      # vcvtsi2sd xmm2, xmm0, eax with W1
)" DONE);

TEST(Vector, WIsIgnoredForGeneralRegistersIn32BitCode) {
  VectorMachine machine;
  machine.prepare_32(wide_in_32);
  machine.state.gpr[x86::kRax] = 0x80000001;
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.ymm(0)[0], 0x80000001u);
  EXPECT_EQ(machine.gpr(x86::kRcx), 0x80000001u);
  EXPECT_EQ(machine.ymm(2)[0], 0xc1dfffffffc00000u);  // -2147483647.0
}

// --- Gates.

GUEST_CODE(one_sse, "64", "lea r13, [rip + 1f]\n1: paddd xmm0, xmm1" DONE);
GUEST_CODE(one_avx, "64", "lea r13, [rip + 1f]\n1: vpaddd xmm0, xmm1, xmm1" DONE);
GUEST_CODE(one_mmx, "64", "lea r13, [rip + 1f]\n1: paddd mm0, mm1" DONE);
GUEST_CODE(one_x87, "64", "lea r13, [rip + 1f]\n1: fld1" DONE);
GUEST_CODE(one_movnti, "64", "lea r13, [rip + 1f]\n1: movnti [0x20000], eax" DONE);

struct GateCase {
  std::span<const uint8_t> code;
  uint64_t cr0_set, cr4_cleared, xcr0;
  unsigned vector;
};

TEST(Vector, ControlRegistersGateEachFamily) {
  constexpr unsigned kUd = x86::kInvalidOpcode, kNm = x86::kDeviceNotAvailable, kNone = VectorMachine::kNoFault;
  const GateCase cases[] = {
      {one_sse, 0, 0, 7, kNone},
      {one_sse, x86::kCr0Ts, 0, 7, kNm},
      {one_sse, x86::kCr0Em, 0, 7, kUd},
      {one_sse, x86::kCr0Em | x86::kCr0Ts, 0, 7, kUd},
      {one_sse, 0, x86::kCr4Osfxsr, 7, kUd},
      {one_avx, x86::kCr0Ts, 0, 7, kNm},
      {one_avx, x86::kCr0Em, 0, 7, kNone},  // CR0.EM is not looked at (SDM Vol. 2 2.4)
      {one_avx, 0, x86::kCr4Osxsave, 7, kUd},
      {one_avx, x86::kCr0Ts, 0, 3, kUd},
      {one_avx, 0, x86::kCr4Osfxsr, 7, kNone},
      {one_mmx, x86::kCr0Ts, 0, 7, kNm},
      {one_mmx, x86::kCr0Em, 0, 7, kUd},
      {one_mmx, 0, x86::kCr4Osfxsr, 7, kNone},
      {one_x87, x86::kCr0Ts, 0, 7, kNm},
      {one_x87, x86::kCr0Em, 0, 7, kNm},
      {one_movnti, x86::kCr0Ts | x86::kCr0Em, x86::kCr4Osfxsr, 7, kNone},
  };
  for (const GateCase& test : cases) {
    VectorMachine machine;
    machine.prepare_64(test.code);
    machine.state.cr0 |= test.cr0_set;
    machine.state.cr4 &= ~test.cr4_cleared;
    machine.state.xcr0 = test.xcr0;
    EXPECT_EQ(run_and_get_fault(machine), test.vector) << "case " << &test - cases;
    if (test.vector == kNone) continue;
    EXPECT_EQ(machine.fault_rip(), machine.gpr(x86::kR13)) << "case " << &test - cases;
  }
}

// --- Memory.

GUEST_CODE(unaligned_sse, "64", "mov ebx, 0x20008\n paddd xmm0, [rbx]" DONE);
GUEST_CODE(unaligned_movaps, "64", "mov ebx, 0x20008\n movaps [rbx], xmm0" DONE);
GUEST_CODE(unaligned_vmovaps, "64", "mov ebx, 0x20010\n vmovaps ymm0, [rbx]" DONE);
GUEST_CODE(unaligned_vex, "64",
           "mov ebx, 0x20008\n vpaddd ymm0, ymm0, [rbx]\n movups xmm1, [rbx]\n vmovups [rbx + 1], ymm0" DONE);

TEST(Vector, AlignmentIsCheckedWhereTheEncodingWantsIt) {
  for (const auto code : {unaligned_sse, unaligned_movaps, unaligned_vmovaps}) {
    VectorMachine machine;
    machine.prepare_64(code);
    EXPECT_EQ(run_and_get_fault(machine), x86::kGeneralProtection);
  }
  VectorMachine machine;
  machine.prepare_64(unaligned_vex);
  machine.poke<uint64_t>(0x20008, 5);
  EXPECT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.ymm(0)[0], 5u);
  EXPECT_EQ(machine.peek<uint64_t>(0x20009), 5u);
}

GUEST_CODE(crossing_load, "64", "mov ebx, 0x3feff8\n movups xmm0, [rbx]" DONE);
GUEST_CODE(crossing_store, "64", "mov ebx, 0x3feff8\n vmovups [rbx], ymm0" DONE);
GUEST_CODE(short_load, "64", "mov ebx, 0x3feffc\n addss xmm0, [rbx]\n movd xmm1, [rbx]\n vpmovzxbd xmm2, [rbx]" DONE);

TEST(Vector, OnlyTheOperandsBytesAreAccessedAndFaultsChangeNothing) {
  for (const auto code : {crossing_load, crossing_store, short_load}) {
    VectorMachine machine;
    machine.prepare_64(code);
    machine.set_page(VectorMachine::kUnmapped, 0);
    machine.set_ymm(0, {0, 7, 8, 9});
    const bool faults = code.data() != short_load.data();
    EXPECT_EQ(run_and_get_fault(machine), faults ? unsigned{x86::kPageFault} : VectorMachine::kNoFault);
    EXPECT_EQ(machine.ymm(0), (Ymm{0, 7, 8, 9}));
    EXPECT_EQ(machine.state.cr2, faults ? VectorMachine::kUnmapped : 0u);
    EXPECT_EQ(machine.peek<uint64_t>(0x3feff8), 0u);
  }
}

GUEST_CODE(masked_moves, "64", R"(
  mov ebx, 0x3feff8
  vpmaskmovd xmm1, xmm0, [rbx]      # elements 0 and 1 only: the others lie in the missing page
  vmaskmovps [rbx - 16], xmm0, xmm2
  mov edi, 0x3feff0
  maskmovdqu xmm2, xmm3
  mov ebx, 0x3ff000
  vpxor xmm4, xmm4, xmm4
  vmaskmovpd [rbx], ymm4, ymm2      # no element: no fault
)" DONE);

TEST(Vector, MaskedElementsAreNotAccessed) {
  VectorMachine machine;
  machine.prepare_64(masked_moves);
  machine.set_page(VectorMachine::kUnmapped, 0);
  machine.poke<uint64_t>(0x3feff8, 0x2222222211111111);
  machine.set_ymm(0, {0x8000000080000000, 0x7fffffff7fffffff, ~0ull, ~0ull});
  machine.set_ymm(1, kOnes);
  machine.set_ymm(2, {0x1716151413121110, 0x1f1e1d1c1b1a1918, 0, 0});
  machine.set_ymm(3, {0x80, 0x8000000000000000, 0, 0});
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.ymm(1), (Ymm{0x2222222211111111, 0, 0, 0}));
  EXPECT_EQ(machine.peek<uint64_t>(0x3fefe8), 0x1716151413121110u);
  EXPECT_EQ(machine.peek<uint64_t>(0x3feff0), 0x10u);
  EXPECT_EQ(machine.peek<uint64_t>(0x3feff8), 0x1f22222211111111u);
}

GUEST_CODE(gather_rows, "64", R"(
  mov ebx, 0x20000
  vpgatherdd ymm1, [rbx + ymm0 * 4], ymm2
)" DONE);

TEST(Vector, GatherKeepsWhatItHasAtAFaultAndGoesOn) {
  VectorMachine machine;
  machine.prepare_64(gather_rows);
  for (uint32_t i = 0; i < 16; ++i) machine.poke<uint32_t>(0x20000 + 4 * i, 100 + i);
  const uint64_t far_index = (VectorMachine::kUnmapped - 0x20000) / 4;
  machine.set_page(VectorMachine::kUnmapped, 0);
  machine.poke<uint32_t>(VectorMachine::kUnmapped, 999);
  machine.set_ymm(0, {uint64_t{3} << 32 | 1, far_index << 32 | 5, 0, uint64_t{0xfffffffe} << 32 | 7});
  machine.set_ymm(1, kOnes);
  // Element 1 is masked out; element 7 has index -2 and is masked out too.
  machine.set_ymm(2, {0x0000000080000000, ~0ull, ~0ull, 0x00000000ffffffff});
  ASSERT_EQ(run_and_get_fault(machine), x86::kPageFault);
  EXPECT_EQ(machine.ymm(1), (Ymm{0xffffffff00000064 + 1, 0xffffffff00000000 + 105, ~0ull, ~0ull}));
  EXPECT_EQ(machine.ymm(2), (Ymm{0, 0xffffffff00000000, ~0ull, 0x00000000ffffffff}));

  machine.set_page(VectorMachine::kUnmapped, VectorMachine::kUnmapped | 7);
  machine.state.rip = machine.fault_rip();
  machine.state.gpr[x86::kRsp] = TestMachine::kStack;
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.ymm(1), (Ymm{0xffffffff00000000 + 101, uint64_t{999} << 32 | 105, uint64_t{100} << 32 | 100,
                                 0xffffffff00000000 + 107}));
  EXPECT_EQ(machine.ymm(2), Ymm{});
}

GUEST_CODE(gather_same_registers, "64",
           ".byte 0xc4, 0xe2, 0x69, 0x90, 0x0c, 0x13" DONE);  // vpgatherdd xmm1, [rbx+xmm2], xmm2

TEST(Vector, GatherWithEqualRegistersIsInvalid) {
  VectorMachine machine;
  machine.prepare_64(gather_same_registers);
  EXPECT_EQ(run_and_get_fault(machine), x86::kInvalidOpcode);
}

// --- MXCSR and exceptions.

GUEST_CODE(divide_by_zero, "64", R"(
  lea r13, [rip + 1f]
1: vdivps ymm0, ymm1, ymm2
)" DONE);

TEST(Vector, UnmaskedExceptionLeavesTheDestination) {
  VectorMachine machine;
  machine.prepare_64(divide_by_zero);
  machine.set_ymm(0, {1, 2, 3, 4});
  machine.set_ymm(1, {0x3f8000003f800000, 0x3f8000003f800000, 0x3f8000003f800000, 0x3f8000003f800000});
  machine.set_mxcsr(0x1d80);  // ZM clear
  ASSERT_EQ(run_and_get_fault(machine), x86::kSimdError);
  EXPECT_EQ(machine.fault_rip(), machine.gpr(x86::kR13));
  EXPECT_EQ(machine.mxcsr(), 0x1d84u);
  EXPECT_EQ(machine.ymm(0), (Ymm{1, 2, 3, 4}));

  machine.state.rip = machine.fault_rip();
  machine.state.cr4 &= ~uint64_t{x86::kCr4Osxmmexcpt};
  EXPECT_EQ(run_and_get_fault(machine), x86::kInvalidOpcode);

  machine.set_mxcsr(0x1f80);
  machine.state.rip = machine.fault_rip();
  EXPECT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.mxcsr(), 0x1f84u);
  EXPECT_EQ(machine.ymm(0)[3], 0x7f8000007f800000u);
}

GUEST_CODE(sticky_flags, "64", R"(
  divsd xmm0, xmm1             # 1/3: inexact
  stmxcsr [0x20000]
  ldmxcsr [0x20010]            # flags clear again
  addsd xmm2, xmm2             # exact
  stmxcsr [0x20004]
  divsd xmm3, xmm1             # inexact
  stmxcsr [0x20008]
  mov dword ptr [0x20014], 0x7f80
  ldmxcsr [0x20014]            # round toward zero
  divsd xmm4, xmm1
  mov dword ptr [0x20014], 0x5f80
  ldmxcsr [0x20014]            # round up
  divsd xmm5, xmm1
)" DONE);

TEST(Vector, FlagsAndRoundingAreTheGuests) {
  VectorMachine machine;
  machine.prepare_64(sticky_flags);
  constexpr uint64_t kOne = 0x3ff0000000000000, kThree = 0x4008000000000000;
  for (const unsigned i : {0u, 2u, 3u, 4u, 5u}) machine.set_ymm(i, {kOne, 0, 0, 0});
  machine.set_ymm(1, {kThree, 0, 0, 0});
  machine.poke<uint32_t>(0x20010, 0x1f80);
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.peek<uint32_t>(0x20000), 0x1fa0u);
  EXPECT_EQ(machine.peek<uint32_t>(0x20004), 0x1f80u);
  EXPECT_EQ(machine.peek<uint32_t>(0x20008), 0x1fa0u);
  EXPECT_EQ(machine.ymm(4)[0], 0x3fd5555555555555u);
  EXPECT_EQ(machine.ymm(5)[0], 0x3fd5555555555556u);
}

GUEST_CODE(bad_mxcsr, "64", "mov dword ptr [0x20000], 0x10000\n ldmxcsr [0x20000]" DONE);

TEST(Vector, ReservedMxcsrBitsFault) {
  VectorMachine machine;
  machine.prepare_64(bad_mxcsr);
  EXPECT_EQ(run_and_get_fault(machine), x86::kGeneralProtection);
  EXPECT_EQ(machine.mxcsr(), kInitialMxcsr);
}

// --- One answer from each extension.

GUEST_CODE(flags_out, "64", R"(
  ucomisd xmm0, xmm0           # a NaN: unordered
  pushfq
  pop rax
  ptest xmm1, xmm2             # disjoint: ZF
  pushfq
  pop rbx
  mov ecx, 0x55555555
  pcmpistri xmm3, xmm4, 0x0c   # equal ordered: "lo" in "hello"
)" DONE);

TEST(Vector, InstructionsThatWriteFlagsAndEcx) {
  VectorMachine machine;
  machine.prepare_64(flags_out);
  machine.set_ymm(0, {0x7ff8000000000000, 0, 0, 0});
  machine.set_ymm(1, {0xf0, 0, 0, 0});
  machine.set_ymm(2, {0x0f, 1, 0, 0});
  machine.set_ymm(3, {0x6f6c, 0, 0, 0});
  machine.set_ymm(4, {0x6f6c6c6568, 0, 0, 0});
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  constexpr uint64_t kAll = x86::kArithmeticFlags;
  EXPECT_EQ(machine.gpr(x86::kRax) & kAll, uint64_t{x86::kZf | x86::kPf | x86::kCf});
  EXPECT_EQ(machine.gpr(x86::kRbx) & kAll, uint64_t{x86::kZf});
  EXPECT_EQ(machine.gpr(x86::kRcx), 3u);
}

GUEST_CODE(known_answers, "64", R"(
  aesenc xmm0, xmm1
  pclmulqdq xmm2, xmm3, 0x00
  sha256msg1 xmm4, xmm5
  gf2p8mulb xmm6, xmm7
  vfmadd231sd xmm8, xmm9, xmm10
  vcvtps2ph xmm11, xmm12, 0
  pshufb xmm13, xmm14
  pmuldq xmm15, xmm15
)" DONE);

TEST(Vector, KnownAnswersOfTheExtensions) {
  VectorMachine machine;
  machine.prepare_64(known_answers);
  machine.set_ymm(2, {0b111, 0, 0, 0});
  machine.set_ymm(3, {0b101, 0, 0, 0});
  machine.set_ymm(6, {0x53, 0, 0, 0});
  machine.set_ymm(7, {0xca, 0, 0, 0});
  machine.set_ymm(8, {0x3ff0000000000000, 0, 0, 0});   // 1
  machine.set_ymm(9, {0x4000000000000000, 0, 0, 0});   // 2
  machine.set_ymm(10, {0x4008000000000000, 0, 0, 0});  // 3
  machine.set_ymm(12, {0x3f8000003f800000, 0xc0000000c0000000, 0, 0});
  machine.set_ymm(13, {0x0706050403020100, 0x0f0e0d0c0b0a0908, 0, 0});
  machine.set_ymm(14, {0x08090a0b0c0d0e0f, 0x8001020304050607, 0, 0});
  machine.set_ymm(15, {0xfffffffffffffffe, 3, 0, 0});
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.ymm(0), (Ymm{0x6363636363636363, 0x6363636363636363, 0, 0}));  // MixColumns keeps equal columns
  EXPECT_EQ(machine.ymm(2)[0], 0b11011u);                                          // (x2+x+1)(x2+1)
  EXPECT_EQ(machine.ymm(6)[0], 0x01u);                                             // inverses in GF(2^8), FIPS 197 4.2
  EXPECT_EQ(machine.ymm(8)[0], 0x401c000000000000u);                               // 1 + 2 * 3
  EXPECT_EQ(machine.ymm(11)[0], 0xc000c0003c003c00u);
  EXPECT_EQ(machine.ymm(13), (Ymm{0x08090a0b0c0d0e0f, 0x0001020304050607, 0, 0}));
  EXPECT_EQ(machine.ymm(15), (Ymm{4, 9, 0, 0}));
}

// --- MMX.

GUEST_CODE(mmx_state, "64", R"(
  fninit
  fld1
  fldpi                        # TOP = 6
  movq mm1, [0x20000]
  paddb mm1, mm1
  movq [0x20008], mm1
  fnstsw ax
)" DONE);
GUEST_CODE(mmx_emms, "64", "fninit\n fld1\n movd mm0, eax\n emms" DONE);

TEST(Vector, MmxResetsTopAndTags) {
  VectorMachine machine;
  machine.prepare_64(mmx_state);
  machine.poke<uint64_t>(0x20000, 0x0102030405060708);
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.peek<uint64_t>(0x20008), 0x020406080a0c0e10u);
  EXPECT_EQ(machine.x87_top(), 0u);
  EXPECT_EQ(machine.x87_tags(), 0xff);
  EXPECT_EQ(machine.legacy<uint64_t>(32 + 16), 0x020406080a0c0e10u);
  EXPECT_EQ(machine.legacy<uint16_t>(32 + 16 + 8), 0xffffu);
  EXPECT_EQ(machine.legacy<uint64_t>(32 + 7 * 16), 0x8000000000000000u);  // the FLD1 is in physical register 7

  VectorMachine emptied;
  emptied.prepare_64(mmx_emms);
  emptied.run_to_done();
  EXPECT_EQ(emptied.x87_tags(), 0);
}

// --- Threads: the thunks belong to the process.

TEST(Vector, VcpusOnSeveralThreadsShareThunks) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([] {
      for (int round = 0; round < 20; ++round) {
        VectorMachine machine;
        machine.prepare_64(divide_by_zero);
        machine.set_mxcsr(0x1d80);
        machine.set_ymm(1, {0x3f8000003f800000, 0, 0, 0});
        EXPECT_EQ(run_and_get_fault(machine), x86::kSimdError);
      }
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace tenon::interp
