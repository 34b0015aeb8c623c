// ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT: by size and operand form (SDM Vol. 2).
#include <array>

#include "engine/interp/host_alu.hh"
#include "engine/interp/integer_families.hh"
#include "engine/interp/integer_operand.hh"

namespace tenon::interp {
namespace {

constexpr bool writes(Alu op) { return op != Alu::kCmp && op != Alu::kTest; }

template <Alu op, typename T, Form form>
void two_registers(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const unsigned to = form == Form::kRegRm ? insn.reg : insn.rm;
  const unsigned from = form == Form::kRegRm ? insn.rm : insn.reg;
  const T source = form == Form::kRmImm ? static_cast<T>(insn.immediate) : read_register<T>(cpu, insn, from);
  const T result = alu2<op, T>(read_register<T>(cpu, insn, to), source, cpu.arithmetic_flags);
  if constexpr (writes(op)) write_register<T>(cpu, insn, to, result);
  return next(cpu, step);
}

template <Alu op, typename T>
TENON_COLD void register_memory_slow(Cpu& cpu, const Step* step) {
  T source;
  if (!load_operand_slow<T>(cpu, step, source)) return cpu.fault(step);
  const Insn& insn = step->insn;
  const T result = alu2<op, T>(read_register<T>(cpu, insn, insn.reg), source, cpu.arithmetic_flags);
  if constexpr (writes(op)) write_register<T>(cpu, insn, insn.reg, result);
  return next(cpu, step);
}

template <Alu op, typename T, bool flat>
void register_memory(Cpu& cpu, const Step* step) {
  void* host;
  if (!host_operand<flat, Access::kRead, T>(cpu, step, host)) return register_memory_slow<op, T>(cpu, step);
  const Insn& insn = step->insn;
  const T result = alu2<op, T>(read_register<T>(cpu, insn, insn.reg), load_host<T>(host), cpu.arithmetic_flags);
  if constexpr (writes(op)) write_register<T>(cpu, insn, insn.reg, result);
  return next(cpu, step);
}

template <typename T, bool immediate>
[[gnu::always_inline]] inline T source_of(const Cpu& cpu, const Insn& insn) {
  return immediate ? static_cast<T>(insn.immediate) : read_register<T>(cpu, insn, insn.reg);
}

template <Alu op, typename T, bool immediate, bool locked>
TENON_COLD void memory_source_slow(Cpu& cpu, const Step* step) {
  const T source = source_of<T, immediate>(cpu, step->insn);
  if constexpr (writes(op)) {
    void* host = begin_operand_rmw<T>(cpu, step);
    if (host == nullptr) return cpu.fault(step);
    alu2_memory<op, locked, T>(host, source, cpu.arithmetic_flags);
    cpu.finish_rmw();
  } else {
    T value;
    if (!load_operand_slow<T>(cpu, step, value)) return cpu.fault(step);
    alu2<op, T>(value, source, cpu.arithmetic_flags);
  }
  return next(cpu, step);
}

template <Alu op, typename T, bool flat, bool immediate, bool locked = false>
void memory_source(Cpu& cpu, const Step* step) {
  constexpr Access kAccess = writes(op) ? Access::kWrite : Access::kRead;
  void* host;
  if (!host_operand<flat, kAccess, T>(cpu, step, host)) return memory_source_slow<op, T, immediate, locked>(cpu, step);
  const T source = source_of<T, immediate>(cpu, step->insn);
  if constexpr (writes(op)) {
    alu2_memory<op, locked, T>(host, source, cpu.arithmetic_flags);
  } else {
    alu2<op, T>(load_host<T>(host), source, cpu.arithmetic_flags);
  }
  return next(cpu, step);
}

template <Alu op, typename T>
Handler two_operands(const Insn& insn, Form form) {
  if constexpr (writes(op)) {
    if (is_locked(insn)) {
      return source_is_immediate(form) ? memory_source<op, T, false, true, true>
                                       : memory_source<op, T, false, false, true>;
    }
  }
  static constexpr std::array<Handler, kFormCount> kByForm = {
      two_registers<op, T, Form::kRmReg>, two_registers<op, T, Form::kRegRm>, two_registers<op, T, Form::kRmImm>,
      register_memory<op, T, false>,      memory_source<op, T, false, false>, memory_source<op, T, false, true>,
      register_memory<op, T, true>,       memory_source<op, T, true, false>,  memory_source<op, T, true, true>,
  };
  return kByForm[static_cast<unsigned>(form)];
}

template <Alu op>
Handler two_operands(const Insn& insn, x86::CodeSize code_size) {
  const Form form = form_of(insn, code_size);
  const unsigned size_bytes = operand_bytes(insn, insn.row->operands[0]);
  return by_size(size_bytes, [&]<typename T>() { return two_operands<op, T>(insn, form); });
}

template <Alu op, typename T>
void one_register(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  write_register<T>(cpu, insn, insn.rm, alu1<op, T>(read_register<T>(cpu, insn, insn.rm), cpu.arithmetic_flags));
  return next(cpu, step);
}

template <Alu op, typename T, bool locked>
TENON_COLD void one_memory_slow(Cpu& cpu, const Step* step) {
  void* host = begin_operand_rmw<T>(cpu, step);
  if (host == nullptr) return cpu.fault(step);
  alu1_memory<op, locked, T>(host, cpu.arithmetic_flags);
  cpu.finish_rmw();
  return next(cpu, step);
}

template <Alu op, typename T, bool locked>
void one_memory(Cpu& cpu, const Step* step) {
  void* host;
  if (!host_operand<false, Access::kWrite, T>(cpu, step, host)) return one_memory_slow<op, T, locked>(cpu, step);
  alu1_memory<op, locked, T>(host, cpu.arithmetic_flags);
  return next(cpu, step);
}

template <Alu op>
Handler one_operand(const Insn& insn) {
  return by_size(operand_bytes(insn, insn.row->operands[0]), [&]<typename T>() -> Handler {
    if (!insn.is_memory) return one_register<op, T>;
    return is_locked(insn) ? one_memory<op, T, true> : one_memory<op, T, false>;
  });
}

}  // namespace

Handler alu_handler(const Insn& insn, x86::CodeSize code_size) {
  switch (insn.row->op) {
    case x86::Op::kAdd: return two_operands<Alu::kAdd>(insn, code_size);
    case x86::Op::kOr: return two_operands<Alu::kOr>(insn, code_size);
    case x86::Op::kAdc: return two_operands<Alu::kAdc>(insn, code_size);
    case x86::Op::kSbb: return two_operands<Alu::kSbb>(insn, code_size);
    case x86::Op::kAnd: return two_operands<Alu::kAnd>(insn, code_size);
    case x86::Op::kSub: return two_operands<Alu::kSub>(insn, code_size);
    case x86::Op::kXor: return two_operands<Alu::kXor>(insn, code_size);
    case x86::Op::kCmp: return two_operands<Alu::kCmp>(insn, code_size);
    case x86::Op::kTest: return two_operands<Alu::kTest>(insn, code_size);
    case x86::Op::kInc: return one_operand<Alu::kInc>(insn);
    case x86::Op::kDec: return one_operand<Alu::kDec>(insn);
    case x86::Op::kNeg: return one_operand<Alu::kNeg>(insn);
    case x86::Op::kNot: return one_operand<Alu::kNot>(insn);
    default: return nullptr;
  }
}

}  // namespace tenon::interp
