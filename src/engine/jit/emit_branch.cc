// How blocks end: jumps, calls, returns, and the polls that let other threads get the vCPU's attention.
//
// Every loop passes a poll: loop heads inside the region, branches backward out of it, and indirect jumps poll; calls do
// not, because endless calls run over the end of the shadow return stack, which leaves translated code.
#include "base/check.hh"
#include "engine/jit/emitter.hh"
#include "engine/x86/decode_table.hh"

namespace tenon::jit {

namespace {

using x86::Insn;
using x86::Op;
using x86::Operand;

bool fits_int32(uint64_t value) { return static_cast<uint64_t>(static_cast<int32_t>(value)) == value; }

constexpr unsigned kIndirectShift = 3;  // RIP bits 14:3 index the indirect-branch cache
constexpr int32_t kIndirectMask = (interp::TranslatedState::kIndirectEntries - 1) << 4;
static_assert(sizeof(interp::IndirectEntry) == 16);

}  // namespace

// --- Leaving and going on.

/// Jump to where translated code for `rip` is, once it is known.
void Emitter::exit_to(uint64_t rip, uint64_t from_rip) {
  if (rip <= from_rip) poll(rip, true);
  cold_exits_.push_back({.from = asm_.jmp_forward(), .target_rip = rip, .is_poll = false});
}

/// Control goes to `block` (or out of the region to `rip`); nothing is emitted where it is the next one anyway.
void Emitter::go_to(uint8_t block, uint64_t rip, uint64_t from_rip, unsigned next_block) {
  if (block == RegionBlock::kOutside) return exit_to(rip, from_rip);
  if (block == next_block) return;
  if (block_address_[block] != 0) return asm_.jmp(block_address_[block]);
  block_fixups_.push_back({.from = asm_.jmp_forward(), .block = block});
}

/// A conditional jump that has been emitted goes to `block` or out of the region.
void Emitter::branch_to(Fixup from, uint8_t block, uint64_t target_rip, uint64_t from_rip) {
  if (block != RegionBlock::kOutside) {
    if (block_address_[block] != 0) return asm_.bind(from, block_address_[block]);
    return block_fixups_.push_back({.from = from, .block = block});
  }
  if (target_rip <= from_rip) return cold_poll_exits_.push_back({.from = from, .target_rip = target_rip});
  cold_exits_.push_back({.from = from, .target_rip = target_rip, .is_poll = false});
}

/// Leaves where something is pending; goes on at `rip` later.
void Emitter::poll(uint64_t rip, bool flags_live) {
  if (!flags_live) {
    asm_.cmp_immediate(HostOperand::state(state::kPoke), 0, false);
    cold_exits_.push_back({.from = asm_.jcc_forward(kNotEqual), .target_rip = rip, .is_poll = true});
    return;
  }
  r11_is_stack_ = false;
  asm_.mov(kHostR11, HostOperand::r(kHostRcx));
  asm_.mov(kHostRcx, HostOperand::state(state::kPoke), false);
  const Fixup quiet = asm_.jrcxz_forward();
  asm_.mov(kHostRcx, HostOperand::r(kHostR11));
  cold_exits_.push_back({.from = asm_.jmp_forward(), .target_rip = rip, .is_poll = true});
  asm_.bind_short(quiet);
  asm_.mov(kHostRcx, HostOperand::r(kHostR11));
}

// --- Direct branches.

void Emitter::emit_end(const RegionBlock& block, unsigned index) {
  const uint64_t end_rip = rip_of(block.end_offset);
  const uint64_t start_rip = rip_of(block.start_offset);
  if (block.count == 0) return exit_to(end_rip, 0);
  const RegionInsn& last = region_.insns[block.first + block.count - 1];
  const uint64_t last_rip = rip_of(last.offset);
  switch (block.end) {
    case BlockEnd::kFallThrough: return go_to(block.next, end_rip, start_rip, index + 1);
    case BlockEnd::kJump:
      return go_to(block.taken, fragment_.linear_page + static_cast<uint64_t>(block.taken_offset), last_rip, index + 1);
    case BlockEnd::kConditional: return emit_conditional(block, last);
    case BlockEnd::kCall: return emit_call(block, last, index);
    case BlockEnd::kIndirectJump: return emit_indirect_jump(last);
    case BlockEnd::kIndirectCall: return emit_indirect_call(block, last);
    case BlockEnd::kReturn: return emit_return(last);
    case BlockEnd::kStop: return;  // the interpreter has executed it and knows where to go on
    case BlockEnd::kUndecodable: return exit_to(end_rip, start_rip);
  }
}

void Emitter::emit_conditional(const RegionBlock& block, const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  const uint64_t target = fragment_.linear_page + static_cast<uint64_t>(block.taken_offset);
  const uint64_t rip = rip_of(region_insn.offset);
  const auto index = static_cast<unsigned>(&block - region_.blocks.data());
  if (insn.row->op == Op::kJcc) {
    const Fixup taken = asm_.jcc_forward(static_cast<Condition>(insn.opcode & 15));
    branch_to(taken, block.taken, target, rip);
  } else if ((insn.row->op == Op::kLoop || insn.row->op == Op::kJcxz) && insn.address_size == 8) {
    emit_counter_branch(block, region_insn);
  } else {
    return interpret(region_insn, true);
  }
  go_to(block.next, rip_of(block.end_offset), 0, index + 1);
}

/// LOOP and JRCXZ: neither touches flags.
void Emitter::emit_counter_branch(const RegionBlock& block, const RegionInsn& region_insn) {
  const uint64_t target = fragment_.linear_page + static_cast<uint64_t>(block.taken_offset);
  const uint64_t rip = rip_of(region_insn.offset);
  const bool loop = region_insn.insn.row->op == Op::kLoop;
  if (loop) asm_.lea(kHostRcx, HostOperand::at(kHostRcx, -1));
  const Fixup zero = asm_.jrcxz_forward();
  if (loop) {
    branch_to(asm_.jmp_forward(), block.taken, target, rip);
    return asm_.bind_short(zero);
  }
  const Fixup not_zero = asm_.jmp_short_forward();
  asm_.bind_short(zero);
  branch_to(asm_.jmp_forward(), block.taken, target, rip);
  asm_.bind_short(not_zero);
}

// --- Calls and returns.

/// Guest stack and shadow stack get the return address.
void Emitter::push_return_address(const RegionInsn& insn) {
  const uint64_t address = next_rip(insn);
  HostOperand to = check(insn, stack_address(-8), 8, Access::kWrite, insn.live_before != 0);
  if (fits_int32(address)) {
    asm_.store_immediate(to, static_cast<int32_t>(address));
    asm_.push_immediate(static_cast<int32_t>(address));
  } else {
    to = collapse(to);
    r11_is_stack_ = false;
    asm_.mov_immediate(kHostR11, address);
    asm_.store(to, kHostR11);
    asm_.push(kHostR11);
  }
  asm_.lea(kHostR9, HostOperand::at(kHostR9, -8));
}

void Emitter::emit_call(const RegionBlock& block, const RegionInsn& insn, unsigned index) {
  if (insn.insn.operand_size != 8) return interpret(insn, true);
  push_return_address(insn);
  const uint64_t target = fragment_.linear_page + static_cast<uint64_t>(block.taken_offset);
  cold_exits_.push_back({.from = asm_.call_forward(), .target_rip = target, .is_poll = false});
  asm_.lea(kHostRsp, HostOperand::at(kHostRsp, 8));
  go_to(block.next, next_rip(insn), 0, index + 1);
}

/// R10 = where an indirect branch goes.
void Emitter::load_target(const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  if (!insn.is_memory) {
    return asm_.mov(kHostR10, is_homed(insn.rm) ? home(insn.rm) : HostOperand::r(host_of(insn.rm)));
  }
  asm_.mov(kHostR10, check(region_insn, address_of(region_insn), 8, Access::kRead, region_insn.live_before != 0));
}

void Emitter::emit_indirect_jump(const RegionInsn& insn) {
  if (insn.insn.operand_size != 8) return interpret(insn, true);
  load_target(insn);
  indirect_lookup(insn, 0);
}

void Emitter::emit_indirect_call(const RegionBlock& block, const RegionInsn& insn) {
  if (insn.insn.operand_size != 8) return interpret(insn, true);
  const HostOperand target = HostOperand::state(state::scratch(kScratchValue));
  load_target(insn);
  asm_.store(target, kHostR10);
  push_return_address(insn);
  const Fixup call = asm_.call_forward();
  asm_.lea(kHostRsp, HostOperand::at(kHostRsp, 8));
  go_to(block.next, next_rip(insn), 0, kRegionBlocksMax);  // never falls through: the look-up stands in between
  asm_.bind(call);
  asm_.mov(kHostR10, target);
  indirect_lookup(insn, -8);
}

/// Jumps to R10 by the indirect-branch cache. `stack_bytes`: what the instruction has added to RSP.
void Emitter::indirect_lookup(const RegionInsn& insn, int32_t stack_bytes) {
  const size_t table = state::indirect_table(privilege(mode_));
  const HostOperand saved_rcx = HostOperand::state(state::scratch(kScratchRcx));
  asm_.pext(kHostR11, kHostR10, HostOperand::state(state::kIndirectMask));
  asm_.lea(kHostR11, HostOperand::at(kHostR11, kHostR11, 0));
  asm_.store(saved_rcx, kHostRcx);
  asm_.mov(kHostRcx, HostOperand::state(state::kPoke), false);
  const Fixup quiet = asm_.jrcxz_forward();
  const Fixup miss = asm_.jmp_short_forward();
  asm_.bind_short(quiet);
  asm_.mov(kHostRcx, HostOperand::state(table + offsetof(interp::IndirectEntry, negative_target), kHostR11, 3));
  asm_.lea(kHostRcx, HostOperand::at(kHostRcx, kHostR10, 0));
  const Fixup hit = asm_.jrcxz_forward();
  asm_.bind_short(miss);
  asm_.mov(kHostRcx, saved_rcx);
  cold_misses_.push_back({.from = asm_.jmp_forward(),
                                 .rip = rip_of(insn.offset),
                                 .stack_bytes = stack_bytes,
                                 .stub = stubs_.runtime.exit_indirect});
  asm_.bind_short(hit);
  asm_.mov(kHostRcx, saved_rcx);
  asm_.jmp_indirect(HostOperand::state(table + offsetof(interp::IndirectEntry, host), kHostR11, 3));
}

/// RET: the shadow stack says where the host code of the return address is, if it names the same guest address.
void Emitter::emit_return(const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  if (insn.operand_size != 8) return interpret(region_insn, true);
  const bool pops = insn.row->operands[0] == Operand::kIw;
  const int32_t stack_bytes = 8 + (pops ? static_cast<int32_t>(insn.immediate & 0xffff) : 0);
  asm_.mov(kHostR10, check(region_insn, stack_address(0), 8, Access::kRead, region_insn.live_before != 0));
  asm_.lea(kHostR9, HostOperand::at(kHostR9, stack_bytes));
  // RCX = target - shadow, without flags: NOT and LEA.
  asm_.mov(kHostR11, HostOperand::r(kHostRcx));
  asm_.mov(kHostRcx, HostOperand::at(kHostRsp, 8));
  asm_.encode({.opcode = 0xf7, .w = true, .has_modrm = true, .reg = 2, .rm = HostOperand::r(kHostRcx)});
  asm_.lea(kHostRcx, HostOperand::at(kHostRcx, kHostR10, 0, 1));
  const Fixup hit = asm_.jrcxz_forward();
  asm_.mov(kHostRcx, HostOperand::r(kHostR11));
  cold_misses_.push_back({.from = asm_.jmp_forward(),
                                 .rip = rip_of(region_insn.offset),
                                 .stack_bytes = stack_bytes,
                                 .stub = stubs_.return_miss[privilege(mode_)]});
  asm_.bind_short(hit);
  asm_.mov(kHostRcx, HostOperand::r(kHostR11));
  asm_.ret();
}

// --- The stubs behind them.

namespace {

/// Empties the shadow stack, polls, looks R10 up and goes there, or leaves. Flags stay.
uint64_t make_return_miss(Assembler& assembler, const Stubs& runtime, unsigned privilege_index) {
  const uint64_t start = assembler.address();
  const size_t table = state::indirect_table(privilege_index);
  assembler.mov(kHostRsp, HostOperand::state(state::kReturnStackTop));
  assembler.pext(kHostR11, kHostR10, HostOperand::state(state::kIndirectMask));
  assembler.lea(kHostR11, HostOperand::at(kHostR11, kHostR11, 0));
  const HostOperand saved_rcx = HostOperand::state(state::scratch(kScratchRcx));
  assembler.store(saved_rcx, kHostRcx);
  assembler.mov(kHostRcx, HostOperand::state(state::kPoke), false);
  const Fixup quiet = assembler.jrcxz_forward();
  const Fixup miss = assembler.jmp_short_forward();
  assembler.bind_short(quiet);
  assembler.mov(kHostRcx, HostOperand::state(table + offsetof(interp::IndirectEntry, negative_target), kHostR11, 3));
  assembler.lea(kHostRcx, HostOperand::at(kHostRcx, kHostR10, 0));
  const Fixup hit = assembler.jrcxz_forward();
  assembler.bind_short(miss);
  assembler.mov(kHostRcx, saved_rcx);
  assembler.jmp(runtime.exit_indirect);
  assembler.bind_short(hit);
  assembler.mov(kHostRcx, saved_rcx);
  assembler.jmp_indirect(HostOperand::state(table + offsetof(interp::IndirectEntry, host), kHostR11, 3));
  return start;
}

uint64_t make_resume(Assembler& assembler, bool vector, bool x87, const Stubs& runtime) {
  const uint64_t start = assembler.address();
  if (vector) assembler.call(runtime.load_vector);
  if (x87) assembler.call(runtime.load_x87);
  assembler.jmp_indirect(HostOperand::state(state::scratch(kScratchResume)));
  return start;
}

}  // namespace

TranslatorStubs make_translator_stubs(Assembler& assembler, const Stubs& runtime) {
  static_assert(kIndirectShift == 3 && kIndirectMask == 0xfff0);
  TranslatorStubs stubs;
  stubs.runtime = runtime;
  for (unsigned i = 0; i < 2; ++i) stubs.return_miss[i] = make_return_miss(assembler, runtime, i);
  stubs.resume_vector = make_resume(assembler, true, false, runtime);
  stubs.resume_x87 = make_resume(assembler, false, true, runtime);
  stubs.resume_both = make_resume(assembler, true, true, runtime);
  return stubs;
}

}  // namespace tenon::jit
