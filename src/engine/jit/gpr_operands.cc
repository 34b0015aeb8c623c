#include "engine/jit/gpr_operands.hh"

#include "engine/x86/decode_table.hh"

namespace tenon::jit {

namespace {

using x86::Insn;
using x86::Op;
using x86::Operand;

bool is_reg_gpr(Operand operand) { return x86::in_range(operand, Operand::kGb, Operand::kGa); }
bool is_rm_gpr(Operand operand) {
  return x86::in_range(operand, Operand::kEb, Operand::kEdMw) || x86::in_range(operand, Operand::kRv, Operand::kRa);
}

unsigned gpr_size(Operand operand, const Insn& insn) {
  switch (operand) {
    case Operand::kGb:
    case Operand::kEb:
    case Operand::kZb: return 1;
    case Operand::kGw:
    case Operand::kEw: return 2;
    case Operand::kGv:
    case Operand::kEv:
    case Operand::kEvMw:
    case Operand::kRv:
    case Operand::kZv: return insn.operand_size;
    default: return 4;  // 4 or 8: the upper half is cleared
  }
}

/// The operand as a general register, or Field::kNone.
GprOperand gpr_operand(const Insn& insn, unsigned number) {
  const Operand operand = insn.row->operands[number];
  GprOperand result;
  if (is_reg_gpr(operand)) {
    result = {.field = Field::kReg, .guest = insn.reg};
  } else if (is_rm_gpr(operand) && !insn.is_memory) {
    result = {.field = Field::kRm, .guest = insn.rm};
  } else if (operand == Operand::kBy) {
    result = {.field = Field::kVvvv, .guest = insn.vvvv};
  } else if (x86::is_in_opcode(operand)) {
    result = {.field = Field::kOpcode, .guest = insn.reg};
  } else {
    return result;
  }
  const uint32_t flags = insn.row->flags;
  result.size_bytes = gpr_size(operand, insn);
  result.written = (number == 0 && (flags & x86::kWritesOp0) != 0) || (number == 1 && (flags & x86::kWritesOp1) != 0);
  // BSF and BSR leave their destination alone where the source is 0.
  const bool keeps = insn.row->op == Op::kBsf || insn.row->op == Op::kBsr;
  const bool mulx = insn.row->op == Op::kMulx && number < 2;
  result.read = number == 0 ? (flags & x86::kReadsOp0) != 0 || keeps : !mulx;
  if (result.written && result.size_bytes < 4) result.read = true;
  return result;
}

}  // namespace

uint16_t gprs_written(const Insn& insn, const GprOperands& operands) {
  unsigned written = insn.row->gpr_written;
  for (unsigned i = 0; i < operands.count; ++i) {
    const GprOperand& gpr = operands.list[i];
    if (!gpr.written) continue;
    // AH CH DH BH are parts of the four below them.
    written |= 1u << gpr.guest;
    if (gpr.size_bytes == 1 && gpr.guest >= 4) written |= 1u << (gpr.guest - 4);
  }
  for (const Operand operand : insn.row->operands) {
    const bool accumulator = operand == Operand::kAl || operand == Operand::kAx || operand == Operand::kEax ||
                             operand == Operand::kEaxZ || operand == Operand::kRaxV;
    if (accumulator) written |= 1u << x86::kRax;
  }
  return static_cast<uint16_t>(written);
}

GprOperands gpr_operands(const Insn& insn) {
  GprOperands all;
  for (unsigned i = 0; i < 4; ++i) {
    const GprOperand operand = gpr_operand(insn, i);
    if (operand.field == Field::kNone) continue;
    all.list[all.count++] = operand;
    if (is_homed(operand.guest)) ++all.homed;
  }
  return all;
}

bool has_memory_access(const Insn& insn) { return insn.is_memory && x86::memory_operand_size(insn) != 0; }

bool writes_memory(const Insn& insn) {
  const auto is_memory = [](Operand operand) {
    const bool general = x86::in_range(operand, Operand::kEb, Operand::kEdMw) || x86::is_memory_only(operand);
    return general || x86::in_range(operand, Operand::kWx, Operand::kWeighth) || operand == Operand::kQq ||
           operand == Operand::kQd;
  };
  const auto& operands = insn.row->operands;
  const uint32_t flags = insn.row->flags;
  return ((flags & x86::kWritesOp0) != 0 && is_memory(operands[0])) ||
         ((flags & x86::kWritesOp1) != 0 && is_memory(operands[1]));
}

}  // namespace tenon::jit
