// Instruction decoding: prefixes, opcode, ModRM, SIB, displacement, immediate, then the legality rules of the row.
//
// The bytes are read where they are if enough follow the instruction, else from a zero-padded copy, so that no read
// needs a bounds check: if at the end more bytes were looked at than there are, the result is kTruncated or kTooLong
// whatever was decoded from what follows. Time is what mispredicted branches cost: what differs from one instruction to
// the next (REX, ModRM, SIB, sizes of displacement and immediate) is looked up or masked, not branched on.
//
// Source: Intel SDM Vol. 2 chapter 2 (format, REX 2.2.1, VEX 2.3), rev. 325383-080. Where Intel and AMD processors
// differ, Intel: near branches ignore 66 in 64-bit mode, SYSCALL exists only there, LOCK MOV CR0 is no CR8 access. Not
// implemented: EVEX and XOP; their prefixes 62 and 8F decode as BOUND and POP and are #UD where those are.
#include <algorithm>
#include <cstring>

#include "engine/x86/decode_table.hh"

namespace tenon::x86 {
namespace {

enum class PrefixKind : uint8_t { kNone, kSegment, kOperandSize, kAddressSize, kLock, kRepne, kRep };

/// Legacy prefixes; REX is no part of these.
constexpr std::array<PrefixKind, 256> kPrefixKinds = [] {
  std::array<PrefixKind, 256> kinds{};
  for (const unsigned byte : {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65}) kinds[byte] = PrefixKind::kSegment;
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

/// What selects the row, by PrefixBits & 14 >> 1 (F3, F2, 66): 0 none, 1 = 66, 2 = F3, 3 = F2.
constexpr std::array<uint8_t, 8> kMandatory = {0, 2, 3, 3, 1, 2, 3, 3};
static_assert(kPrefixRep == 2 && kPrefixRepne == 4 && kPrefixOperandSize == 8);

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

/// Displacements and immediates: (raw & mask ^ sign) - sign extends whatever the form is.
enum Field : uint8_t { kNothing, kUnsigned8, kSigned8, kUnsigned16, kSigned16, kSigned32, kSigned64, kOther };
struct FieldForm {
  uint64_t mask = 0;
  uint64_t sign = 0;
  size_t bytes = 0;
};
constexpr std::array<FieldForm, 7> kFieldForms = {{
    {},
    {0xff, 0, 1},
    {0xff, 0x80, 1},
    {0xffff, 0, 2},
    {0xffff, 0x8000, 2},
    {0xffffffff, 0x80000000, 4},
    {~uint64_t{0}, 0, 8},
}};

/// Of an ImmediateForm with operand size 2, 4, 8 (size / 4 is the index); kOther is read by read_odd_immediate().
constexpr auto kImmediateFields = [] {
  std::array<std::array<Field, 3>, 12> fields{};
  for (auto& row : fields) row = {kOther, kOther, kOther};
  const auto set = [&fields](ImmediateForm form, std::array<Field, 3> by_size) {
    fields[static_cast<size_t>(form)] = by_size;
  };
  set(ImmediateForm::kNone, {kNothing, kNothing, kNothing});
  set(ImmediateForm::kByte, {kUnsigned8, kUnsigned8, kUnsigned8});
  set(ImmediateForm::kByteSigned, {kSigned8, kSigned8, kSigned8});
  set(ImmediateForm::kBranchByte, {kSigned8, kSigned8, kSigned8});
  set(ImmediateForm::kWord, {kUnsigned16, kUnsigned16, kUnsigned16});
  set(ImmediateForm::kOperandMax4, {kSigned16, kSigned32, kSigned32});
  set(ImmediateForm::kBranch, {kSigned16, kSigned32, kSigned32});
  set(ImmediateForm::kOperand, {kSigned16, kSigned32, kSigned64});
  return fields;
}();
static_assert(static_cast<size_t>(ImmediateForm::kRegister) + 1 == kImmediateFields.size());

/// By ModRM.mod; mod = 0 without a base has 32 bits.
constexpr std::array<Field, 4> kDisplacements = {kNothing, kSigned8, kSigned32, kNothing};
constexpr std::array<Field, 4> kDisplacements16 = {kNothing, kSigned8, kSigned16, kNothing};

/// Operand size in 64-bit mode by "64 for sure" (4), 66 (2) and "64 by default" (1), four bits each.
constexpr uint32_t kOperandSizes64 = 0x88882284;

enum RexBits : uint8_t { kRexBaseBit = 1, kRexIndexBit = 2, kRexRegBit = 4, kRexWBit = 8 };

class Decoder {
 public:
  // 15 prefixes at most, then opcode 3, ModRM, SIB, displacement 4, immediate 8, read in pieces of 8.
  static constexpr size_t kReadAhead = 48;

  /// Reads up to kReadAhead of `bytes`, of which `available` (at most 15) count.
  Decoder(const uint8_t* bytes, size_t available, CodeSize code_size, Insn& insn)
      : bytes_(bytes), insn_(insn), available_(available), is_64_(code_size == CodeSize::k64) {
    insn_ = Insn{};
    insn_.code_size = code_size;
  }

  DecodeStatus run() {
    read_prefixes();
    const MapTable* table = read_opcode();
    const bool is_valid = table != nullptr && find_entry(*table) && read_operands();
    insn_.prefixes = prefixes_;
    if (position_ > available_) [[unlikely]] {
      return available_ == kInsnLengthMax ? DecodeStatus::kTooLong : DecodeStatus::kTruncated;
    }
    insn_.length = static_cast<uint8_t>(position_);
    return is_valid ? DecodeStatus::kOk : DecodeStatus::kInvalid;
  }

 private:
  uint8_t next_byte() { return bytes_[position_++]; }

  template <typename T>
  T next() {
    T value;
    std::memcpy(&value, &bytes_[position_], sizeof value);
    position_ += sizeof value;
    return value;
  }

  int64_t next_field(Field field) {
    uint64_t raw;
    std::memcpy(&raw, &bytes_[position_], sizeof raw);
    const FieldForm& form = kFieldForms[field];
    position_ += form.bytes;
    return static_cast<int64_t>(((raw & form.mask) ^ form.sign) - form.sign);
  }

  void read_prefixes();
  void read_legacy_prefix(PrefixKind kind, uint8_t byte);
  const MapTable* read_opcode();
  const MapTable* read_vex();
  bool find_entry(const MapTable& table);
  bool read_operands();
  void set_sizes();
  void read_memory();
  void read_address_16();
  void read_odd_immediate();
  bool is_legal() const;
  bool is_register_legal() const;

  uint8_t extended(unsigned low, uint8_t rex_bit) const {
    return static_cast<uint8_t>(low | ((rex_ & rex_bit) != 0 ? 8u : 0u));
  }
  bool has_prefix(PrefixBits prefix) const { return (prefixes_ & prefix) != 0; }
  uint32_t row_flags() const { return entry_->row.flags; }

  const uint8_t* const bytes_;
  Insn& insn_;
  const MapEntry* entry_ = nullptr;
  size_t position_ = 0;
  const size_t available_;
  uint8_t prefixes_ = 0;   // of insn_, which gets them at the end
  uint8_t rex_ = 0;        // low four bits of REX, or of VEX with positive sense
  uint8_t mandatory_ = 0;  // 0 none, 1 = 66, 2 = F3, 3 = F2: what selects the row
  uint8_t segment_override_ = kNoRegister;
  uint8_t raw_vvvv_ = 0xf;  // as encoded, inverted
  bool vector_256_ = false;
  bool is_vex_ = false;
  const bool is_64_;
};

void Decoder::read_legacy_prefix(PrefixKind kind, uint8_t byte) {
  switch (kind) {
    case PrefixKind::kSegment: {
      const uint8_t segment = segment_of_prefix(byte);
      if (is_64_ && segment < kFs) return;  // null prefixes, they do not even undo FS or GS (SDM Vol. 1 3.4.2.1)
      segment_override_ = segment;
      prefixes_ |= kPrefixSegment;
      return;
    }
    case PrefixKind::kOperandSize: prefixes_ |= kPrefixOperandSize; return;
    case PrefixKind::kAddressSize: prefixes_ |= kPrefixAddressSize; return;
    case PrefixKind::kLock: prefixes_ |= kPrefixLock; return;
    case PrefixKind::kRepne: prefixes_ = static_cast<uint8_t>((prefixes_ & ~kPrefixRep) | kPrefixRepne); return;
    case PrefixKind::kRep: prefixes_ = static_cast<uint8_t>((prefixes_ & ~kPrefixRepne) | kPrefixRep); return;
    case PrefixKind::kNone: return;
  }
}

/// Prefixes in any order and number; the last segment override and the last of F2 and F3 count. REX counts only if it
/// is the last prefix (SDM Vol. 2 2.2.1). After 15 bytes the instruction is too long whatever follows.
void Decoder::read_prefixes() {
  bool is_rex = false;
  do {
    PrefixKind kind;
    while ((kind = kPrefixKinds[bytes_[position_]]) != PrefixKind::kNone && position_ < kInsnLengthMax) {
      read_legacy_prefix(kind, bytes_[position_]);
      ++position_;
    }
    const uint8_t byte = bytes_[position_];
    is_rex = is_64_ && (byte & 0xf0) == 0x40;
    rex_ = is_rex ? byte & 0xf : 0;
    position_ += is_rex;
  } while (is_rex && position_ < kInsnLengthMax &&
           ((bytes_[position_] & 0xf0) == 0x40 || kPrefixKinds[bytes_[position_]] != PrefixKind::kNone));
  prefixes_ |= is_rex ? kPrefixRex : 0;
}

/// The table that has the opcode; nullptr if there is none.
const MapTable* Decoder::read_opcode() {
  mandatory_ = kMandatory[(prefixes_ >> 1) & 7];
  insn_.opcode = next_byte();
  if (insn_.opcode == 0x0f) {
    insn_.opcode = next_byte();
    if (insn_.opcode == 0x38 || insn_.opcode == 0x3a) {
      const bool is_38 = insn_.opcode == 0x38;
      insn_.map = is_38 ? OpcodeMap::k0F38 : OpcodeMap::k0F3A;
      insn_.opcode = next_byte();
      return is_38 ? &kTable0F38 : &kTable0F3A;
    }
    insn_.map = OpcodeMap::k0F;
    return &kTable0F;
  }
  // LES and LDS with a register operand do not exist; outside 64-bit mode that makes them VEX (SDM Vol. 2 2.3.5).
  if ((insn_.opcode & 0xfe) == 0xc4 && (is_64_ || bytes_[position_] >= 0xc0)) return read_vex();
  return &kTableLegacy;
}

/// SDM Vol. 2 2.3.5 and Figure 2-9: R, X, B and vvvv are inverted. C4 or C5 was read as the opcode.
const MapTable* Decoder::read_vex() {
  is_vex_ = true;
  const bool has_three_bytes = insn_.opcode == 0xc4;
  const uint8_t second = next_byte();
  uint8_t last = second;
  unsigned map = 1;
  rex_ = (second & 0x80) != 0 ? uint8_t{0} : uint8_t{kRexRegBit};
  constexpr uint8_t kForbidden = kPrefixOperandSize | kPrefixLock | kPrefixRep | kPrefixRepne | kPrefixRex;
  const bool has_forbidden_prefix = (prefixes_ & kForbidden) != 0;  // #UD (SDM Vol. 2 2.3.2 and 2.3.3)
  if (has_three_bytes) {
    last = next_byte();
    map = second & 0x1f;
    rex_ = static_cast<uint8_t>((~second >> 5) & 7) | static_cast<uint8_t>((last & 0x80) != 0 ? kRexWBit : 0);
  }
  if (!is_64_) rex_ &= kRexWBit;  // the others are ones by necessity, or ignored (B)
  raw_vvvv_ = (last >> 3) & 0xf;
  vector_256_ = (last & 4) != 0;
  mandatory_ = last & 3;
  insn_.vvvv = static_cast<uint8_t>((raw_vvvv_ ^ 0xf) & (is_64_ ? 0xf : 7));
  insn_.vector_bytes = vector_256_ ? 32 : 16;
  insn_.opcode = next_byte();
  if (has_forbidden_prefix) return nullptr;
  switch (map) {
    case 1: insn_.map = OpcodeMap::kVex0F; return &kTableVex0F;
    case 2: insn_.map = OpcodeMap::kVex0F38; return &kTableVex0F38;
    case 3: insn_.map = OpcodeMap::kVex0F3A; return &kTableVex0F3A;
    default: return nullptr;
  }
}

/// Finds the entry of the opcode; reads ModRM if the opcode has one.
bool Decoder::find_entry(const MapTable& first_table) {
  const MapTable* table = &first_table;
  const MapSlot* slot = &table->slots[insn_.opcode];
  if (slot->first == slot->end) {
    table = table->next;
    if (table == nullptr) return false;
    slot = &table->slots[insn_.opcode];
    if (slot->first == slot->end) return false;
  }
  insn_.has_modrm = slot->has_modrm;
  insn_.modrm = slot->has_modrm ? bytes_[position_] : 0;
  position_ += slot->has_modrm;
  const unsigned reg = (insn_.modrm >> 3) & 7;
  const unsigned bits = mandatory_ | (insn_.modrm >= 0xc0 ? key::kRegister : 0u) | reg << key::kRegShift |
                        (insn_.modrm & 7u) << key::kRmShift | ((rex_ & kRexWBit) != 0 ? key::kW : 0u) |
                        (vector_256_ ? key::kL : 0u) | (is_64_ ? key::kMode64 : 0u) |
                        ((rex_ & kRexBaseBit) != 0 ? key::kRexB : 0u);
  const MapEntry* entry = table->entries + slot->first + table->group_starts[slot->group][reg];
  for (const MapEntry* const end = table->entries + slot->end; entry != end; ++entry) {
    if ((bits & entry->mask) == entry->value) {
      entry_ = entry;
      insn_.row = &entry->row;
      return true;
    }
  }
  return false;
}

/// Everything after the opcode. The fields are filled before legality is judged, so that the length is right in any
/// case.
bool Decoder::read_operands() {
  prefixes_ |= (rex_ & kRexWBit) != 0 ? kPrefixRexW : 0;
  set_sizes();
  const bool has_register_number = insn_.has_modrm || entry_->opcode_register;
  const unsigned number = insn_.has_modrm ? (insn_.modrm >> 3) & 7u : insn_.opcode & 7u;
  const uint8_t number_rex = insn_.has_modrm ? kRexRegBit : kRexBaseBit;
  insn_.reg = has_register_number ? extended(number, number_rex) & entry_->reg_mask : 0;
  insn_.is_memory = insn_.has_modrm && insn_.modrm < 0xc0 && (row_flags() & kModIgnored) == 0;
  if (insn_.is_memory) {
    read_memory();
  } else if (insn_.has_modrm) {
    insn_.rm = extended(insn_.modrm & 7, kRexBaseBit) & entry_->rm_mask;
  }
  if (segment_override_ != kNoRegister) insn_.segment = segment_override_;
  const Field field = kImmediateFields[static_cast<size_t>(entry_->immediate)][insn_.operand_size / 4];
  if (field != kOther) [[likely]] {
    insn_.immediate = next_field(field);
  } else {
    read_odd_immediate();
  }
  if (is_vex_) {
    constexpr uint8_t kPrefixOfPp[] = {0, kPrefixOperandSize, kPrefixRep, kPrefixRepne};
    prefixes_ |= kPrefixOfPp[mandatory_];  // after the operand size, which VEX.pp does not change
  }
  return is_legal();
}

/// SDM Vol. 1 Tables 3-3 and 3-4; REX.W wins over 66 (SDM Vol. 2 2.2.1.2).
void Decoder::set_sizes() {
  const bool has_66 = has_prefix(kPrefixOperandSize) && entry_->operand_size_prefix;
  const bool has_67 = has_prefix(kPrefixAddressSize);
  if (!is_64_) {
    insn_.operand_size = (insn_.code_size == CodeSize::k32) != has_66 ? 4 : 2;
    insn_.address_size = (insn_.code_size == CodeSize::k32) != has_67 ? 4 : 2;
    return;
  }
  const bool is_wide = (rex_ & kRexWBit) != 0 || (row_flags() & kForce64) != 0;
  const bool is_default_64 = (row_flags() & kDefault64) != 0;
  const unsigned which = unsigned{is_wide} << 2 | unsigned{has_66} << 1 | unsigned{is_default_64};
  insn_.operand_size = kOperandSizes64 >> (4 * which) & 0xf;
  insn_.address_size = has_67 ? 4 : 8;
}

/// SDM Vol. 2 Tables 2-2 and 2-3. Without SIB, mod = 0 and rm = 5 is RIP-relative in 64-bit mode (2.2.1.6).
void Decoder::read_memory() {
  if (insn_.address_size == 2) return read_address_16();
  const unsigned mod = insn_.modrm >> 6;
  const bool has_sib = (insn_.modrm & 7) == 4;
  const uint8_t sib = has_sib ? bytes_[position_] : 0;
  position_ += has_sib;
  const uint8_t index = extended((sib >> 3) & 7, kRexIndexBit);
  const bool has_index = has_sib && (index != kRsp || entry_->vsib);
  insn_.index = has_index ? index : kNoRegister;
  insn_.scale = has_index ? sib >> 6 : 0;
  const unsigned base = has_sib ? sib & 7u : insn_.modrm & 7u;
  const bool has_no_base = mod == 0 && base == 5;
  const uint8_t instead = is_64_ && !has_sib ? kRipBase : kNoRegister;
  insn_.base = has_no_base ? instead : extended(base, kRexBaseBit);
  insn_.displacement = static_cast<int32_t>(next_field(has_no_base ? kSigned32 : kDisplacements[mod]));
  insn_.segment = insn_.base == kRsp || insn_.base == kRbp ? kSs : kDs;  // SDM Vol. 1 Table 3-5
}

/// SDM Vol. 2 Table 2-1.
void Decoder::read_address_16() {
  if ((insn_.modrm & 0xc7) == 6) {
    insn_.displacement = next<int16_t>();
    return;
  }
  insn_.base = kAddress16[insn_.modrm & 7].base;
  insn_.index = kAddress16[insn_.modrm & 7].index;
  insn_.displacement = static_cast<int32_t>(next_field(kDisplacements16[insn_.modrm >> 6]));
  insn_.segment = insn_.base == kRbp ? kSs : kDs;  // SDM Vol. 1 Table 3-5
}

void Decoder::read_odd_immediate() {
  switch (entry_->immediate) {
    case ImmediateForm::kFarPointer:
      insn_.immediate = insn_.operand_size == 2 ? int64_t{next<uint16_t>()} : int64_t{next<uint32_t>()};
      insn_.immediate2 = next<uint16_t>();
      break;
    case ImmediateForm::kOffset: {
      insn_.is_memory = true;
      const auto offset = next<uint64_t>();
      position_ -= 8u - insn_.address_size;
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
    default: break;
  }
}

/// #UD conditions that are not a matter of finding a row.
bool Decoder::is_legal() const {
  if (has_prefix(kPrefixLock) && ((row_flags() & kLockable) == 0 || !insn_.is_memory)) {
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
  switch (entry_->row.op) {
    case Op::kMovFromSeg: return insn_.reg < kSegmentCount;
    case Op::kMovToSeg: return insn_.reg < kSegmentCount && insn_.reg != kCs;
    case Op::kMovFromCr:
    case Op::kMovToCr: return insn_.reg <= 8 && (0x11du >> insn_.reg & 1) != 0;  // CR0, CR2, CR3, CR4, CR8
    default: return insn_.reg < 8;
  }
}

/// Bytes of a memory operand, 0 for any other; `v`, `native` and `x` are the sizes of those operands, `element` that of
/// a gather's.
constexpr unsigned size_of(Operand operand, unsigned v, unsigned native, unsigned x, unsigned element) {
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
    case Operand::kVsib: return element;
    case Operand::kEnative: return native;
    case Operand::kMp: return 2 + v;
    case Operand::kMs: return 2 + native;
    case Operand::kMa: return 2 * v;
    case Operand::kMx: case Operand::kWx: return x;
    case Operand::kWhalf: return x / 2;
    case Operand::kWquarter: return x / 4;
    case Operand::kWeighth: return x / 8;
    case Operand::kMenv: return v == 2 ? 14 : 28;     // SDM Vol. 1 8.1.10
    case Operand::kMstate: return v == 2 ? 94 : 108;
    case Operand::kMfxsave: return 512;
    default: return 0;
  }
  // clang-format on
}

/// size_of() in 64-bit code without gathers, by operand size (2, 4, 8), operand, vector length (16, 32).
constexpr size_t kOperands = static_cast<size_t>(Operand::kYz) + 1;
constexpr auto kMemorySizes = [] {
  std::array<std::array<std::array<uint16_t, 2>, kOperands>, 3> sizes{};
  for (unsigned v = 0; v < 3; ++v) {
    for (size_t i = 0; i < kOperands; ++i) {
      for (unsigned x = 0; x < 2; ++x) {
        sizes[v][i][x] = static_cast<uint16_t>(size_of(static_cast<Operand>(i), 2u << v, 8, 16u << x, 4));
      }
    }
  }
  return sizes;
}();

}  // namespace

DecodeStatus decode(std::span<const uint8_t> bytes, CodeSize code_size, Insn& out) {
  const size_t available = std::min<size_t>(bytes.size(), kInsnLengthMax);
  const uint8_t* start = bytes.data();
  std::array<uint8_t, Decoder::kReadAhead> padded;
  if (bytes.size() < padded.size()) [[unlikely]] {
    padded.fill(0);
    std::copy_n(start, available, padded.begin());
    start = padded.data();
  }
  return Decoder(start, available, code_size, out).run();
}

unsigned memory_operand_size(const Insn& insn) {
  if (!insn.is_memory) return 0;
  // None where the first operand is neither read nor written, only named: NOP, prefetch, CLFLUSH, UD0, UD1.
  const Operand operand = entry_of(*insn.row).memory_operand;
  const bool is_64 = insn.code_size == CodeSize::k64;
  if (!is_64 || operand == Operand::kVsib) [[unlikely]]
    return size_of(operand, insn.operand_size, is_64 ? 8 : 4, insn.vector_bytes,
                   (insn.prefixes & kPrefixRexW) != 0 ? 8 : 4);
  return kMemorySizes[insn.operand_size / 4][static_cast<size_t>(operand)][insn.vector_bytes / 32];
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
