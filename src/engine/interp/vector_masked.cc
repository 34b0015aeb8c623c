// Instructions that touch memory element by element: gathers, VMASKMOV, MASKMOVDQU, MASKMOVQ.
//
// They compute nothing; what matters is which bytes are accessed, that an element whose mask bit is clear never faults,
// and that a gather which faults keeps the elements it has and can be restarted (SDM Vol. 2, VPGATHERDD; VMASKMOV;
// MASKMOVDQU).

#include <algorithm>
#include <array>

#include "engine/interp/memory.hh"
#include "engine/interp/vector.hh"

namespace tenon::interp {

namespace {

using x86::Op;

template <typename T>
T element(const uint8_t* vector, unsigned index) {
  T value;
  std::memcpy(&value, vector + index * sizeof(T), sizeof(T));
  return value;
}

template <typename T>
void set_element(uint8_t* vector, unsigned index, T value) {
  std::memcpy(vector + index * sizeof(T), &value, sizeof(T));
}

template <typename T>
bool is_masked_in(const uint8_t* mask, unsigned index) {
  return (element<T>(mask, index) >> (8 * sizeof(T) - 1)) != 0;
}

/// One element, without #AC.
template <typename T>
bool load_element(Cpu& cpu, SegmentIndex segment, uint64_t offset, T& out) {
  const AlignmentCheckOff off(cpu);
  return cpu.load(segment, offset, out);
}

template <typename T>
void masked_load(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, Gate::kAvx)) [[unlikely]]
    return cpu.fault(step);
  const Insn& insn = step->insn;
  const uint8_t* mask = cpu.vector.ymm[insn.vvvv];
  const uint64_t offset = cpu.effective_offset(step);
  std::array<uint8_t, 32> result{};
  for (unsigned i = 0; i < insn.vector_bytes / sizeof(T); ++i) {
    T value;
    if (!is_masked_in<T>(mask, i)) continue;
    if (!load_element(cpu, operand_segment(insn), offset + i * sizeof(T), value)) return cpu.fault(step);
    set_element(result.data(), i, value);
  }
  std::memcpy(cpu.vector.ymm[insn.reg], result.data(), result.size());
  return next(cpu, step);
}

/// Stores the elements of `data` that `mask` selects, when every check of them has passed.
template <typename T>
bool store_selected(Cpu& cpu, SegmentIndex segment, uint64_t offset, const uint8_t* data, const uint8_t* mask,
                    unsigned count) {
  const AlignmentCheckOff off(cpu);
  for (unsigned i = 0; i < count; ++i)
    if (is_masked_in<T>(mask, i) && !cpu.store(segment, offset + i * sizeof(T), element<T>(data, i))) return false;
  return true;
}

/// Checks VMASKMOV's elements, which lie in two pages at most: processors name the first selected byte where its page
/// is the missing one, and the last selected byte where only that one's is.
template <typename T>
bool probe_selected(Cpu& cpu, SegmentIndex segment, uint64_t offset, const uint8_t* mask, unsigned count) {
  unsigned first = 0;
  while (first < count && !is_masked_in<T>(mask, first)) ++first;
  if (first == count) return true;
  unsigned last = count - 1;
  while (!is_masked_in<T>(mask, last)) --last;
  return cpu.probe_store(segment, offset + first * sizeof(T), 1) &&
         cpu.probe_store(segment, offset + (last + 1) * sizeof(T) - 1, 1);
}

template <typename T>
void masked_store(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, Gate::kAvx)) [[unlikely]]
    return cpu.fault(step);
  const Insn& insn = step->insn;
  const uint8_t* data = cpu.vector.ymm[insn.reg];
  const uint8_t* mask = cpu.vector.ymm[insn.vvvv];
  const uint64_t offset = cpu.effective_offset(step);
  const auto count = static_cast<unsigned>(insn.vector_bytes / sizeof(T));
  const SegmentIndex segment = operand_segment(insn);
  if (!probe_selected<T>(cpu, segment, offset, mask, count) ||
      !store_selected<T>(cpu, segment, offset, data, mask, count))
    return cpu.fault(step);
  return next(cpu, step);
}

/// (V)MASKMOVDQU: bytes of reg where rm's bytes have bit 7, to DS:rDI. Processors check all 16 bytes whatever the mask
/// ("implementation dependent", SDM Vol. 2), as two quadwords, the upper one first.
template <Gate gate>
void masked_byte_store(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, gate)) [[unlikely]]
    return cpu.fault(step);
  const Insn& insn = step->insn;
  const uint64_t offset = cut_to_address_size(insn, cpu.gpr[x86::kRdi]);
  const SegmentIndex segment = operand_segment(insn);
  if (!cpu.probe_store(segment, cut_to_address_size(insn, offset + 8), 8) || !cpu.probe_store(segment, offset, 8))
    return cpu.fault(step);
  if (!store_selected<uint8_t>(cpu, segment, offset, cpu.vector.ymm[insn.reg], cpu.vector.ymm[insn.rm], 16))
    return cpu.fault(step);
  return next(cpu, step);
}

/// MASKMOVQ is in MMX state before it stores, and all 8 bytes must be there.
void masked_mmx_store(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, Gate::kMmx)) [[unlikely]]
    return cpu.fault(step);
  const Insn& insn = step->insn;
  enter_mmx(cpu.vector);
  const uint8_t* data = fx_register(cpu.vector, insn.reg & 7u);
  const uint8_t* mask = fx_register(cpu.vector, insn.rm & 7u);
  const uint64_t offset = cut_to_address_size(insn, cpu.gpr[x86::kRdi]);
  const SegmentIndex segment = operand_segment(insn);
  if (!cpu.probe_store(segment, offset, 8) || !store_selected<uint8_t>(cpu, segment, offset, data, mask, 8))
    return cpu.fault(step);
  return next(cpu, step);
}

void raise_invalid(Cpu& cpu, const Step* step) { return cpu.fault(step, x86::kInvalidOpcode); }

/// Index and element are signed Index and T. An element's mask is cleared as soon as the element is done. A fault
/// leaves what processors leave: mask elements as all ones or zero, also those a short gather does not look at; the
/// destination's upper half zero with VEX.128 as soon as one element is there.
template <typename Index, typename T>
void gather(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, Gate::kAvx)) [[unlikely]]
    return cpu.fault(step);
  const Insn& insn = step->insn;
  uint8_t* result = cpu.vector.ymm[insn.reg];
  uint8_t* mask = cpu.vector.ymm[insn.vvvv];
  const uint8_t* indices = cpu.vector.ymm[insn.index];
  const unsigned vector_bytes = insn.vector_bytes;
  const auto count = static_cast<unsigned>(vector_bytes / std::max(sizeof(Index), sizeof(T)));
  const uint64_t origin = cpu.gpr[insn.base] + static_cast<uint64_t>(int64_t{insn.displacement});
  for (unsigned i = 0; i < vector_bytes / sizeof(T); ++i)
    set_element<T>(mask, i, is_masked_in<T>(mask, i) ? static_cast<T>(~T{0}) : T{0});
  std::memset(mask + vector_bytes, 0, 32 - vector_bytes);
  for (unsigned i = 0; i < count; ++i) {
    T value;
    if (element<T>(mask, i) == 0) continue;
    const auto index = static_cast<uint64_t>(int64_t{element<Index>(indices, i)});
    const uint64_t offset = cut_to_address_size(insn, origin + (index << insn.scale));
    if (!load_element(cpu, operand_segment(insn), offset, value)) return cpu.fault(step);
    set_element(result, i, value);
    set_element<T>(mask, i, 0);
    std::memset(result + vector_bytes, 0, 32 - vector_bytes);
  }
  std::memset(mask, 0, 32);
  std::memset(result + count * sizeof(T), 0, 32 - count * sizeof(T));
  return next(cpu, step);
}

/// Destination, index and mask must be three registers (SDM Vol. 2 2.4.12, class 12).
template <typename Index, typename T>
Handler gather_of(const Insn& insn) {
  const bool distinct = insn.reg != insn.index && insn.reg != insn.vvvv && insn.index != insn.vvvv;
  return distinct ? gather<Index, T> : raise_invalid;
}

template <typename T>
Handler masked_move_of(const Insn& insn) {
  const bool loads = insn.row->operands[0] >= x86::Operand::kVx && insn.row->operands[0] <= x86::Operand::kVd;
  return loads ? masked_load<T> : masked_store<T>;
}

}  // namespace

Handler vector_masked_handler(const Insn& insn) {
  switch (insn.row->op) {
    case Op::kVmaskmovps:
    case Op::kVpmaskmovd: return masked_move_of<uint32_t>(insn);
    case Op::kVmaskmovpd:
    case Op::kVpmaskmovq: return masked_move_of<uint64_t>(insn);
    case Op::kMaskmovdqu: return masked_byte_store<Gate::kSse>;
    case Op::kVmaskmovdqu: return masked_byte_store<Gate::kAvx>;
    case Op::kMaskmovq: return masked_mmx_store;
    case Op::kVgatherdps:
    case Op::kVpgatherdd: return gather_of<int32_t, uint32_t>(insn);
    case Op::kVgatherdpd:
    case Op::kVpgatherdq: return gather_of<int32_t, uint64_t>(insn);
    case Op::kVgatherqps:
    case Op::kVpgatherqd: return gather_of<int64_t, uint32_t>(insn);
    case Op::kVgatherqpd:
    case Op::kVpgatherqq: return gather_of<int64_t, uint64_t>(insn);
    default: return nullptr;
  }
}

}  // namespace tenon::interp
