// The general registers among an instruction's operands: which field of its encoding names each, and what happens to
// it.
#pragma once

#include "engine/jit/host_register.hh"

namespace tenon::jit {

enum class Field : uint8_t { kNone, kReg, kRm, kVvvv, kOpcode };

struct GprOperand {
  Field field = Field::kNone;
  uint8_t guest = 0;
  uint8_t size_bytes = 0;
  bool read = false;
  bool written = false;
};

struct GprOperands {
  GprOperand list[4];
  uint8_t count = 0;
  uint8_t homed = 0;
};

/// Guest registers that an instruction writes, operands and implied ones: one bit each.
uint16_t gprs_written(const x86::Insn& insn, const GprOperands& operands);

/// All of them but those that the opcode implies. `homed` counts the ones that no host register holds.
void find_gpr_operands(const x86::Insn& insn, GprOperands& all);

/// Whether it reads or writes a memory operand (and not only computes its address), and whether it writes it.
bool has_memory_access(const x86::Insn& insn);
bool writes_memory(const x86::Insn& insn);

}  // namespace tenon::jit
