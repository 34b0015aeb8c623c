// Moves, bitwise operations and register zeroing in C++: what memcpy, strlen and context switches are made of, where a
// thunk would cost more than the instruction. Everything here is a copy or one logic operation; there is no semantics
// to get wrong that the host could get right.
//
// Source: Intel SDM Vol. 2 chapters 4 and 5 (MOVAPS, MOVDQU, MOVD, MOVQ, MOVSS, PXOR, VZEROUPPER...).

#include <utility>

#include "engine/interp/vector.hh"

namespace tenon::interp {

namespace {

using x86::Op;
using x86::Operand;

enum class Encoding : uint8_t { kLegacy, kVex };

constexpr Gate gate_of(Encoding encoding) { return encoding == Encoding::kVex ? Gate::kAvx : Gate::kSse; }

Bytes16& half(Cpu& cpu, unsigned number, unsigned index) {
  return reinterpret_cast<Bytes16*>(cpu.vector.ymm[number])[index];
}

/// Registers keep 255:128 in legacy encodings; VEX zeroes what lies above the vector length (SDM Vol. 1 14.1.1).
template <Encoding encoding, unsigned size_bytes>
void zero_above(Cpu& cpu, unsigned number) {
  if constexpr (encoding == Encoding::kVex && size_bytes == 16) half(cpu, number, 1) = Bytes16{};
}

template <Encoding encoding, unsigned size_bytes, bool aligned>
void load_full(Cpu& cpu, const Step* step) {
  const SegmentIndex segment = operand_segment(step->insn);
  const uint64_t offset = cpu.effective_offset(step);
  if (!gate_open(cpu, gate_of(encoding))) [[unlikely]]
    return cpu.fault(step);
  if (aligned && !check_aligned(cpu, segment, offset, size_bytes)) [[unlikely]]
    return cpu.fault(step);
  if (!load_vector(cpu, segment, offset, cpu.vector.ymm[step->insn.reg], size_bytes)) [[unlikely]]
    return cpu.fault(step);
  zero_above<encoding, size_bytes>(cpu, step->insn.reg);
  return next(cpu, step);
}

template <Encoding encoding, unsigned size_bytes, bool aligned>
void store_full(Cpu& cpu, const Step* step) {
  const SegmentIndex segment = operand_segment(step->insn);
  const uint64_t offset = cpu.effective_offset(step);
  if (!gate_open(cpu, gate_of(encoding))) [[unlikely]]
    return cpu.fault(step);
  if (aligned && !check_aligned(cpu, segment, offset, size_bytes)) [[unlikely]]
    return cpu.fault(step);
  if (!store_vector(cpu, segment, offset, cpu.vector.ymm[step->insn.reg], size_bytes)) [[unlikely]]
    return cpu.fault(step);
  return next(cpu, step);
}

/// Register to register; `to_rm` for the store opcode.
template <Encoding encoding, unsigned size_bytes, bool to_rm>
void move_full(Cpu& cpu, const Step* step) {
  const unsigned to = to_rm ? step->insn.rm : step->insn.reg;
  const unsigned from = to_rm ? step->insn.reg : step->insn.rm;
  if (!gate_open(cpu, gate_of(encoding))) [[unlikely]]
    return cpu.fault(step);
  half(cpu, to, 0) = half(cpu, from, 0);
  if constexpr (size_bytes == 32) half(cpu, to, 1) = half(cpu, from, 1);
  zero_above<encoding, size_bytes>(cpu, to);
  return next(cpu, step);
}

/// An integer of T into the low element, zero above it (MOVD, MOVQ, MOVSS and MOVSD from memory).
template <Encoding encoding, typename T>
void set_low(Cpu& cpu, unsigned number, T value) {
  half(cpu, number, 0) = Bytes16{static_cast<long long>(uint64_t{value}), 0};
  zero_above<encoding, 16>(cpu, number);
}

template <typename T>
T low(const Cpu& cpu, unsigned number) {
  T value;
  std::memcpy(&value, cpu.vector.ymm[number], sizeof value);
  return value;
}

template <Encoding encoding, typename T>
void load_low(Cpu& cpu, const Step* step) {
  T value;
  if (!gate_open(cpu, gate_of(encoding))) [[unlikely]]
    return cpu.fault(step);
  if (!cpu.load(operand_segment(step->insn), cpu.effective_offset(step), value)) [[unlikely]]
    return cpu.fault(step);
  set_low<encoding>(cpu, step->insn.reg, value);
  return next(cpu, step);
}

template <Encoding encoding, typename T>
void store_low(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, gate_of(encoding))) [[unlikely]]
    return cpu.fault(step);
  const T value = low<T>(cpu, step->insn.reg);
  if (!cpu.store(operand_segment(step->insn), cpu.effective_offset(step), value)) [[unlikely]]
    return cpu.fault(step);
  return next(cpu, step);
}

template <Encoding encoding, typename T>
void gpr_to_low(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, gate_of(encoding))) [[unlikely]]
    return cpu.fault(step);
  set_low<encoding>(cpu, step->insn.reg, static_cast<T>(cpu.gpr[step->insn.rm]));
  return next(cpu, step);
}

template <Encoding encoding, typename T>
void low_to_gpr(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, gate_of(encoding))) [[unlikely]]
    return cpu.fault(step);
  cpu.gpr[step->insn.rm] = low<T>(cpu, step->insn.reg);
  return next(cpu, step);
}

/// MOVQ xmm, xmm.
template <Encoding encoding, bool to_rm>
void move_low(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, gate_of(encoding))) [[unlikely]]
    return cpu.fault(step);
  const unsigned to = to_rm ? step->insn.rm : step->insn.reg;
  const unsigned from = to_rm ? step->insn.reg : step->insn.rm;
  set_low<encoding>(cpu, to, low<uint64_t>(cpu, from));
  return next(cpu, step);
}

/// MOVNTI: a store from a general register; no vector state is involved, so no gate.
template <typename T>
void store_gpr(Cpu& cpu, const Step* step) {
  const T value = cpu.reg<T>(step->insn.reg);
  if (!cpu.store(operand_segment(step->insn), cpu.effective_offset(step), value)) [[unlikely]]
    return cpu.fault(step);
  return next(cpu, step);
}

struct Xor {
  static Bytes16 apply(Bytes16 a, Bytes16 b) { return a ^ b; }
};
struct And {
  static Bytes16 apply(Bytes16 a, Bytes16 b) { return a & b; }
};
struct AndNot {
  static Bytes16 apply(Bytes16 a, Bytes16 b) { return ~a & b; }
};
struct Or {
  static Bytes16 apply(Bytes16 a, Bytes16 b) { return a | b; }
};

/// Register form: reg = reg OP rm, or with VEX reg = vvvv OP rm.
template <typename Operation, Encoding encoding, unsigned size_bytes>
void bitwise(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, gate_of(encoding))) [[unlikely]]
    return cpu.fault(step);
  const Insn& insn = step->insn;
  const unsigned first = encoding == Encoding::kVex ? insn.vvvv : insn.reg;
  for (unsigned i = 0; i < size_bytes / 16; ++i)
    half(cpu, insn.reg, i) = Operation::apply(half(cpu, first, i), half(cpu, insn.rm, i));
  zero_above<encoding, size_bytes>(cpu, insn.reg);
  return next(cpu, step);
}

/// VZEROALL, VZEROUPPER: only registers 0 to 7 outside 64-bit mode.
template <bool all>
void zero_registers(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, Gate::kAvx)) [[unlikely]]
    return cpu.fault(step);
  for (unsigned i = 0; i < (cpu.in_long_mode ? 16u : 8u); ++i) {
    if constexpr (all) half(cpu, i, 0) = Bytes16{};
    half(cpu, i, 1) = Bytes16{};
  }
  return next(cpu, step);
}

/// EMMS: all tags empty, TOP = 0.
void run_emms(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, Gate::kMmx)) [[unlikely]]
    return cpu.fault(step);
  enter_mmx(cpu.vector);
  cpu.vector.fx[Fx::kTags] = 0;
  return next(cpu, step);
}

bool stores(const Insn& insn) {
  const Operand first = insn.row->operands[0];
  return !(first >= Operand::kVx && first <= Operand::kVd);
}

template <Encoding encoding, unsigned size_bytes, bool aligned>
Handler full_move(const Insn& insn) {
  if (!insn.is_memory) {
    return stores(insn) ? move_full<encoding, size_bytes, true> : move_full<encoding, size_bytes, false>;
  }
  return stores(insn) ? store_full<encoding, size_bytes, aligned> : load_full<encoding, size_bytes, aligned>;
}

template <bool aligned>
Handler full_move_of(const Insn& insn) {
  if ((insn.row->flags & x86::kAvxState) == 0) return full_move<Encoding::kLegacy, 16, aligned>(insn);
  return insn.vector_bytes == 32 ? full_move<Encoding::kVex, 32, aligned>(insn)
                                 : full_move<Encoding::kVex, 16, aligned>(insn);
}

template <Encoding encoding, typename T>
Handler low_move(const Insn& insn) {
  if (insn.is_memory) return stores(insn) ? store_low<encoding, T> : load_low<encoding, T>;
  return stores(insn) ? low_to_gpr<encoding, T> : gpr_to_low<encoding, T>;
}

template <Encoding encoding>
Handler movd_move(const Insn& insn) {
  return insn.operand_size == 8 ? low_move<encoding, uint64_t>(insn) : low_move<encoding, uint32_t>(insn);
}

template <Encoding encoding>
Handler movq_move(const Insn& insn) {
  if (insn.is_memory) return low_move<encoding, uint64_t>(insn);
  return stores(insn) ? move_low<encoding, true> : move_low<encoding, false>;
}

template <typename Operation>
Handler bitwise_of(const Insn& insn) {
  if (insn.is_memory) return nullptr;
  if ((insn.row->flags & x86::kAvxState) == 0) return bitwise<Operation, Encoding::kLegacy, 16>;
  return insn.vector_bytes == 32 ? bitwise<Operation, Encoding::kVex, 32> : bitwise<Operation, Encoding::kVex, 16>;
}

/// Memory forms only: the register forms of MOVSS and MOVSD merge, which is the thunk's.
template <Encoding encoding, typename T>
Handler scalar_move(const Insn& insn) {
  return insn.is_memory ? low_move<encoding, T>(insn) : nullptr;
}

// clang-format off
Handler plain_move_handler(const Insn& insn) {
  switch (insn.row->op) {
    case Op::kMovups: case Op::kMovupd: case Op::kMovdqu: case Op::kLddqu:
    case Op::kVmovups: case Op::kVmovupd: case Op::kVmovdqu: case Op::kVlddqu:
      return full_move_of<false>(insn);
    case Op::kMovaps: case Op::kMovapd: case Op::kMovdqa: case Op::kMovntps: case Op::kMovntpd: case Op::kMovntdq:
    case Op::kMovntdqa: case Op::kVmovaps: case Op::kVmovapd: case Op::kVmovdqa: case Op::kVmovntps: case Op::kVmovntpd:
    case Op::kVmovntdq: case Op::kVmovntdqa:
      return full_move_of<true>(insn);
    case Op::kMovss: return scalar_move<Encoding::kLegacy, uint32_t>(insn);
    case Op::kMovsd: return scalar_move<Encoding::kLegacy, uint64_t>(insn);
    case Op::kVmovss: return scalar_move<Encoding::kVex, uint32_t>(insn);
    case Op::kVmovsd: return scalar_move<Encoding::kVex, uint64_t>(insn);
    case Op::kMovd: return movd_move<Encoding::kLegacy>(insn);
    case Op::kVmovd: return movd_move<Encoding::kVex>(insn);
    case Op::kMovq: return movq_move<Encoding::kLegacy>(insn);
    case Op::kVmovq: return movq_move<Encoding::kVex>(insn);
    default: return nullptr;
  }
}

Handler bitwise_handler(const Insn& insn) {
  switch (insn.row->op) {
    case Op::kPxor: case Op::kXorps: case Op::kXorpd: case Op::kVpxor: case Op::kVxorps: case Op::kVxorpd:
      return bitwise_of<Xor>(insn);
    case Op::kPand: case Op::kAndps: case Op::kAndpd: case Op::kVpand: case Op::kVandps: case Op::kVandpd:
      return bitwise_of<And>(insn);
    case Op::kPandn: case Op::kAndnps: case Op::kAndnpd: case Op::kVpandn: case Op::kVandnps: case Op::kVandnpd:
      return bitwise_of<AndNot>(insn);
    case Op::kPor: case Op::kOrps: case Op::kOrpd: case Op::kVpor: case Op::kVorps: case Op::kVorpd:
      return bitwise_of<Or>(insn);
    default: return nullptr;
  }
}

// clang-format on

}  // namespace

Handler vector_move_handler(const Insn& insn) {
  switch (insn.row->op) {
    case Op::kVzeroall: return zero_registers<true>;
    case Op::kVzeroupper: return zero_registers<false>;
    case Op::kEmms: return run_emms;
    case Op::kMovnti: return insn.operand_size == 8 ? store_gpr<uint64_t> : store_gpr<uint32_t>;
    default: break;
  }
  if ((insn.row->flags & x86::kMmx) != 0) return nullptr;
  if (Handler handler = plain_move_handler(insn)) return handler;
  return bitwise_handler(insn);
}

}  // namespace tenon::interp
