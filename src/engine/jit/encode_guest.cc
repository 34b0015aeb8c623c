// HostInsn::from: a guest instruction as something to encode. The decoder's own table entry says what the bytes were:
// whether prefixes select, where registers are, which form the immediate has.
#include "engine/jit/assembler.hh"

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

/// Bytes by ImmediateForm and operand size (2, 4, 8). A far pointer does not exist in 64-bit mode, an offset is no
/// immediate here.
constexpr std::array<std::array<uint8_t, 3>, 12> kImmediateBytes = [] {
  std::array<std::array<uint8_t, 3>, 12> bytes{};
  const auto set = [&bytes](ImmediateForm form, std::array<uint8_t, 3> value) {
    bytes[static_cast<size_t>(form)] = value;
  };
  set(ImmediateForm::kByte, {1, 1, 1});
  set(ImmediateForm::kByteSigned, {1, 1, 1});
  set(ImmediateForm::kBranchByte, {1, 1, 1});
  set(ImmediateForm::kRegister, {1, 1, 1});
  set(ImmediateForm::kWord, {2, 2, 2});
  set(ImmediateForm::kWordByte, {3, 3, 3});
  set(ImmediateForm::kOperandMax4, {2, 4, 4});
  set(ImmediateForm::kBranch, {2, 4, 4});
  set(ImmediateForm::kOperand, {2, 4, 8});
  return bytes;
}();

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
  host.immediate_bytes = kImmediateBytes[static_cast<size_t>(entry.immediate)][insn.operand_size / 4u];
  host.immediate = insn.immediate | int64_t{insn.immediate2} << 16;  // the second only behind ENTER's 16-bit one
  // An ignored F2 or F3 goes: on a host with TSX it may be XACQUIRE or XRELEASE (SDM Vol. 2 2.1.1).
  host.rep = has_prefix(insn, x86::kPrefixRep) & entry.repeat_counts;
  host.repne = has_prefix(insn, x86::kPrefixRepne) & entry.repeat_counts;
  host.rex = has_prefix(insn, x86::kPrefixRex) & entry.byte_register;
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
