// Operand forms and sizes: what the integer families ask of an Insn to choose a specialised handler.
#pragma once

#include <bit>
#include <cstdint>

#include "engine/interp/cpu_inline.hh"

namespace tenon::interp {

using x86::Operand;

/// Where an operand is.
enum class Place : uint8_t { kNone, kReg, kRm, kImmediate, kOpcodeReg, kAccumulator, kOther };

Place place_of(Operand operand);

/// Size in bytes of a general-register or memory operand of `insn` (0 where it has none).
unsigned operand_bytes(const Insn& insn, Operand operand);

inline unsigned size_index(unsigned size_bytes) { return static_cast<unsigned>(std::countr_zero(size_bytes)); }

/// Forms of an instruction with a destination and a source. Flat: 64-bit mode, 64-bit addressing, no FS or GS.
enum class Form : uint8_t {
  kRmReg,
  kRegRm,
  kRmImm,  // registers only; destination first
  kRegMem,
  kMemReg,
  kMemImm,  // any segment and address size
  kRegMemFlat,
  kMemRegFlat,
  kMemImmFlat,
  kForms,
};
constexpr unsigned kFormCount = static_cast<unsigned>(Form::kForms);

constexpr bool is_flat(Form form) { return form >= Form::kRegMemFlat; }
constexpr bool source_is_memory(Form form) { return form == Form::kRegMem || form == Form::kRegMemFlat; }
constexpr bool destination_is_memory(Form form) {
  return form == Form::kMemReg || form == Form::kMemImm || form == Form::kMemRegFlat || form == Form::kMemImmFlat;
}
constexpr bool source_is_immediate(Form form) {
  return form == Form::kRmImm || form == Form::kMemImm || form == Form::kMemImmFlat;
}

/// Whether the memory operand of `insn` needs no segment base and no cut to the address size.
bool is_flat_operand(const Insn& insn, x86::CodeSize code_size);
/// The form of a two-operand instruction. Accumulator destinations count as ModRM.rm 0.
Form form_of(const Insn& insn, x86::CodeSize code_size);

inline SegmentIndex segment_of(const Step* step) { return static_cast<SegmentIndex>(step->insn.segment); }

template <bool flat>
[[gnu::always_inline]] inline uint64_t operand_offset(const Cpu& cpu, const Step* step) {
  if constexpr (flat) {
    const Insn& insn = step->insn;
    return cpu.gpr[insn.base] + (cpu.gpr[insn.index] << insn.scale) + static_cast<uint64_t>(int64_t{insn.displacement});
  } else {
    return cpu.effective_offset(step);
  }
}

template <bool flat, typename T>
[[gnu::always_inline]] inline bool load_operand(Cpu& cpu, const Step* step, T& out) {
  const uint64_t offset = operand_offset<flat>(cpu, step);
  if constexpr (flat) return cpu.load_flat<T>(segment_of(step), offset, out);
  return cpu.load<T>(segment_of(step), offset, out);
}

template <bool flat, typename T>
[[gnu::always_inline]] inline bool store_operand(Cpu& cpu, const Step* step, T value) {
  const uint64_t offset = operand_offset<flat>(cpu, step);
  if constexpr (flat) return cpu.store_flat<T>(segment_of(step), offset, value);
  return cpu.store<T>(segment_of(step), offset, value);
}

/// Register number `number` of the instruction as T; for bytes as the encoding means it (AH to BH).
template <typename T>
[[gnu::always_inline]] inline T read_register(const Cpu& cpu, const Insn& insn, unsigned number) {
  if constexpr (sizeof(T) == 1) return cpu.reg8(insn, number);
  return cpu.reg<T>(number);
}

template <typename T>
[[gnu::always_inline]] inline void write_register(Cpu& cpu, const Insn& insn, unsigned number, T value) {
  if constexpr (sizeof(T) == 1) {
    cpu.set_reg8(insn, number, value);
  } else {
    cpu.set_reg<T>(number, value);
  }
}

inline bool is_locked(const Insn& insn) { return (insn.prefixes & x86::kPrefixLock) != 0; }

/// The host address of the memory operand where the TLB has it. Handlers take this path alone; on a miss they tail-call
/// their cold twin, so that the hot one needs no stack frame.
template <bool flat, Access access, typename T>
[[gnu::always_inline]] inline bool host_operand(const Cpu& cpu, const Step* step, void*& host) {
  uint64_t linear = operand_offset<flat>(cpu, step);
  if constexpr (!flat) {
    const SegmentWindow& window = cpu.window[step->insn.segment];
    const uint64_t end = access == Access::kWrite ? window.write_end : window.read_end;
    if (linear + sizeof(T) > end) [[unlikely]]
      return false;
    linear = (linear + window.base) & cpu.linear_mask;
  }
  return tlb_hit(access == Access::kWrite ? cpu.tlb_write : cpu.tlb_read, linear, sizeof(T), host);
}

/// The slow ways of the same operand: both fault with false or nullptr.
template <typename T>
inline bool load_operand_slow(Cpu& cpu, const Step* step, T& out) {
  return cpu.load_slow(segment_of(step), cpu.effective_offset(step), &out, sizeof(T));
}
template <typename T>
inline bool store_operand_slow(Cpu& cpu, const Step* step, T value) {
  return cpu.store_slow(segment_of(step), cpu.effective_offset(step), &value, sizeof(T));
}
template <typename T>
inline void* begin_operand_rmw(Cpu& cpu, const Step* step) {
  return cpu.begin_rmw(segment_of(step), cpu.effective_offset(step), sizeof(T), is_locked(step->insn));
}

#define TENON_COLD [[gnu::noinline, gnu::cold]]

/// Calls `choose.template operator()<T>()` with the unsigned type of `size_bytes` (1, 2, 4 or 8).
template <typename Choose>
Handler by_size(unsigned size_bytes, Choose choose) {
  switch (size_bytes) {
    case 1: return choose.template operator()<uint8_t>();
    case 2: return choose.template operator()<uint16_t>();
    case 4: return choose.template operator()<uint32_t>();
    case 8: return choose.template operator()<uint64_t>();
    default: return nullptr;
  }
}

/// The same without bytes.
template <typename Choose>
Handler by_wide_size(unsigned size_bytes, Choose choose) {
  switch (size_bytes) {
    case 2: return choose.template operator()<uint16_t>();
    case 4: return choose.template operator()<uint32_t>();
    case 8: return choose.template operator()<uint64_t>();
    default: return nullptr;
  }
}

}  // namespace tenon::interp
