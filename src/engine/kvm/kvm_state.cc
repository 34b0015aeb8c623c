#include "engine/kvm/kvm_state.hh"

#include <fmt/format.h>
#include <linux/kvm.h>

#include <array>
#include <cstring>

#include "engine/kvm/kvm_ioctl.hh"

namespace tenon::kvm {

namespace {

using x86::CpuState;
using x86::Segment;

// kvm_regs fields in GprIndex order.
constexpr std::array<__u64 kvm_regs::*, 16> kGprFields = {
    &kvm_regs::rax, &kvm_regs::rcx, &kvm_regs::rdx, &kvm_regs::rbx, &kvm_regs::rsp, &kvm_regs::rbp,
    &kvm_regs::rsi, &kvm_regs::rdi, &kvm_regs::r8,  &kvm_regs::r9,  &kvm_regs::r10, &kvm_regs::r11,
    &kvm_regs::r12, &kvm_regs::r13, &kvm_regs::r14, &kvm_regs::r15};

// kvm_sregs fields in SegmentIndex order.
constexpr std::array<kvm_segment kvm_sregs::*, x86::kSegmentCount> kSegmentFields = {
    &kvm_sregs::es, &kvm_sregs::cs, &kvm_sregs::ss, &kvm_sregs::ds, &kvm_sregs::fs, &kvm_sregs::gs};

// MSRs that CpuState holds and KVM keeps outside its register structures.
struct MsrRow {
  uint32_t index;
  uint64_t CpuState::*field;
};
constexpr std::array kMsrRows = {
    MsrRow{0xc0000081, &CpuState::star},           MsrRow{0xc0000082, &CpuState::lstar},
    MsrRow{0xc0000083, &CpuState::cstar},          MsrRow{0xc0000084, &CpuState::fmask},
    MsrRow{0xc0000102, &CpuState::kernel_gs_base}, MsrRow{0xc0000103, &CpuState::tsc_aux},
    MsrRow{0x174, &CpuState::sysenter_cs},         MsrRow{0x175, &CpuState::sysenter_esp},
    MsrRow{0x176, &CpuState::sysenter_eip},        MsrRow{0x277, &CpuState::pat},
    MsrRow{0x1a0, &CpuState::misc_enable},         MsrRow{0x2ff, &CpuState::mtrr_default_type},
};

// IA32_MTRR_FIX64K_00000, FIX16K_80000, FIX16K_A0000, FIX4K_C0000 to FIX4K_F8000 (SDM Vol. 3 12.11.2.2).
constexpr std::array<uint32_t, 11> kFixedMtrrs = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
                                                  0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
constexpr uint32_t kVariableMtrrs = 0x200;  // PHYSBASE0, PHYSMASK0, PHYSBASE1, ...

/// Calls `visit(index, value)` for each MSR that `state` holds. `State` is CpuState, const or not.
template <typename State, typename Visitor>
void for_each_msr(State& state, const Visitor& visit) {
  for (const MsrRow& row : kMsrRows) visit(row.index, state.*row.field);
  for (size_t i = 0; i < kFixedMtrrs.size(); ++i) visit(kFixedMtrrs[i], state.mtrr_fixed[i]);
  for (uint32_t i = 0; i < state.mtrr_variable.size(); ++i) visit(kVariableMtrrs + i, state.mtrr_variable[i]);
}

// One MSR at a time, so that an MSR this KVM does not have is skipped instead of ending the list.
bool get_msr(const Fd& vcpu, uint32_t index, uint64_t& value) {
  MsrList msrs(1);
  msrs[0].index = index;
  const Result<int> got = KVM_IOCTL(vcpu, kGetMsrs, msrs.data());
  if (!got || *got != 1) return false;
  value = msrs[0].data;
  return true;
}

bool set_msr(const Fd& vcpu, uint32_t index, uint64_t value) {
  MsrList msrs(1);
  msrs[0].index = index;
  msrs[0].data = value;
  const Result<int> set = KVM_IOCTL(vcpu, kSetMsrs, msrs.data());
  return set && *set == 1;
}

kvm_segment to_kvm(const Segment& segment) {
  kvm_segment out{};
  out.base = segment.base;
  out.limit = segment.limit;
  out.selector = segment.selector;
  out.type = segment.type() & 0xf;
  out.s = segment.is_code_or_data();
  out.dpl = segment.dpl() & 3;
  out.present = segment.present();
  out.avl = (segment.attributes >> 12) & 1;
  out.l = segment.is_long();
  out.db = segment.is_big();
  out.g = (segment.attributes >> 15) & 1;
  out.unusable = segment.unusable();
  return out;
}

Segment from_kvm(const kvm_segment& segment) {
  Segment out;
  out.base = segment.base;
  out.limit = segment.limit;
  out.selector = segment.selector;
  out.attributes = segment.type | uint32_t{segment.s} << 4 | uint32_t{segment.dpl} << 5 |
                   uint32_t{segment.present} << 7 | uint32_t{segment.avl} << 12 | uint32_t{segment.l} << 13 |
                   uint32_t{segment.db} << 14 | uint32_t{segment.g} << 15 |
                   (segment.unusable != 0 ? Segment::kUnusable : 0);
  return out;
}

void sregs_from(const CpuState& state, kvm_sregs& sregs) {
  for (unsigned i = 0; i < x86::kSegmentCount; ++i) sregs.*kSegmentFields[i] = to_kvm(state.segments[i]);
  sregs.ldt = to_kvm(state.ldtr);
  sregs.tr = to_kvm(state.tr);
  sregs.gdt.base = state.gdtr.base;
  sregs.gdt.limit = state.gdtr.limit;
  sregs.idt.base = state.idtr.base;
  sregs.idt.limit = state.idtr.limit;
  sregs.cr0 = state.cr0;
  sregs.cr2 = state.cr2;
  sregs.cr3 = state.cr3;
  sregs.cr4 = state.cr4;
  sregs.efer = state.efer;
}

void sregs_to(const kvm_sregs& sregs, CpuState& state) {
  for (unsigned i = 0; i < x86::kSegmentCount; ++i) state.segments[i] = from_kvm(sregs.*kSegmentFields[i]);
  state.ldtr = from_kvm(sregs.ldt);
  state.tr = from_kvm(sregs.tr);
  state.gdtr = {.base = sregs.gdt.base, .limit = sregs.gdt.limit};
  state.idtr = {.base = sregs.idt.base, .limit = sregs.idt.limit};
  state.cr0 = sregs.cr0;
  state.cr2 = sregs.cr2;
  state.cr3 = sregs.cr3;
  state.cr4 = sregs.cr4;
  state.efer = sregs.efer;
}

// KVM_MP_STATE (KVM API 4.38) and Activity, both ways. Wait-for-SIPI is KVM's INIT_RECEIVED.
uint32_t mp_state_of(x86::Activity activity) {
  switch (activity) {
    case x86::Activity::kHalted: return KVM_MP_STATE_HALTED;
    case x86::Activity::kWaitForStartup: return KVM_MP_STATE_UNINITIALIZED;
    default: return KVM_MP_STATE_RUNNABLE;
  }
}

x86::Activity activity_of(uint32_t mp_state) {
  switch (mp_state) {
    case KVM_MP_STATE_HALTED: return x86::Activity::kHalted;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED: return x86::Activity::kWaitForStartup;
    default: return x86::Activity::kRunning;
  }
}

Result<void> get_extended(const Fd& vcpu, CpuState& state) {
  XsaveRegion xsave{};
  TRY(KVM_IOCTL(vcpu, kGetXsave, &xsave));
  static_assert(sizeof xsave.words >= x86::XsaveArea::kSizeBytes);
  std::memcpy(state.xsave.bytes.data(), xsave.words, x86::XsaveArea::kSizeBytes);
  kvm_xcrs xcrs{};
  TRY(KVM_IOCTL(vcpu, KVM_GET_XCRS, &xcrs));
  if (xcrs.nr_xcrs > 0) state.xcr0 = xcrs.xcrs[0].value;
  return {};
}

Result<void> set_extended(const Fd& vcpu, const CpuState& state) {
  // Order (KVM API 4.45): XCR0 before the XSAVE area that it must cover.
  kvm_xcrs xcrs{};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = state.xcr0;
  TRY(KVM_IOCTL(vcpu, KVM_SET_XCRS, &xcrs));
  XsaveRegion xsave{};
  std::memcpy(xsave.words, state.xsave.bytes.data(), x86::XsaveArea::kSizeBytes);
  TRY(KVM_IOCTL(vcpu, kSetXsave, &xsave));
  return {};
}

Result<void> get_events(const Fd& vcpu, CpuState& state) {
  kvm_debugregs debug{};
  TRY(KVM_IOCTL(vcpu, KVM_GET_DEBUGREGS, &debug));
  for (unsigned i = 0; i < 4; ++i) state.dr[i] = debug.db[i];
  state.dr6 = debug.dr6;
  state.dr7 = debug.dr7;
  kvm_vcpu_events events{};
  TRY(KVM_IOCTL(vcpu, KVM_GET_VCPU_EVENTS, &events));
  state.interrupt_shadow = events.interrupt.shadow != 0;
  state.nmi_blocked = events.nmi.masked != 0;
  kvm_mp_state mp_state{};
  TRY(KVM_IOCTL(vcpu, KVM_GET_MP_STATE, &mp_state));
  state.activity = activity_of(mp_state.mp_state);
  return {};
}

Result<void> set_events(const Fd& vcpu, const CpuState& state) {
  kvm_debugregs debug{};
  for (unsigned i = 0; i < 4; ++i) debug.db[i] = state.dr[i];
  debug.dr6 = state.dr6;
  debug.dr7 = state.dr7;
  TRY(KVM_IOCTL(vcpu, KVM_SET_DEBUGREGS, &debug));
  kvm_vcpu_events events{};
  TRY(KVM_IOCTL(vcpu, KVM_GET_VCPU_EVENTS, &events));
  events.interrupt.shadow = state.interrupt_shadow ? KVM_X86_SHADOW_INT_STI : 0;
  events.nmi.masked = state.nmi_blocked;
  events.flags |= KVM_VCPUEVENT_VALID_SHADOW;
  TRY(KVM_IOCTL(vcpu, KVM_SET_VCPU_EVENTS, &events));
  kvm_mp_state mp_state{.mp_state = mp_state_of(state.activity)};
  TRY(KVM_IOCTL(vcpu, KVM_SET_MP_STATE, &mp_state));
  return {};
}

Result<void> set_msrs(const Fd& vcpu, const CpuState& state) {
  Result<void> result;
  for_each_msr(state, [&](uint32_t index, uint64_t value) {
    uint64_t now = 0;
    if (!result || !get_msr(vcpu, index, now) || now == value) return;  // absent here, or already right
    if (!set_msr(vcpu, index, value))
      result = fail(ErrorCode::kInvalidArgument, fmt::format("KVM refused MSR {:#x}", index));
  });
  return result;
}

}  // namespace

Result<CpuState> get_cpu_state(const Fd& vcpu) {
  CpuState state;
  kvm_regs regs{};
  TRY(KVM_IOCTL(vcpu, KVM_GET_REGS, &regs));
  for (unsigned i = 0; i < 16; ++i) state.gpr[i] = regs.*kGprFields[i];
  state.rip = regs.rip;
  state.rflags = regs.rflags;
  kvm_sregs sregs{};
  TRY(KVM_IOCTL(vcpu, KVM_GET_SREGS, &sregs));
  sregs_to(sregs, state);
  TRY(get_extended(vcpu, state));
  TRY(get_events(vcpu, state));
  for_each_msr(state, [&](uint32_t index, uint64_t& value) { get_msr(vcpu, index, value); });
  return state;
}

Result<void> set_cpu_state(const Fd& vcpu, const CpuState& state) {
  kvm_sregs sregs{};
  TRY(KVM_IOCTL(vcpu, KVM_GET_SREGS, &sregs));  // keeps the local APIC's base, CR8 and pending interrupt
  sregs_from(state, sregs);
  TRY(KVM_IOCTL(vcpu, KVM_SET_SREGS, &sregs));
  kvm_regs regs{};
  for (unsigned i = 0; i < 16; ++i) regs.*kGprFields[i] = state.gpr[i];
  regs.rip = state.rip;
  regs.rflags = state.rflags;
  TRY(KVM_IOCTL(vcpu, KVM_SET_REGS, &regs));
  TRY(set_extended(vcpu, state));
  TRY(set_msrs(vcpu, state));
  return set_events(vcpu, state);
}

}  // namespace tenon::kvm
