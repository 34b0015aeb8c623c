#include "engine/interp/trace_builder.hh"

#include <limits>

#include "engine/interp/cpu_inline.hh"
#include "engine/interp/families.hh"

namespace tenon::interp {
namespace {

void undefined_opcode(Cpu& cpu, const Step* step) { return cpu.fault(step, x86::kInvalidOpcode); }

/// Longer than 15 bytes (SDM Vol. 2 2.3.11).
void too_long(Cpu& cpu, const Step* step) { return cpu.fault(step, x86::kGeneralProtection, 0); }

/// Before a RIP-relative operand whose displacement does not leave room for the offset in the trace: the offset goes
/// into a register of its own.
void set_operand_constant(Cpu& cpu, const Step* step) {
  cpu.gpr[Cpu::kConstant] = step->scratch;
  return next(cpu, step);
}

bool is_lock_allowed(const Insn& insn) { return (insn.row->flags & x86::kLockable) != 0 && insn.is_memory; }

}  // namespace

void TraceBuilder::add_helper(Handler handler) {
  Step& step = steps_[count_++];
  step.handler = handler;
  step.offset = offset_;
}

/// Base and index become valid numbers into Cpu::gpr. False: a constant must be set by a helper before the instruction.
bool TraceBuilder::prepare_address(Insn& insn) {
  if (insn.index == x86::kNoRegister) {
    insn.index = Cpu::kZeroRegister;
    insn.scale = 0;
  }
  if (insn.base == x86::kNoRegister) insn.base = Cpu::kZeroRegister;
  if (insn.base != x86::kRipBase) return true;
  insn.base = Cpu::kTraceRip;
  const int64_t displacement = int64_t{insn.displacement} + offset_ + insn.length;
  if (displacement <= std::numeric_limits<int32_t>::max()) {
    insn.displacement = static_cast<int32_t>(displacement);
    return true;
  }
  insn.index = Cpu::kConstant;
  return false;
}

void TraceBuilder::add(const Insn& decoded) {
  Insn insn = decoded;
  if (!insn.has_modrm) insn.rm = insn.reg;  // a register in the opcode, or the accumulator
  const auto& operands = insn.row->operands;
  if (operands[1] == x86::Operand::kOne) insn.immediate = 1;
  if (!prepare_address(insn)) {
    add_helper(set_operand_constant);
    steps_[count_ - 1].scratch = offset_ + insn.length;
  }
  Step& step = steps_[count_++];
  step.scratch = 0;
  step.handler = choose(insn, step.scratch);
  step.insn = insn;
  step.offset = offset_;
  step.remaining = 1;
  offset_ = static_cast<uint16_t>(offset_ + insn.length);
}

void TraceBuilder::add_undecodable(x86::DecodeStatus status) {
  Step& step = steps_[count_++];
  step.handler = status == x86::DecodeStatus::kTooLong ? too_long : undefined_opcode;
  step.offset = offset_;
  step.remaining = 1;
}

void TraceBuilder::finish(Handler end) {
  Step& last = steps_[count_++];
  last.handler = end;
  last.offset = offset_;
  unsigned instructions = 0;
  for (unsigned i = count_ - 1; i-- > 0;) {
    // add() has marked instructions with 1; a helper counts like the instruction it stands before.
    const bool is_instruction = steps_[i].remaining != 0;
    if (is_instruction) ++instructions;
    steps_[i].remaining = static_cast<uint16_t>(instructions - 1);
  }
}

bool TraceBuilder::is_exposed(const Insn& insn) const {
  const auto& row = *insn.row;
  const bool wide = insn.vector_bytes == 32 && row.feature_256 != x86::Feature::kBase;
  return cpu_.features.test(static_cast<size_t>(wide ? row.feature_256 : row.feature));
}

Handler TraceBuilder::choose(Insn& insn, uint64_t& scratch) const {
  if (insn.prefixes & x86::kPrefixLock && !is_lock_allowed(insn)) return undefined_opcode;
  if (!is_exposed(insn)) {
    // Without the feature F3 is ignored: BSR and BSF (SDM Vol. 2, LZCNT and TZCNT).
    const bool is_count = insn.row->op == x86::Op::kLzcnt || insn.row->op == x86::Op::kTzcnt;
    return is_count ? bit_scan_handler(insn, code_size_) : undefined_opcode;
  }
  if (const Handler handler = integer_handler(insn, code_size_)) return handler;
  if (const Handler handler = system_handler(insn, code_size_)) return handler;
  if (const Handler handler = vector_handler(insn, cpu_, scratch)) return handler;
  return undefined_opcode;
}

}  // namespace tenon::interp
