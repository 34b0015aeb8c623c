// XCHG, XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B (SDM Vol. 2), as host-atomic operations on guest RAM.
//
// XCHG with memory is locked whatever its prefixes say; the others only with LOCK. The unlocked forms use the same host
// instructions without the prefix.
#include "engine/interp/host_alu.hh"
#include "engine/interp/integer_families.hh"
#include "engine/interp/integer_operand.hh"

namespace tenon::interp {
namespace {

/// The operand that is in a register although it may stand first or second: XCHG and MOV-like forms.
unsigned register_operand(const Insn& insn) {
  const bool modrm = place_of(insn.row->operands[0]) == Place::kReg || place_of(insn.row->operands[1]) == Place::kReg;
  return modrm ? unsigned{insn.reg} : unsigned{x86::kRax};
}

template <typename T>
void exchange_registers(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const unsigned other = register_operand(insn);
  const T a = read_register<T>(cpu, insn, insn.rm);
  const T b = read_register<T>(cpu, insn, other);
  write_register<T>(cpu, insn, insn.rm, b);
  write_register<T>(cpu, insn, other, a);
  return next(cpu, step);
}

template <typename T>
void exchange_memory(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  void* host = cpu.begin_rmw(segment_of(step), cpu.effective_offset(step), sizeof(T), true);
  if (host == nullptr) return cpu.fault(step);
  T value = read_register<T>(cpu, insn, insn.reg);
  asm volatile("xchg %[v], (%[p])" : [v] "+r"(value) : [p] "r"(host) : "memory");
  cpu.finish_rmw();
  write_register<T>(cpu, insn, insn.reg, value);
  return next(cpu, step);
}

template <typename T>
void exchange_add_registers(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const T old = read_register<T>(cpu, insn, insn.rm);
  const T sum = alu2<Alu::kAdd, T>(old, read_register<T>(cpu, insn, insn.reg), cpu.arithmetic_flags);
  write_register<T>(cpu, insn, insn.reg, old);
  write_register<T>(cpu, insn, insn.rm, sum);  // last: XADD of one register with itself leaves the sum
  return next(cpu, step);
}

template <typename T, bool locked>
void exchange_add_memory(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  void* host = begin_operand_rmw<T>(cpu, step);
  if (host == nullptr) return cpu.fault(step);
  T value = read_register<T>(cpu, insn, insn.reg);
  uint16_t flags;
  if constexpr (locked) {
    asm volatile("lock xadd %[v], (%[p])\n\t" TENON_FLAGS_OUT
                 : [v] "+r"(value), "=a"(flags)
                 : [p] "r"(host)
                 : "cc", "memory");
  } else {
    asm volatile("xadd %[v], (%[p])\n\t" TENON_FLAGS_OUT
                 : [v] "+r"(value), "=a"(flags)
                 : [p] "r"(host)
                 : "cc", "memory");
  }
  cpu.arithmetic_flags = flags;
  cpu.finish_rmw();
  write_register<T>(cpu, insn, insn.reg, value);
  return next(cpu, step);
}

/// Compares `accumulator` with [p]; where equal stores `value`, else `accumulator` becomes [p]. Flags as CMP.
template <typename T, bool locked>
[[gnu::always_inline]] inline void compare_exchange(void* p, T& accumulator, T value, uint16_t& flags) {
  uint64_t kept;
#define TENON_CMPXCHG(prefix)                                                                            \
  asm volatile(prefix "cmpxchg %[v], (%[p])\n\tmov %%rax, %[k]\n\tlahf\n\tseto %%al\n\txchg %%rax, %[k]" \
               : "+a"(accumulator), [k] "=&r"(kept)                                                      \
               : [v] "r"(value), [p] "r"(p)                                                              \
               : "cc", "memory")
  if constexpr (locked) {
    TENON_CMPXCHG("lock ");
  } else {
    TENON_CMPXCHG("");
  }
#undef TENON_CMPXCHG
  flags = static_cast<uint16_t>(kept);
}

template <typename T>
void compare_exchange_registers(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  if constexpr (sizeof(T) == 4) {
    // Which upper halves are cleared is the host's business.
    uint64_t accumulator = cpu.gpr[x86::kRax];
    uint64_t destination = cpu.gpr[insn.rm];
    alu2<Alu::kCmp, T>(static_cast<T>(accumulator), static_cast<T>(destination), cpu.arithmetic_flags);
    asm("cmpxchgl %k[v], %k[d]" : "+a"(accumulator), [d] "+r"(destination) : [v] "r"(cpu.gpr[insn.reg]) : "cc");
    cpu.gpr[x86::kRax] = accumulator;
    cpu.gpr[insn.rm] = destination;
    return next(cpu, step);
  }
  const T accumulator = cpu.reg<T>(x86::kRax);
  const T old = read_register<T>(cpu, insn, insn.rm);
  alu2<Alu::kCmp, T>(accumulator, old, cpu.arithmetic_flags);
  if (accumulator == old) {
    write_register<T>(cpu, insn, insn.rm, read_register<T>(cpu, insn, insn.reg));
  } else {
    cpu.set_reg<T>(x86::kRax, old);
  }
  return next(cpu, step);
}

template <typename T, bool locked>
void compare_exchange_memory(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  void* host = begin_operand_rmw<T>(cpu, step);
  if (host == nullptr) return cpu.fault(step);
  T accumulator = cpu.reg<T>(x86::kRax);
  compare_exchange<T, locked>(host, accumulator, read_register<T>(cpu, insn, insn.reg), cpu.arithmetic_flags);
  cpu.finish_rmw();
  // A 32-bit accumulator that stays does not lose its upper half.
  if ((cpu.arithmetic_flags & kAxZf) == 0) cpu.set_reg<T>(x86::kRax, accumulator);
  return next(cpu, step);
}

/// CMPXCHG8B and CMPXCHG16B touch ZF alone. The host's instruction runs locked in every case: that is one more
/// guarantee than the unlocked form gives, and it needs no second variant.
template <typename Half>
void compare_exchange_pair(Cpu& cpu, const Step* step) {
  constexpr unsigned kSize = 2 * sizeof(Half);
  const uint64_t offset = cpu.effective_offset(step);
  if constexpr (kSize == 16) {
    const uint64_t linear = offset + cpu.window[step->insn.segment].base;
    if (linear % 16 != 0) return cpu.fault(step, x86::kGeneralProtection, 0);
  }
  void* host = cpu.begin_rmw(segment_of(step), offset, kSize, is_locked(step->insn));
  if (host == nullptr) return cpu.fault(step);
  Half low = cpu.reg<Half>(x86::kRax);
  Half high = cpu.reg<Half>(x86::kRdx);
  bool equal;
  if constexpr (kSize == 16) {
    asm volatile("lock cmpxchg16b (%[p])"
                 : "+a"(low), "+d"(high), "=@ccz"(equal)
                 : [p] "r"(host), "b"(cpu.reg<Half>(x86::kRbx)), "c"(cpu.reg<Half>(x86::kRcx))
                 : "memory");
  } else {
    asm volatile("lock cmpxchg8b (%[p])"
                 : "+a"(low), "+d"(high), "=@ccz"(equal)
                 : [p] "r"(host), "b"(cpu.reg<Half>(x86::kRbx)), "c"(cpu.reg<Half>(x86::kRcx))
                 : "memory");
  }
  cpu.finish_rmw();
  cpu.arithmetic_flags = static_cast<uint16_t>((cpu.arithmetic_flags & ~kAxZf) | (equal ? unsigned{kAxZf} : 0u));
  if (!equal) {
    cpu.set_reg<Half>(x86::kRax, low);
    cpu.set_reg<Half>(x86::kRdx, high);
  }
  return next(cpu, step);
}

}  // namespace

Handler exchange_handler(const Insn& insn, x86::CodeSize) {
  const unsigned size_bytes = operand_bytes(insn, insn.row->operands[0]);
  switch (insn.row->op) {
    case x86::Op::kXchg:
      return by_size(size_bytes, [&]<typename T>() -> Handler {
        return insn.is_memory ? exchange_memory<T> : exchange_registers<T>;
      });
    case x86::Op::kXadd:
      return by_size(size_bytes, [&]<typename T>() -> Handler {
        if (!insn.is_memory) return exchange_add_registers<T>;
        return is_locked(insn) ? exchange_add_memory<T, true> : exchange_add_memory<T, false>;
      });
    case x86::Op::kCmpxchg:
      return by_size(size_bytes, [&]<typename T>() -> Handler {
        if (!insn.is_memory) return compare_exchange_registers<T>;
        return is_locked(insn) ? compare_exchange_memory<T, true> : compare_exchange_memory<T, false>;
      });
    case x86::Op::kCmpxchg8b: return compare_exchange_pair<uint32_t>;
    case x86::Op::kCmpxchg16b: return compare_exchange_pair<uint64_t>;
    default: return nullptr;
  }
}

}  // namespace tenon::interp
