// Re-encoding: random guest instructions of every row of the opcode tables, taken over by HostInsn::from(), given other
// registers and another memory operand, encoded, and decoded again: the same instruction with the new operands.
//
// A short run is part of every test run. TENON_REENCODE_CASES=100000000 sets another number of random strings,
// TENON_REENCODE_SEED another seed.
#include <Zydis/Zydis.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/jit/assembler.hh"
#include "engine/x86/decode_table.hh"

namespace tenon::jit {
namespace {

using x86::CodeSize;
using x86::DecodeStatus;
using x86::Insn;
using x86::MapEntry;
using x86::Op;
using x86::Operand;

constexpr uint64_t kCases = 3'000'000;
using Bytes = std::array<uint8_t, 20>;

uint64_t number_from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 0) : otherwise;
}

std::string hex(const uint8_t* bytes, size_t count) {
  std::string text;
  std::array<char, 4> digits{};
  for (size_t i = 0; i < count; ++i) {
    std::snprintf(digits.data(), digits.size(), "%02x ", bytes[i]);
    text += digits.data();
  }
  return text;
}

bool has_operand(const Insn& insn, std::initializer_list<Operand> wanted) {
  const auto& operands = insn.row->operands;
  return std::any_of(operands.begin(), operands.end(), [&wanted](Operand operand) {
    return std::find(wanted.begin(), wanted.end(), operand) != wanted.end();
  });
}

/// Direct branches are not for re-encoding.
bool is_reencodable(const x86::OpcodeRow& row) {
  const auto is_direct = [](Operand o) { return o == Operand::kJb || o == Operand::kJz || o == Operand::kAp; };
  return std::none_of(row.operands.begin(), row.operands.end(), is_direct);
}

/// Rows that from() is for.
std::vector<const x86::OpcodeRow*> wanted_rows() {
  std::vector<const x86::OpcodeRow*> rows;
  for (const x86::MapTable* table :
       {&x86::kTableLegacy, &x86::kTableX87, &x86::kTable0F, &x86::kTable0FSimd, &x86::kTable0F38, &x86::kTable0F3A,
        &x86::kTableVex0F, &x86::kTableVex0F38, &x86::kTableVex0F3A}) {
    for (const x86::MapSlot& slot : table->slots) {
      for (unsigned i = slot.first; i < slot.end; ++i) {
        const x86::OpcodeRow& row = table->entries[i].row;
        if ((row.flags & x86::kInvalid64) == 0 && is_reencodable(row)) rows.push_back(&row);
      }
    }
  }
  return rows;
}

class Random {
 public:
  explicit Random(uint64_t seed) : generator_(seed) {}
  unsigned below(unsigned limit) { return static_cast<unsigned>(static_cast<uint32_t>(generator_()) % limit); }
  bool one_in(unsigned n) { return below(n) == 0; }
  uint64_t bits() { return generator_(); }

 private:
  std::mt19937_64 generator_;
};

/// Random strings that reach every opcode map often: prefixes, REX, escape bytes or VEX, the rest random.
void random_string(Random& random, Bytes& bytes) {
  static constexpr std::array<uint8_t, 8> kPrefixes = {0x66, 0xf2, 0xf3, 0x66, 0xf0, 0x65, 0x64, 0x67};
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.bits());
  size_t at = 0;
  for (unsigned count = random.one_in(2) ? random.below(3) : 0; count != 0; --count) {
    bytes[at++] = kPrefixes[random.below(kPrefixes.size())];
  }
  if (random.one_in(3)) bytes[at++] = static_cast<uint8_t>(0x40 | random.below(16));
  const unsigned kind = random.below(16);
  if (kind >= 4 && kind < 10) {
    bytes[at] = 0x0f;
    if (kind >= 8) bytes[at + 1] = kind == 8 ? 0x38 : 0x3a;
  } else if (kind >= 10 && kind < 12) {
    bytes[at] = 0xc5;
    if (random.one_in(2)) bytes[at + 1] |= 0x78;  // vvvv unused
  } else if (kind >= 12) {
    bytes[at] = 0xc4;
    bytes[at + 1] = static_cast<uint8_t>((bytes[at + 1] & 0xe0) | (1 + random.below(3)));
    if (random.one_in(2)) bytes[at + 2] |= 0x78;
  }
}

HostOperand random_memory(Random& random, bool vsib, unsigned registers) {
  HostOperand operand;
  operand.is_register = false;
  operand.gs = random.one_in(3);
  if (!random.one_in(4)) operand.base = static_cast<HostRegister>(random.below(registers));
  if (vsib || random.one_in(2)) {
    do {
      operand.index = static_cast<HostRegister>(random.below(registers));
    } while (!vsib && operand.index == kHostRsp);
    operand.scale = static_cast<uint8_t>(random.below(4));
  }
  switch (random.below(4)) {
    case 0: break;
    case 1: operand.displacement = static_cast<int8_t>(random.bits()); break;
    case 2: operand.displacement = random.one_in(2) ? 128 : -129; break;
    default: operand.displacement = static_cast<int32_t>(random.bits()); break;
  }
  return operand;
}

/// Other registers where the row has registers; the memory operand is replaced wherever there is one.
void change_operands(const Insn& insn, Random& random, HostInsn& host) {
  const MapEntry& entry = x86::entry_of(*insn.row);
  const bool high_byte = HostInsn::uses_high_byte(insn);
  const unsigned all = high_byte ? 8 : 16;  // AH and REX do not go together
  EXPECT_FALSE(high_byte && (host.w || host.rex));
  const auto any = [&random](unsigned limit) { return static_cast<HostRegister>(random.below(limit)); };
  const auto in = [](Operand operand, Operand first, Operand last) { return x86::in_range(operand, first, last); };
  for (const Operand operand : insn.row->operands) {
    if (in(operand, Operand::kGb, Operand::kGa) || in(operand, Operand::kVx, Operand::kVd)) host.reg = any(all);
    if (operand == Operand::kPq) host.reg = any(8);
    if (in(operand, Operand::kEb, Operand::kRa)) host.rm.reg = any(all);
    if (in(operand, Operand::kWx, Operand::kUq)) host.rm.reg = any(16);
    if (operand == Operand::kStI || in(operand, Operand::kQq, Operand::kNq)) host.rm.reg = any(8);
    if (x86::is_in_vvvv(operand)) host.vvvv = any(16);
    if (x86::is_in_opcode(operand)) host.reg = any(all);
  }
  if (host.opcode_register && (host.opcode & 0xf8) == 0x90 && host.reg == kHostRax) host.reg = 1;  // 90 is NOP
  if (insn.is_memory) host.rm = random_memory(random, entry.vsib, all);
  if (entry.byte_register && !high_byte) host.rex = true;  // SPL to DIL are among the registers now
}

bool is_legal_gather(const HostInsn& host) {
  return host.reg != host.vvvv && host.reg != host.rm.index && host.vvvv != host.rm.index;
}

bool same_address(const HostOperand& expected, const Insn& again) {
  return again.base == expected.base && again.index == expected.index && again.displacement == expected.displacement &&
         (again.index == x86::kNoRegister || again.scale == expected.scale);
}

/// `again` names the same memory as `host`; an unscaled index alone may have become the base.
bool same_memory(const HostInsn& host, const Insn& again) {
  HostOperand other = host.rm;
  if (!x86::entry_of(*again.row).vsib && other.base == kNoHostRegister && other.scale == 0) {
    std::swap(other.base, other.index);
  }
  return again.is_memory && again.address_size == 8 && (again.segment == x86::kGs) == host.rm.gs &&
         (same_address(host.rm, again) || same_address(other, again));
}

/// A register in the opcode means a row for each register.
bool is_same_row(const x86::OpcodeRow& left, const x86::OpcodeRow& right) {
  return &left == &right ||
         (x86::entry_of(left).opcode_register && left.op == right.op && left.operands == right.operands);
}

/// What differs between the guest's instruction and `again`, decoded from the encoding of `host`.
std::string difference(const Insn& insn, const HostInsn& host, const Insn& again) {
  const bool is_offset_form = has_operand(insn, {Operand::kOb, Operand::kOv});
  const MapEntry& entry = x86::entry_of(*insn.row);
  if (!is_offset_form && !is_same_row(*insn.row, *again.row)) return "row";
  if (is_offset_form && again.row->op != Op::kMov) return "row";
  if (is_offset_form && has_operand(insn, {Operand::kOb}) != has_operand(again, {Operand::kEb})) return "byte";
  if (again.operand_size != insn.operand_size || again.vector_bytes != insn.vector_bytes) return "size";
  constexpr unsigned kSame = x86::kPrefixLock | x86::kPrefixOperandSize | x86::kPrefixRexW;
  if (((again.prefixes ^ insn.prefixes) & kSame) != 0) return "prefixes";
  constexpr unsigned kRepeat = x86::kPrefixRep | x86::kPrefixRepne;
  if ((again.prefixes & kRepeat) != (entry.repeat_counts ? insn.prefixes & kRepeat : 0u)) return "F2 or F3";
  if (!is_offset_form && (again.immediate != insn.immediate || again.immediate2 != insn.immediate2)) return "immediate";
  if ((insn.has_modrm || host.opcode_register) && again.reg != (host.reg & entry.reg_mask)) return "reg";
  if (again.vvvv != host.vvvv) return "vvvv";
  if (insn.is_memory ? !same_memory(host, again) : again.is_memory || again.rm != host.rm.reg) return "rm";
  if (HostInsn::uses_high_byte(insn) && (again.prefixes & x86::kPrefixRex) != 0) return "REX with a high byte";
  if (!HostInsn::uses_high_byte(insn) && HostInsn::uses_high_byte(again)) return "has become a high byte";
  return {};
}

class Reencode : public testing::Test {
 protected:
  Reencode() {
    ZydisDecoderInit(&zydis_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (const ZydisDecoderMode is_nop_here :
         {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET, ZYDIS_DECODER_MODE_CLDEMOTE}) {
      ZydisDecoderEnableMode(&zydis_, is_nop_here, ZYAN_FALSE);
    }
  }

  /// Encodes and decodes again. Empty: all is well.
  std::string check(const Insn& insn, const HostInsn& host, const uint8_t* original) {
    Assembler assembler(std::as_writable_bytes(std::span(code_)), 0);
    assembler.encode(host);
    size_ = assembler.offset();
    Insn again;
    if (x86::decode(std::span(code_).first(size_), CodeSize::k64, again) != DecodeStatus::kOk) return "not decodable";
    if (again.length != size_) return "length";
    if (std::string what = difference(insn, host, again); !what.empty()) return what;
    return zydis_agrees(insn, original) ? "" : "mnemonic";
  }

  /// Zydis takes both for the same operation, where it knows the first at all.
  bool zydis_agrees(const Insn& insn, const uint8_t* original) {
    constexpr unsigned kRepeat = x86::kPrefixRep | x86::kPrefixRepne;
    if ((insn.prefixes & kRepeat) != 0 && !x86::entry_of(*insn.row).repeat_counts) return true;  // ENDBR without F3
    ZydisDecodedInstruction first;
    ZydisDecodedInstruction second;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&zydis_, nullptr, original, insn.length, &first))) return true;
    return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&zydis_, nullptr, code_.data(), size_, &second)) &&
           first.mnemonic == second.mnemonic && second.length == size_;
  }

  ZydisDecoder zydis_{};
  std::array<uint8_t, Assembler::kRoomBytes> code_{};
  size_t size_ = 0;
};

/// As the guest has it: the operand that from() leaves out. False where the assembler has no such address.
bool keep_memory(const Insn& insn, HostInsn& host) {
  const bool is_offset = has_operand(insn, {Operand::kOb, Operand::kOv});
  if (insn.address_size != 8 || insn.base == x86::kRipBase || insn.segment == x86::kFs || is_offset) return false;
  host.rm = HostOperand::at(insn.base, insn.index, insn.scale, insn.displacement);
  host.rm.gs = insn.segment == x86::kGs;
  return true;
}

TEST_F(Reencode, RandomInstructionsWithOtherOperands) {
  const uint64_t cases = number_from_environment("TENON_REENCODE_CASES", kCases);
  Random random(number_from_environment("TENON_REENCODE_SEED", 1));
  std::set<const x86::OpcodeRow*> rows;
  std::map<std::string, std::string> failures;  // with an example
  uint64_t checked = 0;
  Bytes bytes{};
  Insn insn;
  for (uint64_t i = 0; i < cases; ++i) {
    random_string(random, bytes);
    if (x86::decode(bytes, CodeSize::k64, insn) != DecodeStatus::kOk || !is_reencodable(*insn.row)) continue;
    HostInsn host = HostInsn::from(insn);
    change_operands(insn, random, host);
    if (x86::entry_of(*insn.row).vsib && !is_legal_gather(host)) continue;
    rows.insert(insn.row);
    ++checked;
    if (const std::string what = check(insn, host, bytes.data()); !what.empty()) {
      failures[x86::op_name(insn.row->op) + (": " + what)] =
          hex(bytes.data(), insn.length) + "-> " + hex(code_.data(), size_);
    }
  }
  for (const auto& [what, example] : failures) ADD_FAILURE() << what << ": " << example;
  const std::vector<const x86::OpcodeRow*> wanted = wanted_rows();
  std::printf("%llu instructions, %zu of %zu rows\n", static_cast<unsigned long long>(checked), rows.size(),
              wanted.size());
  for (const x86::OpcodeRow* row : wanted) {
    EXPECT_TRUE(rows.contains(row) || cases < kCases) << x86::op_name(row->op) << " was never reached";
  }
}

TEST_F(Reencode, UnchangedInstructionsDoNotGrow) {
  Random random(number_from_environment("TENON_REENCODE_SEED", 2));
  Bytes bytes{};
  Insn insn;
  for (uint64_t i = 0; i < 1'000'000; ++i) {
    random_string(random, bytes);
    if (x86::decode(bytes, CodeSize::k64, insn) != DecodeStatus::kOk || !is_reencodable(*insn.row)) continue;
    HostInsn host = HostInsn::from(insn);
    if (insn.is_memory && !keep_memory(insn, host)) continue;
    const std::string what = check(insn, host, bytes.data());
    ASSERT_EQ(what, "") << hex(bytes.data(), insn.length) << "-> " << hex(code_.data(), size_);
    ASSERT_LE(size_, insn.length) << hex(bytes.data(), insn.length) << "-> " << hex(code_.data(), size_);
  }
}

/// One instruction from bytes.
HostInsn taken_over(std::initializer_list<uint8_t> bytes) {
  Insn insn;
  EXPECT_EQ(x86::decode(std::span(bytes.begin(), bytes.size()), CodeSize::k64, insn), DecodeStatus::kOk);
  return HostInsn::from(insn);
}
bool uses_high_byte(std::initializer_list<uint8_t> bytes) {
  Insn insn;
  EXPECT_EQ(x86::decode(std::span(bytes.begin(), bytes.size()), CodeSize::k64, insn), DecodeStatus::kOk);
  return HostInsn::uses_high_byte(insn);
}

TEST(HostInsn, RepeatPrefixesThatMeanNothingGo) {
  EXPECT_FALSE(taken_over({0xf3, 0x89, 0x03}).rep);          // XRELEASE MOV
  EXPECT_FALSE(taken_over({0xf2, 0xf0, 0x01, 0x03}).repne);  // XACQUIRE LOCK ADD
  EXPECT_TRUE(taken_over({0xf2, 0xf0, 0x01, 0x03}).lock);
  EXPECT_TRUE(taken_over({0xf3, 0x0f, 0xb8, 0xc1}).rep);    // POPCNT
  EXPECT_TRUE(taken_over({0xf3, 0x0f, 0xbc, 0xc1}).rep);    // TZCNT, without it BSF
  EXPECT_TRUE(taken_over({0xf2, 0x0f, 0x10, 0xc1}).repne);  // MOVSD
  EXPECT_TRUE(taken_over({0xf3, 0x90}).rep);                // PAUSE
  EXPECT_TRUE(taken_over({0xf3, 0xa4}).rep);                // REP MOVSB
}

TEST(HostInsn, ExtensionsAndFixedRegistersHaveNoRexBits) {
  const HostInsn neg = taken_over({0x45, 0xf7, 0xd8});  // NEG R8D with a REX.R that means nothing
  EXPECT_EQ(neg.reg, 3);
  EXPECT_EQ(neg.rm.reg, 8);
  const HostInsn fchs = taken_over({0x41, 0xd9, 0xe0});
  EXPECT_EQ(fchs.reg, 4);
  EXPECT_EQ(fchs.rm.reg, 0);
  const HostInsn fxch = taken_over({0x41, 0xd9, 0xcb});
  EXPECT_EQ(fxch.rm.reg, 3);
}

TEST(HostInsn, OffsetFormsBecomeModrmForms) {
  const HostInsn load = taken_over({0x48, 0xa1, 1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_EQ(load.opcode, 0x8b);
  EXPECT_TRUE(load.w && load.has_modrm);
  EXPECT_EQ(load.reg, kHostRax);
  EXPECT_EQ(load.immediate_bytes, 0);
  EXPECT_EQ(taken_over({0xa2, 1, 2, 3, 4, 5, 6, 7, 8}).opcode, 0x88);
}

TEST(HostInsn, HighBytes) {
  EXPECT_TRUE(uses_high_byte({0x88, 0xe0}));         // MOV AL, AH
  EXPECT_TRUE(uses_high_byte({0x88, 0xc4}));         // MOV AH, AL
  EXPECT_FALSE(uses_high_byte({0x40, 0x88, 0xe0}));  // MOV AL, SPL
  EXPECT_FALSE(uses_high_byte({0x88, 0xc8}));
  EXPECT_FALSE(uses_high_byte({0x88, 0x04, 0x24}));  // MOV [RSP], AL
  EXPECT_TRUE(uses_high_byte({0x88, 0x24, 0x24}));   // MOV [RSP], AH
  EXPECT_TRUE(uses_high_byte({0xb7, 1}));            // MOV BH, 1
  EXPECT_FALSE(uses_high_byte({0xb3, 1}));
  EXPECT_TRUE(uses_high_byte({0x0f, 0xb6, 0xc4}));   // MOVZX EAX, AH
  EXPECT_FALSE(uses_high_byte({0x0f, 0xb6, 0xe0}));  // MOVZX ESP, AL
  EXPECT_TRUE(uses_high_byte({0x0f, 0x94, 0xc7}));   // SETZ BH
  EXPECT_FALSE(uses_high_byte({0x89, 0xe7}));
}

}  // namespace
}  // namespace tenon::jit
