#include "engine/interp/integer_operand.hh"

#include <algorithm>

namespace tenon::interp {

Place place_of(Operand operand) {
  switch (operand) {
    case Operand::kEb:
    case Operand::kEw:
    case Operand::kEd:
    case Operand::kEq:
    case Operand::kEv:
    case Operand::kEy:
    case Operand::kEz:
    case Operand::kRv:
    case Operand::kRy:
    case Operand::kRd:
    case Operand::kEnative:
    case Operand::kRnative:
    case Operand::kEvMw:
    case Operand::kM:
    case Operand::kMb:
    case Operand::kMw:
    case Operand::kMd:
    case Operand::kMq:
    case Operand::kMdq:
    case Operand::kMv:
    case Operand::kMy:
    case Operand::kMa: return Place::kRm;
    case Operand::kGb:
    case Operand::kGw:
    case Operand::kGd:
    case Operand::kGq:
    case Operand::kGv:
    case Operand::kGy:
    case Operand::kGz:
    case Operand::kGnative: return Place::kReg;
    case Operand::kIb:
    case Operand::kIbs:
    case Operand::kIw:
    case Operand::kIz:
    case Operand::kIv: return Place::kImmediate;
    case Operand::kZb:
    case Operand::kZv: return Place::kOpcodeReg;
    case Operand::kAl:
    case Operand::kAx:
    case Operand::kEax:
    case Operand::kRaxV: return Place::kAccumulator;
    case Operand::kNone: return Place::kNone;
    default: return Place::kOther;
  }
}

unsigned operand_bytes(const Insn& insn, Operand operand) {
  switch (operand) {
    case Operand::kEb:
    case Operand::kGb:
    case Operand::kMb:
    case Operand::kZb:
    case Operand::kAl:
    case Operand::kCl:
    case Operand::kOb:
    case Operand::kXb:
    case Operand::kYb: return 1;
    case Operand::kEw:
    case Operand::kGw:
    case Operand::kMw:
    case Operand::kAx:
    case Operand::kDx: return 2;
    case Operand::kEd:
    case Operand::kGd:
    case Operand::kMd:
    case Operand::kRd:
    case Operand::kEax: return 4;
    case Operand::kEq:
    case Operand::kGq:
    case Operand::kMq: return 8;
    case Operand::kEv:
    case Operand::kGv:
    case Operand::kMv:
    case Operand::kRv:
    case Operand::kZv:
    case Operand::kRaxV:
    case Operand::kOv:
    case Operand::kXv:
    case Operand::kYv: return insn.operand_size;
    case Operand::kEy:
    case Operand::kGy:
    case Operand::kMy:
    case Operand::kRy:
    case Operand::kBy: return insn.operand_size == 8 ? 8 : 4;
    case Operand::kEz:
    case Operand::kGz: return std::min<unsigned>(insn.operand_size, 4);
    default: return 0;
  }
}

bool is_flat_operand(const Insn& insn, x86::CodeSize code_size) {
  return code_size == x86::CodeSize::k64 && insn.address_size == 8 && insn.segment != x86::kFs &&
         insn.segment != x86::kGs;
}

Form form_of(const Insn& insn, x86::CodeSize code_size) {
  const bool reg_first = place_of(insn.row->operands[0]) == Place::kReg;
  const bool immediate = place_of(insn.row->operands[1]) == Place::kImmediate;
  const bool flat = is_flat_operand(insn, code_size);
  if (!insn.is_memory) return immediate ? Form::kRmImm : reg_first ? Form::kRegRm : Form::kRmReg;
  if (immediate) return flat ? Form::kMemImmFlat : Form::kMemImm;
  if (reg_first) return flat ? Form::kRegMemFlat : Form::kRegMem;
  return flat ? Form::kMemRegFlat : Form::kMemReg;
}

}  // namespace tenon::interp
