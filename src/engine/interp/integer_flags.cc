// Flag instructions: CLC, STC, CMC, CLD, STD, CLI, STI, LAHF, SAHF, SALC, PUSHF, POPF; NOP, PAUSE, prefetches, fences;
// RDRAND, RDSEED.
//
// Source: SDM Vol. 2, each instruction; Vol. 3 21.3 and Table 21-2 (VME), 2.3 (IOPL, VIF, VIP).
#include <thread>

#include "base/shared_memory.hh"
#include "engine/interp/event.hh"
#include "engine/interp/host_alu.hh"
#include "engine/interp/integer_families.hh"
#include "engine/interp/integer_operand.hh"
#include "engine/interp/stack_inline.hh"
#include "engine/interp/trace_cache.hh"

namespace tenon::interp {
namespace {

constexpr uint64_t kIfBit = x86::kIf;
constexpr uint64_t kVifBit = x86::kVif;

unsigned iopl(const Cpu& cpu) { return (cpu.system_flags >> 12) & 3; }
bool is_vm86(const Cpu& cpu) { return (cpu.system_flags & x86::kVm) != 0; }
bool is_real(const Cpu& cpu) { return (cpu.state.cr0 & x86::kCr0Pe) == 0; }
bool has_vme(const Cpu& cpu) { return (cpu.state.cr4 & x86::kCr4Vme) != 0; }

void clear_carry(Cpu& cpu, const Step* step) {
  cpu.arithmetic_flags &= static_cast<uint16_t>(~kAxCf);
  return next(cpu, step);
}
void set_carry(Cpu& cpu, const Step* step) {
  cpu.arithmetic_flags |= kAxCf;
  return next(cpu, step);
}
void complement_carry(Cpu& cpu, const Step* step) {
  cpu.arithmetic_flags ^= kAxCf;
  return next(cpu, step);
}
void clear_direction(Cpu& cpu, const Step* step) {
  cpu.system_flags &= ~uint64_t{x86::kDf};
  return next(cpu, step);
}
void set_direction(Cpu& cpu, const Step* step) {
  cpu.system_flags |= x86::kDf;
  return next(cpu, step);
}

/// AH is what LAHF gives, and our flags keep it in that form.
void load_ah(Cpu& cpu, const Step* step) {
  const uint64_t ah = (rflags_from_ax(cpu.arithmetic_flags) & 0xd5) | x86::kFlagsOne;
  cpu.gpr[x86::kRax] = (cpu.gpr[x86::kRax] & ~uint64_t{0xff00}) | ah << 8;
  return next(cpu, step);
}
void store_ah(Cpu& cpu, const Step* step) {
  const uint64_t of = rflags_from_ax(cpu.arithmetic_flags) & x86::kOf;
  cpu.arithmetic_flags = ax_from_rflags(((cpu.gpr[x86::kRax] >> 8) & 0xd5) | of);
  return next(cpu, step);
}
void set_al_on_carry(Cpu& cpu, const Step* step) {
  cpu.set_reg<uint8_t>(x86::kRax, (cpu.arithmetic_flags & kAxCf) != 0 ? 0xff : 0);
  return next(cpu, step);
}

// --- CLI, STI (SDM Vol. 2, Table "Decision Table for CLI/STI Results")

enum class IfAccess : uint8_t { kIf, kVif, kFault };

IfAccess if_access(const Cpu& cpu) {
  if (is_real(cpu)) return IfAccess::kIf;
  if (is_vm86(cpu)) return iopl(cpu) == 3 ? IfAccess::kIf : has_vme(cpu) ? IfAccess::kVif : IfAccess::kFault;
  if (cpu.cpl <= iopl(cpu)) return IfAccess::kIf;
  const bool pvi = cpu.cpl == 3 && (cpu.state.cr4 & x86::kCr4Pvi) != 0;
  return pvi ? IfAccess::kVif : IfAccess::kFault;
}

void clear_interrupt(Cpu& cpu, const Step* step) {
  const IfAccess access = if_access(cpu);
  if (access == IfAccess::kFault) return cpu.fault(step, x86::kGeneralProtection, 0);
  cpu.system_flags &= ~uint64_t{access == IfAccess::kIf ? x86::kIf : x86::kVif};
  return next(cpu, step);
}

/// Interrupts come after the next instruction. Where none is in sight the trace just goes on, unless STI is its last:
/// the instruction after it must not start at a boundary where interrupts are taken.
void set_interrupt(Cpu& cpu, const Step* step) {
  const IfAccess access = if_access(cpu);
  if (access == IfAccess::kFault) return cpu.fault(step, x86::kGeneralProtection, 0);
  if (access == IfAccess::kVif) {
    if ((cpu.system_flags & x86::kVip) != 0) return cpu.fault(step, x86::kGeneralProtection, 0);
    cpu.system_flags |= x86::kVif;
    return next(cpu, step);
  }
  if ((cpu.system_flags & x86::kIf) != 0) return next(cpu, step);
  cpu.system_flags |= x86::kIf;
  const bool nothing_near = !cpu.interrupt_hint && cpu.signal->pending() == 0 && cpu.attention == 0;
  if (nothing_near && step[1].handler != end_of_trace) return next(cpu, step);
  cpu.set_shadow(Cpu::Shadow::kSti);
  cpu.request_event_check();
  return cpu.leave_after(step);
}

// --- PUSHF, POPF

template <typename T>
void push_flags(Cpu& cpu, const Step* step) {
  uint64_t image = cpu.rflags() & ~uint64_t{x86::kRf | x86::kVm};
  if (is_vm86(cpu) && iopl(cpu) < 3) {
    if (!has_vme(cpu) || sizeof(T) != 2) return cpu.fault(step, x86::kGeneralProtection, 0);
    // VME: IF of the image is VIF, IOPL is 3 (SDM Vol. 2, PUSHF).
    image = (image & ~uint64_t{x86::kIf}) | x86::kIopl | ((image & x86::kVif) != 0 ? kIfBit : 0);
  }
  if (!push<false, T>(cpu, static_cast<T>(image))) return cpu.fault(step);
  return next(cpu, step);
}

/// Flags POPF may change here; VIF handling apart (SDM Vol. 2, POPF, Table 4-16).
uint64_t popf_mask(const Cpu& cpu, unsigned size_bytes) {
  uint64_t mask = x86::kArithmeticFlags | x86::kTf | x86::kDf | x86::kNt | x86::kAc | x86::kId | x86::kRf;
  if (is_real(cpu) || (cpu.cpl == 0 && !is_vm86(cpu))) {
    mask |= x86::kIf | x86::kIopl;
  } else if (cpu.cpl <= iopl(cpu)) {
    mask |= x86::kIf;
  }
  return size_bytes == 2 ? mask & 0xffff : mask;
}

template <typename T>
void pop_flags(Cpu& cpu, const Step* step) {
  const bool virtual_if = is_vm86(cpu) && iopl(cpu) < 3;
  if (virtual_if && (!has_vme(cpu) || sizeof(T) != 2)) return cpu.fault(step, x86::kGeneralProtection, 0);
  T popped;
  if (!peek<false, T>(cpu, popped)) return cpu.fault(step);
  uint64_t image = popped;
  const uint64_t mask = popf_mask(cpu, sizeof(T));
  const uint64_t old = cpu.rflags();
  if (virtual_if) {
    const bool wants_if = (image & x86::kIf) != 0;
    if ((wants_if && (old & x86::kVip) != 0) || (image & x86::kTf) != 0) {
      return cpu.fault(step, x86::kGeneralProtection, 0);
    }
  }
  uint64_t flags = (old & ~mask) | (image & mask);
  if (virtual_if) flags = (flags & ~kVifBit) | ((image & x86::kIf) != 0 ? kVifBit : 0);
  flags &= ~uint64_t{x86::kRf};
  drop<false>(cpu, sizeof(T));
  const bool quiet = ((old ^ flags) & ~uint64_t{x86::kArithmeticFlags | x86::kDf | x86::kId | x86::kNt}) == 0;
  if (quiet) {
    cpu.arithmetic_flags = ax_from_rflags(flags);
    cpu.system_flags = flags & ~uint64_t{x86::kArithmeticFlags};
    return next(cpu, step);
  }
  cpu.set_rflags(flags);
  // Interrupts are possible right after it, and TF traps after the next instruction: both are the run loop's.
  return cpu.leave_after(step);
}

// --- Without effect on state

void no_operation(Cpu& cpu, const Step* step) { return next(cpu, step); }

/// A guest that spins waits for another vCPU, which may want this host CPU.
void pause(Cpu& cpu, const Step* step) {
  constexpr uint32_t kPausesPerYield = 64;
  if (++cpu.pauses % kPausesPerYield == 0) std::this_thread::yield();
  return next(cpu, step);
}

/// MFENCE, LFENCE, SFENCE: guest ordering is the host's.
void fence(Cpu& cpu, const Step* step) {
  full_fence();
  return next(cpu, step);
}

// --- RDRAND, RDSEED: CF = success, the other flags 0.

template <typename T, bool seed>
void random_number(Cpu& cpu, const Step* step) {
  T value = 0;
  bool ok;
  if constexpr (seed) {
    asm volatile("rdseed %[v]" : [v] "=r"(value), "=@ccc"(ok));
  } else {
    asm volatile("rdrand %[v]" : [v] "=r"(value), "=@ccc"(ok));
  }
  cpu.set_reg<T>(step->insn.rm, value);
  cpu.arithmetic_flags = ax_from_rflags(ok ? uint64_t{x86::kCf} : 0);
  return next(cpu, step);
}

template <bool seed>
Handler random_by_size(const Insn& insn) {
  return by_wide_size(insn.operand_size, []<typename T>() -> Handler { return random_number<T, seed>; });
}

}  // namespace

Handler flags_handler(const Insn& insn, x86::CodeSize) {
  switch (insn.row->op) {
    case x86::Op::kClc: return clear_carry;
    case x86::Op::kStc: return set_carry;
    case x86::Op::kCmc: return complement_carry;
    case x86::Op::kCld: return clear_direction;
    case x86::Op::kStd: return set_direction;
    case x86::Op::kLahf: return load_ah;
    case x86::Op::kSahf: return store_ah;
    case x86::Op::kSalc: return set_al_on_carry;
    case x86::Op::kCli: return clear_interrupt;
    case x86::Op::kSti: return set_interrupt;
    case x86::Op::kPushf: return by_wide_size(insn.operand_size, []<typename T>() -> Handler { return push_flags<T>; });
    case x86::Op::kPopf: return by_wide_size(insn.operand_size, []<typename T>() -> Handler { return pop_flags<T>; });
    case x86::Op::kPause: return pause;
    case x86::Op::kNop:
    case x86::Op::kPrefetch:
    case x86::Op::kPrefetchw: return no_operation;
    case x86::Op::kMfence:
    case x86::Op::kLfence:
    case x86::Op::kSfence: return fence;
    case x86::Op::kRdrand: return random_by_size<false>(insn);
    case x86::Op::kRdseed: return random_by_size<true>(insn);
    default: return nullptr;
  }
}

}  // namespace tenon::interp
