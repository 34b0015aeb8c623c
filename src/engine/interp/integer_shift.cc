// ROL, ROR, RCL, RCR, SHL, SHR, SAR, SHLD, SHRD: by size, place and count (SDM Vol. 2). The count is masked by the
// host's instruction itself. The trace builder gives shifts by one an immediate of 1.
#include "engine/interp/host_alu.hh"
#include "engine/interp/integer_families.hh"
#include "engine/interp/integer_operand.hh"

namespace tenon::interp {
namespace {

enum class Count : uint8_t { kCl, kImmediate };

template <Count source>
[[gnu::always_inline]] inline uint8_t count_of(const Cpu& cpu, const Insn& insn) {
  return source == Count::kCl ? cpu.reg<uint8_t>(x86::kRcx) : static_cast<uint8_t>(insn.immediate);
}

template <Shift op, typename T, Count source>
void shift_register(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const T result =
      shift<op, T>(read_register<T>(cpu, insn, insn.rm), count_of<source>(cpu, insn), cpu.arithmetic_flags);
  write_register<T>(cpu, insn, insn.rm, result);
  return next(cpu, step);
}

template <Shift op, typename T, Count source>
void shift_memory(Cpu& cpu, const Step* step) {
  void* host = begin_operand_rmw<T>(cpu, step);
  if (host == nullptr) return cpu.fault(step);
  const uint8_t count = count_of<source>(cpu, step->insn);
  store_host<T>(host, shift<op, T>(load_host<T>(host), count, cpu.arithmetic_flags));
  cpu.finish_rmw();
  return next(cpu, step);
}

template <Shift op>
Handler single(const Insn& insn) {
  const bool by_cl = insn.row->operands[1] == Operand::kCl;
  return by_size(operand_bytes(insn, insn.row->operands[0]), [&]<typename T>() -> Handler {
    if (insn.is_memory) return by_cl ? shift_memory<op, T, Count::kCl> : shift_memory<op, T, Count::kImmediate>;
    return by_cl ? shift_register<op, T, Count::kCl> : shift_register<op, T, Count::kImmediate>;
  });
}

enum class Double : uint8_t { kShld, kShrd };

template <Double op, typename T>
[[gnu::always_inline]] inline T shift_double(T a, T b, uint8_t count, uint16_t& flags) {
  if constexpr (op == Double::kShld) {
    asm(TENON_FLAGS_IN "shld %%cl, %[b], %[a]\n\t" TENON_FLAGS_OUT
        : [a] "+r"(a), "+a"(flags)
        : [b] "r"(b), "c"(count)
        : "cc");
  } else {
    asm(TENON_FLAGS_IN "shrd %%cl, %[b], %[a]\n\t" TENON_FLAGS_OUT
        : [a] "+r"(a), "+a"(flags)
        : [b] "r"(b), "c"(count)
        : "cc");
  }
  return a;
}

template <Double op, typename T>
void double_shift(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const bool by_cl = insn.row->operands[2] == Operand::kCl;
  const uint8_t count = by_cl ? cpu.reg<uint8_t>(x86::kRcx) : static_cast<uint8_t>(insn.immediate);
  const T source = cpu.reg<T>(insn.reg);
  if (!insn.is_memory) {
    cpu.set_reg<T>(insn.rm, shift_double<op, T>(cpu.reg<T>(insn.rm), source, count, cpu.arithmetic_flags));
    return next(cpu, step);
  }
  void* host = begin_operand_rmw<T>(cpu, step);
  if (host == nullptr) return cpu.fault(step);
  store_host<T>(host, shift_double<op, T>(load_host<T>(host), source, count, cpu.arithmetic_flags));
  cpu.finish_rmw();
  return next(cpu, step);
}

template <Double op>
Handler double_by_size(const Insn& insn) {
  return by_wide_size(insn.operand_size, [&]<typename T>() -> Handler { return double_shift<op, T>; });
}

}  // namespace

Handler shift_handler(const Insn& insn, x86::CodeSize) {
  switch (insn.row->op) {
    case x86::Op::kRol: return single<Shift::kRol>(insn);
    case x86::Op::kRor: return single<Shift::kRor>(insn);
    case x86::Op::kRcl: return single<Shift::kRcl>(insn);
    case x86::Op::kRcr: return single<Shift::kRcr>(insn);
    case x86::Op::kShl: return single<Shift::kShl>(insn);
    case x86::Op::kShr: return single<Shift::kShr>(insn);
    case x86::Op::kSar: return single<Shift::kSar>(insn);
    case x86::Op::kShld: return double_by_size<Double::kShld>(insn);
    case x86::Op::kShrd: return double_by_size<Double::kShrd>(insn);
    default: return nullptr;
  }
}

}  // namespace tenon::interp
