// Every form of every decoder row that can be compared with the host in user mode, and random encodings of it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/x86/decode_table.hh"
#include "tests/differential/random.hh"

namespace tenon::differential {

/// Why an instruction is not compared with the host in user mode, or nullptr where it is. Every such Op has unit tests
/// of its own.
const char* exclusion(x86::Op op);

/// One decoder row with a register operand or with a memory operand.
struct RowForm {
  const x86::MapEntry* entry = nullptr;
  x86::OpcodeMap map = x86::OpcodeMap::kLegacy;
  bool is_memory = false;

  std::string name() const;  // "Add/memory 01"
};

class RowCatalog {
 public:
  RowCatalog();
  size_t size() const { return forms_.size(); }
  /// Rows that are compared, and rows of 64-bit mode in all.
  size_t rows() const { return first_forms_.size(); }
  size_t rows_of_64_bit_mode() const { return rows_of_64_bit_mode_; }
  /// "reason: operations" for what is left out, a line each.
  std::string describe_exclusions() const;
  const RowForm& form(size_t index) const { return forms_[index]; }
  /// The form an instruction is of; size() if it is none of the comparable ones.
  size_t find(const x86::Insn& insn) const;

 private:
  void add(const x86::MapEntry& entry, x86::OpcodeMap map);

  size_t rows_of_64_bit_mode_ = 0;
  std::map<std::string, std::set<std::string>> excluded_;              // operations by reason
  std::vector<RowForm> forms_;                                         // forms of one row side by side
  std::vector<std::pair<const x86::OpcodeRow*, size_t>> first_forms_;  // sorted by row
};

/// Random bytes that decode as `form`, prefixes included; the bytes behind the opcode and ModRM are left random. May
/// still be refused by the decoder (LOCK on a register, registers of a gather that are not distinct).
void encode(const RowForm& form, Random& random, std::array<uint8_t, x86::kInsnLengthMax>& bytes);

}  // namespace tenon::differential
