// FXSAVE, FXRSTOR and the XSAVE family: layouts, what is written and what is not, header rules, XINUSE.
#include "engine/interp/vector_test_support.hh"

namespace tenon::interp {
namespace {

constexpr uint64_t kArea = 0x20000;
constexpr uint64_t kHeader = kArea + x86::XsaveArea::kHeaderOffset;
constexpr uint64_t kYmmHigh = kArea + x86::XsaveArea::kYmmHighOffset;
constexpr uint64_t kCompacted = uint64_t{1} << 63;
constexpr uint64_t kUntouched = 0xcccccccccccccccc;

unsigned run_and_get_fault(VectorMachine& machine) {
  machine.run_to_done();
  return machine.fault_vector();
}

/// 1 KiB of CCh with a zero XSAVE header at kArea.
void fill_area(VectorMachine& machine) {
  for (uint64_t at = 0; at < 1024; at += 8) machine.poke<uint64_t>(kArea + at, kUntouched);
  for (uint64_t at = 0; at < 64; at += 8) machine.poke<uint64_t>(kHeader + at, 0);
}

void prepare(VectorMachine& machine, std::span<const uint8_t> code, uint32_t components) {
  machine.prepare_64(code);
  fill_area(machine);
  machine.set_x87_control_status(0x37f, 0);
  machine.state.gpr[x86::kRax] = components;
  machine.state.gpr[x86::kRbx] = kArea;
}

// --- FXSAVE.

GUEST_CODE(fxsave_64, "64", "fninit\n fldpi\n fxsave64 [rbx]" DONE);
GUEST_CODE(fxsave_32, "32", "fxsave [ebx]" DONE);

TEST(Xsave, FxsaveLayout) {
  VectorMachine machine;
  prepare(machine, fxsave_64, 0);
  machine.set_ymm(0, {1, 2, 3, 4});
  machine.set_ymm(15, {5, 6, 7, 8});
  machine.set_mxcsr(0x1fa0);
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.peek<uint16_t>(kArea), 0x037fu);
  EXPECT_EQ(machine.peek<uint16_t>(kArea + 4), 0x0080u);
  EXPECT_EQ(machine.peek<uint32_t>(kArea + 24), 0x1fa0u);
  EXPECT_EQ(machine.peek<uint32_t>(kArea + 28), 0xffffu);
  EXPECT_EQ(machine.peek<uint64_t>(kArea + 32), 0xc90fdaa22168c235u);
  EXPECT_EQ(machine.peek<uint64_t>(kArea + 40), 0x4000u);
  EXPECT_EQ(machine.peek<uint64_t>(kArea + 168), 2u);
  EXPECT_EQ(machine.peek<uint64_t>(kArea + 400), 5u);
  EXPECT_EQ(machine.peek<uint64_t>(kArea + 416), kUntouched);

  VectorMachine narrow;
  narrow.prepare_32(fxsave_32);
  fill_area(narrow);
  narrow.state.gpr[x86::kRbx] = kArea;
  narrow.run_to_done();
  EXPECT_EQ(narrow.peek<uint64_t>(kArea + 160 + 7 * 16), 0u);
  EXPECT_EQ(narrow.peek<uint64_t>(kArea + 160 + 8 * 16), kUntouched);
}

GUEST_CODE(fxsave_unaligned, "64", "fxsave64 [rbx + 8]" DONE);
GUEST_CODE(fxrstor_64, "64", "fxrstor64 [rbx]" DONE);

TEST(Xsave, FxsaveAndFxrstorFaults) {
  VectorMachine unaligned;
  prepare(unaligned, fxsave_unaligned, 0);
  EXPECT_EQ(run_and_get_fault(unaligned), x86::kGeneralProtection);

  VectorMachine reserved;
  prepare(reserved, fxrstor_64, 0);
  reserved.set_ymm(0, {9, 9, 9, 9});
  EXPECT_EQ(run_and_get_fault(reserved), x86::kGeneralProtection);  // MXCSR = CCCCCCCCh
  EXPECT_EQ(reserved.ymm(0), (Ymm{9, 9, 9, 9}));

  VectorMachine emulated;
  prepare(emulated, fxrstor_64, 0);
  emulated.state.cr0 |= x86::kCr0Em;
  EXPECT_EQ(run_and_get_fault(emulated), x86::kDeviceNotAvailable);
}

TEST(Xsave, FxrstorLoadsAndKeepsTheUpperHalves) {
  VectorMachine machine;
  prepare(machine, fxrstor_64, 0);
  machine.set_ymm(3, {1, 2, 3, 4});
  machine.poke<uint32_t>(kArea, 0x3800037e);  // IM clear, TOP 7
  machine.poke<uint32_t>(kArea + 24, 0x9fc0);
  machine.poke<uint64_t>(kArea + 160 + 48, 0x1234);
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.ymm(3), (Ymm{0x1234, kUntouched, 3, 4}));
  EXPECT_EQ(machine.mxcsr(), 0x9fc0u);
  EXPECT_EQ(machine.x87_control(), 0x037eu);
  EXPECT_EQ(machine.x87_top(), 7u);
  EXPECT_EQ(machine.legacy<uint64_t>(32), kUntouched);
  EXPECT_EQ(machine.legacy<uint64_t>(40), 0xccccu);
}

// --- XSAVE and its variants.

GUEST_CODE(xsave_all, "64", "xsave64 [rbx]" DONE);
GUEST_CODE(xsaveopt_all, "64", "xsaveopt64 [rbx]" DONE);
GUEST_CODE(xsavec_all, "64", "xsavec64 [rbx]" DONE);
GUEST_CODE(xrstor_all, "64", "xrstor64 [rbx]" DONE);

TEST(Xsave, XsaveWritesRequestedComponentsAndKeepsOtherHeaderBits) {
  VectorMachine machine;
  prepare(machine, xsave_all, 4 | 1);
  machine.poke<uint64_t>(kHeader, 0x0a);  // bit 1 is not requested: it stays; bit 3 is none of ours
  machine.set_ymm(2, {1, 2, 3, 4});
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.peek<uint64_t>(kHeader), 0x0eu);
  EXPECT_EQ(machine.peek<uint64_t>(kHeader + 8), 0u);
  EXPECT_EQ(machine.peek<uint16_t>(kArea), 0x037fu);
  EXPECT_EQ(machine.peek<uint32_t>(kArea + 24), kInitialMxcsr);  // with AVX (SDM Vol. 1 13.7)
  EXPECT_EQ(machine.peek<uint64_t>(kArea + 160), kUntouched);
  EXPECT_EQ(machine.peek<uint64_t>(kYmmHigh + 32), 3u);
  EXPECT_EQ(machine.peek<uint64_t>(kYmmHigh + 256), kUntouched);
}

TEST(Xsave, XsaveoptSkipsInitialComponents) {
  VectorMachine machine;
  prepare(machine, xsaveopt_all, 7);
  machine.set_ymm(2, {1, 2, 0, 0});
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.peek<uint64_t>(kHeader), 2u);
  EXPECT_EQ(machine.peek<uint16_t>(kArea), 0xccccu);
  EXPECT_EQ(machine.peek<uint32_t>(kArea + 24), kInitialMxcsr);
  EXPECT_EQ(machine.peek<uint64_t>(kArea + 160 + 32), 1u);
  EXPECT_EQ(machine.peek<uint64_t>(kYmmHigh), kUntouched);
}

TEST(Xsave, XsavecCompactsAndCountsMxcsrAsSse) {
  VectorMachine machine;
  prepare(machine, xsavec_all, 6);
  machine.set_mxcsr(0x1fa0);
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.peek<uint64_t>(kHeader), 2u);
  EXPECT_EQ(machine.peek<uint64_t>(kHeader + 8), kCompacted | 6);
  EXPECT_EQ(machine.peek<uint32_t>(kArea + 24), 0x1fa0u);
  EXPECT_EQ(machine.peek<uint16_t>(kArea), 0xccccu);

  VectorMachine initial;
  prepare(initial, xsavec_all, 6);
  ASSERT_EQ(run_and_get_fault(initial), VectorMachine::kNoFault);
  EXPECT_EQ(initial.peek<uint64_t>(kHeader), 0u);
  EXPECT_EQ(initial.peek<uint32_t>(kArea + 24), 0xccccccccu);
}

TEST(Xsave, GatesAndAlignment) {
  VectorMachine off, switched, unaligned;
  prepare(off, xsave_all, 7);
  off.state.cr4 &= ~uint64_t{x86::kCr4Osxsave};
  EXPECT_EQ(run_and_get_fault(off), x86::kInvalidOpcode);
  prepare(switched, xsave_all, 7);
  switched.state.cr0 |= x86::kCr0Ts;
  EXPECT_EQ(run_and_get_fault(switched), x86::kDeviceNotAvailable);
  prepare(unaligned, xsave_all, 7);
  unaligned.state.gpr[x86::kRbx] += 32;
  EXPECT_EQ(run_and_get_fault(unaligned), x86::kGeneralProtection);
}

TEST(Xsave, XrstorLoadsOrInitialises) {
  VectorMachine machine;
  prepare(machine, xrstor_all, 7);
  machine.set_ymm(1, {1, 2, 3, 4});
  machine.set_x87_control_status(0x27f, 0x3800);
  machine.poke<uint64_t>(kHeader, 4);
  machine.poke<uint32_t>(kArea + 24, 0x1f81);  // the standard form takes MXCSR although SSE is initialised
  ASSERT_EQ(run_and_get_fault(machine), VectorMachine::kNoFault);
  EXPECT_EQ(machine.ymm(1), (Ymm{0, 0, kUntouched, kUntouched}));
  EXPECT_EQ(machine.mxcsr(), 0x1f81u);
  EXPECT_EQ(machine.x87_control(), 0x37fu);
  EXPECT_EQ(machine.x87_status(), 0u);
}

TEST(Xsave, XrstorCompactedInitialisesMxcsrWithSse) {
  VectorMachine machine;
  prepare(machine, xrstor_all, 7);
  machine.set_mxcsr(0x1fa0);
  machine.poke<uint64_t>(kHeader, 4);
  machine.poke<uint64_t>(kHeader + 8, kCompacted | 7);
  ASSERT_EQ(run_and_get_fault(machine),
            VectorMachine::kNoFault);  // MXCSR in the area is CCCCCCCCh and is not looked at
  EXPECT_EQ(machine.mxcsr(), kInitialMxcsr);
  EXPECT_EQ(machine.ymm(0)[2], kUntouched);
}

TEST(Xsave, XrstorRefusesBadHeaders) {
  const struct {
    uint64_t components, layout, rest;
    unsigned rest_at;
  } cases[] = {
      {8, 0, 0, 16},               // XSTATE_BV beyond XCR0
      {1, 7, 0, 16},               // XCOMP_BV in the standard form
      {1, 0, 1, 16},               // bytes 23:16 in the standard form
      {2, kCompacted | 1, 0, 16},  // XSTATE_BV beyond XCOMP_BV
      {1, kCompacted | 9, 0, 16},  // XCOMP_BV beyond XCR0
      {1, kCompacted | 7, 1, 56},  // reserved bytes in the compacted form
      {2, 0, 0, 16},               // MXCSR with reserved bits
  };
  for (const auto& test : cases) {
    VectorMachine machine;
    prepare(machine, xrstor_all, 7);
    machine.set_ymm(0, {1, 2, 3, 4});
    machine.poke<uint64_t>(kHeader, test.components);
    machine.poke<uint64_t>(kHeader + 8, test.layout);
    machine.poke<uint64_t>(kHeader + test.rest_at, test.rest);
    if (&test != std::end(cases) - 1) machine.poke<uint32_t>(kArea + 24, kInitialMxcsr);
    EXPECT_EQ(run_and_get_fault(machine), x86::kGeneralProtection) << "case " << &test - cases;
    EXPECT_EQ(machine.ymm(0), (Ymm{1, 2, 3, 4}));
  }
}

GUEST_CODE(xsave_fault, "64", "xsave64 [rbx]" DONE);

TEST(Xsave, FaultOnTheSecondPageWritesNothing) {
  VectorMachine machine;
  prepare(machine, xsave_fault, 7);
  machine.set_page(VectorMachine::kUnmapped, 0);
  machine.state.gpr[x86::kRbx] = VectorMachine::kUnmapped - 576;  // AVX lies in the missing page
  ASSERT_EQ(run_and_get_fault(machine), x86::kPageFault);
  EXPECT_EQ(machine.state.cr2, VectorMachine::kUnmapped);
  EXPECT_EQ(machine.peek<uint64_t>(VectorMachine::kUnmapped - 576), 0u);
}

// --- Conversions.

TEST(Xsave, StateRoundTrip) {
  VectorState state{};
  for (unsigned i = 0; i < 16; ++i)
    for (unsigned k = 0; k < 32; ++k) state.ymm[i][k] = static_cast<uint8_t>(i * 32 + k + 1);
  for (unsigned i = 0; i < 160; ++i)
    if (i >= 32 && i % 16 < 10) state.fx[i] = static_cast<uint8_t>(i);
  state.fx[0] = 0x7f;
  state.fx[1] = 0x02;
  state.fx[3] = 0x38;
  state.fx[4] = 0x80;
  state.mxcsr = 0x9fc1;
  EXPECT_EQ(components_in_use(state), uint64_t{kXcAll});
  x86::XsaveArea area;
  to_xsave_area(state, area);
  VectorState back{};
  from_xsave_area(area, back);
  EXPECT_EQ(std::memcmp(state.ymm, back.ymm, sizeof state.ymm), 0);
  EXPECT_EQ(std::memcmp(state.fx, back.fx, 24), 0);
  EXPECT_EQ(std::memcmp(state.fx + 32, back.fx + 32, 128), 0);
  EXPECT_EQ(back.mxcsr, 0x9fc1u);

  from_xsave_area(x86::XsaveArea{}, back);  // no component: all initial, but MXCSR is taken as it stands
  back.mxcsr = kInitialMxcsr;
  EXPECT_EQ(components_in_use(back), 0u);
}

}  // namespace
}  // namespace tenon::interp
