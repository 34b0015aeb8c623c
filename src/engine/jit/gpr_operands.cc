#include "engine/jit/gpr_operands.hh"

#include <array>
#include <bit>

#include "engine/x86/decode_table.hh"

namespace tenon::jit {

namespace {

using x86::Insn;
using x86::Op;
using x86::Operand;

constexpr size_t kOperands = static_cast<size_t>(Operand::kYz) + 1;

constexpr auto kFields = [] {
  std::array<Field, kOperands> fields{};
  for (size_t i = 0; i < kOperands; ++i) {
    const auto operand = static_cast<Operand>(i);
    if (x86::is_in_reg_gpr(operand)) fields[i] = Field::kReg;
    if (x86::is_in_rm_gpr(operand)) fields[i] = Field::kRm;
    if (operand == Operand::kBy) fields[i] = Field::kVvvv;
    if (x86::is_in_opcode(operand)) fields[i] = Field::kOpcode;
  }
  return fields;
}();

constexpr uint8_t kOperandSize = 0;
constexpr auto kSizes = [] {
  std::array<uint8_t, kOperands> sizes{};
  sizes.fill(4);  // 4 or 8: the upper half is cleared
  for (const Operand operand : {Operand::kGb, Operand::kEb, Operand::kZb}) sizes[static_cast<size_t>(operand)] = 1;
  for (const Operand operand : {Operand::kGw, Operand::kEw}) sizes[static_cast<size_t>(operand)] = 2;
  for (const Operand operand : {Operand::kGv, Operand::kEv, Operand::kEvMw, Operand::kRv, Operand::kZv})
    sizes[static_cast<size_t>(operand)] = kOperandSize;
  return sizes;
}();

/// Operand `number`, which is a general register.
void fill_operand(const Insn& insn, unsigned number, GprOperand& result) {
  const auto operand = static_cast<size_t>(insn.row->operands[number]);
  const Field field = kFields[operand];
  const uint32_t flags = insn.row->flags;
  const uint8_t size_bytes = kSizes[operand] == kOperandSize ? insn.operand_size : kSizes[operand];
  const bool written = number == 0 ? (flags & x86::kWritesOp0) != 0 : number == 1 && (flags & x86::kWritesOp1) != 0;
  // BSF and BSR leave their destination alone where the source is 0.
  const bool keeps = insn.row->op == Op::kBsf || insn.row->op == Op::kBsr;
  const bool mulx = insn.row->op == Op::kMulx && number < 2;
  const bool read = number == 0 ? (flags & x86::kReadsOp0) != 0 || keeps : !mulx;
  result.field = field;
  result.guest = field == Field::kRm ? insn.rm : field == Field::kVvvv ? insn.vvvv : insn.reg;
  result.size_bytes = size_bytes;
  result.written = written;
  result.read = read || (written && size_bytes < 4);
}

}  // namespace

uint16_t gprs_written(const Insn& insn, const GprOperands& operands) {
  unsigned written = x86::entry_of(*insn.row).fixed_gprs_written;
  for (unsigned i = 0; i < operands.count; ++i) {
    const GprOperand& gpr = operands.list[i];
    if (!gpr.written) continue;
    // AH CH DH BH are parts of the four below them.
    written |= 1u << gpr.guest;
    if (gpr.size_bytes == 1 && gpr.guest >= 4) written |= 1u << (gpr.guest - 4);
  }
  return static_cast<uint16_t>(written);
}

void find_gpr_operands(const Insn& insn, GprOperands& all) {
  all.count = 0;
  all.homed = 0;
  const x86::MapEntry& entry = x86::entry_of(*insn.row);
  for (unsigned left = insn.is_memory ? entry.gprs_beside_memory : entry.gprs; left != 0; left &= left - 1) {
    GprOperand& operand = all.list[all.count++];
    fill_operand(insn, static_cast<unsigned>(std::countr_zero(left)), operand);
    all.homed = static_cast<uint8_t>(all.homed + is_homed(operand.guest));
  }
}

bool has_memory_access(const Insn& insn) { return x86::memory_operand_size(insn) != 0; }

bool writes_memory(const Insn& insn) { return x86::entry_of(*insn.row).writes_memory; }

}  // namespace tenon::jit
