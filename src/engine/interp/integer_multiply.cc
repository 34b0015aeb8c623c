// MUL, IMUL, DIV, IDIV, MULX, the sign extensions CBW to CQO, and BCD: AAA, AAS, AAM, AAD, DAA, DAS (SDM Vol. 2).
//
// Division checks for #DE before the host divides. The BCD instructions do not exist in 64-bit mode, where the host
// runs us, so they alone are written out, with undefined flags as Intel processors leave them.
#include <limits>

#include "engine/interp/host_alu.hh"
#include "engine/interp/integer_families.hh"
#include "engine/interp/integer_operand.hh"

namespace tenon::interp {
namespace {

__extension__ using Wide = unsigned __int128;
__extension__ using SignedWide = __int128;

/// The r/m operand, from register or memory.
template <typename T>
[[gnu::always_inline]] inline bool load_rm(Cpu& cpu, const Step* step, T& out) {
  if (step->insn.is_memory) return load_operand<false, T>(cpu, step, out);
  out = read_register<T>(cpu, step->insn, step->insn.rm);
  return true;
}

// --- MUL, IMUL

template <typename T, bool is_signed>
void multiply_accumulator(Cpu& cpu, const Step* step) {
  T source;
  if (!load_rm<T>(cpu, step, source)) return cpu.fault(step);
  uint16_t flags = cpu.arithmetic_flags;
  if constexpr (sizeof(T) == 1) {
    // The result is in AX, and so are the flags: they are taken out by PUSHF-free SETcc after the product is saved.
    uint16_t product = cpu.reg<uint8_t>(x86::kRax);
    if constexpr (is_signed) {
      asm("imulb %[s]\n\tmovw %%ax, %[p]\n\t" TENON_FLAGS_OUT
          : "=a"(flags), [p] "=&r"(product)
          : "0"(product), [s] "r"(source)
          : "cc");
    } else {
      asm("mulb %[s]\n\tmovw %%ax, %[p]\n\t" TENON_FLAGS_OUT
          : "=a"(flags), [p] "=&r"(product)
          : "0"(product), [s] "r"(source)
          : "cc");
    }
    cpu.set_reg<uint16_t>(x86::kRax, product);
  } else {
    T low = cpu.reg<T>(x86::kRax);
    T high;
    uint64_t flags_out;
    if constexpr (is_signed) {
      asm("imul %[s]\n\tmov %%rax, %[k]\n\tlahf\n\tseto %%al\n\txchg %%rax, %[k]"
          : "+a"(low), "=&d"(high), [k] "=&r"(flags_out)
          : [s] "r"(source)
          : "cc");
    } else {
      asm("mul %[s]\n\tmov %%rax, %[k]\n\tlahf\n\tseto %%al\n\txchg %%rax, %[k]"
          : "+a"(low), "=&d"(high), [k] "=&r"(flags_out)
          : [s] "r"(source)
          : "cc");
    }
    flags = static_cast<uint16_t>(flags_out);
    cpu.set_reg<T>(x86::kRax, low);
    cpu.set_reg<T>(x86::kRdx, high);
  }
  cpu.arithmetic_flags = flags;
  return next(cpu, step);
}

template <typename T>
[[gnu::always_inline]] inline T multiply(T a, T b, uint16_t& flags) {
  asm("imul %[b], %[a]\n\t" TENON_FLAGS_OUT : [a] "+r"(a), "=a"(flags) : [b] "r"(b) : "cc");
  return a;
}

/// IMUL r, r/m and IMUL r, r/m, immediate.
template <typename T, bool immediate>
void multiply_register(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  T source;
  if (!load_rm<T>(cpu, step, source)) return cpu.fault(step);
  const T other = immediate ? static_cast<T>(insn.immediate) : cpu.reg<T>(insn.reg);
  cpu.set_reg<T>(insn.reg, multiply<T>(immediate ? source : other, immediate ? other : source, cpu.arithmetic_flags));
  return next(cpu, step);
}

Handler imul(const Insn& insn) {
  if (insn.row->operands[1] == Operand::kNone || place_of(insn.row->operands[0]) != Place::kReg) {
    return by_size(operand_bytes(insn, insn.row->operands[0]),
                   []<typename T>() -> Handler { return multiply_accumulator<T, true>; });
  }
  const bool immediate = place_of(insn.row->operands[2]) == Place::kImmediate;
  return by_wide_size(insn.operand_size, [&]<typename T>() -> Handler {
    return immediate ? multiply_register<T, true> : multiply_register<T, false>;
  });
}

/// MULX: no flags; the low half goes to VEX.vvvv first, so that equal destinations end with the high half.
template <typename T>
void mulx(Cpu& cpu, const Step* step) {
  T source;
  if (!load_rm<T>(cpu, step, source)) return cpu.fault(step);
  const Wide product = Wide{source} * cpu.reg<T>(x86::kRdx);
  cpu.set_reg<T>(step->insn.vvvv, static_cast<T>(product));
  cpu.set_reg<T>(step->insn.reg, static_cast<T>(product >> (8 * sizeof(T))));
  return next(cpu, step);
}

// --- DIV, IDIV

/// Flags are undefined: as the host leaves them, from the guest's own before.
template <typename T, bool is_signed>
[[gnu::always_inline]] inline void host_divide(T& low, T& high, T divisor, uint16_t& flags) {
  // The dividend needs AX, so the flags come in through another register.
  uint64_t kept = flags;
#define TENON_DIVIDE(mnemonic)                                                       \
  asm("xchg %%rax, %[k]\n\taddb $127, %%al\n\tsahf\n\txchg %%rax, %[k]\n\t" mnemonic \
      " %[s]\n\txchg %%rax, %[k]\n\tlahf\n\tseto %%al\n\txchg %%rax, %[k]"           \
      : "+a"(low), "+d"(high), [k] "+&r"(kept)                                       \
      : [s] "r"(divisor)                                                             \
      : "cc")
  if constexpr (is_signed) {
    TENON_DIVIDE("idiv");
  } else {
    TENON_DIVIDE("div");
  }
#undef TENON_DIVIDE
  flags = static_cast<uint16_t>(kept);
}

/// Whether high:low / divisor has a quotient of T (SDM Vol. 2, DIV and IDIV: #DE otherwise).
template <typename T, bool is_signed>
bool is_divisible(T low, T high, T divisor) {
  if (divisor == 0) return false;
  if constexpr (!is_signed) return high < divisor;
  using Signed = std::make_signed_t<T>;
  constexpr unsigned kBits = 8 * sizeof(T);
  const auto dividend =
      static_cast<SignedWide>(static_cast<Wide>(static_cast<SignedWide>(static_cast<Signed>(high))) << kBits | low);
  const SignedWide by = static_cast<Signed>(divisor);
  if (by == -1) {
    constexpr SignedWide kMax = std::numeric_limits<Signed>::max();
    return dividend <= kMax + 1 && dividend >= -kMax;
  }
  const SignedWide quotient = dividend / by;
  return quotient >= std::numeric_limits<Signed>::min() && quotient <= std::numeric_limits<Signed>::max();
}

template <typename T, bool is_signed>
void divide(Cpu& cpu, const Step* step) {
  T divisor;
  if (!load_rm<T>(cpu, step, divisor)) return cpu.fault(step);
  T low = cpu.reg<T>(x86::kRax);
  T high = sizeof(T) == 1 ? static_cast<T>(cpu.reg<uint16_t>(x86::kRax) >> 8) : cpu.reg<T>(x86::kRdx);
  if (!is_divisible<T, is_signed>(low, high, divisor)) return cpu.fault(step, x86::kDivideError);
  if constexpr (sizeof(T) == 1) {
    // As a 16-bit division, whose quotient and remainder fit: AL and AH.
    uint16_t low16 = static_cast<uint16_t>(high << 8 | low);
    uint16_t high16 = is_signed && (high & 0x80) != 0 ? 0xffff : 0;
    const uint16_t by = is_signed ? static_cast<uint16_t>(static_cast<int8_t>(divisor)) : divisor;
    host_divide<uint16_t, is_signed>(low16, high16, by, cpu.arithmetic_flags);
    cpu.set_reg<uint16_t>(x86::kRax, static_cast<uint16_t>((high16 & 0xff) << 8 | (low16 & 0xff)));
  } else {
    host_divide<T, is_signed>(low, high, divisor, cpu.arithmetic_flags);
    cpu.set_reg<T>(x86::kRax, low);
    cpu.set_reg<T>(x86::kRdx, high);
  }
  return next(cpu, step);
}

// --- CBW, CWDE, CDQE; CWD, CDQ, CQO

void extend_accumulator(Cpu& cpu, const Step* step) {
  const uint64_t rax = cpu.gpr[x86::kRax];
  switch (step->insn.operand_size) {
    case 2: cpu.set_reg<uint16_t>(x86::kRax, static_cast<uint16_t>(static_cast<int8_t>(rax))); break;
    case 4: cpu.set_reg<uint32_t>(x86::kRax, static_cast<uint32_t>(static_cast<int16_t>(rax))); break;
    default: cpu.gpr[x86::kRax] = static_cast<uint64_t>(int64_t{static_cast<int32_t>(rax)}); break;
  }
  return next(cpu, step);
}

void extend_into_dx(Cpu& cpu, const Step* step) {
  const uint64_t rax = cpu.gpr[x86::kRax];
  switch (step->insn.operand_size) {
    case 2: cpu.set_reg<uint16_t>(x86::kRdx, (rax & 0x8000) != 0 ? 0xffff : 0); break;
    case 4: cpu.set_reg<uint32_t>(x86::kRdx, (rax & 0x80000000) != 0 ? 0xffffffff : 0); break;
    default: cpu.gpr[x86::kRdx] = (rax >> 63) != 0 ? ~uint64_t{0} : 0; break;
  }
  return next(cpu, step);
}

// --- BCD

/// SF, ZF and PF of `value` as TEST makes them, with CF and AF as given and OF clear.
uint16_t decimal_flags(uint8_t value, bool carry, bool adjust) {
  uint16_t flags = 0;
  alu2<Alu::kTest, uint8_t>(value, value, flags);
  flags = static_cast<uint16_t>(flags & ~(kAxCf | kAxAf | kAxOf));
  return static_cast<uint16_t>(flags | (carry ? kAxCf : 0) | (adjust ? kAxAf : 0));
}

/// DAA and DAS.
template <bool subtract>
void decimal_adjust(Cpu& cpu, const Step* step) {
  const uint8_t old = cpu.reg<uint8_t>(x86::kRax);
  const bool old_carry = (cpu.arithmetic_flags & kAxCf) != 0;
  const bool adjust = (old & 0xf) > 9 || (cpu.arithmetic_flags & kAxAf) != 0;
  const bool high_adjust = old > 0x99 || old_carry;
  uint8_t value = old;
  bool carry = high_adjust;
  if (adjust) {
    value = static_cast<uint8_t>(subtract ? value - 6 : value + 6);
    // DAS: the borrow of the low adjustment counts too (SDM Vol. 2, DAS).
    if (subtract && old < 6) carry = true;
  }
  if (high_adjust) value = static_cast<uint8_t>(subtract ? value - 0x60 : value + 0x60);
  cpu.set_reg<uint8_t>(x86::kRax, value);
  cpu.arithmetic_flags = decimal_flags(value, carry, adjust);
  return next(cpu, step);
}

/// AAA and AAS.
template <bool subtract>
void ascii_adjust(Cpu& cpu, const Step* step) {
  uint16_t ax = cpu.reg<uint16_t>(x86::kRax);
  const bool adjust = (ax & 0xf) > 9 || (cpu.arithmetic_flags & kAxAf) != 0;
  if (adjust) ax = static_cast<uint16_t>(subtract ? ax - 0x106 : ax + 0x106);
  ax &= 0xff0f;
  cpu.set_reg<uint16_t>(x86::kRax, ax);
  cpu.arithmetic_flags = decimal_flags(static_cast<uint8_t>(ax), adjust, adjust);
  return next(cpu, step);
}

void ascii_adjust_multiply(Cpu& cpu, const Step* step) {
  const auto base = static_cast<uint8_t>(step->insn.immediate);
  if (base == 0) return cpu.fault(step, x86::kDivideError);
  const uint8_t al = cpu.reg<uint8_t>(x86::kRax);
  const auto low = static_cast<uint8_t>(al % base);
  cpu.set_reg<uint16_t>(x86::kRax, static_cast<uint16_t>((al / base) << 8 | low));
  cpu.arithmetic_flags = decimal_flags(low, false, false);
  return next(cpu, step);
}

void ascii_adjust_divide(Cpu& cpu, const Step* step) {
  const uint16_t ax = cpu.reg<uint16_t>(x86::kRax);
  const auto value = static_cast<uint8_t>((ax >> 8) * static_cast<uint8_t>(step->insn.immediate) + (ax & 0xff));
  cpu.set_reg<uint16_t>(x86::kRax, value);
  cpu.arithmetic_flags = decimal_flags(value, false, false);
  return next(cpu, step);
}

template <bool is_signed>
Handler division(const Insn& insn) {
  return by_size(operand_bytes(insn, insn.row->operands[0]),
                 []<typename T>() -> Handler { return divide<T, is_signed>; });
}

}  // namespace

Handler multiply_handler(const Insn& insn, x86::CodeSize) {
  switch (insn.row->op) {
    case x86::Op::kMul:
      return by_size(operand_bytes(insn, insn.row->operands[0]),
                     []<typename T>() -> Handler { return multiply_accumulator<T, false>; });
    case x86::Op::kImul: return imul(insn);
    case x86::Op::kMulx: return insn.operand_size == 8 ? mulx<uint64_t> : mulx<uint32_t>;
    case x86::Op::kDiv: return division<false>(insn);
    case x86::Op::kIdiv: return division<true>(insn);
    case x86::Op::kCbw: return extend_accumulator;
    case x86::Op::kCwd: return extend_into_dx;
    case x86::Op::kDaa: return decimal_adjust<false>;
    case x86::Op::kDas: return decimal_adjust<true>;
    case x86::Op::kAaa: return ascii_adjust<false>;
    case x86::Op::kAas: return ascii_adjust<true>;
    case x86::Op::kAam: return ascii_adjust_multiply;
    case x86::Op::kAad: return ascii_adjust_divide;
    default: return nullptr;
  }
}

}  // namespace tenon::interp
