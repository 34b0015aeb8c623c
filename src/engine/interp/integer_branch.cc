// Near branches: JMP, Jcc, CALL, RET, LOOP, JCXZ; INT n, INT3, INTO, INT1, BOUND, UD (SDM Vol. 2).
//
// A taken branch leaves the trace; Jcc and LOOP not taken go on in it. Targets are checked before anything is
// committed, so that the fault is the branch's own (SDM Vol. 1 6.3: canonical address or CS limit).
#include <array>

#include "engine/interp/event.hh"
#include "engine/interp/host_alu.hh"
#include "engine/interp/integer_families.hh"
#include "engine/interp/integer_operand.hh"
#include "engine/interp/stack_inline.hh"

namespace tenon::interp {
namespace {

/// Target of a relative branch, cut to the operand size (IP, EIP or RIP).
template <typename T>
[[gnu::always_inline]] inline uint64_t relative_target(const Cpu& cpu, const Step* step) {
  return static_cast<T>(cpu.trace_rip() + step->offset + step->insn.length +
                        static_cast<uint64_t>(step->insn.immediate));
}

/// Whether `target` is allowed; T is uint64_t in 64-bit mode only.
template <typename T>
[[gnu::always_inline]] inline bool is_target(const Cpu& cpu, uint64_t target) {
  return sizeof(T) == 8 ? x86::is_canonical(target) : target <= cpu.state.segments[x86::kCs].limit;
}

/// Takes the branch from any step of a trace.
template <typename T>
[[gnu::always_inline]] inline void branch_to(Cpu& cpu, const Step* step, uint64_t target) {
  if (!is_target<T>(cpu, target)) [[unlikely]]
    return cpu.fault(step, x86::kGeneralProtection, 0);
  cpu.instructions -= step->remaining;
  cpu.rip = target;
}

template <typename T, unsigned condition>
void conditional_jump(Cpu& cpu, const Step* step) {
  if (!test_condition<condition>(cpu.arithmetic_flags)) return next(cpu, step);
  return branch_to<T>(cpu, step, relative_target<T>(cpu, step));
}

template <typename T>
Handler conditional(unsigned condition) {
  static constexpr auto kTable = []<size_t... n>(std::index_sequence<n...>) {
    return std::array<Handler, 16>{conditional_jump<T, n>...};
  }
  (std::make_index_sequence<16>());
  return kTable[condition & 15];
}

template <typename T>
void jump_relative(Cpu& cpu, const Step* step) {
  return branch_to<T>(cpu, step, relative_target<T>(cpu, step));
}

template <typename T>
void jump_register(Cpu& cpu, const Step* step) {
  return branch_to<T>(cpu, step, cpu.reg<T>(step->insn.rm));
}

template <typename T>
void jump_memory(Cpu& cpu, const Step* step) {
  T target;
  if (!load_operand<false, T>(cpu, step, target)) return cpu.fault(step);
  return branch_to<T>(cpu, step, target);
}

/// Pushes the return address and goes to `target`. The store comes before the check of the target, as on processors: a
/// refused target leaves it below the stack pointer, which does not move.
template <typename T>
[[gnu::always_inline]] inline void call_to(Cpu& cpu, const Step* step, uint64_t target) {
  constexpr bool kFlat = sizeof(T) == 8;
  const T back = static_cast<T>(cpu.next_rip(step));
  const uint64_t old_rsp = cpu.gpr[x86::kRsp];
  if (!push<kFlat, T>(cpu, back)) return cpu.fault(step);
  if (!is_target<T>(cpu, target)) [[unlikely]] {
    cpu.gpr[x86::kRsp] = old_rsp;
    return cpu.fault(step, x86::kGeneralProtection, 0);
  }
  cpu.rip = target;
}

template <typename T>
void call_relative(Cpu& cpu, const Step* step) {
  return call_to<T>(cpu, step, relative_target<T>(cpu, step));
}

template <typename T>
void call_register(Cpu& cpu, const Step* step) {
  return call_to<T>(cpu, step, cpu.reg<T>(step->insn.rm));
}

template <typename T>
void call_memory(Cpu& cpu, const Step* step) {
  T target;
  if (!load_operand<false, T>(cpu, step, target)) return cpu.fault(step);
  return call_to<T>(cpu, step, target);
}

template <typename T>
void return_near(Cpu& cpu, const Step* step) {
  T target;
  if (!peek<sizeof(T) == 8, T>(cpu, target)) return cpu.fault(step);
  if (!is_target<T>(cpu, target)) [[unlikely]]
    return cpu.fault(step, x86::kGeneralProtection, 0);
  drop<sizeof(T) == 8>(cpu, sizeof(T) + static_cast<uint16_t>(step->insn.immediate));
  cpu.rip = target;
}

/// The counter register in the width of the address size.
uint64_t loop_counter(const Cpu& cpu, const Insn& insn) {
  const uint64_t rcx = cpu.gpr[x86::kRcx];
  return insn.address_size == 8   ? rcx
         : insn.address_size == 4 ? static_cast<uint32_t>(rcx)
                                  : static_cast<uint16_t>(rcx);
}

void set_loop_counter(Cpu& cpu, const Insn& insn, uint64_t value) {
  switch (insn.address_size) {
    case 2: cpu.set_reg<uint16_t>(x86::kRcx, static_cast<uint16_t>(value)); break;
    case 4: cpu.set_reg<uint32_t>(x86::kRcx, static_cast<uint32_t>(value)); break;
    default: cpu.gpr[x86::kRcx] = value; break;
  }
}

/// LOOP, LOOPE, LOOPNE: the counter stays as it was where the target faults.
template <typename T, x86::Op op>
void loop(Cpu& cpu, const Step* step) {
  const uint64_t count = loop_counter(cpu, step->insn) - 1;
  const bool zf = (cpu.arithmetic_flags & kAxZf) != 0;
  const uint64_t width_mask =
      step->insn.address_size == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * step->insn.address_size)) - 1;
  bool taken = (count & width_mask) != 0;
  if constexpr (op == x86::Op::kLoope) taken = taken && zf;
  if constexpr (op == x86::Op::kLoopne) taken = taken && !zf;
  const uint64_t target = relative_target<T>(cpu, step);
  if (taken && !is_target<T>(cpu, target)) return cpu.fault(step, x86::kGeneralProtection, 0);
  set_loop_counter(cpu, step->insn, count);
  if (!taken) return next(cpu, step);
  return branch_to<T>(cpu, step, target);
}

template <typename T>
void jump_if_counter_zero(Cpu& cpu, const Step* step) {
  if (loop_counter(cpu, step->insn) != 0) return next(cpu, step);
  return branch_to<T>(cpu, step, relative_target<T>(cpu, step));
}

template <typename T>
Handler near_branch(const Insn& insn) {
  const bool relative = insn.row->operands[0] == Operand::kJb || insn.row->operands[0] == Operand::kJz;
  switch (insn.row->op) {
    case x86::Op::kJcc: return conditional<T>(insn.opcode);
    case x86::Op::kJmp: return relative ? jump_relative<T> : insn.is_memory ? jump_memory<T> : jump_register<T>;
    case x86::Op::kCall: return relative ? call_relative<T> : insn.is_memory ? call_memory<T> : call_register<T>;
    case x86::Op::kRet: return return_near<T>;
    case x86::Op::kLoop: return loop<T, x86::Op::kLoop>;
    case x86::Op::kLoope: return loop<T, x86::Op::kLoope>;
    case x86::Op::kLoopne: return loop<T, x86::Op::kLoopne>;
    case x86::Op::kJcxz: return jump_if_counter_zero<T>;
    default: return nullptr;
  }
}

// --- Software interrupts and traps

void interrupt(Cpu& cpu, const Step* step, uint8_t number, SoftwareInterrupt kind) {
  cpu.leave_after(step);
  software_interrupt(cpu, number, kind, cpu.this_rip(step));
}

void int_n(Cpu& cpu, const Step* step) {
  return interrupt(cpu, step, static_cast<uint8_t>(step->insn.immediate), SoftwareInterrupt::kIntN);
}
void int3(Cpu& cpu, const Step* step) { return interrupt(cpu, step, x86::kBreakpoint, SoftwareInterrupt::kInt3); }
void int1(Cpu& cpu, const Step* step) { return interrupt(cpu, step, x86::kDebug, SoftwareInterrupt::kInt1); }
void into(Cpu& cpu, const Step* step) {
  if ((cpu.arithmetic_flags & kAxOf) == 0) return next(cpu, step);
  return interrupt(cpu, step, x86::kOverflow, SoftwareInterrupt::kInto);
}

/// BOUND: signed index against two signed words in memory; the upper bound is inclusive.
template <typename T>
void bound(Cpu& cpu, const Step* step) {
  using Signed = std::make_signed_t<T>;
  const uint64_t offset = cpu.effective_offset(step);
  const uint64_t after = offset + sizeof(T);
  const uint64_t second = step->insn.address_size == 2 ? static_cast<uint16_t>(after) : static_cast<uint32_t>(after);
  T lower;
  T upper;
  if (!cpu.load<T>(segment_of(step), offset, lower)) return cpu.fault(step);
  if (!cpu.load<T>(segment_of(step), second, upper)) return cpu.fault(step);
  const Signed index = static_cast<Signed>(cpu.reg<T>(step->insn.reg));
  if (index < static_cast<Signed>(lower) || index > static_cast<Signed>(upper))
    return cpu.fault(step, x86::kBoundRange);
  return next(cpu, step);
}

void undefined(Cpu& cpu, const Step* step) { return cpu.fault(step, x86::kInvalidOpcode); }

}  // namespace

Handler branch_handler(const Insn& insn, x86::CodeSize code_size) {
  switch (insn.row->op) {
    case x86::Op::kInt: return int_n;
    case x86::Op::kInt3: return int3;
    case x86::Op::kInt1: return int1;
    case x86::Op::kInto: return into;
    case x86::Op::kBound: return insn.operand_size == 2 ? bound<uint16_t> : bound<uint32_t>;
    case x86::Op::kUd0:
    case x86::Op::kUd1:
    case x86::Op::kUd2: return undefined;
    default: break;
  }
  if (code_size == x86::CodeSize::k64) return near_branch<uint64_t>(insn);
  return insn.operand_size == 2 ? near_branch<uint16_t>(insn) : near_branch<uint32_t>(insn);
}

}  // namespace tenon::interp
