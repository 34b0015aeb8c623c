// Delivery of exceptions and interrupts (see event.hh).
//
// One attempt either commits completely or leaves a fault pending; deliver() turns that fault into the next event, a
// double fault or shutdown by SDM Vol. 3 Table 6-5. All checks and pushes come before the first register changes.
//
// Source: Intel SDM Vol. 3 chapter 6, 20.1.4 (real mode), 21.2 and 21.3 (virtual-8086 mode), Vol. 2 INT n.
// Deviation: an interrupt between two iterations of a repeated string instruction pushes RF as it is, not set; software
// cannot tell but by an instruction breakpoint on that very instruction.
#include "engine/interp/event.hh"

#include "engine/interp/cpu_inline.hh"
#include "engine/interp/event_stack.hh"
#include "engine/interp/memory.hh"
#include "engine/interp/segment.hh"
#include "engine/interp/task_switch.hh"

namespace tenon::interp {
namespace {

using x86::kCs;
using x86::kRsp;
using x86::kSs;

struct Event {
  uint8_t vector = 0;
  bool has_error_code = false;
  uint32_t error_code = 0;
  bool external = true;     // EXT in the error code of faults raised by the delivery (SDM Vol. 3 6.13)
  bool checks_dpl = false;  // INT n, INT3, INTO: the gate's DPL must not be below CPL
  bool sets_rf = false;     // fault class: the pushed RF is 1 (SDM Vol. 3 18.3.1.1)
};

constexpr uint64_t kIdtBit = 2;  // error code: the index is of the IDT

uint32_t idt_error(const Event& event) { return static_cast<uint32_t>(event.vector * 8u + kIdtBit); }

uint64_t flags_image(const Cpu& cpu, const Event& event) {
  const uint64_t flags = cpu.rflags();
  return event.sets_rf ? flags | x86::kRf : flags;
}

/// Registers after a successful delivery. Segments are already in place.
void commit(Cpu& cpu, uint64_t rip, uint64_t rsp, uint64_t flags) {
  cpu.gpr[kRsp] = rsp;
  cpu.set_rflags(flags);
  cpu.update_mode();
  cpu.rip = rip;
}

// --- Real mode (SDM Vol. 3 20.1.4), also the redirected INT n of virtual-8086 mode.

bool push_real_frame(Cpu& cpu, StackCursor& stack, uint64_t flags) {
  return stack.push(flags & 0xffff, 2) && stack.push(cpu.state.segments[kCs].selector, 2) &&
         stack.push(cpu.rip & 0xffff, 2);
}

bool deliver_real(Cpu& cpu, const Event& event) {
  const unsigned offset = event.vector * 4u;
  if (offset + 3 > cpu.state.idtr.limit) return cpu.raise(x86::kGeneralProtection, idt_error(event));
  uint32_t target = 0;
  if (!cpu.load_linear(cpu.state.idtr.base + offset, target, Privilege::kSupervisor)) return false;
  StackCursor stack(cpu, cpu.state.segments[kSs], cpu.gpr[kRsp], false, Privilege::kCurrent);
  if (!push_real_frame(cpu, stack, flags_image(cpu, event))) return false;
  set_real_segment(cpu, kCs, static_cast<uint16_t>(target >> 16));
  commit(cpu, target & 0xffff, stack.rsp(), cpu.rflags() & ~(x86::kIf | x86::kTf | x86::kAc | x86::kRf));
  return true;
}

// --- Protected mode through 16- and 32-bit gates.

/// The code segment of a gate: #GP or #NP (SDM Vol. 2, INT n, TRAP-OR-INTERRUPT-GATE).
bool read_handler_segment(Cpu& cpu, const Gate& gate, Descriptor& code) {
  if (selector_is_null(gate.selector)) return cpu.raise(x86::kGeneralProtection, 0);
  if (!read_descriptor(cpu, gate.selector, x86::kGeneralProtection, code)) return false;
  if (!code.is_code() || code.dpl() > cpu.cpl) {
    return cpu.raise(x86::kGeneralProtection, selector_error(gate.selector));
  }
  if (!code.present()) return cpu.raise(x86::kSegmentNotPresent, selector_error(gate.selector));
  const bool inner = !code.is_conforming_code() && code.dpl() < cpu.cpl;
  // Out of virtual-8086 mode only to ring 0 (SDM Vol. 3 21.2.3.1).
  if (in_virtual_8086(cpu) && (!inner || code.dpl() != 0)) {
    return cpu.raise(x86::kGeneralProtection, selector_error(gate.selector));
  }
  return mark_accessed(cpu, code);
}

bool push_virtual_8086_segments(Cpu& cpu, StackCursor& stack, unsigned width) {
  for (const SegmentIndex index : {x86::kGs, x86::kFs, x86::kDs, x86::kEs}) {
    if (!stack.push(cpu.state.segments[index].selector, width)) return false;
  }
  return true;
}

/// What every frame ends with: flags, return address, error code.
bool push_return(Cpu& cpu, StackCursor& stack, const Event& event, unsigned width) {
  return stack.push(flags_image(cpu, event), width) && stack.push(cpu.state.segments[kCs].selector, width) &&
         stack.push(cpu.rip, width) && (!event.has_error_code || stack.push(event.error_code, width));
}

/// SDM Vol. 3 6.12.1.3: interrupt gates clear IF, all gates clear TF, VM, RF and NT.
uint64_t handler_flags(const Cpu& cpu, const Gate& gate) {
  uint64_t flags = cpu.rflags() & ~(x86::kTf | x86::kVm | x86::kRf | x86::kNt);
  const bool interrupt_gate = (gate.type & 1) == 0;
  return interrupt_gate ? flags & ~x86::kIf : flags;
}

void enter_code_segment(Cpu& cpu, const Descriptor& code, unsigned cpl) {
  x86::Segment& segment = cpu.state.segments[kCs];
  segment = code.to_segment();
  segment.selector = static_cast<uint16_t>((code.selector & ~3u) | cpl);
}

bool deliver_inner(Cpu& cpu, const Event& event, const Gate& gate, const Descriptor& code) {
  const bool from_virtual_8086 = in_virtual_8086(cpu);
  const unsigned width = gate.type >= 8 ? 4 : 2;
  x86::Segment new_stack;
  uint64_t esp = 0;
  if (!read_inner_stack(cpu, code.dpl(), new_stack, esp)) return false;
  StackCursor stack(cpu, new_stack, esp, false, Privilege::kSupervisor, selector_error(new_stack.selector));
  if (from_virtual_8086 && !push_virtual_8086_segments(cpu, stack, width)) return false;
  if (!stack.push(cpu.state.segments[kSs].selector, width) || !stack.push(cpu.gpr[kRsp], width)) return false;
  if (!push_return(cpu, stack, event, width)) return false;
  if (gate.offset > code.to_segment().limit) return cpu.raise(x86::kGeneralProtection, 0);
  if (from_virtual_8086) {
    for (const SegmentIndex index : {x86::kGs, x86::kFs, x86::kDs, x86::kEs}) {
      cpu.state.segments[index] = null_segment(0);
    }
  }
  const uint64_t flags = handler_flags(cpu, gate);
  enter_code_segment(cpu, code, code.dpl());
  cpu.state.segments[kSs] = new_stack;
  commit(cpu, gate.offset, stack.rsp(), flags);
  return true;
}

bool deliver_same_level(Cpu& cpu, const Event& event, const Gate& gate, const Descriptor& code) {
  const unsigned width = gate.type >= 8 ? 4 : 2;
  StackCursor stack(cpu, cpu.state.segments[kSs], cpu.gpr[kRsp], false, Privilege::kCurrent);
  if (!push_return(cpu, stack, event, width)) return false;
  if (gate.offset > code.to_segment().limit) return cpu.raise(x86::kGeneralProtection, 0);
  const uint64_t flags = handler_flags(cpu, gate);
  enter_code_segment(cpu, code, cpu.cpl);
  commit(cpu, gate.offset, stack.rsp(), flags);
  return true;
}

bool deliver_by_task(Cpu& cpu, const Event& event, const Gate& gate) {
  if (!switch_task_by_selector(cpu, gate.selector, TaskSwitch::kInterrupt, flags_image(cpu, event))) return false;
  if (!event.has_error_code) return true;
  // The error code goes onto the new task's stack, as wide as its TSS (SDM Vol. 2, INT n, TASK-GATE).
  const unsigned width = (cpu.state.tr.type() & 8) != 0 ? 4 : 2;
  StackCursor stack(cpu, cpu.state.segments[kSs], cpu.gpr[kRsp], false, Privilege::kCurrent);
  if (!stack.push(event.error_code, width)) return false;
  cpu.gpr[kRsp] = stack.rsp();
  return true;
}

/// Type, privilege and presence of an IDT entry.
bool check_gate(Cpu& cpu, const Event& event, const Gate& gate, bool ia32e) {
  bool known = gate.type == kInterruptGate32 || gate.type == kTrapGate32;
  if (!ia32e) known = known || gate.type == kTaskGate || gate.type == kInterruptGate16 || gate.type == kTrapGate16;
  if (!known) return cpu.raise(x86::kGeneralProtection, idt_error(event));
  if (event.checks_dpl && gate.dpl < cpu.cpl) return cpu.raise(x86::kGeneralProtection, idt_error(event));
  if (!gate.present) return cpu.raise(x86::kSegmentNotPresent, idt_error(event));
  return true;
}

bool deliver_protected(Cpu& cpu, const Event& event) {
  const unsigned offset = event.vector * 8u;
  if (offset + 7 > cpu.state.idtr.limit) return cpu.raise(x86::kGeneralProtection, idt_error(event));
  uint64_t raw = 0;
  if (!cpu.load_linear(cpu.state.idtr.base + offset, raw, Privilege::kSupervisor)) return false;
  const Gate gate = unpack_gate(raw, 0, false);
  if (!check_gate(cpu, event, gate, false)) return false;
  if (gate.type == kTaskGate) return deliver_by_task(cpu, event, gate);
  Descriptor code;
  if (!read_handler_segment(cpu, gate, code)) return false;
  const bool inner = !code.is_conforming_code() && code.dpl() < cpu.cpl;
  return inner ? deliver_inner(cpu, event, gate, code) : deliver_same_level(cpu, event, gate, code);
}

// --- IA-32e mode (SDM Vol. 3 6.14).

/// IST, inner stack or the running one, aligned to 16 bytes (SDM Vol. 3 6.14.2, 6.14.5).
bool choose_stack64(Cpu& cpu, const Gate& gate, bool inner, unsigned new_cpl, uint64_t& rsp) {
  rsp = cpu.gpr[kRsp];
  if (gate.stack_table != 0) {
    if (!read_inner_rsp(cpu, ist_slot(gate.stack_table), rsp)) return false;
  } else if (inner) {
    if (!read_inner_rsp(cpu, rsp_slot(new_cpl), rsp)) return false;
  }
  rsp &= ~uint64_t{15};
  return true;
}

bool deliver_long(Cpu& cpu, const Event& event) {
  const unsigned offset = event.vector * 16u;
  if (offset + 15 > cpu.state.idtr.limit) return cpu.raise(x86::kGeneralProtection, idt_error(event));
  uint64_t low = 0, high = 0;
  if (!cpu.load_linear(cpu.state.idtr.base + offset, low, Privilege::kSupervisor)) return false;
  if (!cpu.load_linear(cpu.state.idtr.base + offset + 8, high, Privilege::kSupervisor)) return false;
  const Gate gate = unpack_gate(low, high, true);
  if (!check_gate(cpu, event, gate, true)) return false;
  Descriptor code;
  if (!read_handler_segment(cpu, gate, code)) return false;
  // Handlers are 64-bit code (SDM Vol. 3 6.14.1).
  if (!code.is_long() || code.is_big()) return cpu.raise(x86::kGeneralProtection, selector_error(gate.selector));
  const bool inner = !code.is_conforming_code() && code.dpl() < cpu.cpl;
  const unsigned new_cpl = inner ? code.dpl() : cpu.cpl;
  uint64_t rsp = 0;
  if (!choose_stack64(cpu, gate, inner, new_cpl, rsp)) return false;
  const Privilege privilege = inner ? Privilege::kSupervisor : Privilege::kCurrent;
  StackCursor stack(cpu, x86::Segment{}, rsp, true, privilege);
  if (!stack.push(cpu.state.segments[kSs].selector, 8) || !stack.push(cpu.gpr[kRsp], 8)) return false;
  if (!push_return(cpu, stack, event, 8)) return false;
  if (!x86::is_canonical(gate.offset)) return cpu.raise(x86::kGeneralProtection, 0);
  const uint64_t flags = handler_flags(cpu, gate);
  enter_code_segment(cpu, code, new_cpl);
  // A level change leaves a null SS whose RPL is the new CPL (SDM Vol. 3 6.14.4).
  if (inner) cpu.state.segments[kSs] = null_segment(static_cast<uint16_t>(new_cpl), new_cpl);
  if (!cpu.in_long_mode) {
    commit(cpu, gate.offset, stack.rsp(), flags);
    return true;
  }
  cpu.gpr[kRsp] = stack.rsp();
  cpu.update_level();
  cpu.set_rflags(flags);
  cpu.rip = gate.offset;
  return true;
}

bool deliver_once(Cpu& cpu, const Event& event) {
  if ((cpu.state.cr0 & x86::kCr0Pe) == 0) return deliver_real(cpu, event);
  return in_ia32e_mode(cpu) ? deliver_long(cpu, event) : deliver_protected(cpu, event);
}

// --- Faults during delivery (SDM Vol. 3 6.15, interrupt 8, Table 6-5).

enum class Severity : uint8_t { kBenign, kContributory, kPageFault };

Severity severity(const Event& event) {
  if (!event.external || !(event.sets_rf || event.has_error_code)) return Severity::kBenign;  // interrupts, INT n
  switch (event.vector) {
    case x86::kDivideError:
    case x86::kInvalidTss:
    case x86::kSegmentNotPresent:
    case x86::kStackFault:
    case x86::kGeneralProtection: return Severity::kContributory;
    case x86::kPageFault: return Severity::kPageFault;
    default: return Severity::kBenign;
  }
}

bool makes_double_fault(const Event& first, const Event& second) {
  const Severity a = severity(first), b = severity(second);
  if (a == Severity::kContributory) return b == Severity::kContributory;
  if (a == Severity::kPageFault) return b != Severity::kBenign;
  return false;
}

/// Selector-type error codes say whether the fault arose from an event external to the program.
bool takes_ext(uint8_t vector) { return vector >= x86::kInvalidTss && vector <= x86::kGeneralProtection; }

Event event_of_fault(const Fault& fault, bool external) {
  Event event;
  event.vector = fault.vector;
  event.has_error_code = fault.has_error_code;
  event.error_code = fault.error_code;
  if (external && takes_ext(fault.vector)) event.error_code |= 1;
  event.sets_rf = fault.vector != x86::kDoubleFault;  // an abort, not a fault
  return event;
}

void clear_fault(Cpu& cpu) {
  cpu.has_fault = false;
  cpu.attention &= ~Cpu::kAttentionFault;
}

void shut_down(Cpu& cpu) {
  cpu.state.activity = x86::Activity::kShutdown;
  cpu.request_event_check();
}

void deliver(Cpu& cpu, Event event) {
  cpu.shadow = Cpu::Shadow::kNone;
  for (;;) {
    clear_fault(cpu);
    if (deliver_once(cpu, event)) return;
    const Fault fault = cpu.pending_fault;
    clear_fault(cpu);
    const Event second = event_of_fault(fault, event.external);
    const bool was_double_fault = event.vector == x86::kDoubleFault && event.has_error_code;
    if (was_double_fault && severity(second) != Severity::kBenign) return shut_down(cpu);
    if (makes_double_fault(event, second)) {
      event = event_of_fault(Fault{x86::kDoubleFault, true, 0}, false);
    } else {
      event = second;
    }
  }
}

// --- INT n in virtual-8086 mode (SDM Vol. 3 21.3).

unsigned iopl(const Cpu& cpu) { return static_cast<unsigned>((cpu.system_flags & x86::kIopl) >> 12); }

/// Methods 5 and 6: the program's own handler through the IVT at linear address 0 (SDM Vol. 3 21.3.3.4, 21.3.3.5).
bool redirect_to_program(Cpu& cpu, uint8_t vector) {
  uint32_t target = 0;
  if (!cpu.load_linear(vector * 4u, target, Privilege::kCurrent)) return false;
  uint64_t image = cpu.rflags();
  const bool virtual_if = iopl(cpu) < 3;
  if (virtual_if) {
    image = (image & ~x86::kIf) | x86::kIopl;
    if ((cpu.system_flags & x86::kVif) != 0) image |= x86::kIf;
  }
  StackCursor stack(cpu, cpu.state.segments[kSs], cpu.gpr[kRsp], false, Privilege::kCurrent);
  if (!push_real_frame(cpu, stack, image)) return false;
  set_virtual_8086_segment(cpu, kCs, static_cast<uint16_t>(target >> 16));
  const uint64_t cleared = x86::kTf | x86::kRf | (virtual_if ? x86::kVif : x86::kIf);
  commit(cpu, target & 0xffff, stack.rsp(), cpu.rflags() & ~cleared);
  return true;
}

enum class Virtual8086Int : uint8_t { kUseIdt, kDone, kFault };

Virtual8086Int int_n_in_virtual_8086(Cpu& cpu, uint8_t vector) {
  if ((cpu.state.cr4 & x86::kCr4Vme) != 0) {
    bool to_program = false;
    if (!read_redirection(cpu, vector, to_program)) return Virtual8086Int::kFault;
    if (to_program) return redirect_to_program(cpu, vector) ? Virtual8086Int::kDone : Virtual8086Int::kFault;
  }
  if (iopl(cpu) == 3) return Virtual8086Int::kUseIdt;
  cpu.raise(x86::kGeneralProtection, 0);
  return Virtual8086Int::kFault;
}

}  // namespace

void deliver_fault(Cpu& cpu) { deliver(cpu, event_of_fault(cpu.pending_fault, false)); }

void deliver_debug(Cpu& cpu, uint32_t dr6_bits, bool is_fault) {
  constexpr uint64_t kBreakpointHits = 0xf, kGeneralDetectHit = 1u << 13;
  cpu.state.dr6 = (cpu.state.dr6 & ~kBreakpointHits) | dr6_bits;
  cpu.state.dr7 &= ~uint64_t{1u << 13};  // GD, so that the handler can reach the debug registers (SDM Vol. 3 18.2.4)
  Event event;
  event.vector = x86::kDebug;
  // Instruction breakpoints push RF as it is; the handler sets it (SDM Vol. 3 18.3.1.1).
  event.sets_rf = is_fault && (dr6_bits & kGeneralDetectHit) != 0;
  deliver(cpu, event);
}

void deliver_interrupt(Cpu& cpu, uint8_t vector) {
  cpu.state.activity = x86::Activity::kRunning;
  Event event;
  event.vector = vector;
  deliver(cpu, event);
}

void deliver_nmi(Cpu& cpu) {
  cpu.state.activity = x86::Activity::kRunning;
  cpu.state.nmi_blocked = true;  // until the next IRET (SDM Vol. 3 6.7.1)
  Event event;
  event.vector = x86::kNmiVector;
  deliver(cpu, event);
}

void software_interrupt(Cpu& cpu, uint8_t vector, SoftwareInterrupt kind, uint64_t fault_rip) {
  Event event;
  event.vector = vector;
  event.external = kind == SoftwareInterrupt::kInt1;
  event.checks_dpl = kind != SoftwareInterrupt::kInt1;
  cpu.shadow = Cpu::Shadow::kNone;
  clear_fault(cpu);
  auto outcome = Virtual8086Int::kUseIdt;
  if (kind == SoftwareInterrupt::kIntN && in_virtual_8086(cpu)) outcome = int_n_in_virtual_8086(cpu, vector);
  if (outcome == Virtual8086Int::kDone) return;
  const uint16_t task = cpu.state.tr.selector;
  if (outcome == Virtual8086Int::kUseIdt && deliver_once(cpu, event)) return;
  // Faults of the delivery point to the instruction itself. A task switch that got as far as the new task faults there.
  if (cpu.state.tr.selector == task) cpu.rip = fault_rip;
  const Event second = event_of_fault(cpu.pending_fault, event.external);
  deliver(cpu, second);
}

}  // namespace tenon::interp
