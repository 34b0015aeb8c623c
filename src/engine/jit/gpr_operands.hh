// The general registers among an instruction's operands: which field of its encoding names each, and what happens to it.
#pragma once

#include "engine/jit/emitter.hh"

namespace tenon::jit {

enum class Field : uint8_t { kNone, kReg, kRm, kVvvv, kOpcode };

struct GprOperand {
  Field field = Field::kNone;
  uint8_t guest = 0;
  unsigned size_bytes = 0;
  bool read = false;
  bool written = false;
};

struct GprOperands {
  GprOperand list[4];
  unsigned count = 0;
  unsigned homed = 0;
};

/// All of them but those that the opcode implies. `homed` counts the ones that no host register holds.
GprOperands gpr_operands(const x86::Insn& insn);

}  // namespace tenon::jit
