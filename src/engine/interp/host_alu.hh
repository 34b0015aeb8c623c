// Integer arithmetic as the host's own instructions on guest values, with the flags in AX form (LAHF and SETO).
//
// The idea: results and flags, undefined flags included, come out as the host CPU makes them, and each function is the
// instruction itself plus two for its flags. Where an instruction keeps some flags (or might, where the manual says
// "undefined"), the guest's flags are loaded before it: ADD $127 to AL recreates OF, SAHF the others, BT only CF.
//
// Source: SDM Vol. 2, each instruction's "Flags Affected". The JIT will emit the same sequences.
#pragma once

#include <cstdint>

#include "engine/x86/cpu_state.hh"

namespace tenon::interp {

/// Flags in AX form: bit positions of LAHF's AH, and SETO's AL.
enum AxFlags : uint16_t {
  kAxOf = 1u << 0,
  kAxCf = 1u << 8,
  kAxPf = 1u << 10,
  kAxAf = 1u << 12,
  kAxZf = 1u << 14,
  kAxSf = 1u << 15,
  kAxAll = kAxOf | kAxCf | kAxPf | kAxAf | kAxZf | kAxSf,
};

/// RFLAGS arithmetic bits to AX form and back. LAHF's bit 1 of AH is always one.
constexpr uint16_t ax_from_rflags(uint64_t rflags) {
  return static_cast<uint16_t>(((rflags & 0xd5) | 2) << 8 | ((rflags >> 11) & 1));
}
constexpr uint64_t rflags_from_ax(uint16_t ax) { return ((ax >> 8) & 0xd5) | (uint64_t{ax & 1u} << 11); }

enum class Alu : uint8_t { kAdd, kOr, kAdc, kSbb, kAnd, kSub, kXor, kCmp, kTest, kInc, kDec, kNeg, kNot };
/// In the order of ModRM.reg of opcodes C0, C1, D0-D3 (SDM Vol. 2 Table A-6, group 2).
enum class Shift : uint8_t { kRol, kRor, kRcl, kRcr, kShl, kShr, kSal, kSar };

#define TENON_FLAGS_OUT "lahf\n\tseto %%al"
#define TENON_FLAGS_IN "addb $127, %%al\n\tsahf\n\t"
#define TENON_CARRY_IN "btw $8, %%ax\n\t"

// Two operands, destination `a`. The asm text is the same for every size: the register operand gives the suffix.
#define TENON_ALU2(mnemonic) \
  asm(mnemonic " %[b], %[a]\n\t" TENON_FLAGS_OUT : [a] "+r"(a), "=a"(flags) : [b] "r"(b) : "cc")
#define TENON_ALU2_CARRY(mnemonic) \
  asm(TENON_CARRY_IN mnemonic " %[b], %[a]\n\t" TENON_FLAGS_OUT : [a] "+r"(a), "+a"(flags) : [b] "r"(b) : "cc")
#define TENON_ALU2_READ(mnemonic) \
  asm(mnemonic " %[b], %[a]\n\t" TENON_FLAGS_OUT : "=a"(flags) : [a] "r"(a), [b] "r"(b) : "cc")

/// a = a op b for a register destination (CMP and TEST leave a).
template <Alu op, typename T>
[[gnu::always_inline]] inline T alu2(T a, T b, uint16_t& flags) {
  if constexpr (op == Alu::kAdd) TENON_ALU2("add");
  if constexpr (op == Alu::kOr) TENON_ALU2("or");
  if constexpr (op == Alu::kAnd) TENON_ALU2("and");
  if constexpr (op == Alu::kSub) TENON_ALU2("sub");
  if constexpr (op == Alu::kXor) TENON_ALU2("xor");
  if constexpr (op == Alu::kAdc) TENON_ALU2_CARRY("adc");
  if constexpr (op == Alu::kSbb) TENON_ALU2_CARRY("sbb");
  if constexpr (op == Alu::kCmp) TENON_ALU2_READ("cmp");
  if constexpr (op == Alu::kTest) TENON_ALU2_READ("test");
  return a;
}

/// a = op a. INC and DEC keep CF, NOT keeps all flags.
template <Alu op, typename T>
[[gnu::always_inline]] inline T alu1(T a, uint16_t& flags) {
  if constexpr (op == Alu::kInc) asm(TENON_CARRY_IN "inc %[a]\n\t" TENON_FLAGS_OUT : [a] "+r"(a), "+a"(flags) : : "cc");
  if constexpr (op == Alu::kDec) asm(TENON_CARRY_IN "dec %[a]\n\t" TENON_FLAGS_OUT : [a] "+r"(a), "+a"(flags) : : "cc");
  if constexpr (op == Alu::kNeg) asm("neg %[a]\n\t" TENON_FLAGS_OUT : [a] "+r"(a), "=a"(flags) : : "cc");
  if constexpr (op == Alu::kNot) a = static_cast<T>(~a);
  return a;
}

template <typename T>
constexpr char suffix() {
  return sizeof(T) == 1 ? 'b' : sizeof(T) == 2 ? 'w' : sizeof(T) == 4 ? 'l' : 'q';
}

/// [p] = [p] op b in one host instruction, with the LOCK prefix where `locked`: atomic as the guest's own.
#define TENON_ALU_MEM(prefix, mnemonic)                            \
  asm volatile(prefix mnemonic " %[b], (%[p])\n\t" TENON_FLAGS_OUT \
               : "=a"(flags)                                       \
               : [p] "r"(p), [b] "r"(b)                            \
               : "cc", "memory")
#define TENON_ALU_MEM_CARRY(prefix, mnemonic)                                     \
  asm volatile(TENON_CARRY_IN prefix mnemonic " %[b], (%[p])\n\t" TENON_FLAGS_OUT \
               : "+a"(flags)                                                      \
               : [p] "r"(p), [b] "r"(b)                                           \
               : "cc", "memory")

template <Alu op, bool locked, typename T>
[[gnu::always_inline]] inline void alu2_memory(void* p, T b, uint16_t& flags) {
  if constexpr (locked) {
    if constexpr (op == Alu::kAdd) TENON_ALU_MEM("lock ", "add");
    if constexpr (op == Alu::kOr) TENON_ALU_MEM("lock ", "or");
    if constexpr (op == Alu::kAnd) TENON_ALU_MEM("lock ", "and");
    if constexpr (op == Alu::kSub) TENON_ALU_MEM("lock ", "sub");
    if constexpr (op == Alu::kXor) TENON_ALU_MEM("lock ", "xor");
    if constexpr (op == Alu::kAdc) TENON_ALU_MEM_CARRY("lock ", "adc");
    if constexpr (op == Alu::kSbb) TENON_ALU_MEM_CARRY("lock ", "sbb");
  } else {
    if constexpr (op == Alu::kAdd) TENON_ALU_MEM("", "add");
    if constexpr (op == Alu::kOr) TENON_ALU_MEM("", "or");
    if constexpr (op == Alu::kAnd) TENON_ALU_MEM("", "and");
    if constexpr (op == Alu::kSub) TENON_ALU_MEM("", "sub");
    if constexpr (op == Alu::kXor) TENON_ALU_MEM("", "xor");
    if constexpr (op == Alu::kAdc) TENON_ALU_MEM_CARRY("", "adc");
    if constexpr (op == Alu::kSbb) TENON_ALU_MEM_CARRY("", "sbb");
  }
}

#define TENON_ALU1_MEM_SIZED(text_before, text_after)                                                \
  if constexpr (sizeof(T) == 1)                                                                      \
    asm volatile(text_before "b (%[p])\n\t" text_after : "+a"(flags) : [p] "r"(p) : "cc", "memory"); \
  if constexpr (sizeof(T) == 2)                                                                      \
    asm volatile(text_before "w (%[p])\n\t" text_after : "+a"(flags) : [p] "r"(p) : "cc", "memory"); \
  if constexpr (sizeof(T) == 4)                                                                      \
    asm volatile(text_before "l (%[p])\n\t" text_after : "+a"(flags) : [p] "r"(p) : "cc", "memory"); \
  if constexpr (sizeof(T) == 8)                                                                      \
  asm volatile(text_before "q (%[p])\n\t" text_after : "+a"(flags) : [p] "r"(p) : "cc", "memory")

template <Alu op, bool locked, typename T>
[[gnu::always_inline]] inline void alu1_memory(void* p, uint16_t& flags) {
  if constexpr (locked) {
    if constexpr (op == Alu::kInc) {
      TENON_ALU1_MEM_SIZED(TENON_CARRY_IN "lock inc", TENON_FLAGS_OUT);
    }
    if constexpr (op == Alu::kDec) {
      TENON_ALU1_MEM_SIZED(TENON_CARRY_IN "lock dec", TENON_FLAGS_OUT);
    }
    if constexpr (op == Alu::kNeg) {
      TENON_ALU1_MEM_SIZED("lock neg", TENON_FLAGS_OUT);
    }
    if constexpr (op == Alu::kNot) {
      TENON_ALU1_MEM_SIZED("lock not", "");
    }
  } else {
    if constexpr (op == Alu::kInc) {
      TENON_ALU1_MEM_SIZED(TENON_CARRY_IN "inc", TENON_FLAGS_OUT);
    }
    if constexpr (op == Alu::kDec) {
      TENON_ALU1_MEM_SIZED(TENON_CARRY_IN "dec", TENON_FLAGS_OUT);
    }
    if constexpr (op == Alu::kNeg) {
      TENON_ALU1_MEM_SIZED("neg", TENON_FLAGS_OUT);
    }
    if constexpr (op == Alu::kNot) {
      TENON_ALU1_MEM_SIZED("not", "");
    }
  }
}

/// Shift or rotate by `count` in CL as the guest gave it; the host masks it in the same way. Count 0 keeps the flags.
template <Shift op, typename T>
[[gnu::always_inline]] inline T shift(T a, uint8_t count, uint16_t& flags) {
#define TENON_SHIFT(mnemonic) \
  asm(TENON_FLAGS_IN mnemonic " %%cl, %[a]\n\t" TENON_FLAGS_OUT : [a] "+r"(a), "+a"(flags) : "c"(count) : "cc")
  if constexpr (op == Shift::kRol) TENON_SHIFT("rol");
  if constexpr (op == Shift::kRor) TENON_SHIFT("ror");
  if constexpr (op == Shift::kRcl) TENON_SHIFT("rcl");
  if constexpr (op == Shift::kRcr) TENON_SHIFT("rcr");
  if constexpr (op == Shift::kShl || op == Shift::kSal) TENON_SHIFT("shl");
  if constexpr (op == Shift::kShr) TENON_SHIFT("shr");
  if constexpr (op == Shift::kSar) TENON_SHIFT("sar");
#undef TENON_SHIFT
  return a;
}

/// Two-operand instructions that read or keep other flags: text is "mnemonic %[b], %[a]".
#define TENON_FLAGGED(text, a, b) \
  asm(TENON_FLAGS_IN text "\n\t" TENON_FLAGS_OUT : [a_] "+r"(a), "+a"(flags) : [b_] "r"(b) : "cc")

/// The condition of Jcc, SETcc, CMOVcc: the low nibble of the opcode (SDM Vol. 2 Table B-10).
template <unsigned condition>
[[gnu::always_inline]] inline bool test_condition(uint16_t flags) {
  bool value = false;
  constexpr unsigned kind = condition >> 1;
  if constexpr (kind == 0) value = (flags & kAxOf) != 0;
  if constexpr (kind == 1) value = (flags & kAxCf) != 0;
  if constexpr (kind == 2) value = (flags & kAxZf) != 0;
  if constexpr (kind == 3) value = (flags & (kAxCf | kAxZf)) != 0;
  if constexpr (kind == 4) value = (flags & kAxSf) != 0;
  if constexpr (kind == 5) value = (flags & kAxPf) != 0;
  if constexpr (kind == 6) value = (((flags >> 15) ^ flags) & 1) != 0;
  if constexpr (kind == 7) value = (flags & kAxZf) != 0 || (((flags >> 15) ^ flags) & 1) != 0;
  return value != ((condition & 1) != 0);
}

inline bool test_condition(unsigned condition, uint16_t flags) {
  // Bit n of the row is the outcome for OF CF ZF SF PF... evaluated pairwise as Table B-10 lists them.
  const bool less = (((flags >> 15) ^ flags) & 1) != 0;
  bool value = false;
  switch (condition >> 1) {
    case 0: value = (flags & kAxOf) != 0; break;
    case 1: value = (flags & kAxCf) != 0; break;
    case 2: value = (flags & kAxZf) != 0; break;
    case 3: value = (flags & (kAxCf | kAxZf)) != 0; break;
    case 4: value = (flags & kAxSf) != 0; break;
    case 5: value = (flags & kAxPf) != 0; break;
    case 6: value = less; break;
    default: value = less || (flags & kAxZf) != 0; break;
  }
  return value != ((condition & 1) != 0);
}

}  // namespace tenon::interp
