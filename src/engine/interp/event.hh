// Delivery of exceptions and interrupts through the IVT, IDT or a task gate (SDM Vol. 3 chapter 6).
//
// All are called outside a handler's step or as its last act, with cpu.rip = what is pushed as return address (the
// faulting instruction for faults). They change CS:RIP, the stack and flags, or convert the fault into #DF; a failing
// #DF sets state.activity to kShutdown. On return rip is where execution goes on, no fault is pending.
#pragma once

#include "engine/interp/cpu.hh"

namespace tenon::interp {

/// Delivers cpu.pending_fault and clears has_fault and kAttentionFault. Faults push RF = 1, traps (#BP, #OF, #DB traps)
/// do not.
void deliver_fault(Cpu& cpu);
/// #DB: `dr6_bits` (B0-B3, BD, BS, BT) are set in DR6 first. `is_fault`: instruction breakpoints and general detect.
/// Only general detect pushes RF = 1; an instruction breakpoint leaves setting it to the handler (SDM Vol. 3 18.3.1.1).
void deliver_debug(Cpu& cpu, uint32_t dr6_bits, bool is_fault);
/// External interrupt `vector` (maskable, already acknowledged).
void deliver_interrupt(Cpu& cpu, uint8_t vector);
void deliver_nmi(Cpu& cpu);

enum class SoftwareInterrupt : uint8_t { kIntN, kInt3, kInto, kInt1 };
/// INT n, INT3, INTO, INT1 from their handler: privilege checks of the gate, VME redirection (INT n only). cpu.rip must
/// be the next instruction, `fault_rip` the instruction itself, where a fault raised by the delivery points.
void software_interrupt(Cpu& cpu, uint8_t vector, SoftwareInterrupt kind, uint64_t fault_rip);

}  // namespace tenon::interp
