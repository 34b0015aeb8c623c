// What memory.cc offers beyond Cpu's own members: breakpoints on data and the address space of system structures.
#pragma once

#include "engine/interp/cpu.hh"

namespace tenon::interp {

/// DR6 bits B0-B3 of the breakpoints in DR7 that an access to [linear, linear + size) matches, 0 where none of them is
/// enabled (SDM Vol. 3 18.2.3, 18.2.5).
uint32_t match_data_breakpoints(const x86::CpuState& state, uint64_t linear, unsigned size_bytes, bool write);
/// Whether DR7 enables any data breakpoint.
bool data_breakpoints_armed(const x86::CpuState& state);

/// Whether [offset, offset + size) is inside the segment's limit; expand-down segments too (SDM Vol. 3 5.3).
bool segment_limit_allows(const x86::Segment& segment, uint64_t offset, unsigned size_bytes);

/// Checks that a load would succeed, without the load: CLFLUSH, MMIO that must not be read, operands whose parts
/// processors touch out of order.
bool probe_load(Cpu& cpu, SegmentIndex segment, uint64_t offset, unsigned size_bytes);

/// #AC alone, for instructions that look at the alignment of a part before anything else (FXSAVE).
bool check_operand_alignment(Cpu& cpu, SegmentIndex segment, uint64_t offset, unsigned size_bytes);

/// While it lives no access of CPL 3 raises #AC: operands of VMASKMOV, gathers and VCVTPH2PS, which processors never
/// check.
class AlignmentCheckOff {
 public:
  explicit AlignmentCheckOff(Cpu& cpu) : cpu_(cpu), kept_(cpu.cpl == 3 ? cpu.system_flags & x86::kAc : 0) {
    cpu_.system_flags &= ~kept_;
  }
  AlignmentCheckOff(const AlignmentCheckOff&) = delete;
  AlignmentCheckOff& operator=(const AlignmentCheckOff&) = delete;
  ~AlignmentCheckOff() { cpu_.system_flags |= kept_; }

 private:
  Cpu& cpu_;
  decltype(Cpu::system_flags) kept_;
};

/// GDT, LDT, IDT, TSS and inner stacks are addressed with 64 bits in IA-32e mode, also from compatibility mode, else
/// with 32.
uint64_t linear_space_mask(const Cpu& cpu);
/// Cpu::probe_store() for a linear address.
bool probe_linear_store(Cpu& cpu, uint64_t linear, unsigned size_bytes, Privilege privilege);

}  // namespace tenon::interp
