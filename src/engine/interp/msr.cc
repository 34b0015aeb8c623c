// RDMSR and WRMSR: the registers that the engine keeps; all others are the machine's (CpuIo::read_msr, write_msr).
//
// Most registers are rows of a table: where the value lives and which writes fault. The rest have functions.
// Source: Intel SDM Vol. 4 chapter 2; Vol. 3 12.11 (MTRRs), 12.12 (PAT), 17.17 (TSC), 2.2.1 (EFER).
// Deviation: IA32_DEBUGCTL accepts LBR and BTF but records no branches and steps on instructions. Memory types have no
// effect.
#include <algorithm>
#include <iterator>

#include "engine/interp/segment.hh"
#include "engine/interp/system_handlers.hh"

namespace tenon::interp {
namespace {

using x86::CpuState;

// clang-format off
enum MsrIndex : uint32_t {
  kPlatformId = 0x17, kEblCrPoweron = 0x2a, kTsc = 0x10, kTscAdjust = 0x3b, kSpecCtrl = 0x48, kPredCmd = 0x49,
  kBiosUpdateTrigger = 0x79, kBiosSignature = 0x8b, kPlatformInfo = 0xce, kMtrrCap = 0xfe, kArchCapabilitiesMsr = 0x10a,
  kSysenterCs = 0x174, kSysenterEsp = 0x175, kSysenterEip = 0x176, kMcgCap = 0x179, kMcgStatus = 0x17a,
  kMiscEnable = 0x1a0, kDebugCtl = 0x1d9, kMtrrPhysBase0 = 0x200, kMtrrPhysMask7 = 0x20f, kMtrrFix64k = 0x250,
  kMtrrFix16k80000 = 0x258, kMtrrFix16kA0000 = 0x259, kMtrrFix4kC0000 = 0x268, kMtrrFix4kF8000 = 0x26f, kPat = 0x277,
  kMtrrDefType = 0x2ff, kTscDeadline = 0x6e0, kXss = 0xda0, kEfer = 0xc0000080, kStar = 0xc0000081, kLstar = 0xc0000082,
  kCstar = 0xc0000083, kFmask = 0xc0000084, kFsBase = 0xc0000100, kGsBase = 0xc0000101, kKernelGsBase = 0xc0000102,
  kTscAux = 0xc0000103,
};
// clang-format on

/// What a write must satisfy, else #GP(0).
enum class Rule : uint8_t {
  kAny,
  kCanonical,
  kLow32,  // bits 63:32 are reserved
  kCut32,  // bits 63:32 are ignored
  kPatTypes,
  kReadOnly,
  kIgnored,  // the write has no effect
};

struct StoredMsr {
  uint32_t index;
  uint64_t CpuState::*field;
  Rule rule;
};

// clang-format off
constexpr StoredMsr kStored[] = {  // sorted by index
  {kSysenterCs,   &CpuState::sysenter_cs,    Rule::kCut32},
  {kSysenterEsp,  &CpuState::sysenter_esp,   Rule::kCanonical},
  {kSysenterEip,  &CpuState::sysenter_eip,   Rule::kCanonical},
  {kPat,          &CpuState::pat,            Rule::kPatTypes},
  {kStar,         &CpuState::star,           Rule::kAny},
  {kLstar,        &CpuState::lstar,          Rule::kCanonical},
  {kCstar,        &CpuState::cstar,          Rule::kCanonical},
  {kFmask,        &CpuState::fmask,          Rule::kLow32},
  {kKernelGsBase, &CpuState::kernel_gs_base, Rule::kCanonical},
  {kTscAux,       &CpuState::tsc_aux,        Rule::kLow32},
};

struct FixedMsr {
  uint32_t index;
  uint64_t value;
  Rule rule;
};

constexpr uint64_t kMicrocodeRevision = 0x2b000603;

constexpr FixedMsr kFixed[] = {  // sorted by index
  {kPlatformId,        0,                        Rule::kReadOnly},
  {kEblCrPoweron,      0,                        Rule::kIgnored},
  {kBiosUpdateTrigger, 0,                        Rule::kIgnored},
  {kBiosSignature,     kMicrocodeRevision << 32, Rule::kIgnored},
  {kPlatformInfo,      0,                        Rule::kReadOnly},
  {kMtrrCap,           8 | 1u << 8 | 1u << 10,   Rule::kReadOnly},  // 8 variable ranges, fixed ranges, WC
  {kMcgCap,            0,                        Rule::kReadOnly},  // no banks
  {kMcgStatus,         0,                        Rule::kIgnored},
};
// clang-format on

constexpr bool sorted(const auto& table) {
  return std::ranges::is_sorted(table, {}, [](auto& row) { return row.index; });
}
static_assert(sorted(kStored) && sorted(kFixed));

template <typename Row, size_t n>
const Row* find_row(const Row (&table)[n], uint32_t index) {
  const Row* row = std::ranges::lower_bound(table, index, {}, &Row::index);
  return row != std::end(table) && row->index == index ? row : nullptr;
}

// --- Memory types (SDM Vol. 3 Table 12-8, Figure 12-9).

/// UC, WC, WT, WP, WB; UC- exists in the PAT only.
bool valid_type(uint64_t type, bool in_pat) { return type <= 6 ? type != 2 && type != 3 : in_pat && type == 7; }

bool valid_types(uint64_t fields, bool in_pat) {
  for (unsigned shift = 0; shift < 64; shift += 8) {
    if (!valid_type((fields >> shift) & 0xff, in_pat)) return false;
  }
  return true;
}

bool passes(Rule rule, uint64_t value) {
  switch (rule) {
    case Rule::kCanonical: return x86::is_canonical(value);
    case Rule::kLow32: return value >> 32 == 0;
    case Rule::kPatTypes: return valid_types(value, true);
    case Rule::kReadOnly: return false;
    default: return true;
  }
}

/// The state's word for a fixed- or variable-range MTRR, or nullptr.
uint64_t* mtrr_word(CpuState& state, uint32_t index) {
  if (index >= kMtrrPhysBase0 && index <= kMtrrPhysMask7) return &state.mtrr_variable[index - kMtrrPhysBase0];
  if (index >= kMtrrFix4kC0000 && index <= kMtrrFix4kF8000) return &state.mtrr_fixed[3 + index - kMtrrFix4kC0000];
  switch (index) {
    case kMtrrFix64k: return &state.mtrr_fixed[0];
    case kMtrrFix16k80000: return &state.mtrr_fixed[1];
    case kMtrrFix16kA0000: return &state.mtrr_fixed[2];
    case kMtrrDefType: return &state.mtrr_default_type;
    default: return nullptr;
  }
}

/// Reserved bits of MTRRs (SDM Vol. 3 12.11.2).
bool mtrr_write_allowed(const Cpu& cpu, uint32_t index, uint64_t value) {
  if (index == kMtrrDefType) return (value & ~uint64_t{0xcff}) == 0 && valid_type(value & 0xff, false);
  if (index >= kMtrrFix64k) return valid_types(value, false);
  const uint64_t above = ~((uint64_t{1} << cpu.limits.physical_bits) - 1);
  const bool is_mask = (index & 1) != 0;
  if (is_mask) return (value & (above | 0x7ff)) == 0;
  return (value & (above | 0xf00)) == 0 && valid_type(value & 0xff, false);
}

// --- Registers with effects.

bool write_efer(Cpu& cpu, uint64_t value) {
  CpuState& state = cpu.state;
  if ((value & ~cpu.limits.efer_valid) != 0) return raise_gp0(cpu);
  const uint64_t changed = value ^ state.efer;
  // LME is fixed while paging is on (SDM Vol. 3 2.2.1); LMA belongs to the processor.
  if ((changed & x86::kEferLme) != 0 && (state.cr0 & x86::kCr0Pg) != 0) return raise_gp0(cpu);
  state.efer = (value & ~uint64_t{x86::kEferLma}) | (state.efer & x86::kEferLma);
  cpu.update_mode();
  if ((changed & x86::kEferNxe) != 0) cpu.flush_tlb(false);
  return true;
}

/// IA32_TSC moves IA32_TSC_ADJUST along, and the other way round (SDM Vol. 3 17.17.3).
bool write_tsc(Cpu& cpu, uint64_t value) {
  const uint64_t delta = value - guest_tsc(cpu);
  cpu.state.tsc_offset += delta;
  cpu.state.tsc_adjust += delta;
  cpu.io->tsc_offset_changed(cpu.state.tsc_offset);
  return true;
}

bool write_tsc_adjust(Cpu& cpu, uint64_t value) {
  cpu.state.tsc_offset += value - cpu.state.tsc_adjust;
  cpu.state.tsc_adjust = value;
  cpu.io->tsc_offset_changed(cpu.state.tsc_offset);
  return true;
}

/// FS and GS base live in the segment registers.
bool write_segment_base(Cpu& cpu, SegmentIndex segment, uint64_t value) {
  if (!x86::is_canonical(value)) return raise_gp0(cpu);
  cpu.state.segments[segment].base = value;
  update_window(cpu, segment);
  return true;
}

constexpr uint64_t kMiscEnableWritable = 1;                            // fast strings
constexpr uint64_t kMiscEnableFixed = 1u << 11 | 1u << 12;             // BTS and PEBS are unavailable
constexpr uint64_t kMiscEnableIgnored = 1u << 3 | 1u << 7 | 1u << 23;  // thermal, performance monitoring (RO), xTPR

bool write_misc_enable(Cpu& cpu, uint64_t value) {
  if ((value & ~(kMiscEnableWritable | kMiscEnableFixed | kMiscEnableIgnored)) != 0) return raise_gp0(cpu);
  cpu.state.misc_enable = value & kMiscEnableWritable;
  return true;
}

/// The machine's local APIC compares with the clock's own TSC, the guest with its offset one.
bool write_tsc_deadline(Cpu& cpu, uint64_t value) {
  const uint64_t deadline = value == 0 ? 0 : value - cpu.state.tsc_offset;
  return cpu.io->write_msr(kTscDeadline, deadline) || raise_gp0(cpu);
}

bool read_tsc_deadline(Cpu& cpu, uint64_t& value) {
  if (!cpu.io->read_msr(kTscDeadline, value)) return raise_gp0(cpu);
  if (value != 0) value += cpu.state.tsc_offset;
  return true;
}

bool write_checked(Cpu& cpu, uint64_t& field, uint64_t value, uint64_t valid) {
  if ((value & ~valid) != 0) return raise_gp0(cpu);
  field = value;
  return true;
}

bool write_special(Cpu& cpu, uint32_t index, uint64_t value) {
  constexpr uint64_t kBarrier = 1;           // IBPB
  constexpr uint64_t kDebugCtlAccepted = 3;  // LBR, BTF
  uint64_t discarded = 0;
  switch (index) {
    case kTsc: return write_tsc(cpu, value);
    case kTscAdjust: return write_tsc_adjust(cpu, value);
    case kSpecCtrl:
      if (cpu.limits.spec_ctrl_valid == 0) return raise_gp0(cpu);
      return write_checked(cpu, cpu.state.spec_ctrl, value, cpu.limits.spec_ctrl_valid);
    case kPredCmd:
      if (cpu.limits.spec_ctrl_valid == 0) return raise_gp0(cpu);
      return write_checked(cpu, discarded, value, kBarrier);
    case kArchCapabilitiesMsr: return raise_gp0(cpu);
    case kMiscEnable: return write_misc_enable(cpu, value);
    case kDebugCtl: return write_checked(cpu, discarded, value, kDebugCtlAccepted);
    case kTscDeadline: return write_tsc_deadline(cpu, value);
    case kXss:
      if (!cpu.limits.has_xsaves) return raise_gp0(cpu);
      return write_checked(cpu, cpu.state.xss, value, cpu.limits.xss_valid);
    case kEfer: return write_efer(cpu, value);
    case kFsBase: return write_segment_base(cpu, x86::kFs, value);
    case kGsBase: return write_segment_base(cpu, x86::kGs, value);
    default: return cpu.io->write_msr(index, value) || raise_gp0(cpu);
  }
}

bool read_special(Cpu& cpu, uint32_t index, uint64_t& value) {
  const CpuState& state = cpu.state;
  switch (index) {
    case kTsc: value = guest_tsc(cpu); return true;
    case kTscAdjust: value = state.tsc_adjust; return true;
    case kSpecCtrl: value = state.spec_ctrl; return cpu.limits.spec_ctrl_valid != 0 || raise_gp0(cpu);
    case kPredCmd: return raise_gp0(cpu);  // write only
    case kArchCapabilitiesMsr: value = cpu.limits.arch_capabilities; return value != 0 || raise_gp0(cpu);
    case kMiscEnable: value = state.misc_enable | kMiscEnableFixed; return true;
    case kDebugCtl: value = 0; return true;
    case kTscDeadline: return read_tsc_deadline(cpu, value);
    case kXss: value = state.xss; return cpu.limits.has_xsaves || raise_gp0(cpu);
    case kEfer: value = state.efer; return true;
    case kFsBase: value = state.segments[x86::kFs].base; return true;
    case kGsBase: value = state.segments[x86::kGs].base; return true;
    default: return cpu.io->read_msr(index, value) || raise_gp0(cpu);
  }
}

bool read_msr(Cpu& cpu, uint32_t index, uint64_t& value) {
  if (const StoredMsr* row = find_row(kStored, index)) {
    value = cpu.state.*row->field;
    return true;
  }
  if (const FixedMsr* row = find_row(kFixed, index)) {
    value = row->value;
    return true;
  }
  if (const uint64_t* word = mtrr_word(cpu.state, index)) {
    value = *word;
    return true;
  }
  return read_special(cpu, index, value);
}

bool write_msr(Cpu& cpu, uint32_t index, uint64_t value) {
  if (const StoredMsr* row = find_row(kStored, index)) {
    if (!passes(row->rule, value)) return raise_gp0(cpu);
    cpu.state.*row->field = row->rule == Rule::kCut32 ? static_cast<uint32_t>(value) : value;
    return true;
  }
  if (const FixedMsr* row = find_row(kFixed, index)) return passes(row->rule, value) || raise_gp0(cpu);
  if (uint64_t* word = mtrr_word(cpu.state, index)) {
    if (!mtrr_write_allowed(cpu, index, value)) return raise_gp0(cpu);
    *word = value;
    return true;
  }
  return write_special(cpu, index, value);
}

}  // namespace

bool rdmsr(Cpu& cpu, const Step*) {
  uint64_t value = 0;
  if (!read_msr(cpu, cpu.reg<uint32_t>(x86::kRcx), value)) return false;
  write_edx_eax(cpu, value);
  return true;
}

bool wrmsr(Cpu& cpu, const Step*) { return write_msr(cpu, cpu.reg<uint32_t>(x86::kRcx), read_edx_eax(cpu)); }

}  // namespace tenon::interp
