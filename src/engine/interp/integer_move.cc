// MOV, MOVZX, MOVSX, MOVSXD, LEA, SETcc, CMOVcc, BSWAP, MOVBE, MOVNTI, MOVDIRI, XLAT (SDM Vol. 2).
#include <array>
#include <bit>

#include "engine/interp/host_alu.hh"
#include "engine/interp/integer_families.hh"
#include "engine/interp/integer_operand.hh"

namespace tenon::interp {
namespace {

// --- MOV

template <typename T, Form form>
void move_registers(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  if constexpr (form == Form::kRmImm) {
    write_register<T>(cpu, insn, insn.rm, static_cast<T>(insn.immediate));
  } else if constexpr (form == Form::kRegRm) {
    write_register<T>(cpu, insn, insn.reg, read_register<T>(cpu, insn, insn.rm));
  } else {
    write_register<T>(cpu, insn, insn.rm, read_register<T>(cpu, insn, insn.reg));
  }
  return next(cpu, step);
}

template <typename T>
TENON_COLD void move_load_slow(Cpu& cpu, const Step* step) {
  T value;
  if (!load_operand_slow<T>(cpu, step, value)) return cpu.fault(step);
  write_register<T>(cpu, step->insn, step->insn.reg, value);
  return next(cpu, step);
}

template <typename T, bool flat>
void move_load(Cpu& cpu, const Step* step) {
  void* host;
  if (!host_operand<flat, Access::kRead, T>(cpu, step, host)) return move_load_slow<T>(cpu, step);
  write_register<T>(cpu, step->insn, step->insn.reg, load_host<T>(host));
  return next(cpu, step);
}

template <typename T, bool immediate>
[[gnu::always_inline]] inline T stored_value(const Cpu& cpu, const Insn& insn) {
  return immediate ? static_cast<T>(insn.immediate) : read_register<T>(cpu, insn, insn.reg);
}

template <typename T, bool immediate>
TENON_COLD void move_store_slow(Cpu& cpu, const Step* step) {
  if (!store_operand_slow<T>(cpu, step, stored_value<T, immediate>(cpu, step->insn))) return cpu.fault(step);
  return next(cpu, step);
}

template <typename T, bool flat, bool immediate>
void move_store(Cpu& cpu, const Step* step) {
  void* host;
  if (!host_operand<flat, Access::kWrite, T>(cpu, step, host)) return move_store_slow<T, immediate>(cpu, step);
  store_host<T>(host, stored_value<T, immediate>(cpu, step->insn));
  return next(cpu, step);
}

/// MOV between the accumulator and a memory offset in the instruction (A0-A3).
uint64_t direct_offset(const Insn& insn) {
  const uint64_t offset = static_cast<uint64_t>(insn.immediate);
  if (insn.address_size == 8) return offset;
  return insn.address_size == 4 ? static_cast<uint32_t>(offset) : static_cast<uint16_t>(offset);
}

template <typename T>
void move_from_offset(Cpu& cpu, const Step* step) {
  T value;
  if (!cpu.load<T>(segment_of(step), direct_offset(step->insn), value)) return cpu.fault(step);
  cpu.set_reg<T>(x86::kRax, value);
  return next(cpu, step);
}

template <typename T>
void move_to_offset(Cpu& cpu, const Step* step) {
  if (!cpu.store<T>(segment_of(step), direct_offset(step->insn), cpu.reg<T>(x86::kRax))) return cpu.fault(step);
  return next(cpu, step);
}

template <typename T>
Handler move_by_form(Form form) {
  static constexpr std::array<Handler, kFormCount> kByForm = {
      move_registers<T, Form::kRmReg>,
      move_registers<T, Form::kRegRm>,
      move_registers<T, Form::kRmImm>,
      move_load<T, false>,
      move_store<T, false, false>,
      move_store<T, false, true>,
      move_load<T, true>,
      move_store<T, true, false>,
      move_store<T, true, true>,
  };
  return kByForm[static_cast<unsigned>(form)];
}

Handler move(const Insn& insn, x86::CodeSize code_size) {
  const Operand to = insn.row->operands[0];
  const Operand from = insn.row->operands[1];
  if (from == Operand::kOb || from == Operand::kOv) {
    return by_size(operand_bytes(insn, from), []<typename T>() -> Handler { return move_from_offset<T>; });
  }
  if (to == Operand::kOb || to == Operand::kOv) {
    return by_size(operand_bytes(insn, to), []<typename T>() -> Handler { return move_to_offset<T>; });
  }
  const Form form = form_of(insn, code_size);
  return by_size(operand_bytes(insn, to), [&]<typename T>() { return move_by_form<T>(form); });
}

// --- MOVZX, MOVSX, MOVSXD: From is signed for sign extension.

template <typename To, typename From>
constexpr To extend(From value) {
  return static_cast<To>(static_cast<std::make_signed_t<To>>(value));
}

template <typename To, typename From>
void extend_register(Cpu& cpu, const Step* step) {
  using Raw = std::make_unsigned_t<From>;
  const From value = static_cast<From>(read_register<Raw>(cpu, step->insn, step->insn.rm));
  cpu.set_reg<To>(step->insn.reg, extend<To>(value));
  return next(cpu, step);
}

template <typename To, typename From>
TENON_COLD void extend_memory_slow(Cpu& cpu, const Step* step) {
  std::make_unsigned_t<From> value;
  if (!load_operand_slow(cpu, step, value)) return cpu.fault(step);
  cpu.set_reg<To>(step->insn.reg, extend<To>(static_cast<From>(value)));
  return next(cpu, step);
}

template <typename To, typename From, bool flat>
void extend_memory(Cpu& cpu, const Step* step) {
  void* host;
  if (!host_operand<flat, Access::kRead, From>(cpu, step, host)) return extend_memory_slow<To, From>(cpu, step);
  cpu.set_reg<To>(step->insn.reg, extend<To>(load_host<From>(host)));
  return next(cpu, step);
}

template <typename From>
Handler extend_from(const Insn& insn, bool flat) {
  return by_wide_size(insn.operand_size, [&]<typename To>() -> Handler {
    if (!insn.is_memory) return extend_register<To, From>;
    return flat ? extend_memory<To, From, true> : extend_memory<To, From, false>;
  });
}

Handler extension(const Insn& insn, x86::CodeSize code_size) {
  const bool flat = is_flat_operand(insn, code_size);
  const unsigned from_bytes = operand_bytes(insn, insn.row->operands[1]);
  const bool is_signed = insn.row->op != x86::Op::kMovzx;
  switch (from_bytes) {
    case 1: return is_signed ? extend_from<int8_t>(insn, flat) : extend_from<uint8_t>(insn, flat);
    case 2: return is_signed ? extend_from<int16_t>(insn, flat) : extend_from<uint16_t>(insn, flat);
    default: return extend_from<int32_t>(insn, flat);  // MOVSXD
  }
}

// --- LEA

template <typename T, bool flat>
void load_address(Cpu& cpu, const Step* step) {
  cpu.set_reg<T>(step->insn.reg, static_cast<T>(operand_offset<flat>(cpu, step)));
  return next(cpu, step);
}

Handler lea(const Insn& insn) {
  return by_wide_size(insn.operand_size, [&]<typename T>() -> Handler {
    return insn.address_size == 8 ? load_address<T, true> : load_address<T, false>;
  });
}

// --- SETcc, CMOVcc

template <unsigned condition>
void set_register(Cpu& cpu, const Step* step) {
  cpu.set_reg8(step->insn, step->insn.rm, test_condition<condition>(cpu.arithmetic_flags) ? 1 : 0);
  return next(cpu, step);
}

void set_memory(Cpu& cpu, const Step* step) {
  const uint8_t value = test_condition(step->insn.opcode & 15u, cpu.arithmetic_flags) ? 1 : 0;
  if (!store_operand<false, uint8_t>(cpu, step, value)) return cpu.fault(step);
  return next(cpu, step);
}

/// The destination is written in either case: a 32-bit one loses bits 63:32.
template <typename T, unsigned condition>
void conditional_move(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const T value = cpu.reg<T>(test_condition<condition>(cpu.arithmetic_flags) ? insn.rm : insn.reg);
  cpu.set_reg<T>(insn.reg, value);
  return next(cpu, step);
}

/// The source is read, and faults, in either case.
template <typename T, bool flat>
void conditional_load(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  T value;
  if (!load_operand<flat, T>(cpu, step, value)) return cpu.fault(step);
  if (!test_condition(insn.opcode & 15u, cpu.arithmetic_flags)) value = cpu.reg<T>(insn.reg);
  cpu.set_reg<T>(insn.reg, value);
  return next(cpu, step);
}

template <template <unsigned> typename Family>
Handler by_condition(unsigned condition) {
  static constexpr auto kTable = []<size_t... n>(std::index_sequence<n...>) {
    return std::array<Handler, 16>{Family<n>::kHandler...};
  }
  (std::make_index_sequence<16>());
  return kTable[condition & 15];
}

template <unsigned condition>
struct SetFamily {
  static constexpr Handler kHandler = set_register<condition>;
};
template <unsigned condition>
struct MoveFamily16 {
  static constexpr Handler kHandler = conditional_move<uint16_t, condition>;
};
template <unsigned condition>
struct MoveFamily32 {
  static constexpr Handler kHandler = conditional_move<uint32_t, condition>;
};
template <unsigned condition>
struct MoveFamily64 {
  static constexpr Handler kHandler = conditional_move<uint64_t, condition>;
};

Handler cmov(const Insn& insn, x86::CodeSize code_size) {
  if (insn.is_memory) {
    const bool flat = is_flat_operand(insn, code_size);
    return by_wide_size(insn.operand_size, [&]<typename T>() -> Handler {
      return flat ? conditional_load<T, true> : conditional_load<T, false>;
    });
  }
  if (insn.operand_size == 2) return by_condition<MoveFamily16>(insn.opcode);
  return insn.operand_size == 4 ? by_condition<MoveFamily32>(insn.opcode) : by_condition<MoveFamily64>(insn.opcode);
}

// --- BSWAP, MOVBE, MOVNTI, XLAT

/// BSWAP of a 16-bit register is undefined (SDM Vol. 2, BSWAP); processors clear it.
void swap_bytes(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  switch (insn.operand_size) {
    case 2: cpu.set_reg<uint16_t>(insn.rm, 0); break;
    case 4: cpu.set_reg<uint32_t>(insn.rm, __builtin_bswap32(cpu.reg<uint32_t>(insn.rm))); break;
    default: cpu.set_reg<uint64_t>(insn.rm, __builtin_bswap64(cpu.gpr[insn.rm])); break;
  }
  return next(cpu, step);
}

template <typename T>
constexpr T byte_swapped(T value) {
  if constexpr (sizeof(T) == 2) return __builtin_bswap16(value);
  if constexpr (sizeof(T) == 4) return __builtin_bswap32(value);
  return static_cast<T>(__builtin_bswap64(value));
}

template <typename T>
void movbe_load(Cpu& cpu, const Step* step) {
  T value;
  if (!load_operand<false, T>(cpu, step, value)) return cpu.fault(step);
  cpu.set_reg<T>(step->insn.reg, byte_swapped<T>(value));
  return next(cpu, step);
}

template <typename T>
void movbe_store(Cpu& cpu, const Step* step) {
  if (!store_operand<false, T>(cpu, step, byte_swapped<T>(cpu.reg<T>(step->insn.reg)))) return cpu.fault(step);
  return next(cpu, step);
}

Handler movbe(const Insn& insn) {
  const bool is_load = place_of(insn.row->operands[0]) == Place::kReg;
  return by_wide_size(insn.operand_size,
                      [&]<typename T>() -> Handler { return is_load ? movbe_load<T> : movbe_store<T>; });
}

/// MOVNTI and MOVDIRI are plain stores here: no write combining to model.
Handler store_register(const Insn& insn) {
  return insn.operand_size == 8 ? move_store<uint64_t, false, false> : move_store<uint32_t, false, false>;
}

void translate_table(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  uint64_t offset = cpu.gpr[x86::kRbx] + cpu.reg<uint8_t>(x86::kRax);
  if (insn.address_size != 8)
    offset = insn.address_size == 4 ? static_cast<uint32_t>(offset) : static_cast<uint16_t>(offset);
  uint8_t value;
  if (!cpu.load<uint8_t>(segment_of(step), offset, value)) return cpu.fault(step);
  cpu.set_reg<uint8_t>(x86::kRax, value);
  return next(cpu, step);
}

}  // namespace

Handler move_handler(const Insn& insn, x86::CodeSize code_size) {
  switch (insn.row->op) {
    case x86::Op::kMov: return move(insn, code_size);
    case x86::Op::kMovzx:
    case x86::Op::kMovsx:
    case x86::Op::kMovsxd: return extension(insn, code_size);
    case x86::Op::kLea: return lea(insn);
    case x86::Op::kSetcc: return insn.is_memory ? set_memory : by_condition<SetFamily>(insn.opcode);
    case x86::Op::kCmovcc: return cmov(insn, code_size);
    case x86::Op::kBswap: return swap_bytes;
    case x86::Op::kMovbe: return movbe(insn);
    case x86::Op::kMovnti:
    case x86::Op::kMovdiri: return store_register(insn);
    case x86::Op::kXlat: return translate_table;
    default: return nullptr;
  }
}

}  // namespace tenon::interp
