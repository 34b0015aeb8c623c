#include "engine/x86/state_check.hh"

#include <fmt/format.h>

#include <cstring>
#include <string_view>

#include "engine/x86/cpuid.hh"
#include "engine/x86/paging.hh"

namespace tenon::x86 {
namespace {

constexpr uint64_t kCr0Valid =
    kCr0Pe | kCr0Mp | kCr0Em | kCr0Ts | kCr0Et | kCr0Ne | kCr0Wp | kCr0Am | kCr0Nw | kCr0Cd | kCr0Pg;
constexpr uint64_t kCr4Valid = kCr4Vme | kCr4Pvi | kCr4Tsd | kCr4De | kCr4Pse | kCr4Pae | kCr4Mce | kCr4Pge | kCr4Pce |
                               kCr4Osfxsr | kCr4Osxmmexcpt | kCr4Umip | kCr4Fsgsbase | kCr4Pcide | kCr4Osxsave |
                               kCr4Smep | kCr4Smap;
constexpr uint64_t kEferValid = kEferSce | kEferLme | kEferLma | kEferNxe;
constexpr uint64_t kRflagsValid =
    kArithmeticFlags | kFlagsOne | kTf | kIf | kDf | kIopl | kNt | kRf | kVm | kAc | kVif | kVip | kId;

std::unexpected<Error> bad(std::string_view name, uint64_t value, std::string_view rule) {
  return fail(ErrorCode::kInvalidArgument,
              fmt::format("register {} = {:#x}: {}; correct it in the state to be set", name, value, rule));
}

Result<void> check_reserved(std::string_view name, uint64_t value, uint64_t valid) {
  if ((value & ~valid) != 0) return bad(name, value, fmt::format("reserved bits {:#x} are set", value & ~valid));
  return {};
}

Result<void> check_canonical(std::string_view name, uint64_t value) {
  if (!is_canonical(value)) return bad(name, value, "not a canonical address");
  return {};
}

Result<void> check_control_registers(const CpuState& state) {
  TRY(check_reserved("cr0", state.cr0, kCr0Valid));
  TRY(check_reserved("cr4", state.cr4, kCr4Valid));
  TRY(check_reserved("efer", state.efer, kEferValid));
  TRY(check_reserved("cr3", state.cr3, (uint64_t{1} << kPhysicalBits) - 1));
  const bool protected_mode = (state.cr0 & kCr0Pe) != 0;
  const bool paging = (state.cr0 & kCr0Pg) != 0;
  const bool long_mode = (state.efer & kEferLma) != 0;
  if (paging && !protected_mode) return bad("cr0", state.cr0, "PG without PE");
  if ((state.cr0 & kCr0Nw) != 0 && (state.cr0 & kCr0Cd) == 0) return bad("cr0", state.cr0, "NW without CD");
  // SDM Vol. 3 10.8.5: LMA is LME AND PG, and IA-32e mode needs PAE.
  if (long_mode != (paging && (state.efer & kEferLme) != 0))
    return bad("efer", state.efer, "LMA is not LME AND CR0.PG");
  if (long_mode && (state.cr4 & kCr4Pae) == 0) return bad("cr4", state.cr4, "IA-32e mode without PAE");
  if ((state.cr4 & kCr4Pcide) != 0 && !long_mode) return bad("cr4", state.cr4, "PCIDE outside IA-32e mode");
  return {};
}

/// XCR0 and XSS rules of SDM Vol. 1 13.3.
Result<void> check_extended_state(const CpuState& state) {
  TRY(check_reserved("xcr0", state.xcr0, 7));
  if ((state.xcr0 & 1) == 0) return bad("xcr0", state.xcr0, "the x87 bit must be set");
  if ((state.xcr0 & 6) == 4) return bad("xcr0", state.xcr0, "AVX without SSE");
  TRY(check_reserved("xss", state.xss, 0));
  uint32_t mxcsr = 0;
  std::memcpy(&mxcsr, state.xsave.bytes.data() + XsaveArea::kMxcsrOffset, sizeof mxcsr);
  TRY(check_reserved("mxcsr", mxcsr, 0xffff));
  uint64_t components = 0;
  std::memcpy(&components, state.xsave.bytes.data() + XsaveArea::kHeaderOffset, sizeof components);
  return check_reserved("xsave.xstate_bv", components, 7);
}

Result<void> check_flags_and_mode(const CpuState& state) {
  TRY(check_reserved("rflags", state.rflags, kRflagsValid));
  if ((state.rflags & kFlagsOne) == 0) return bad("rflags", state.rflags, "bit 1 must be set");
  const bool long_mode = (state.efer & kEferLma) != 0;
  if ((state.rflags & kVm) != 0 && (long_mode || (state.cr0 & kCr0Pe) == 0)) {
    return bad("rflags", state.rflags, "VM outside protected mode");
  }
  const Segment& code = state.segments[kCs];
  const bool code64 = long_mode && code.is_long();
  if (code64 && code.is_big()) return bad("cs.attributes", code.attributes, "L and D are both set");
  if (code64) return check_canonical("rip", state.rip);
  if (state.rip > 0xffffffff) return bad("rip", state.rip, "above 4 GiB outside 64-bit mode");
  return {};
}

Result<void> check_segments(const CpuState& state) {
  static constexpr std::string_view kNames[] = {"es", "cs", "ss", "ds", "fs", "gs"};
  const bool long_mode = (state.efer & kEferLma) != 0;
  for (unsigned i = 0; i < kSegmentCount; ++i) {
    const Segment& segment = state.segments[i];
    TRY(check_reserved(fmt::format("{}.attributes", kNames[i]), segment.attributes, 0x1f0ff));
    const bool wide = long_mode && (i == kFs || i == kGs);
    if (wide) TRY(check_canonical(fmt::format("{}.base", kNames[i]), segment.base));
    if (!wide && segment.base > 0xffffffff) return bad(fmt::format("{}.base", kNames[i]), segment.base, "above 4 GiB");
  }
  TRY(check_reserved("ldtr.attributes", state.ldtr.attributes, 0x1f0ff));
  TRY(check_reserved("tr.attributes", state.tr.attributes, 0x1f0ff));
  TRY(check_canonical("ldtr.base", state.ldtr.base));
  TRY(check_canonical("tr.base", state.tr.base));
  TRY(check_canonical("gdtr.base", state.gdtr.base));
  return check_canonical("idtr.base", state.idtr.base);
}

Result<void> check_debug_registers(const CpuState& state) {
  // DR6 and DR7 ignore or fix bits rather than reserve them, but 63:32 cannot be set (SDM Vol. 3 18.2.6).
  TRY(check_reserved("dr6", state.dr6, 0xffffffff));
  return check_reserved("dr7", state.dr7, 0xffffffff);
}

/// PAT entries: UC, WC, WT, WP, WB, UC- (SDM Vol. 3 12.12.2).
bool pat_is_valid(uint64_t pat) {
  for (unsigned i = 0; i < 8; ++i) {
    const uint64_t type = (pat >> (8 * i)) & 0xff;
    if (type > 7 || type == 2 || type == 3) return false;
  }
  return true;
}

Result<void> check_msrs(const CpuState& state) {
  TRY(check_canonical("lstar", state.lstar));
  TRY(check_canonical("cstar", state.cstar));
  TRY(check_canonical("kernel_gs_base", state.kernel_gs_base));
  TRY(check_canonical("sysenter_esp", state.sysenter_esp));
  TRY(check_canonical("sysenter_eip", state.sysenter_eip));
  TRY(check_reserved("fmask", state.fmask, 0xffffffff));
  TRY(check_reserved("tsc_aux", state.tsc_aux, 0xffffffff));
  TRY(check_reserved("spec_ctrl", state.spec_ctrl, 0x407));
  if (!pat_is_valid(state.pat)) return bad("pat", state.pat, "a field holds a reserved memory type");
  return {};
}

}  // namespace

Result<void> check_state(const CpuState& state) {
  TRY(check_control_registers(state));
  TRY(check_flags_and_mode(state));
  TRY(check_segments(state));
  TRY(check_debug_registers(state));
  TRY(check_msrs(state));
  return check_extended_state(state);
}

}  // namespace tenon::x86
