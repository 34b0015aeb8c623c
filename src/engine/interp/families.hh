// The handler families: each gives the handler of an instruction that is its own, or nullptr.
//
// The trace builder has already turned into #UD: encodings that decode() refuses, rows whose feature is not in
// Cpu::features, rows invalid for the code size, LOCK where the row or the form does not allow it. What depends on the
// moment (CPL, IOPL, real or virtual-8086 mode, CR0, CR4) is checked by the handler itself: kCpl0, kNotReal. A handler
// whose row has kBranch or kSerializing is the last of its trace: it leaves (leave_after, leave_to, fault) or calls
// next(), which ends the trace at the following instruction.
#pragma once

#include "engine/interp/cpu.hh"

namespace tenon::interp {

/// integer_*.cc. `code_size` is the mode the trace runs in.
Handler integer_handler(const Insn& insn, x86::CodeSize code_size);
/// BSF or BSR for the row of TZCNT or LZCNT: what a processor without those executes.
Handler bit_scan_handler(const Insn& insn, x86::CodeSize code_size);
/// system_*.cc: far transfers, segment loads, port I/O, descriptor tables, control and debug registers, MSRs, SYSCALL,
/// HLT...
Handler system_handler(const Insn& insn, x86::CodeSize code_size);
/// vector_*.cc: x87, MMX, SSE, AVX, and the XSAVE family. What it puts into `scratch` is Step::scratch of the step.
Handler vector_handler(const Insn& insn, Cpu& cpu, uint64_t& scratch);

/// Creation and end of a vCPU: fills Cpu::features from Cpu::cpuid (system), Cpu::thunks (vector).
void system_attach(Cpu& cpu);
Result<void> vector_attach(Cpu& cpu);
void vector_detach(Cpu& cpu);

/// Between state.xsave and Cpu::vector.
void vector_load_state(Cpu& cpu);
void vector_save_state(Cpu& cpu);

}  // namespace tenon::interp
