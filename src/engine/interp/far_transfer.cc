#include "engine/interp/far_transfer.hh"

#include "engine/interp/cpu_inline.hh"
#include "engine/interp/event_stack.hh"
#include "engine/interp/memory.hh"
#include "engine/interp/task_switch.hh"

namespace tenon::interp {
namespace {

using x86::kCs;
using x86::kRsp;
using x86::kSs;

bool raise_gp(Cpu& cpu, uint32_t error_code = 0) { return cpu.raise(x86::kGeneralProtection, error_code); }

/// The target offset against the new code segment: canonical in 64-bit code, else inside the limit.
bool check_target(Cpu& cpu, const Descriptor& code, uint64_t offset) {
  if (in_ia32e_mode(cpu) && code.is_long()) return x86::is_canonical(offset) || raise_gp(cpu);
  return offset <= code.to_segment().limit || raise_gp(cpu);
}

/// L and D together are reserved (SDM Vol. 3 5.2.1).
bool check_long_bits(Cpu& cpu, const Descriptor& code) {
  if (in_ia32e_mode(cpu) && code.is_long() && code.is_big()) return raise_gp(cpu, selector_error(code.selector));
  return true;
}

void set_code_segment(Cpu& cpu, const Descriptor& code, unsigned cpl) {
  x86::Segment& segment = cpu.state.segments[kCs];
  segment = code.to_segment();
  segment.selector = static_cast<uint16_t>((code.selector & ~3u) | cpl);
}

StackCursor current_stack(Cpu& cpu) {
  return StackCursor(cpu, cpu.state.segments[kSs], cpu.gpr[kRsp], cpu.in_long_mode, Privilege::kCurrent);
}

// --- Real and virtual-8086 mode.

void set_simple_code(Cpu& cpu, uint16_t selector) {
  if (in_virtual_8086(cpu)) {
    set_virtual_8086_segment(cpu, kCs, selector);
  } else {
    set_real_segment(cpu, kCs, selector);
  }
}

bool jump_simple(Cpu& cpu, uint16_t selector, uint64_t offset) {
  if (offset > cpu.state.segments[kCs].limit) return raise_gp(cpu);
  set_simple_code(cpu, selector);
  cpu.update_mode();
  cpu.rip = offset;
  return true;
}

bool call_simple(Cpu& cpu, uint16_t selector, uint64_t offset, unsigned operand_size, uint64_t next_rip) {
  StackCursor stack = current_stack(cpu);
  if (!stack.push(cpu.state.segments[kCs].selector, operand_size) || !stack.push(next_rip, operand_size)) return false;
  if (!jump_simple(cpu, selector, offset)) return false;
  cpu.gpr[kRsp] = stack.rsp();
  return true;
}

// --- JMP and CALL to a code segment without a gate (SDM Vol. 3 5.8.1).

bool check_direct_code(Cpu& cpu, const Descriptor& code) {
  const uint32_t error = selector_error(code.selector);
  if (code.is_conforming_code()) {
    if (code.dpl() > cpu.cpl) return raise_gp(cpu, error);
  } else if (selector_rpl(code.selector) > cpu.cpl || code.dpl() != cpu.cpl) {
    return raise_gp(cpu, error);
  }
  if (!check_long_bits(cpu, code)) return false;
  return code.present() || cpu.raise(x86::kSegmentNotPresent, error);
}

bool jump_to_code(Cpu& cpu, Descriptor& code, uint64_t offset) {
  if (!check_direct_code(cpu, code) || !check_target(cpu, code, offset) || !mark_accessed(cpu, code)) return false;
  set_code_segment(cpu, code, cpu.cpl);
  cpu.update_mode();
  cpu.rip = offset;
  return true;
}

bool call_code(Cpu& cpu, Descriptor& code, uint64_t offset, unsigned operand_size, uint64_t next_rip) {
  if (!check_direct_code(cpu, code)) return false;
  StackCursor stack = current_stack(cpu);
  if (!stack.push(cpu.state.segments[kCs].selector, operand_size) || !stack.push(next_rip, operand_size)) return false;
  if (!check_target(cpu, code, offset) || !mark_accessed(cpu, code)) return false;
  set_code_segment(cpu, code, cpu.cpl);
  cpu.gpr[kRsp] = stack.rsp();
  cpu.update_mode();
  cpu.rip = offset;
  return true;
}

// --- Call gates (SDM Vol. 3 5.8.3 to 5.8.5).

/// DPL, presence and contents of a gate that a far pointer names. `gate` is the descriptor read as such.
bool check_far_gate(Cpu& cpu, const Descriptor& descriptor) {
  const uint32_t error = selector_error(descriptor.selector);
  if (descriptor.dpl() < cpu.cpl || descriptor.dpl() < selector_rpl(descriptor.selector)) return raise_gp(cpu, error);
  return descriptor.present() || cpu.raise(x86::kSegmentNotPresent, error);
}

/// Reads the code segment behind a call gate. `is_call`: a non-conforming one may be more privileged.
bool read_gated_code(Cpu& cpu, const Gate& gate, bool is_call, Descriptor& code) {
  if (selector_is_null(gate.selector)) return raise_gp(cpu);
  if (!read_descriptor(cpu, gate.selector, x86::kGeneralProtection, code)) return false;
  const uint32_t error = selector_error(gate.selector);
  if (!code.is_code() || code.dpl() > cpu.cpl) return raise_gp(cpu, error);
  if (!is_call && !code.is_conforming_code() && code.dpl() != cpu.cpl) return raise_gp(cpu, error);
  // A 64-bit gate leads to 64-bit code only (SDM Vol. 3 5.8.3.1).
  if (in_ia32e_mode(cpu) && (!code.is_long() || code.is_big())) return raise_gp(cpu, error);
  return code.present() || cpu.raise(x86::kSegmentNotPresent, error);
}

bool read_gate(Cpu& cpu, Descriptor& descriptor, Gate& gate) {
  const bool ia32e = in_ia32e_mode(cpu);
  if (ia32e && !read_descriptor_high(cpu, x86::kGeneralProtection, descriptor)) return false;
  gate = unpack_gate(descriptor.low, descriptor.high, ia32e);
  return true;
}

/// Pushes of a call gate are as wide as the gate: 2, 4 or 8 bytes.
unsigned gate_width(const Cpu& cpu, const Gate& gate) {
  if (in_ia32e_mode(cpu)) return 8;
  return gate.type == kCallGate32 ? 4 : 2;
}

bool jump_through_gate(Cpu& cpu, Descriptor& descriptor) {
  Gate gate;
  Descriptor code;
  if (!check_far_gate(cpu, descriptor) || !read_gate(cpu, descriptor, gate)) return false;
  if (!read_gated_code(cpu, gate, false, code) || !check_target(cpu, code, gate.offset)) return false;
  if (!mark_accessed(cpu, code)) return false;
  set_code_segment(cpu, code, cpu.cpl);
  cpu.update_mode();
  cpu.rip = gate.offset;
  return true;
}

/// Copies the gate's parameters from the caller's stack to the new one (SDM Vol. 3 5.8.5).
bool copy_parameters(Cpu& cpu, StackCursor& to, unsigned count, unsigned width) {
  uint64_t parameters[31] = {};
  StackCursor from = current_stack(cpu);
  for (unsigned i = 0; i < count; ++i) {
    if (!from.pop(width, parameters[i])) return false;
  }
  for (unsigned i = count; i-- > 0;) {
    if (!to.push(parameters[i], width)) return false;
  }
  return true;
}

bool call_inner_legacy(Cpu& cpu, const Gate& gate, Descriptor& code, uint64_t next_rip) {
  const unsigned width = gate_width(cpu, gate);
  x86::Segment new_stack;
  uint64_t esp = 0;
  if (!read_inner_stack(cpu, code.dpl(), new_stack, esp)) return false;
  StackCursor stack(cpu, new_stack, esp, false, Privilege::kSupervisor, selector_error(new_stack.selector));
  if (!stack.push(cpu.state.segments[kSs].selector, width) || !stack.push(cpu.gpr[kRsp], width)) return false;
  if (!copy_parameters(cpu, stack, gate.parameter_count, width)) return false;
  if (!stack.push(cpu.state.segments[kCs].selector, width) || !stack.push(next_rip, width)) return false;
  if (!check_target(cpu, code, gate.offset) || !mark_accessed(cpu, code)) return false;
  set_code_segment(cpu, code, code.dpl());
  cpu.state.segments[kSs] = new_stack;
  cpu.gpr[kRsp] = stack.rsp();
  return true;
}

bool call_inner_long(Cpu& cpu, const Gate& gate, Descriptor& code, uint64_t next_rip) {
  uint64_t rsp = 0;
  const unsigned cpl = code.dpl();
  if (!read_inner_rsp(cpu, rsp_slot(cpl), rsp)) return false;
  StackCursor stack(cpu, x86::Segment{}, rsp, true, Privilege::kSupervisor);
  if (!stack.push(cpu.state.segments[kSs].selector, 8) || !stack.push(cpu.gpr[kRsp], 8)) return false;
  if (!stack.push(cpu.state.segments[kCs].selector, 8) || !stack.push(next_rip, 8)) return false;
  if (!check_target(cpu, code, gate.offset) || !mark_accessed(cpu, code)) return false;
  set_code_segment(cpu, code, cpl);
  cpu.state.segments[kSs] = null_segment(static_cast<uint16_t>(cpl), cpl);
  cpu.gpr[kRsp] = stack.rsp();
  return true;
}

bool call_same_level(Cpu& cpu, const Gate& gate, Descriptor& code, uint64_t next_rip) {
  const unsigned width = gate_width(cpu, gate);
  // In IA-32e mode a compatibility-mode caller's stack is already addressed as the 64-bit code's.
  StackCursor stack(cpu, cpu.state.segments[kSs], cpu.gpr[kRsp], in_ia32e_mode(cpu), Privilege::kCurrent);
  if (!stack.push(cpu.state.segments[kCs].selector, width) || !stack.push(next_rip, width)) return false;
  if (!check_target(cpu, code, gate.offset) || !mark_accessed(cpu, code)) return false;
  set_code_segment(cpu, code, cpu.cpl);
  cpu.gpr[kRsp] = stack.rsp();
  return true;
}

bool call_through_gate(Cpu& cpu, Descriptor& descriptor, uint64_t next_rip) {
  Gate gate;
  Descriptor code;
  if (!check_far_gate(cpu, descriptor) || !read_gate(cpu, descriptor, gate)) return false;
  if (!read_gated_code(cpu, gate, true, code)) return false;
  const bool inner = !code.is_conforming_code() && code.dpl() < cpu.cpl;
  bool done = false;
  if (!inner) {
    done = call_same_level(cpu, gate, code, next_rip);
  } else if (in_ia32e_mode(cpu)) {
    done = call_inner_long(cpu, gate, code, next_rip);
  } else {
    done = call_inner_legacy(cpu, gate, code, next_rip);
  }
  if (!done) return false;
  cpu.update_mode();
  cpu.rip = gate.offset;
  return true;
}

// --- Task gates and TSS descriptors (SDM Vol. 3 8.3); #GP in IA-32e mode.

bool transfer_to_task(Cpu& cpu, const Descriptor& descriptor, TaskSwitch reason, uint64_t next_rip) {
  const uint32_t error = selector_error(descriptor.selector);
  const bool is_gate = descriptor.is_system(kTaskGate);
  const bool is_task = descriptor.is_system(kTss16Available) || descriptor.is_system(kTss32Available);
  if (in_ia32e_mode(cpu) || (!is_gate && !is_task)) return raise_gp(cpu, error);
  if (is_task && selector_is_local(descriptor.selector)) return raise_gp(cpu, error);
  if (!check_far_gate(cpu, descriptor)) return false;
  const uint64_t fault_rip = cpu.rip;
  const uint16_t old_task = cpu.state.tr.selector;
  cpu.rip = next_rip;  // saved in the old TSS
  const bool done = is_gate ? switch_task_by_selector(cpu, static_cast<uint16_t>(Bits<31, 16>::get(descriptor.low)),
                                                      reason, cpu.rflags())
                            : switch_task(cpu, descriptor, reason, cpu.rflags());
  if (!done && cpu.state.tr.selector == old_task) cpu.rip = fault_rip;
  return done;
}

bool read_far_target(Cpu& cpu, uint16_t selector, Descriptor& descriptor) {
  if (selector_is_null(selector)) return raise_gp(cpu);
  return read_descriptor(cpu, selector, x86::kGeneralProtection, descriptor);
}

bool is_call_gate(const Cpu& cpu, const Descriptor& descriptor) {
  return descriptor.is_system(kCallGate32) || (descriptor.is_system(kCallGate16) && !in_ia32e_mode(cpu));
}

}  // namespace

bool far_jump(Cpu& cpu, uint16_t selector, uint64_t offset, uint64_t next_rip) {
  if (!in_protected_mode(cpu)) return jump_simple(cpu, selector, offset);
  Descriptor descriptor;
  if (!read_far_target(cpu, selector, descriptor)) return false;
  if (descriptor.is_code()) return jump_to_code(cpu, descriptor, offset);
  if (is_call_gate(cpu, descriptor)) return jump_through_gate(cpu, descriptor);
  return transfer_to_task(cpu, descriptor, TaskSwitch::kJump, next_rip);
}

bool far_call(Cpu& cpu, uint16_t selector, uint64_t offset, unsigned operand_size, uint64_t next_rip) {
  if (!in_protected_mode(cpu)) return call_simple(cpu, selector, offset, operand_size, next_rip);
  Descriptor descriptor;
  if (!read_far_target(cpu, selector, descriptor)) return false;
  if (descriptor.is_code()) return call_code(cpu, descriptor, offset, operand_size, next_rip);
  if (is_call_gate(cpu, descriptor)) return call_through_gate(cpu, descriptor, next_rip);
  return transfer_to_task(cpu, descriptor, TaskSwitch::kCall, next_rip);
}

// --- Returns.

namespace {

/// What RET and IRET pop.
struct ReturnFrame {
  uint64_t rip = 0;
  uint16_t code = 0;
  uint64_t flags = 0;
  uint64_t rsp = 0;
  uint16_t stack = 0;
};

bool pop_pointer(StackCursor& stack, unsigned operand_size, ReturnFrame& frame) {
  uint64_t selector = 0;
  if (!stack.pop(operand_size, frame.rip) || !stack.pop(operand_size, selector)) return false;
  frame.code = static_cast<uint16_t>(selector);
  return true;
}

bool pop_stack_pointer(StackCursor& stack, unsigned operand_size, ReturnFrame& frame) {
  uint64_t selector = 0;
  if (!stack.pop(operand_size, frame.rsp) || !stack.pop(operand_size, selector)) return false;
  frame.stack = static_cast<uint16_t>(selector);
  return true;
}

/// CS of a return: never to an inner level.
bool read_return_code(Cpu& cpu, uint16_t selector, Descriptor& code) {
  if (selector_is_null(selector)) return raise_gp(cpu);
  if (!read_descriptor(cpu, selector, x86::kGeneralProtection, code)) return false;
  const uint32_t error = selector_error(selector);
  const unsigned rpl = selector_rpl(selector);
  if (!code.is_code() || rpl < cpu.cpl) return raise_gp(cpu, error);
  if (code.is_conforming_code() ? code.dpl() > rpl : code.dpl() != rpl) return raise_gp(cpu, error);
  if (!check_long_bits(cpu, code)) return false;
  return code.present() || cpu.raise(x86::kSegmentNotPresent, error);
}

/// SS of a return that pops it. Null is legal towards 64-bit code at CPL 0-2 (SDM Vol. 2, IRET and RET).
bool read_return_stack(Cpu& cpu, const ReturnFrame& frame, const Descriptor& code, x86::Segment& out) {
  const unsigned cpl = selector_rpl(frame.code);
  if (selector_is_null(frame.stack)) {
    const bool to_64bit = in_ia32e_mode(cpu) && code.is_long();
    if (!to_64bit || cpl == 3 || selector_rpl(frame.stack) != cpl) return raise_gp(cpu);
    out = null_segment(frame.stack, cpl);
    return true;
  }
  Descriptor stack;
  if (!read_descriptor(cpu, frame.stack, x86::kGeneralProtection, stack)) return false;
  if (!check_stack_descriptor(cpu, stack, cpl, x86::kGeneralProtection) || !mark_accessed(cpu, stack)) return false;
  out = stack.to_segment();
  return true;
}

/// The stack pointer after a return that loads SS:rSP: by the new stack's address size.
uint64_t returned_rsp(const Cpu& cpu, const x86::Segment& stack, bool to_64bit, uint64_t rsp) {
  if (to_64bit) return rsp;
  if (stack.is_big()) return static_cast<uint32_t>(rsp);
  return (cpu.gpr[kRsp] & ~uint64_t{0xffff}) | static_cast<uint16_t>(rsp);
}

/// Commits CS, SS:rSP and drops what the outer level may not use.
void commit_with_stack(Cpu& cpu, const Descriptor& code, const x86::Segment& stack, uint64_t rsp, uint64_t rip) {
  const unsigned old_cpl = cpu.cpl;
  const bool stays_64bit = cpu.in_long_mode && code.is_long();
  set_code_segment(cpu, code, selector_rpl(code.selector));
  cpu.state.segments[kSs] = stack;
  cpu.gpr[kRsp] = rsp;
  cpu.rip = rip;
  if (stays_64bit) {
    cpu.update_level();
    if (cpu.cpl <= old_cpl) return;
    drop_privileged_segments(cpu);
    for (const SegmentIndex index : {x86::kFs, x86::kGs}) update_window(cpu, index);
    return;
  }
  cpu.update_mode();
  if (cpu.cpl > old_cpl) {
    drop_privileged_segments(cpu);
    cpu.update_mode();
  }
}

bool return_simple(Cpu& cpu, unsigned operand_size, unsigned release) {
  StackCursor stack = current_stack(cpu);
  ReturnFrame frame;
  if (!pop_pointer(stack, operand_size, frame)) return false;
  if (!jump_simple(cpu, frame.code, frame.rip)) return false;
  stack.skip(release);
  cpu.gpr[kRsp] = stack.rsp();
  return true;
}

}  // namespace

bool far_return(Cpu& cpu, unsigned operand_size, unsigned release) {
  if (!in_protected_mode(cpu)) return return_simple(cpu, operand_size, release);
  StackCursor stack = current_stack(cpu);
  ReturnFrame frame;
  Descriptor code;
  if (!pop_pointer(stack, operand_size, frame) || !read_return_code(cpu, frame.code, code)) return false;
  stack.skip(release);
  if (selector_rpl(frame.code) == cpu.cpl) {
    if (!check_target(cpu, code, frame.rip) || !mark_accessed(cpu, code)) return false;
    set_code_segment(cpu, code, cpu.cpl);
    cpu.gpr[kRsp] = stack.rsp();
    cpu.update_mode();
    cpu.rip = frame.rip;
    return true;
  }
  x86::Segment new_stack;
  if (!pop_stack_pointer(stack, operand_size, frame) || !read_return_stack(cpu, frame, code, new_stack)) return false;
  if (!check_target(cpu, code, frame.rip) || !mark_accessed(cpu, code)) return false;
  const bool to_64bit = in_ia32e_mode(cpu) && code.is_long();
  commit_with_stack(cpu, code, new_stack, returned_rsp(cpu, new_stack, to_64bit, frame.rsp + release), frame.rip);
  return true;
}

// --- IRET.

namespace {

unsigned iopl(const Cpu& cpu) { return static_cast<unsigned>((cpu.system_flags & x86::kIopl) >> 12); }

/// The flags an IRET at this CPL may change (SDM Vol. 2, IRET): IF by IOPL; IOPL, VIF and VIP at CPL 0 only; the upper
/// half with 32- and 64-bit operands only.
uint64_t returned_flags(const Cpu& cpu, uint64_t popped, unsigned operand_size) {
  uint64_t writable = x86::kArithmeticFlags | x86::kTf | x86::kDf | x86::kNt;
  if (operand_size != 2) writable |= x86::kRf | x86::kAc | x86::kId;
  if (cpu.cpl <= iopl(cpu)) writable |= x86::kIf;
  if (cpu.cpl == 0) {
    writable |= x86::kIopl;
    if (operand_size != 2) writable |= x86::kVif | x86::kVip;
  }
  // A 16-bit IRET leaves RF as it finds it, which is clear once the IRET itself has begun.
  return (cpu.rflags() & ~(writable | x86::kRf)) | (popped & writable);
}

/// SDM Vol. 3 20.1.4: real mode changes all but VM, VIF and VIP.
bool iret_real(Cpu& cpu, unsigned operand_size) {
  StackCursor stack = current_stack(cpu);
  ReturnFrame frame;
  if (!pop_pointer(stack, operand_size, frame) || !stack.pop(operand_size, frame.flags)) return false;
  if (!jump_simple(cpu, frame.code, frame.rip)) return false;
  cpu.gpr[kRsp] = stack.rsp();
  uint64_t writable = x86::kArithmeticFlags | x86::kTf | x86::kIf | x86::kDf | x86::kIopl | x86::kNt;
  if (operand_size != 2) writable |= x86::kRf | x86::kAc | x86::kId;
  cpu.set_rflags((cpu.rflags() & ~(writable | x86::kRf)) | (frame.flags & writable));
  cpu.update_mode();
  return true;
}

/// Inside virtual-8086 mode (SDM Vol. 3 21.2.7, 21.3.3.6): IOPL 3, or a 16-bit IRET with VME, which works on VIF.
bool iret_in_virtual_8086(Cpu& cpu, unsigned operand_size) {
  const bool virtual_if = iopl(cpu) < 3;
  if (virtual_if && ((cpu.state.cr4 & x86::kCr4Vme) == 0 || operand_size != 2)) return raise_gp(cpu);
  StackCursor stack = current_stack(cpu);
  ReturnFrame frame;
  if (!pop_pointer(stack, operand_size, frame) || !stack.pop(operand_size, frame.flags)) return false;
  const bool sets_if = (frame.flags & x86::kIf) != 0;
  if (virtual_if) {
    const bool pending = sets_if && (cpu.system_flags & x86::kVip) != 0;
    if (pending || (frame.flags & x86::kTf) != 0) return raise_gp(cpu);
  }
  if (!jump_simple(cpu, frame.code, frame.rip)) return false;
  cpu.gpr[kRsp] = stack.rsp();
  uint64_t writable = x86::kArithmeticFlags | x86::kTf | x86::kDf | x86::kNt;
  if (operand_size != 2) writable |= x86::kRf | x86::kAc | x86::kId;
  if (!virtual_if) writable |= x86::kIf;
  uint64_t flags = (cpu.rflags() & ~(writable | x86::kRf)) | (frame.flags & writable);
  if (virtual_if) flags = sets_if ? flags | x86::kVif : flags & ~x86::kVif;
  cpu.set_rflags(flags);
  cpu.update_mode();
  return true;
}

/// RETURN-TO-VIRTUAL-8086-MODE: only from CPL 0 (SDM Vol. 3 21.2.5).
bool iret_to_virtual_8086(Cpu& cpu, StackCursor& stack, ReturnFrame& frame) {
  if (!pop_stack_pointer(stack, 4, frame)) return false;
  uint64_t data[4] = {};
  for (uint64_t& selector : data) {
    if (!stack.pop(4, selector)) return false;
  }
  if (frame.rip > 0xffff) return raise_gp(cpu);
  constexpr uint64_t kLoadable = x86::kArithmeticFlags | x86::kTf | x86::kIf | x86::kDf | x86::kIopl | x86::kNt |
                                 x86::kRf | x86::kVm | x86::kAc | x86::kVif | x86::kVip | x86::kId;
  set_virtual_8086_segment(cpu, kCs, frame.code);
  set_virtual_8086_segment(cpu, kSs, frame.stack);
  static constexpr SegmentIndex kOrder[] = {x86::kEs, x86::kDs, x86::kFs, x86::kGs};
  for (unsigned i = 0; i < 4; ++i) set_virtual_8086_segment(cpu, kOrder[i], static_cast<uint16_t>(data[i]));
  cpu.gpr[kRsp] = static_cast<uint32_t>(frame.rsp);
  cpu.set_rflags((frame.flags & kLoadable) | x86::kFlagsOne);
  cpu.update_mode();
  cpu.rip = frame.rip;
  return true;
}

bool iret_protected(Cpu& cpu, unsigned operand_size) {
  StackCursor stack = current_stack(cpu);
  ReturnFrame frame;
  if (!pop_pointer(stack, operand_size, frame) || !stack.pop(operand_size, frame.flags)) return false;
  if ((frame.flags & x86::kVm) != 0 && cpu.cpl == 0 && operand_size == 4 && !in_ia32e_mode(cpu)) {
    return iret_to_virtual_8086(cpu, stack, frame);
  }
  Descriptor code;
  if (!read_return_code(cpu, frame.code, code)) return false;
  const uint64_t flags = returned_flags(cpu, frame.flags, operand_size);
  // 64-bit code pops SS:RSP always, other code only towards an outer level (SDM Vol. 3 6.14.3).
  if (!cpu.in_long_mode && selector_rpl(frame.code) == cpu.cpl) {
    if (!check_target(cpu, code, frame.rip) || !mark_accessed(cpu, code)) return false;
    set_code_segment(cpu, code, cpu.cpl);
    cpu.gpr[kRsp] = stack.rsp();
    cpu.set_rflags(flags);
    cpu.update_mode();
    cpu.rip = frame.rip;
    return true;
  }
  x86::Segment new_stack;
  if (!pop_stack_pointer(stack, operand_size, frame) || !read_return_stack(cpu, frame, code, new_stack)) return false;
  if (!check_target(cpu, code, frame.rip) || !mark_accessed(cpu, code)) return false;
  const bool to_64bit = in_ia32e_mode(cpu) && code.is_long();
  const uint64_t rsp = returned_rsp(cpu, new_stack, to_64bit, frame.rsp);
  cpu.set_rflags(flags);
  commit_with_stack(cpu, code, new_stack, rsp, frame.rip);
  return true;
}

}  // namespace

bool interrupt_return(Cpu& cpu, unsigned operand_size, uint64_t next_rip) {
  // Unblocks NMIs even where the IRET itself faults (SDM Vol. 3 6.7.1).
  if (cpu.state.nmi_blocked) {
    cpu.state.nmi_blocked = false;
    cpu.request_event_check();
  }
  if (in_virtual_8086(cpu)) return iret_in_virtual_8086(cpu, operand_size);
  if (!in_protected_mode(cpu)) return iret_real(cpu, operand_size);
  if ((cpu.system_flags & x86::kNt) == 0) return iret_protected(cpu, operand_size);
  if (in_ia32e_mode(cpu)) return raise_gp(cpu);
  const uint64_t fault_rip = cpu.rip;
  const uint16_t old_task = cpu.state.tr.selector;
  cpu.rip = next_rip;
  const bool done = return_to_previous_task(cpu);
  if (!done && cpu.state.tr.selector == old_task) cpu.rip = fault_rip;
  return done;
}

}  // namespace tenon::interp
