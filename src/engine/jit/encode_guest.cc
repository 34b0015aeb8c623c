// HostInsn::from: a guest instruction as something to encode. The decoder's own table entry says what the bytes were:
// whether prefixes select, where registers are, which form the immediate has.
#include "engine/jit/assembler.hh"

#include <algorithm>
#include <array>

#include "engine/x86/decode_table.hh"

namespace tenon::jit {
namespace {

using x86::ImmediateForm;
using x86::MapEntry;
using x86::Operand;

constexpr uint16_t kSelectedByReg = 7u << x86::key::kRegShift;
constexpr uint16_t kSelectedByRm = 7u << x86::key::kRmShift;

bool has_prefix(const x86::Insn& insn, unsigned bits) { return (insn.prefixes & bits) != 0; }

/// F2 and F3 have an effect where they select the row or repeat it. Elsewhere they are ignored, or hints (XACQUIRE,
/// XRELEASE, BND) that mean nothing to a guest without those features (SDM Vol. 2 2.1.1). Both selectors have key
/// bit 1.
bool repeat_counts(const MapEntry& entry) {
  return (entry.row.flags & (x86::kVex | x86::kRep)) != 0 || (entry.mask & entry.value & 2) != 0;
}

/// A byte operand that may be a register: the only ones for which a REX prefix without bits has a meaning.
bool has_byte_register(const MapEntry& entry) {
  const auto is_byte = [](Operand operand) {
    return operand == Operand::kEb || operand == Operand::kGb || operand == Operand::kZb;
  };
  return std::any_of(entry.row.operands.begin(), entry.row.operands.end(), is_byte);
}

unsigned immediate_size(ImmediateForm form, unsigned operand_size) {
  switch (form) {
    case ImmediateForm::kByte:
    case ImmediateForm::kByteSigned:
    case ImmediateForm::kBranchByte:
    case ImmediateForm::kRegister: return 1;
    case ImmediateForm::kWord: return 2;
    case ImmediateForm::kWordByte: return 3;
    case ImmediateForm::kOperandMax4:
    case ImmediateForm::kBranch: return std::min(operand_size, 4u);
    case ImmediateForm::kOperand: return operand_size;
    case ImmediateForm::kNone:
    case ImmediateForm::kOffset:
    case ImmediateForm::kFarPointer: break;  // the last not in 64-bit mode
  }
  return 0;
}

/// MOV between AL/rAX and an offset: A0 A1 load, A2 A3 store (SDM Vol. 2, MOV).
void replace_offset_form(HostInsn& host) {
  constexpr std::array<uint8_t, 4> kModrmForms = {0x8a, 0x8b, 0x88, 0x89};
  host.opcode = kModrmForms[host.opcode & 3];
  host.has_modrm = true;
  host.reg = kHostRax;
  host.rex = false;
}

}  // namespace

HostInsn HostInsn::from(const x86::Insn& insn) {
  const MapEntry& entry = x86::entry_of(*insn.row);
  HostInsn host;
  host.map = insn.map;
  host.opcode = insn.opcode;
  host.operand_size = has_prefix(insn, x86::kPrefixOperandSize);
  host.lock = has_prefix(insn, x86::kPrefixLock);
  host.w = has_prefix(insn, x86::kPrefixRexW);
  host.wide = insn.vector_bytes == 32;
  host.has_modrm = insn.has_modrm;
  host.opcode_register = entry.opcode_register;
  host.vvvv = insn.vvvv;
  // An opcode extension or fixed register has no REX bit, though the guest may have given it one.
  host.reg = (entry.mask & kSelectedByReg) != 0 ? (insn.modrm >> 3) & 7 : insn.reg;
  host.rm.reg = (entry.mask & kSelectedByRm) != 0 ? insn.modrm & 7 : insn.rm;
  host.immediate_bytes = static_cast<uint8_t>(immediate_size(entry.immediate, insn.operand_size));
  host.immediate = insn.immediate | int64_t{insn.immediate2} << 16;  // the second only behind ENTER's 16-bit one
  if (has_prefix(insn, x86::kPrefixRep | x86::kPrefixRepne) && repeat_counts(entry)) {
    host.rep = has_prefix(insn, x86::kPrefixRep);
    host.repne = !host.rep;
  }
  host.rex = has_prefix(insn, x86::kPrefixRex) && has_byte_register(entry);
  if (entry.immediate == ImmediateForm::kOffset) {
    replace_offset_form(host);
  }
  return host;
}

bool HostInsn::uses_high_byte(const x86::Insn& insn) {
  if (has_prefix(insn, x86::kPrefixRex) || (insn.row->flags & x86::kVex) != 0) {
    return false;
  }
  const auto is_high = [](uint8_t number) { return number >= x86::kRsp && number <= x86::kRdi; };
  for (const Operand operand : insn.row->operands) {
    const bool in_reg = operand == Operand::kGb || operand == Operand::kZb;
    const bool in_rm = operand == Operand::kEb && !insn.is_memory;
    if ((in_reg && is_high(insn.reg)) || (in_rm && is_high(insn.rm))) {
      return true;
    }
  }
  return false;
}

}  // namespace tenon::jit
