// Bodies of the system instructions, and what they share. system.cc makes handlers of them.
//
// A body does its instruction and returns true, or returns false with a fault pending and nothing changed. CPL and mode
// have been checked as the opcode row says (kCpl0, kNotReal).
#pragma once

#include "engine/interp/cpu_inline.hh"

namespace tenon::interp {

using Body = bool(Cpu& cpu, const Step* step);

// --- Operands.

inline SegmentIndex memory_segment(const Step* step) { return static_cast<SegmentIndex>(step->insn.segment); }

inline void write_gpr(Cpu& cpu, unsigned number, unsigned size_bytes, uint64_t value) {
  switch (size_bytes) {
    case 2: return cpu.set_reg<uint16_t>(number, static_cast<uint16_t>(value));
    case 4: return cpu.set_reg<uint32_t>(number, static_cast<uint32_t>(value));
    default: cpu.gpr[number] = value;
  }
}

/// "r/m16": a register's low word or a word in memory.
inline bool read_rm16(Cpu& cpu, const Step* step, uint16_t& out) {
  if (step->insn.is_memory) return cpu.load<uint16_t>(memory_segment(step), cpu.effective_offset(step), out);
  out = cpu.reg<uint16_t>(step->insn.rm);
  return true;
}

/// A register of operand size (zero-extended), or a word in memory: SLDT, STR, SMSW, MOV from a segment register.
inline bool write_rm_or_m16(Cpu& cpu, const Step* step, uint64_t value) {
  const Insn& insn = step->insn;
  if (insn.is_memory) {
    return cpu.store<uint16_t>(memory_segment(step), cpu.effective_offset(step), static_cast<uint16_t>(value));
  }
  write_gpr(cpu, insn.rm, insn.operand_size, value);
  return true;
}

/// Width of the operands that ignore prefixes: MOV CR, MOV DR, INVPCID.
inline unsigned native_size(const Cpu& cpu) { return cpu.in_long_mode ? 8 : 4; }

inline bool raise_gp0(Cpu& cpu) { return cpu.raise(x86::kGeneralProtection, 0); }

/// EDX:EAX.
inline uint64_t read_edx_eax(const Cpu& cpu) {
  return uint64_t{cpu.reg<uint32_t>(x86::kRdx)} << 32 | cpu.reg<uint32_t>(x86::kRax);
}
inline void write_edx_eax(Cpu& cpu, uint64_t value) {
  cpu.gpr[x86::kRax] = static_cast<uint32_t>(value);
  cpu.gpr[x86::kRdx] = value >> 32;
}

/// The guest's time-stamp counter.
inline uint64_t guest_tsc(const Cpu& cpu) { return cpu.clock->now_tsc() + cpu.state.tsc_offset; }

/// CR4.UMIP hides descriptor tables and CR0 from CPL 1-3 (SDM Vol. 3 2.5).
inline bool umip_allows(Cpu& cpu) { return (cpu.state.cr4 & x86::kCr4Umip) == 0 || cpu.cpl == 0 || raise_gp0(cpu); }

// --- segment_instruction.cc
Body mov_to_segment, mov_from_segment, push_segment, pop_segment, load_far_pointer;
Body lldt, ltr, sldt, str, lar, lsl, verr, verw, arpl, lgdt, lidt, sgdt, sidt;
// --- far_transfer_instruction.cc: set cpu.rip themselves
Body jmp_far, call_far, ret_far, iret, syscall, sysret, sysenter, sysexit;
// --- system_control.cc
Body mov_from_cr, mov_to_cr, clts, lmsw, smsw, invlpg, invpcid, xgetbv, xsetbv;
void mov_from_dr(Cpu& cpu, const Step* step);
void mov_to_dr(Cpu& cpu, const Step* step);
// --- msr.cc
Body rdmsr, wrmsr;
// --- port_io.cc
Body in, out;
void ins(Cpu& cpu, const Step* step);
void outs(Cpu& cpu, const Step* step);

}  // namespace tenon::interp
