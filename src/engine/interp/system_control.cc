// Control and debug registers, TLB invalidation, XCR0.
// Source: Intel SDM Vol. 3 2.5, 2.6, 4.10, 18.2; Vol. 2 MOV CR, MOV DR, LMSW, INVLPG, INVPCID, XSETBV.
#include "engine/interp/event.hh"
#include "engine/interp/segment.hh"
#include "engine/interp/system_handlers.hh"

namespace tenon::interp {
namespace {

constexpr uint64_t kCr0Writable = x86::kCr0Pe | x86::kCr0Mp | x86::kCr0Em | x86::kCr0Ts | x86::kCr0Ne | x86::kCr0Wp |
                                  x86::kCr0Am | x86::kCr0Nw | x86::kCr0Cd | x86::kCr0Pg;

bool uses_pdptes(const x86::CpuState& state, uint64_t cr0, uint64_t cr4) {
  return (cr0 & x86::kCr0Pg) != 0 && (cr4 & x86::kCr4Pae) != 0 && (state.efer & x86::kEferLme) == 0;
}

bool reload_pdptes(Cpu& cpu, uint64_t cr3) {
  return x86::load_pdptes(*cpu.memory, cr3, cpu.limits.physical_bits, cpu.state.pdpte) || raise_gp0(cpu);
}

/// Entering or leaving paging in combinations that no mode has (SDM Vol. 2, MOV CR; Vol. 3 10.8.5).
bool check_paging_change(Cpu& cpu, uint64_t cr0) {
  const x86::CpuState& state = cpu.state;
  const bool was_on = (state.cr0 & x86::kCr0Pg) != 0, is_on = (cr0 & x86::kCr0Pg) != 0;
  if (is_on && !was_on && (state.efer & x86::kEferLme) != 0) {
    const bool narrow_task = !state.tr.unusable() && (state.tr.type() & 8) == 0;
    if ((state.cr4 & x86::kCr4Pae) == 0 || state.segments[x86::kCs].is_long() || narrow_task) return raise_gp0(cpu);
  }
  if (was_on && !is_on && (cpu.in_long_mode || (state.cr4 & x86::kCr4Pcide) != 0)) return raise_gp0(cpu);
  return true;
}

bool write_cr0(Cpu& cpu, uint64_t value) {
  x86::CpuState& state = cpu.state;
  if (value >> 32 != 0) return raise_gp0(cpu);
  const uint64_t cr0 = (value & kCr0Writable) | x86::kCr0Et;  // reserved bits are ignored, ET is 1
  if ((cr0 & x86::kCr0Pg) != 0 && (cr0 & x86::kCr0Pe) == 0) return raise_gp0(cpu);
  if ((cr0 & x86::kCr0Nw) != 0 && (cr0 & x86::kCr0Cd) == 0) return raise_gp0(cpu);
  if (!check_paging_change(cpu, cr0)) return false;
  const uint64_t changed = cr0 ^ state.cr0;
  constexpr uint64_t kReloads = x86::kCr0Pg | x86::kCr0Cd | x86::kCr0Nw;  // SDM Vol. 3 4.4.1
  if (uses_pdptes(state, cr0, state.cr4) && (changed & kReloads) != 0 && !reload_pdptes(cpu, state.cr3)) return false;
  state.cr0 = cr0;
  const bool long_mode = (cr0 & x86::kCr0Pg) != 0 && (state.efer & x86::kEferLme) != 0;
  state.efer = long_mode ? state.efer | x86::kEferLma : state.efer & ~uint64_t{x86::kEferLma};
  cpu.update_mode();
  if ((changed & (x86::kCr0Pg | x86::kCr0Pe)) != 0) {
    cpu.flush_tlb(false);
  } else if ((changed & x86::kCr0Wp) != 0) {
    cpu.flush_tlb_tables();
  }
  return true;
}

bool write_cr3(Cpu& cpu, uint64_t value) {
  x86::CpuState& state = cpu.state;
  const bool pcide = (state.cr4 & x86::kCr4Pcide) != 0;
  // Bit 63 keeps the translations of the new PCID (SDM Vol. 3 4.10.4.1); it is not stored.
  constexpr uint64_t kNoFlush = uint64_t{1} << 63;
  const bool keep = pcide && (value & kNoFlush) != 0;
  if (pcide) value &= ~kNoFlush;
  if (value >> cpu.limits.physical_bits != 0) return raise_gp0(cpu);
  if (uses_pdptes(state, state.cr0, state.cr4) && !reload_pdptes(cpu, value)) return false;
  state.cr3 = value;
  if (keep) {
    cpu.switch_tlb();
  } else {
    cpu.flush_tlb(true);
  }
  return true;
}

bool write_cr4(Cpu& cpu, uint64_t value) {
  x86::CpuState& state = cpu.state;
  if ((value & ~cpu.limits.cr4_valid) != 0) return raise_gp0(cpu);
  const uint64_t changed = value ^ state.cr4;
  const bool long_mode = in_ia32e_mode(cpu);
  if (long_mode && (value & x86::kCr4Pae) == 0) return raise_gp0(cpu);
  // PCIDE can be set only in IA-32e mode with PCID 0 (SDM Vol. 3 4.10.1).
  if ((changed & value & x86::kCr4Pcide) != 0 && (!long_mode || (state.cr3 & 0xfff) != 0)) return raise_gp0(cpu);
  constexpr uint64_t kReloads = x86::kCr4Pae | x86::kCr4Pge | x86::kCr4Pse | x86::kCr4Smep;  // SDM Vol. 3 4.4.1
  if (uses_pdptes(state, state.cr0, value) && (changed & kReloads) != 0 && !reload_pdptes(cpu, state.cr3)) return false;
  state.cr4 = value;
  // SDM Vol. 3 4.10.4.1, and PSE, whose change the manual leaves to software. Setting PCIDE drops nothing: what there
  // is belongs to PCID 0. SMAP needs nothing: it selects other tables.
  constexpr uint64_t kTranslation = x86::kCr4Pae | x86::kCr4Pge | x86::kCr4Pse | x86::kCr4Smep;
  cpu.update_mode();
  if ((changed & kTranslation) != 0 || (changed & ~value & x86::kCr4Pcide) != 0) cpu.flush_tlb(false);
  return true;
}

bool write_cr8(Cpu& cpu, uint64_t value) {
  if (value > 15) return raise_gp0(cpu);
  cpu.io->write_cr8(static_cast<uint8_t>(value));
  cpu.interrupt_hint = true;
  cpu.request_event_check();
  return true;
}

}  // namespace

bool mov_from_cr(Cpu& cpu, const Step* step) {
  uint64_t value = 0;
  switch (step->insn.reg) {
    case 0: value = cpu.state.cr0; break;
    case 2: value = cpu.state.cr2; break;
    case 3: value = cpu.state.cr3; break;
    case 4: value = cpu.state.cr4; break;
    case 8: value = cpu.io->read_cr8(); break;
    default: return cpu.raise(x86::kInvalidOpcode);
  }
  write_gpr(cpu, step->insn.rm, native_size(cpu), value);
  return true;
}

bool mov_to_cr(Cpu& cpu, const Step* step) {
  uint64_t value = cpu.gpr[step->insn.rm];
  if (!cpu.in_long_mode) value = static_cast<uint32_t>(value);
  switch (step->insn.reg) {
    case 0: return write_cr0(cpu, value);
    case 2: cpu.state.cr2 = value; return true;
    case 3: return write_cr3(cpu, value);
    case 4: return write_cr4(cpu, value);
    case 8: return write_cr8(cpu, value);
    default: return cpu.raise(x86::kInvalidOpcode);
  }
}

bool clts(Cpu& cpu, const Step*) {
  cpu.state.cr0 &= ~uint64_t{x86::kCr0Ts};
  cpu.code_context_changed();
  return true;
}

bool lmsw(Cpu& cpu, const Step* step) {
  uint16_t value = 0;
  if (!read_rm16(cpu, step, value)) return false;
  constexpr uint64_t kMachineStatus = x86::kCr0Pe | x86::kCr0Mp | x86::kCr0Em | x86::kCr0Ts;
  const uint64_t kept_pe = cpu.state.cr0 & x86::kCr0Pe;  // LMSW can set PE, not clear it
  return write_cr0(cpu, (cpu.state.cr0 & ~kMachineStatus) | (value & kMachineStatus) | kept_pe);
}

bool smsw(Cpu& cpu, const Step* step) { return umip_allows(cpu) && write_rm_or_m16(cpu, step, cpu.state.cr0); }

// --- Debug registers (SDM Vol. 3 18.2).

namespace {

constexpr uint64_t kDr7GeneralDetect = 1u << 13;
constexpr uint32_t kDr6GeneralDetectHit = 1u << 13;
constexpr uint64_t kDr6Writable = 0xe00f, kDr6Fixed = 0xffff0ff0;
constexpr uint64_t kDr7Writable = 0xffff23ff, kDr7Fixed = 0x400;

/// The debug register that the number means: 4 and 5 are 6 and 7, or #UD with CR4.DE (18.2.2).
bool select_dr(Cpu& cpu, unsigned number, unsigned& out) {
  if (number > 7 || ((number == 4 || number == 5) && (cpu.state.cr4 & x86::kCr4De) != 0)) {
    return cpu.raise(x86::kInvalidOpcode);
  }
  out = number == 4 || number == 5 ? number + 2 : number;
  return true;
}

/// Common checks. False: the handler is to return; a fault is pending or #DB (general detect) has been delivered.
bool begin_dr_access(Cpu& cpu, const Step* step, unsigned& number) {
  if (cpu.cpl != 0) {
    cpu.fault(step, x86::kGeneralProtection, 0);
    return false;
  }
  if (!select_dr(cpu, step->insn.reg, number)) {
    cpu.fault(step);
    return false;
  }
  if ((cpu.state.dr7 & kDr7GeneralDetect) == 0) return true;
  cpu.leave_at(step);
  deliver_debug(cpu, kDr6GeneralDetectHit, true);
  return false;
}

}  // namespace

void mov_from_dr(Cpu& cpu, const Step* step) {
  unsigned number = 0;
  if (!begin_dr_access(cpu, step, number)) return;
  const x86::CpuState& state = cpu.state;
  const uint64_t value = number < 4 ? state.dr[number] : number == 6 ? state.dr6 : state.dr7;
  write_gpr(cpu, step->insn.rm, native_size(cpu), value);
  return next(cpu, step);
}

void mov_to_dr(Cpu& cpu, const Step* step) {
  unsigned number = 0;
  if (!begin_dr_access(cpu, step, number)) return;
  x86::CpuState& state = cpu.state;
  const uint64_t value = cpu.in_long_mode ? cpu.gpr[step->insn.rm] : static_cast<uint32_t>(cpu.gpr[step->insn.rm]);
  if (number >= 6 && value >> 32 != 0) return cpu.fault(step, x86::kGeneralProtection, 0);
  if (number < 4) {
    state.dr[number] = value;
  } else if (number == 6) {
    state.dr6 = (value & kDr6Writable) | kDr6Fixed;
  } else {
    state.dr7 = (value & kDr7Writable) | kDr7Fixed;
    cpu.attention |= Cpu::kAttentionStep;  // the run loop drops it where nothing is armed
  }
  cpu.update_mode();
  return cpu.leave_after(step);
}

// --- Invalidation.

bool invlpg(Cpu& cpu, const Step* step) {
  // The linear address is taken without limit or canonical checks; a non-canonical one does nothing (SDM Vol. 2,
  // INVLPG).
  const Insn& insn = step->insn;
  const bool based = !cpu.in_long_mode || insn.segment >= x86::kFs;
  const uint64_t base = based ? cpu.state.segments[insn.segment].base : 0;
  const uint64_t linear = (base + cpu.effective_offset(step)) & cpu.linear_mask;
  if (x86::is_canonical(linear)) cpu.flush_tlb_page(linear);
  return true;
}

bool invpcid(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  uint64_t descriptor[2] = {};
  const uint64_t type = cpu.in_long_mode ? cpu.gpr[insn.reg] : cpu.reg<uint32_t>(insn.reg);
  if (!cpu.load_bytes(memory_segment(step), cpu.effective_offset(step), descriptor, sizeof descriptor)) return false;
  enum : uint64_t { kAddress, kContext, kAllWithGlobals, kAllButGlobals };
  if (type > kAllButGlobals || descriptor[0] >> 12 != 0) return raise_gp0(cpu);
  const bool names_pcid = type == kAddress || type == kContext;
  if (names_pcid && descriptor[0] != 0 && (cpu.state.cr4 & x86::kCr4Pcide) == 0) return raise_gp0(cpu);
  if (type == kAddress && !x86::is_canonical(descriptor[1])) return raise_gp0(cpu);
  const auto pcid = static_cast<uint16_t>(descriptor[0]);
  switch (type) {
    case kAddress: cpu.flush_tlb_page_of(pcid, descriptor[1]); break;
    case kContext: cpu.flush_tlb_context(pcid); break;
    case kAllWithGlobals: cpu.flush_tlb(false); break;
    default: cpu.flush_tlb_contexts(); break;
  }
  return true;
}

// --- XCR0 (SDM Vol. 1 13.3, Vol. 2 XGETBV, XSETBV).

bool xgetbv(Cpu& cpu, const Step*) {
  if ((cpu.state.cr4 & x86::kCr4Osxsave) == 0) return cpu.raise(x86::kInvalidOpcode);
  const auto index = cpu.reg<uint32_t>(x86::kRcx);
  // Index 1 is XCR0 AND XINUSE; a processor may report a component in use that is in its initial state.
  if (index > 1) return raise_gp0(cpu);
  write_edx_eax(cpu, cpu.state.xcr0);
  return true;
}

bool xsetbv(Cpu& cpu, const Step*) {
  if ((cpu.state.cr4 & x86::kCr4Osxsave) == 0) return cpu.raise(x86::kInvalidOpcode);
  if (cpu.cpl != 0 || cpu.reg<uint32_t>(x86::kRcx) != 0) return raise_gp0(cpu);
  const uint64_t value = read_edx_eax(cpu);
  const bool avx_without_sse = (value & 6) == 4;
  if ((value & ~cpu.limits.xcr0_valid) != 0 || (value & 1) == 0 || avx_without_sse) return raise_gp0(cpu);
  cpu.state.xcr0 = value;
  cpu.code_context_changed();
  return true;
}

}  // namespace tenon::interp
