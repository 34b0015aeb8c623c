#include "engine/x86/cpu_state.hh"

#include <cstring>

#include "engine/x86/cpuid.hh"

namespace tenon::x86 {
namespace {

// Descriptor-cache attributes after reset: present, read/write data, accessed (SDM Vol. 3 Table 10-1).
constexpr uint32_t kResetData = 0x93;
constexpr uint32_t kResetCode = 0x93;  // the table gives CS the same rights as data; real mode executes from it anyway
constexpr uint32_t kResetLdt = 0x82;
constexpr uint32_t kResetTss = 0x8b;

constexpr uint64_t kResetCr0 = kCr0Cd | kCr0Nw | kCr0Et;  // 60000010H

/// XSAVE legacy region after RESET: FCW 0040H, all x87 registers zero and valid (FTW 5555H), MXCSR 1F80H.
void reset_xsave(XsaveArea& area) {
  area.bytes.fill(std::byte{0});
  const uint16_t control = 0x0040;
  const uint8_t abridged_tag = 0xff;  // no register is empty
  const uint32_t mxcsr = 0x1f80;
  const uint64_t components = 3;  // XSTATE_BV: x87 and SSE are not in their initial configuration
  std::memcpy(area.bytes.data(), &control, sizeof control);
  std::memcpy(area.bytes.data() + 4, &abridged_tag, sizeof abridged_tag);
  std::memcpy(area.bytes.data() + XsaveArea::kMxcsrOffset, &mxcsr, sizeof mxcsr);
  std::memcpy(area.bytes.data() + XsaveArea::kHeaderOffset, &components, sizeof components);
}

/// The part of Table 10-1 that RESET and INIT have in common.
void enter_initial_mode(CpuState& state, bool bootstrap_processor) {
  state.gpr.fill(0);
  state.gpr[kRdx] = kProcessorSignature;  // family, model, stepping
  state.rip = 0xfff0;
  state.rflags = kFlagsOne;
  state.cr2 = 0;
  state.cr3 = 0;
  state.cr4 = 0;
  state.efer = 0;
  state.segments.fill(Segment{.base = 0, .limit = 0xffff, .attributes = kResetData, .selector = 0});
  state.segments[kCs] = Segment{.base = 0xffff0000, .limit = 0xffff, .attributes = kResetCode, .selector = 0xf000};
  state.ldtr = Segment{.base = 0, .limit = 0xffff, .attributes = kResetLdt, .selector = 0};
  state.tr = Segment{.base = 0, .limit = 0xffff, .attributes = kResetTss, .selector = 0};
  state.gdtr = DescriptorTable{.base = 0, .limit = 0xffff};
  state.idtr = DescriptorTable{.base = 0, .limit = 0xffff};
  state.dr.fill(0);
  state.dr6 = 0xffff0ff0;
  state.dr7 = 0x400;
  state.pdpte.fill(0);
  state.interrupt_shadow = false;
  state.nmi_blocked = false;
  state.activity = bootstrap_processor ? Activity::kRunning : Activity::kWaitForStartup;
}

}  // namespace

void CpuState::reset(bool bootstrap_processor) {
  *this = CpuState{};
  cr0 = kResetCr0;
  reset_xsave(xsave);
  enter_initial_mode(*this, bootstrap_processor);
}

void CpuState::init(bool bootstrap_processor) {
  // CD and NW keep their values, bit 4 is set, all others are cleared (Table 10-1, note 2). XCR0, x87, SSE, TSC and the
  // other MSRs are left unchanged by INIT; EFER is cleared.
  cr0 = (cr0 & (kCr0Cd | kCr0Nw)) | kCr0Et;
  enter_initial_mode(*this, bootstrap_processor);
}

void CpuState::startup(uint8_t vector) {
  Segment& code = segments[kCs];
  code.selector = static_cast<uint16_t>(vector << 8);
  code.base = uint64_t{vector} << 12;
  rip = 0;
  activity = Activity::kRunning;
}

}  // namespace tenon::x86
