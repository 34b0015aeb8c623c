// The form in which opcode tables are written, and the index the decoder walks.
//
// A table is a list of MapEntry in opcode order. Several entries may share an opcode; the first whose Select, mode,
// mod, W and L conditions hold is the instruction (so a line for F3 stands before the line for "any prefix"). The
// conditions are packed into mask and value over one 13-bit key, and make_table() adds, at compile time, an index by
// opcode and for long groups by ModRM.reg. For decode.cc, the table_*.cc files and the JIT's re-encoder (entry_of).
//
// Source: Intel SDM Vol. 2 Appendix A; column names as there: NP, 66, F3, F2, /reg.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "engine/x86/cpu_state.hh"
#include "engine/x86/insn.hh"

namespace tenon::x86 {

/// The bits a row is selected by, as packed by the decoder.
namespace key {
constexpr uint16_t kPrefixShift = 0;     // 2 bits: 0 none, 1 = 66, 2 = F3, 3 = F2 (the encoding of VEX.pp)
constexpr uint16_t kRegister = 1u << 2;  // ModRM.mod = 3
constexpr uint16_t kRegShift = 3;
constexpr uint16_t kRmShift = 6;
constexpr uint16_t kW = 1u << 9;
constexpr uint16_t kL = 1u << 10;
constexpr uint16_t kMode64 = 1u << 11;
constexpr uint16_t kRexB = 1u << 12;
}  // namespace key

/// Conditions of a row beyond those its flags and operands imply.
struct Select {
  uint16_t mask = 0;
  uint16_t value = 0;

  constexpr Select with(uint16_t more_mask, uint16_t more_value) const {
    return {static_cast<uint16_t>(mask | more_mask), static_cast<uint16_t>(value | more_value)};
  }
  constexpr Select reg(unsigned n) const {
    return with(7u << key::kRegShift, static_cast<uint16_t>(n << key::kRegShift));
  }
  constexpr Select rm(unsigned n) const {
    return with((7u << key::kRmShift) | key::kRegister, static_cast<uint16_t>(n << key::kRmShift) | key::kRegister);
  }
  constexpr Select rexb() const { return with(key::kRexB, key::kRexB); }
  constexpr bool needs_modrm() const { return (mask & (key::kRegister | 7u << key::kRegShift)) != 0; }
};
constexpr Select kAny{};     // prefixes do not select
constexpr Select kNp{3, 0};  // none of 66, F3, F2
constexpr Select k66{3, 1};
constexpr Select kF3{3, 2};
constexpr Select kF2{3, 3};
constexpr Select kNfx{2, 0};  // neither F3 nor F2; 66 sets the operand size

/// Flags and implicit registers of a row (see OpcodeRow).
struct Effects {
  uint16_t read = 0;
  uint16_t written = 0;
  uint16_t undefined = 0;
  uint16_t gpr_read = 0;
  uint16_t gpr_written = 0;

  /// The same flags with implicit registers read and written.
  constexpr Effects gpr(unsigned more_read, unsigned more_written) const {
    Effects result = *this;
    result.gpr_read = static_cast<uint16_t>(gpr_read | more_read);
    result.gpr_written = static_cast<uint16_t>(gpr_written | more_written);
    return result;
  }
};

constexpr uint16_t bit(GprIndex index) { return static_cast<uint16_t>(1u << index); }
constexpr uint16_t kAxBit = bit(kRax), kCxBit = bit(kRcx), kDxBit = bit(kRdx), kBxBit = bit(kRbx), kSpBit = bit(kRsp),
                   kBpBit = bit(kRbp), kSiBit = bit(kRsi), kDiBit = bit(kRdi);

constexpr uint32_t kUpdatesOp0 = kReadsOp0 | kWritesOp0;
constexpr uint32_t kVexInteger = kVex | kNotReal;  // VEX on general registers
constexpr uint32_t kVexVector = kVex | kNotReal | kAvxState;

constexpr uint16_t kDxAxBits = kAxBit | kDxBit;

constexpr uint16_t kAllFlags = kArithmeticFlags;
constexpr uint16_t kAllAndDf = kArithmeticFlags | kDf;

// Effects of instruction families, by the "Flags Affected" section of each page of SDM Vol. 2.
constexpr Effects kNoEffects{};
constexpr Effects kArithmetic{0, kAllFlags, 0};
constexpr Effects kArithmeticCarry{kCf, kAllFlags, 0};  // ADC, SBB
constexpr Effects kIncDec{0, kAllFlags & ~kCf, 0};
constexpr Effects kLogic{0, kAllFlags & ~kAf, kAf};
constexpr Effects kShift{0, kAllFlags & ~kAf, kAf | kOf};  // OF defined for a count of 1
constexpr Effects kShiftOne{0, kAllFlags & ~kAf, kAf};
constexpr Effects kRotate{0, kCf | kOf, kOf};
constexpr Effects kRotateOne{0, kCf | kOf, 0};
constexpr Effects kRotateCarry{kCf, kCf | kOf, kOf};
constexpr Effects kRotateCarryOne{kCf, kCf | kOf, 0};
constexpr Effects kMultiply{0, kCf | kOf, kSf | kZf | kAf | kPf};
constexpr Effects kDivide{0, 0, kAllFlags};
constexpr Effects kBitTest{0, kCf, kOf | kSf | kAf | kPf};
constexpr Effects kBitScan{0, kZf, kCf | kOf | kSf | kAf | kPf};
constexpr Effects kCountZeros{0, kZf | kCf, kOf | kSf | kPf | kAf};
constexpr Effects kDecimalAdjust{kAf | kCf, kAllFlags & ~kOf, kOf, kAxBit, kAxBit};     // DAA, DAS
constexpr Effects kAsciiAdjust{kAf, kAf | kCf, kOf | kSf | kZf | kPf, kAxBit, kAxBit};  // AAA, AAS
constexpr Effects kAsciiDivide{0, kSf | kZf | kPf, kOf | kAf | kCf, kAxBit, kAxBit};    // AAM, AAD
constexpr Effects kPushesFlags{kAllAndDf, 0, 0, kSpBit, kSpBit};
constexpr Effects kPopsFlags{0, kAllAndDf, 0, kSpBit, kSpBit};
constexpr Effects kLowestBit{0, kSf | kZf | kCf | kOf, kAf | kPf};   // ANDN, BLSI, BLSR, BLSMSK, BZHI
constexpr Effects kBitExtract{0, kZf | kCf | kOf, kAf | kSf | kPf};  // BEXTR
constexpr Effects kSetsZf{0, kZf, 0};
constexpr Effects kUndefinesAll{0, 0, kAllFlags};
constexpr Effects kStack{0, 0, 0, kSpBit, kSpBit};
constexpr Effects kStringSource{kDf, 0, 0, kSiBit, kSiBit};
constexpr Effects kStringDestination{kDf, 0, 0, kDiBit, kDiBit};
constexpr Effects kStringBoth{kDf, 0, 0, kSiBit | kDiBit, kSiBit | kDiBit};
constexpr Effects kStringCompare{kDf, kAllFlags, 0, kSiBit | kDiBit, kSiBit | kDiBit};
constexpr Effects kStringScan{kDf, kAllFlags, 0, kDiBit, kDiBit};
constexpr Effects kSetsCompare{0, kAllFlags, 0};  // COMISS, FCOMI, PTEST: ZF, PF, CF; the others cleared

/// No flags, only implicit registers.
constexpr Effects implicit(unsigned gpr_read, unsigned gpr_written) { return kNoEffects.gpr(gpr_read, gpr_written); }

/// How the bytes after ModRM and displacement are read.
enum class ImmediateForm : uint8_t {
  kNone,
  kByte,
  kByteSigned,
  kWord,
  kOperandMax4,
  kOperand,
  kFarPointer,
  kBranchByte,
  kBranch,
  kOffset,
  kWordByte,
  kRegister,
};

constexpr bool in_range(Operand operand, Operand first, Operand last) { return operand >= first && operand <= last; }
constexpr bool is_memory_only(Operand operand) { return in_range(operand, Operand::kM, Operand::kVsib); }
constexpr bool is_register_only(Operand operand) {
  return in_range(operand, Operand::kRv, Operand::kRa) || in_range(operand, Operand::kUx, Operand::kUq) ||
         operand == Operand::kNq || operand == Operand::kStI;
}
constexpr bool is_in_modrm(Operand operand) { return in_range(operand, Operand::kEb, Operand::kUq); }
constexpr bool is_in_vvvv(Operand operand) { return in_range(operand, Operand::kHx, Operand::kBy); }
constexpr bool is_in_opcode(Operand operand) { return operand == Operand::kZb || operand == Operand::kZv; }

constexpr bool is_in_reg_gpr(Operand operand) { return in_range(operand, Operand::kGb, Operand::kGa); }
constexpr bool is_in_rm_gpr(Operand operand) {
  return in_range(operand, Operand::kEb, Operand::kEdMw) || in_range(operand, Operand::kRv, Operand::kRa);
}
constexpr bool is_accumulator(Operand operand) {
  return operand == Operand::kAl || operand == Operand::kAx || operand == Operand::kEax || operand == Operand::kEaxZ ||
         operand == Operand::kRaxV;
}
/// Whether it may be in memory, by ModRM.
constexpr bool may_be_memory(Operand operand) {
  return in_range(operand, Operand::kEb, Operand::kEdMw) || is_memory_only(operand) || operand == Operand::kQq ||
         operand == Operand::kQd || in_range(operand, Operand::kWx, Operand::kWeighth);
}

constexpr ImmediateForm immediate_form(Operand operand) {
  switch (operand) {
    case Operand::kIb: return ImmediateForm::kByte;
    case Operand::kLx: return ImmediateForm::kRegister;
    case Operand::kIbs: return ImmediateForm::kByteSigned;
    case Operand::kIw: return ImmediateForm::kWord;
    case Operand::kIz: return ImmediateForm::kOperandMax4;
    case Operand::kIv: return ImmediateForm::kOperand;
    case Operand::kAp: return ImmediateForm::kFarPointer;
    case Operand::kJb: return ImmediateForm::kBranchByte;
    case Operand::kJz: return ImmediateForm::kBranch;
    case Operand::kOb:
    case Operand::kOv: return ImmediateForm::kOffset;
    default: return ImmediateForm::kNone;
  }
}

using Operands = std::array<Operand, 4>;

struct MapEntry {
  OpcodeRow row;
  uint16_t mask = 0;  // the row matches if (key & mask) == value
  uint16_t value = 0;
  uint8_t opcode = 0;
  ImmediateForm immediate = ImmediateForm::kNone;
  bool has_modrm = false;
  bool uses_vvvv = false;
  bool opcode_register = false;     // register in the opcode's low bits
  bool operand_size_prefix = true;  // 66 sets the operand size (it does not where it selects the row)
  bool vsib = false;
  bool check_reg = false;                   // segment, control or debug register: not every number exists
  bool byte_register = false;               // an operand may be a byte register: REX without bits makes SPL of AH
  bool repeat_counts = false;               // F2 and F3 select the row or repeat it; else they are ignored, or hints
  uint8_t reg_mask = 15;                    // 7: REX.R does not count (MMX and segment registers, SDM Vol. 2 2.2.1.2)
  uint8_t rm_mask = 15;                     // 7: REX.B does not count (MMX registers)
  uint8_t gprs = 0;                         // operands that are general registers: bit n for operand n
  uint8_t gprs_beside_memory = 0;           // those that are where ModRM names memory
  Operand memory_operand = Operand::kNone;  // the one that may be in memory, if the row reads or writes operand 0
  bool writes_memory = false;               // where it is
  uint16_t fixed_gprs_written = 0;          // row.gpr_written and RAX where an operand is part of it

  consteval MapEntry(unsigned opcode_byte, Select select, Op op, Operands operands, uint32_t flags,
                     Effects effects = {}, Feature feature = Feature::kBase, Feature feature_256 = Feature::kBase)
      : row{op,
            operands,
            flags,
            feature,
            feature_256,
            effects.read,
            effects.written,
            effects.undefined,
            effects.gpr_read,
            effects.gpr_written},
        opcode(static_cast<uint8_t>(opcode_byte)),
        has_modrm(select.needs_modrm() || (flags & (kMemoryOnly | kRegisterOnly)) != 0),
        operand_size_prefix((select.mask & 1) == 0 || (select.value & 3) != 1) {
    for (unsigned i = 0; i < operands.size(); ++i) {
      add_operand(operands[i]);
      add_register_or_memory(i);
    }
    fixed_gprs_written |= row.gpr_written;
    set_match(select);
  }
  consteval MapEntry(unsigned opcode_byte, Select select, Op op, Operands operands, uint32_t flags, Feature feature,
                     Feature feature_256 = Feature::kBase)
      : MapEntry(opcode_byte, select, op, operands, flags, kNoEffects, feature, feature_256) {}

 private:
  constexpr void add_operand(Operand operand) {
    has_modrm |= is_in_modrm(operand);
    uses_vvvv |= is_in_vvvv(operand);
    opcode_register |= is_in_opcode(operand);
    vsib |= operand == Operand::kVsib;
    check_reg |= in_range(operand, Operand::kSw, Operand::kDr);
    byte_register |= operand == Operand::kEb || operand == Operand::kGb || operand == Operand::kZb;
    reg_mask = operand == Operand::kPq || operand == Operand::kSw ? uint8_t{7} : reg_mask;
    rm_mask = in_range(operand, Operand::kQq, Operand::kNq) || operand == Operand::kStI ? uint8_t{7} : rm_mask;
    row.flags |= is_memory_only(operand) ? uint32_t{kMemoryOnly} : 0;
    row.flags |= is_register_only(operand) && (row.flags & kModIgnored) == 0 ? uint32_t{kRegisterOnly} : 0;
    const ImmediateForm form = immediate_form(operand);
    if (form != ImmediateForm::kNone) {  // ENTER alone has two immediates
      immediate = immediate == ImmediateForm::kWord ? ImmediateForm::kWordByte : form;
    }
  }

  constexpr void add_register_or_memory(unsigned number) {
    const Operand operand = row.operands[number];
    const bool beside = is_in_reg_gpr(operand) || operand == Operand::kBy || is_in_opcode(operand);
    const auto bit_of = static_cast<uint8_t>(1u << number);
    gprs |= beside || is_in_rm_gpr(operand) ? bit_of : uint8_t{0};
    gprs_beside_memory |= beside ? bit_of : uint8_t{0};
    if (is_accumulator(operand)) fixed_gprs_written |= kAxBit;
    const bool memory = may_be_memory(operand) || immediate_form(operand) == ImmediateForm::kOffset;
    if (memory && memory_operand == Operand::kNone && (row.flags & kUpdatesOp0) != 0) memory_operand = operand;
    const bool written =
        (number == 0 && (row.flags & kWritesOp0) != 0) || (number == 1 && (row.flags & kWritesOp1) != 0);
    writes_memory |= written && may_be_memory(operand);
  }

  constexpr void set_match(Select select) {
    const auto require = [&select, this](uint32_t flag, uint16_t key_bit, bool set) {
      if ((row.flags & flag) != 0) {
        select = select.with(key_bit, set ? key_bit : uint16_t{0});
      }
    };
    require(kMemoryOnly, key::kRegister, false);
    require(kRegisterOnly, key::kRegister, true);
    require(kInvalid64, key::kMode64, false);
    require(kOnly64, key::kMode64, true);
    require(kW0, key::kW, false);
    require(kW1, key::kW, true);
    require(kL0, key::kL, false);
    require(kL1, key::kL, true);
    mask = select.mask;
    value = select.value;
    constexpr uint16_t kF3OrF2 = 2 << key::kPrefixShift;
    repeat_counts = (row.flags & (kVex | kRep)) != 0 || (mask & value & kF3OrF2) != 0;
  }
};

/// The entry that `row` is part of. `row` must come from a table, as every Insn::row that decode() has set.
inline const MapEntry& entry_of(const OpcodeRow& row) {
  static_assert(std::is_standard_layout_v<MapEntry> && offsetof(MapEntry, row) == 0);
  // SAFETY: an object of standard layout and its first member are pointer-interconvertible.
  return *reinterpret_cast<const MapEntry*>(&row);
}

/// Where the entries of one opcode are: [first, end), searched from first + group start where there is a group index.
struct MapSlot {
  static constexpr uint8_t kNoGroup = 0;  // group_starts has zeros there, so that the decoder need not ask
  uint16_t first = 0;
  uint16_t end = 0;  // = first: no instruction
  bool has_modrm = false;
  uint8_t group = kNoGroup;
};

struct MapTable {
  static constexpr size_t kGroupsMax = 25;
  static constexpr size_t kGroupMinimum = 4;  // entries of one opcode from which the index by ModRM.reg pays

  const MapEntry* entries = nullptr;
  const MapTable* next = nullptr;  // where opcodes not found here are (a map split over two files)
  std::array<MapSlot, 256> slots{};
  std::array<std::array<uint8_t, 8>, kGroupsMax> group_starts{};
};

/// Not constexpr on purpose: a table that reaches a call of this does not compile.
void table_error(const char* what);

/// Builds the index; proves that the entries are in opcode order and that those of one opcode agree about ModRM.
template <size_t kCount>
consteval MapTable make_table(const MapEntry (&entries)[kCount], const MapTable* next = nullptr) {
  MapTable table;
  table.entries = entries;
  table.next = next;
  size_t groups = 1;  // after kNoGroup
  for (size_t i = 0; i < kCount;) {
    size_t end = i;
    bool selects_by_reg = false;
    while (end < kCount && entries[end].opcode == entries[i].opcode) {
      selects_by_reg |= (entries[end].mask & 7u << key::kRegShift) != 0;
      if (entries[end].has_modrm != entries[i].has_modrm) table_error("entries of one opcode disagree about ModRM");
      ++end;
    }
    if (end < kCount && entries[end].opcode < entries[i].opcode) table_error("entries are not in opcode order");
    MapSlot& slot = table.slots[entries[i].opcode];
    slot = {static_cast<uint16_t>(i), static_cast<uint16_t>(end), entries[i].has_modrm, MapSlot::kNoGroup};
    if (end - i >= MapTable::kGroupMinimum && selects_by_reg) {
      if (groups == MapTable::kGroupsMax) table_error("kGroupsMax is too small");
      for (unsigned reg = 0; reg < 8; ++reg) {
        size_t first = i;
        const auto key_reg = static_cast<uint16_t>(reg << key::kRegShift);
        while (first < end &&
               ((entries[first].mask & (entries[first].value ^ key_reg)) & (7u << key::kRegShift)) != 0) {
          ++first;
        }
        table.group_starts[groups][reg] = static_cast<uint8_t>(first - i);
      }
      slot.group = static_cast<uint8_t>(groups++);
    }
    i = end;
  }
  return table;
}

extern const MapTable kTableLegacy;  // one-byte opcodes, next = kTableX87
extern const MapTable kTableX87;     // D8 to DF
extern const MapTable kTable0F;      // two-byte opcodes: integer and system, next = kTable0FSimd
extern const MapTable kTable0FSimd;  // two-byte opcodes: MMX and SSE
extern const MapTable kTable0F38;
extern const MapTable kTable0F3A;
extern const MapTable kTableVex0F;
extern const MapTable kTableVex0F38;
extern const MapTable kTableVex0F3A;

}  // namespace tenon::x86
