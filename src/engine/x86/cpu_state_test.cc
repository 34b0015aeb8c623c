#include "engine/x86/cpu_state.hh"

#include <gtest/gtest.h>

#include "engine/x86/cpuid.hh"
#include "engine/x86/state_check.hh"

namespace tenon::x86 {
namespace {

/// SDM Vol. 3 Table 10-1, column RESET.
TEST(CpuState, Reset) {
  CpuState state;
  state.lstar = 5;
  state.reset(true);
  EXPECT_EQ(state.cr0, 0x60000010u);
  EXPECT_EQ(state.rip, 0xfff0u);
  EXPECT_EQ(state.rflags, 2u);
  EXPECT_EQ(state.segments[kCs].selector, 0xf000u);
  EXPECT_EQ(state.segments[kCs].base, 0xffff0000u);
  EXPECT_EQ(state.segments[kDs].limit, 0xffffu);
  EXPECT_EQ(state.gpr[kRdx], kProcessorSignature);
  EXPECT_EQ(state.idtr.limit, 0xffffu);
  EXPECT_EQ(state.dr6, 0xffff0ff0u);
  EXPECT_EQ(state.dr7, 0x400u);
  EXPECT_EQ(state.xcr0, 1u);
  EXPECT_EQ(state.lstar, 0u);
  EXPECT_EQ(state.pat, 0x0007040600070406u);
  EXPECT_EQ(state.activity, Activity::kRunning);
  EXPECT_TRUE(check_state(state).has_value());
  state.reset(false);
  EXPECT_EQ(state.activity, Activity::kWaitForStartup);
}

TEST(CpuState, InitKeepsWhatTheTableSays) {
  CpuState state;
  state.reset(true);
  state.cr0 = kCr0Pe | kCr0Pg | kCr0Ne | kCr0Cd;
  state.cr4 = kCr4Pae;
  state.efer = kEferLme | kEferLma;
  state.tsc_offset = 77;
  state.lstar = 0x1000;
  state.xcr0 = 7;
  state.xsave.bytes[XsaveArea::kXmmOffset] = std::byte{42};
  state.gpr[kRax] = 1;
  state.nmi_blocked = true;
  state.init(false);
  EXPECT_EQ(state.cr0, uint64_t{kCr0Cd | kCr0Et});
  EXPECT_EQ(state.cr4, 0u);
  EXPECT_EQ(state.efer, 0u);
  EXPECT_EQ(state.gpr[kRax], 0u);
  EXPECT_EQ(state.tsc_offset, 77u);
  EXPECT_EQ(state.lstar, 0x1000u);
  EXPECT_EQ(state.xcr0, 7u);
  EXPECT_EQ(state.xsave.bytes[XsaveArea::kXmmOffset], std::byte{42});
  EXPECT_FALSE(state.nmi_blocked);
  EXPECT_EQ(state.activity, Activity::kWaitForStartup);
  EXPECT_TRUE(check_state(state).has_value());
}

TEST(CpuState, StartupVector) {
  CpuState state;
  state.reset(false);
  state.startup(0x9a);
  EXPECT_EQ(state.segments[kCs].base, 0x9a000u);
  EXPECT_EQ(state.segments[kCs].selector, 0x9a00u);
  EXPECT_EQ(state.rip, 0u);
  EXPECT_EQ(state.activity, Activity::kRunning);
  EXPECT_TRUE(check_state(state).has_value());
}

/// 64-bit mode as a loader sets it up.
CpuState long_mode_state() {
  CpuState state;
  state.reset(true);
  state.cr0 = kCr0Pe | kCr0Pg | kCr0Et | kCr0Ne;
  state.cr4 = kCr4Pae;
  state.efer = kEferLme | kEferLma;
  state.segments[kCs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xa09b, .selector = 8};
  state.rip = 0xffffffff81000000;
  return state;
}

TEST(StateCheck, AcceptsLongMode) {
  const auto result = check_state(long_mode_state());
  EXPECT_TRUE(result.has_value()) << result.error().message();
}

struct BadState {
  const char* name;  // what the message must start with
  void (*spoil)(CpuState&);
};

const BadState kBadStates[] = {
    {"register cr0 ", [](CpuState& s) { s.cr0 |= 1u << 6; }},
    {"register cr0 ", [](CpuState& s) { s.cr0 &= ~uint64_t{kCr0Pe}; }},
    {"register cr0 ", [](CpuState& s) { s.cr0 |= kCr0Nw; }},
    {"register cr4 ", [](CpuState& s) { s.cr4 |= kCr4La57; }},
    {"register cr4 ", [](CpuState& s) { s.cr4 = 0; }},
    {"register efer ", [](CpuState& s) { s.efer |= 1u << 12; }},
    {"register efer ", [](CpuState& s) { s.efer = kEferLme; }},
    {"register cr3 ", [](CpuState& s) { s.cr3 = uint64_t{1} << 60; }},
    {"register rflags ", [](CpuState& s) { s.rflags = 0; }},
    {"register rflags ", [](CpuState& s) { s.rflags |= 8; }},
    {"register rflags ", [](CpuState& s) { s.rflags |= kVm; }},
    {"register rip ", [](CpuState& s) { s.rip = 0x800000000000; }},
    {"register cs.attributes ", [](CpuState& s) { s.segments[kCs].attributes |= 1u << 14; }},
    {"register gs.base ", [](CpuState& s) { s.segments[kGs].base = 0x800000000000; }},
    {"register ds.base ", [](CpuState& s) { s.segments[kDs].base = 0x100000000; }},
    {"register tr.base ", [](CpuState& s) { s.tr.base = uint64_t{1} << 63; }},
    {"register gdtr.base ", [](CpuState& s) { s.gdtr.base = uint64_t{1} << 63; }},
    {"register lstar ", [](CpuState& s) { s.lstar = uint64_t{1} << 63; }},
    {"register kernel_gs_base ", [](CpuState& s) { s.kernel_gs_base = uint64_t{1} << 63; }},
    {"register pat ", [](CpuState& s) { s.pat = 2; }},
    {"register xcr0 ", [](CpuState& s) { s.xcr0 = 5; }},
    {"register xcr0 ", [](CpuState& s) { s.xcr0 = 2; }},
    {"register dr7 ", [](CpuState& s) { s.dr7 |= uint64_t{1} << 40; }},
    {"register mxcsr ", [](CpuState& s) { s.xsave.bytes[XsaveArea::kMxcsrOffset + 2] = std::byte{1}; }},
};

TEST(StateCheck, NamesTheRegister) {
  for (const BadState& bad : kBadStates) {
    CpuState state = long_mode_state();
    bad.spoil(state);
    const auto result = check_state(state);
    ASSERT_FALSE(result.has_value()) << bad.name;
    EXPECT_EQ(result.error().code(), ErrorCode::kInvalidArgument);
    EXPECT_TRUE(result.error().message().starts_with(bad.name)) << result.error().message();
  }
}

}  // namespace
}  // namespace tenon::x86
