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

}  // namespace tenon::jit
