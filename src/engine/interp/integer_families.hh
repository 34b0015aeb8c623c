// The integer families, one file each: handlers of their operations, nullptr for all others.
#pragma once

#include "engine/interp/cpu.hh"

namespace tenon::interp {

Handler alu_handler(const Insn& insn, x86::CodeSize code_size);  // integer_alu.cc: ADD to CMP, TEST, INC, DEC, NEG, NOT
Handler shift_handler(const Insn& insn, x86::CodeSize code_size);     // integer_shift.cc: shifts, rotates, SHLD, SHRD
Handler multiply_handler(const Insn& insn, x86::CodeSize code_size);  // integer_multiply.cc: MUL, DIV, CBW.., BCD
Handler move_handler(const Insn& insn,
                     x86::CodeSize code_size);  // integer_move.cc: MOV, MOVZX.., LEA, SETcc, CMOVcc, XLAT...
Handler exchange_handler(const Insn& insn, x86::CodeSize code_size);  // integer_exchange.cc: XCHG, XADD, CMPXCHG*
Handler bit_handler(const Insn& insn, x86::CodeSize code_size);       // integer_bit.cc: BT*, BSF.., BMI, CRC32, ADX
Handler stack_handler(const Insn& insn, x86::CodeSize code_size);     // integer_stack.cc: PUSH to LEAVE, PUSHF, POPF
Handler branch_handler(const Insn& insn,
                       x86::CodeSize code_size);  // integer_branch.cc: near branches, LOOP, INT n, BOUND
Handler string_handler(const Insn& insn, x86::CodeSize code_size);  // integer_string.cc: MOVS, STOS, LODS, SCAS, CMPS
Handler flags_handler(const Insn& insn, x86::CodeSize code_size);  // integer_flags.cc: CLC to STI, LAHF, NOP, RDRAND...

}  // namespace tenon::interp
