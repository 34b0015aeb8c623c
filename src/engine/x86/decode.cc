// Instruction decoding: prefixes, opcode, ModRM, SIB, displacement, immediate, then the legality rules of the row.
//
// The bytes are copied once into a zero-padded buffer, so that no read needs a bounds check: if at the end more bytes
// were looked at than there are, the result is kTruncated or kTooLong whatever was decoded from the padding.
//
// Source: Intel SDM Vol. 2 chapter 2 (format, REX 2.2.1, VEX 2.3), rev. 325383-080. Where Intel and AMD processors
// differ, Intel: near branches ignore 66 in 64-bit mode, SYSCALL exists only there, LOCK MOV CR0 is no CR8 access. Not
// implemented: EVEX and XOP; their prefixes 62 and 8F decode as BOUND and POP and are #UD where those are.
#include <algorithm>
#include <cstring>

#include "engine/x86/decode_table.hh"

namespace tenon::x86 {
namespace {

enum class PrefixKind : uint8_t { kNone, kSegment, kOperandSize, kAddressSize, kLock, kRepne, kRep, kRex };

constexpr std::array<PrefixKind, 256> kPrefixKinds = [] {
  std::array<PrefixKind, 256> kinds{};
  for (const unsigned byte : {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65}) kinds[byte] = PrefixKind::kSegment;
  for (unsigned byte = 0x40; byte < 0x50; ++byte) kinds[byte] = PrefixKind::kRex;
  kinds[0x66] = PrefixKind::kOperandSize;
  kinds[0x67] = PrefixKind::kAddressSize;
  kinds[0xf0] = PrefixKind::kLock;
  kinds[0xf2] = PrefixKind::kRepne;
  kinds[0xf3] = PrefixKind::kRep;
  return kinds;
}();

/// 26, 2E, 36, 3E, 64, 65 to SegmentIndex.
constexpr uint8_t segment_of_prefix(uint8_t byte) {
  return byte >= 0x64 ? static_cast<uint8_t>(kFs + (byte - 0x64)) : static_cast<uint8_t>((byte >> 3) & 3);
}

/// 16-bit addressing by ModRM.rm (SDM Vol. 2 Table 2-1).
struct Address16 {
  uint8_t base;
  uint8_t index;
};
constexpr std::array<Address16, 8> kAddress16 = {{
    {kRbx, kRsi},
    {kRbx, kRdi},
    {kRbp, kRsi},
    {kRbp, kRdi},
    {kRsi, kNoRegister},
    {kRdi, kNoRegister},
    {kRbp, kNoRegister},
    {kRbx, kNoRegister},
}};

enum RexBits : uint8_t { kRexBaseBit = 1, kRexIndexBit = 2, kRexRegBit = 4, kRexWBit = 8 };

class Decoder {
 public:
  Decoder(std::span<const uint8_t> bytes, CodeSize code_size, Insn& insn)
      : insn_(insn), available_(std::min<size_t>(bytes.size(), kInsnLengthMax)), is_64_(code_size == CodeSize::k64) {
    if (bytes.size() > kInsnLengthMax) {
      std::memcpy(bytes_.data(), bytes.data(),
                  kInsnLengthMax + 1);  // a fixed size is one move; the last byte is only padding
    } else {
      std::memcpy(bytes_.data(), bytes.data(), available_);
    }
    insn_ = Insn{};
    insn_.code_size = code_size;
  }

  DecodeStatus run() {
    read_prefixes();
    const bool is_valid = read_opcode() && read_operands();
    if (position_ > available_) {
      return available_ == kInsnLengthMax ? DecodeStatus::kTooLong : DecodeStatus::kTruncated;
    }
    insn_.length = static_cast<uint8_t>(position_);
    return is_valid ? DecodeStatus::kOk : DecodeStatus::kInvalid;
  }

 private:
  // 15 prefixes at most, then opcode 3, ModRM, SIB, displacement 4, immediate 8.
  static constexpr size_t kBufferSize = 48;

  uint8_t next_byte() { return bytes_[position_++]; }

  template <typename T>
  T next() {
    T value;
    std::memcpy(&value, &bytes_[position_], sizeof value);
    position_ += sizeof value;
    return value;
  }

  void read_prefixes();
  void apply_segment(uint8_t byte);
  bool read_opcode();
  bool read_vex(uint8_t first_byte);
  bool find_row(const MapTable& table);
  bool read_operands();
  void set_operand_size();
  void read_memory();
  void read_sib_memory();
  void read_address_16();
  void read_displacement();
  void read_immediate();
  int64_t next_signed(unsigned bytes);
  bool is_legal() const;
  bool is_register_legal() const;

  uint8_t extended(unsigned low, uint8_t rex_bit) const {
    return static_cast<uint8_t>(low | ((rex_ & rex_bit) != 0 ? 8u : 0u));
  }

  std::array<uint8_t, kBufferSize> bytes_{};
  Insn& insn_;
  const MapEntry* entry_ = nullptr;
  size_t position_ = 0;
  size_t available_;
  uint8_t rex_ = 0;        // low four bits of REX, or of VEX with positive sense
  uint8_t mandatory_ = 0;  // 0 none, 1 = 66, 2 = F3, 3 = F2: what selects the row
  uint8_t segment_override_ = kNoRegister;
  uint8_t raw_vvvv_ = 0xf;  // as encoded, inverted
  bool vector_256_ = false;
  bool is_vex_ = false;
  const bool is_64_;
};

void Decoder::apply_segment(uint8_t byte) {
  const uint8_t segment = segment_of_prefix(byte);
  if (is_64_ && segment < kFs) {
    return;  // null prefixes in 64-bit mode, they do not even undo FS or GS (SDM Vol. 1 3.4.2.1)
  }
  segment_override_ = segment;
  insn_.prefixes |= kPrefixSegment;
}

/// Prefixes in any order and number; the last segment override and the last of F2 and F3 count. REX counts only if it
/// is the last prefix (SDM Vol. 2 2.2.1).
void Decoder::read_prefixes() {
  while (true) {
    const uint8_t byte = bytes_[position_];
    const PrefixKind kind = kPrefixKinds[byte];
    if (kind == PrefixKind::kNone || (kind == PrefixKind::kRex && !is_64_)) {
      break;
    }
    ++position_;
    insn_.prefixes &= static_cast<uint8_t>(~kPrefixRex);
    rex_ = 0;
    switch (kind) {
      case PrefixKind::kSegment: apply_segment(byte); break;
      case PrefixKind::kOperandSize: insn_.prefixes |= kPrefixOperandSize; break;
      case PrefixKind::kAddressSize: insn_.prefixes |= kPrefixAddressSize; break;
      case PrefixKind::kLock: insn_.prefixes |= kPrefixLock; break;
      case PrefixKind::kRepne:
        insn_.prefixes = static_cast<uint8_t>((insn_.prefixes & ~kPrefixRep) | kPrefixRepne);
        break;
      case PrefixKind::kRep:
        insn_.prefixes = static_cast<uint8_t>((insn_.prefixes & ~kPrefixRepne) | kPrefixRep);
        break;
      case PrefixKind::kRex:
        insn_.prefixes |= kPrefixRex;
        rex_ = byte & 0xf;
        break;
      case PrefixKind::kNone: break;
    }
  }
}

bool Decoder::read_opcode() {
  if ((insn_.prefixes & kPrefixRep) != 0) {
    mandatory_ = 2;
  } else if ((insn_.prefixes & kPrefixRepne) != 0) {
    mandatory_ = 3;
  } else if ((insn_.prefixes & kPrefixOperandSize) != 0) {
    mandatory_ = 1;
  }
  insn_.opcode = next_byte();
  if (insn_.opcode == 0x0f) {
    insn_.opcode = next_byte();
    if (insn_.opcode == 0x38 || insn_.opcode == 0x3a) {
      const bool is_38 = insn_.opcode == 0x38;
      insn_.map = is_38 ? OpcodeMap::k0F38 : OpcodeMap::k0F3A;
      insn_.opcode = next_byte();
      return find_row(is_38 ? kTable0F38 : kTable0F3A);
    }
    insn_.map = OpcodeMap::k0F;
    return find_row(kTable0F);
  }
  // LES and LDS with a register operand do not exist; outside 64-bit mode that makes them VEX (SDM Vol. 2 2.3.5).
  if ((insn_.opcode & 0xfe) == 0xc4 && (is_64_ || bytes_[position_] >= 0xc0)) {
    return read_vex(insn_.opcode);
  }
  return find_row(kTableLegacy);
}

/// SDM Vol. 2 2.3.5 and Figure 2-9: R, X, B and vvvv are inverted.
bool Decoder::read_vex(uint8_t first_byte) {
  is_vex_ = true;
  const uint8_t second = next_byte();
  uint8_t last = second;
  unsigned map = 1;
  rex_ = (second & 0x80) != 0 ? uint8_t{0} : uint8_t{kRexRegBit};
  constexpr uint8_t kForbidden = kPrefixOperandSize | kPrefixLock | kPrefixRep | kPrefixRepne | kPrefixRex;
  const bool has_forbidden_prefix = (insn_.prefixes & kForbidden) != 0;  // #UD (SDM Vol. 2 2.3.2 and 2.3.3)
  if (first_byte == 0xc4) {
    last = next_byte();
    map = second & 0x1f;
    rex_ = static_cast<uint8_t>((~second >> 5) & 7) | static_cast<uint8_t>((last & 0x80) != 0 ? kRexWBit : 0);
  }
  if (!is_64_) {
    rex_ &= kRexWBit;  // the others are ones by necessity, or ignored (B)
  }
  raw_vvvv_ = (last >> 3) & 0xf;
  vector_256_ = (last & 4) != 0;
  mandatory_ = last & 3;
  insn_.vvvv = static_cast<uint8_t>((raw_vvvv_ ^ 0xf) & (is_64_ ? 0xf : 7));
  insn_.vector_bytes = vector_256_ ? 32 : 16;
  insn_.opcode = next_byte();
  if (has_forbidden_prefix) {
    return false;
  }
  switch (map) {
    case 1: insn_.map = OpcodeMap::kVex0F; return find_row(kTableVex0F);
    case 2: insn_.map = OpcodeMap::kVex0F38; return find_row(kTableVex0F38);
    case 3: insn_.map = OpcodeMap::kVex0F3A; return find_row(kTableVex0F3A);
    default: return false;
  }
}

/// Finds the row of insn_.opcode; reads ModRM if the opcode has one.
bool Decoder::find_row(const MapTable& first_table) {
  const MapTable* table = &first_table;
  const MapSlot* slot = &table->slots[insn_.opcode];
  if (slot->first == slot->end) {
    table = table->next;
    if (table == nullptr || table->slots[insn_.opcode].first == table->slots[insn_.opcode].end) {
      return false;
    }
    slot = &table->slots[insn_.opcode];
  }
  unsigned bits = mandatory_ | ((rex_ & kRexWBit) != 0 ? key::kW : 0u) | (vector_256_ ? key::kL : 0u) |
                  (is_64_ ? key::kMode64 : 0u) | ((rex_ & kRexBaseBit) != 0 ? key::kRexB : 0u);
  size_t start = slot->first;
  if (slot->has_modrm) {
    insn_.has_modrm = true;
    insn_.modrm = next_byte();
    const unsigned reg = (insn_.modrm >> 3) & 7;
    bits |= (insn_.modrm >= 0xc0 ? key::kRegister : 0u) | reg << key::kRegShift | (insn_.modrm & 7u) << key::kRmShift;
    if (slot->group != MapSlot::kNoGroup) {
      start += table->group_starts[slot->group][reg];
    }
  }
  for (size_t i = start; i < slot->end; ++i) {
    const MapEntry& entry = table->entries[i];
    if ((bits & entry.mask) == entry.value) {
      entry_ = &entry;
      insn_.row = &entry.row;
      return true;
    }
  }
  return false;
}

/// Everything after the opcode. The fields are filled before legality is judged, so that the length is right in any
/// case.
bool Decoder::read_operands() {
  if ((rex_ & kRexWBit) != 0) {
    insn_.prefixes |= kPrefixRexW;
  }
  set_operand_size();
  const bool has_67 = (insn_.prefixes & kPrefixAddressSize) != 0;
  if (is_64_) {
    insn_.address_size = has_67 ? 4 : 8;
  } else {
    insn_.address_size = (insn_.code_size == CodeSize::k32) != has_67 ? 4 : 2;
  }
  insn_.segment = kDs;
  if (insn_.has_modrm) {
    insn_.reg = extended((insn_.modrm >> 3) & 7, kRexRegBit) & entry_->reg_mask;
    if (insn_.modrm >= 0xc0 || (insn_.row->flags & kModIgnored) != 0) {
      insn_.rm = extended(insn_.modrm & 7, kRexBaseBit) & entry_->rm_mask;
    } else {
      read_memory();
    }
  } else if (entry_->opcode_register) {
    insn_.reg = extended(insn_.opcode & 7, kRexBaseBit);
  }
  if (segment_override_ != kNoRegister) {
    insn_.segment = segment_override_;
  }
  read_immediate();
  if (is_vex_) {
    constexpr uint8_t kPrefixOfPp[] = {0, kPrefixOperandSize, kPrefixRep, kPrefixRepne};
    insn_.prefixes |= kPrefixOfPp[mandatory_];  // after the operand size, which VEX.pp does not change
  }
  return is_legal();
}

/// SDM Vol. 1 Tables 3-3 and 3-4; REX.W wins over 66 (SDM Vol. 2 2.2.1.2).
void Decoder::set_operand_size() {
  const bool has_66 = (insn_.prefixes & kPrefixOperandSize) != 0 && entry_->operand_size_prefix;
  if (!is_64_) {
    insn_.operand_size = (insn_.code_size == CodeSize::k32) != has_66 ? 4 : 2;
  } else if ((rex_ & kRexWBit) != 0 || (insn_.row->flags & kForce64) != 0) {
    insn_.operand_size = 8;
  } else if (has_66) {
    insn_.operand_size = 2;
  } else {
    insn_.operand_size = (insn_.row->flags & kDefault64) != 0 ? 8 : 4;
  }
}

void Decoder::read_memory() {
  insn_.is_memory = true;
  if (insn_.address_size == 2) {
    read_address_16();
  } else if ((insn_.modrm & 7) == 4) {
    read_sib_memory();
  } else if ((insn_.modrm & 0xc7) == 5) {
    insn_.base = is_64_ ? kRipBase : kNoRegister;  // SDM Vol. 2 2.2.1.6
    insn_.displacement = next<int32_t>();
  } else {
    insn_.base = extended(insn_.modrm & 7, kRexBaseBit);
    read_displacement();
  }
  if (insn_.base == kRsp || insn_.base == kRbp) {
    insn_.segment = kSs;  // SDM Vol. 1 Table 3-5
  }
}

/// SDM Vol. 2 Table 2-3.
void Decoder::read_sib_memory() {
  const uint8_t sib = next_byte();
  const uint8_t index = extended((sib >> 3) & 7, kRexIndexBit);
  if (index != kRsp || entry_->vsib) {
    insn_.index = index;
    insn_.scale = sib >> 6;
  }
  if ((sib & 7) == 5 && insn_.modrm < 0x40) {
    insn_.displacement = next<int32_t>();
    return;
  }
  insn_.base = extended(sib & 7, kRexBaseBit);
  read_displacement();
}

void Decoder::read_address_16() {
  if ((insn_.modrm & 0xc7) == 6) {
    insn_.displacement = next<int16_t>();
    return;
  }
  insn_.base = kAddress16[insn_.modrm & 7].base;
  insn_.index = kAddress16[insn_.modrm & 7].index;
  read_displacement();
}

/// The displacement that ModRM.mod = 1 or 2 announces.
void Decoder::read_displacement() {
  if ((insn_.modrm & 0xc0) == 0x40) {
    insn_.displacement = next<int8_t>();
  } else if ((insn_.modrm & 0xc0) == 0x80) {
    insn_.displacement = insn_.address_size == 2 ? next<int16_t>() : next<int32_t>();
  }
}

int64_t Decoder::next_signed(unsigned bytes) {
  switch (bytes) {
    case 2: return next<int16_t>();
    case 4: return next<int32_t>();
    default: return next<int64_t>();
  }
}

void Decoder::read_immediate() {
  switch (entry_->immediate) {
    case ImmediateForm::kNone: break;
    case ImmediateForm::kByte: insn_.immediate = next_byte(); break;
    case ImmediateForm::kByteSigned:
    case ImmediateForm::kBranchByte: insn_.immediate = next<int8_t>(); break;
    case ImmediateForm::kWord: insn_.immediate = next<uint16_t>(); break;
    case ImmediateForm::kOperandMax4:
    case ImmediateForm::kBranch: insn_.immediate = next_signed(std::min<unsigned>(insn_.operand_size, 4)); break;
    case ImmediateForm::kOperand: insn_.immediate = next_signed(insn_.operand_size); break;
    case ImmediateForm::kFarPointer:
      insn_.immediate = insn_.operand_size == 2 ? int64_t{next<uint16_t>()} : int64_t{next<uint32_t>()};
      insn_.immediate2 = next<uint16_t>();
      break;
    case ImmediateForm::kOffset: {
      insn_.is_memory = true;
      const uint64_t offset = static_cast<uint64_t>(next_signed(insn_.address_size));
      insn_.immediate = static_cast<int64_t>(offset & (~uint64_t{0} >> (64 - 8 * insn_.address_size)));
      break;
    }
    case ImmediateForm::kWordByte:
      insn_.immediate = next<uint16_t>();
      insn_.immediate2 = next_byte();
      break;
    case ImmediateForm::kRegister:
      insn_.immediate = next_byte() & (is_64_ ? 0xff : 0x7f);  // bit 7 is ignored outside 64-bit mode (SDM Vol. 2 4.1)
      break;
  }
}

/// #UD conditions that are not a matter of finding a row.
bool Decoder::is_legal() const {
  if ((insn_.prefixes & kPrefixLock) != 0 && ((insn_.row->flags & kLockable) == 0 || !insn_.is_memory)) {
    return false;  // SDM Vol. 2, LOCK
  }
  if (is_vex_ && !entry_->uses_vvvv && raw_vvvv_ != 0xf) {
    return false;  // SDM Vol. 2 2.3.5.6
  }
  if (entry_->vsib) {
    // Needs SIB; destination, index and mask are three registers (SDM Vol. 2 2.3.12.1 and VPGATHERDD).
    const bool has_sib = (insn_.modrm & 7) == 4 && insn_.address_size != 2;
    return has_sib && insn_.reg != insn_.index && insn_.reg != insn_.vvvv && insn_.index != insn_.vvvv;
  }
  return !entry_->check_reg || is_register_legal();
}

/// Segment, control and debug registers that exist (SDM Vol. 2, MOV and MOV CR/DR).
bool Decoder::is_register_legal() const {
  switch (insn_.row->op) {
    case Op::kMovFromSeg: return insn_.reg < kSegmentCount;
    case Op::kMovToSeg: return insn_.reg < kSegmentCount && insn_.reg != kCs;
    case Op::kMovFromCr:
    case Op::kMovToCr: return insn_.reg <= 8 && (0x11du >> insn_.reg & 1) != 0;  // CR0, CR2, CR3, CR4, CR8
    default: return insn_.reg < 8;
  }
}

/// Bytes of a memory operand, 0 for any other.
unsigned size_of(Operand operand, const Insn& insn) {
  const unsigned v = insn.operand_size;
  const unsigned native = insn.code_size == CodeSize::k64 ? 8 : 4;
  // clang-format off
  switch (operand) {
    case Operand::kEb: case Operand::kEdMb: case Operand::kMb: case Operand::kWb: case Operand::kOb: return 1;
    case Operand::kEw: case Operand::kEvMw: case Operand::kEdMw: case Operand::kMw: case Operand::kWw:
    case Operand::kM16int: return 2;
    case Operand::kEd: case Operand::kMd: case Operand::kQd: case Operand::kWd: case Operand::kWss:
    case Operand::kM32fp: case Operand::kM32int: return 4;
    case Operand::kEq: case Operand::kMq: case Operand::kQq: case Operand::kWq: case Operand::kWsd:
    case Operand::kM64fp: case Operand::kM64int: return 8;
    case Operand::kM80fp: case Operand::kM80bcd: return 10;
    case Operand::kMdq: case Operand::kWdq: return 16;
    case Operand::kWqq: return 32;
    case Operand::kM64: return 64;
    case Operand::kEv: case Operand::kMv: case Operand::kOv: return v;
    case Operand::kEz: return std::min(v, 4u);
    case Operand::kEy: case Operand::kMy: return v == 8 ? 8 : 4;
    case Operand::kVsib: return (insn.prefixes & kPrefixRexW) != 0 ? 8 : 4;
    case Operand::kEnative: return native;
    case Operand::kMp: return 2 + v;
    case Operand::kMs: return 2 + native;
    case Operand::kMa: return 2 * v;
    case Operand::kMx: case Operand::kWx: return insn.vector_bytes;
    case Operand::kWhalf: return insn.vector_bytes / 2u;
    case Operand::kWquarter: return insn.vector_bytes / 4u;
    case Operand::kWeighth: return insn.vector_bytes / 8u;
    case Operand::kMenv: return v == 2 ? 14 : 28;     // SDM Vol. 1 8.1.10
    case Operand::kMstate: return v == 2 ? 94 : 108;
    case Operand::kMfxsave: return 512;
    default: return 0;
  }
  // clang-format on
}

}  // namespace

DecodeStatus decode(std::span<const uint8_t> bytes, CodeSize code_size, Insn& out) {
  return Decoder(bytes, code_size, out).run();
}

unsigned memory_operand_size(const Insn& insn) {
  // Rows that neither read nor write their first operand only name an address: NOP, prefetch, CLFLUSH, UD0, UD1.
  if (!insn.is_memory || (insn.row->flags & kUpdatesOp0) == 0) {
    return 0;
  }
  for (const Operand operand : insn.row->operands) {
    if (const unsigned size = size_of(operand, insn); size != 0) {
      return size;
    }
  }
  return 0;
}

std::string disassemble_brief(const Insn& insn) {
  if (insn.row == nullptr) {
    return "Invalid";
  }
  std::string text = op_name(insn.row->op);
  text += " o" + std::to_string(insn.operand_size) + " a" + std::to_string(insn.address_size);
  if (insn.is_memory) {
    text += " mem" + std::to_string(memory_operand_size(insn));
  }
  return text;
}

}  // namespace tenon::x86
