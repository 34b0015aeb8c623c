// How blocks end: jumps, calls, returns, and the polls that let other threads get the vCPU's attention.
//
// Every loop passes a poll: loop heads inside the region, branches backward out of it, and the ways in for indirect
// branches poll; calls do not, because endless calls run over the guest's stack.
//
// Indirect branches and returns do not know what flags their targets read, so they change none, and they do not look at
// what they find: an indirect branch jumps to where the indirect-branch cache says, a return to where the shadow return
// stack says, with the guest RIP in R10, and it is the code there that compares R10 with its own RIP (LEA and JRCXZ, no
// flags) and has it looked up where they differ. So a branch is two instructions, a return is RET.
#include <bit>

#include "base/check.hh"
#include "engine/jit/emitter.hh"
#include "engine/x86/decode_table.hh"

namespace tenon::jit {

namespace {

using x86::Insn;
using x86::Op;
using x86::Operand;

}  // namespace

HostOperand cached_target(Assembler& assembler, unsigned privilege_index) {
  assembler.pext(kHostR11, kHostR10, HostOperand::state(state::kIndirectMask));
  return HostOperand::state(state::indirect_table(privilege_index), kHostR11, 3);
}

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
  asm_.push(kHostRcx);
  asm_.mov(kHostRcx, HostOperand::state(state::kPoke), false);
  const Fixup quiet = asm_.jrcxz_forward();
  cold_exits_.push_back({.from = asm_.jmp_forward(), .target_rip = rip, .is_poll = true, .pops_rcx = true});
  asm_.bind_short(quiet);
  asm_.pop(kHostRcx);
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
    case BlockEnd::kIndirectCall: return emit_indirect_call(block, last, index);
    case BlockEnd::kReturn: return emit_return(last);
    case BlockEnd::kStop:
      if (goes_on(last.insn)) exit_to(end_rip, 0);
      return;  // else the interpreter has executed it and knows where to go on
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

/// The guest's stack gets the return address.
void Emitter::push_return_address(const RegionInsn& insn) {
  const uint64_t address = next_rip(insn);
  HostOperand to = check(insn, stack_address(-8), 8, Access::kWrite, insn.live_before != 0);
  if (fits_int32(address) && !shifted_) {
    asm_.store_immediate(to, static_cast<int32_t>(address));
  } else {
    const HostRegister value = free_beside(to);
    emit_rip(value, {.constant = true, .linear = address, .shifted = shifted_});
    asm_.store(to, value);
  }
  asm_.lea(kHostR9, HostOperand::at(kHostR9, -8));
}

void Emitter::emit_call(const RegionBlock& block, const RegionInsn& insn, unsigned index) {
  if (insn.insn.operand_size != 8) return interpret(insn, true);
  push_return_address(insn);
  const uint64_t target = fragment_.linear_page + static_cast<uint64_t>(block.taken_offset);
  save_shift();
  cold_exits_.push_back({.from = asm_.call_forward(), .target_rip = target, .is_poll = false});
  emit_return_site(next_rip(insn));
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
  if (insn.insn.operand_size != 8 || cuts_rip(insn.insn)) return interpret(insn, true);
  load_target(insn);
  name_indirect(insn, 0);
  asm_.jmp_indirect(cached_target(asm_, privilege(mode_)));
}

void Emitter::emit_indirect_call(const RegionBlock& block, const RegionInsn& insn, unsigned index) {
  if (insn.insn.operand_size != 8 || cuts_rip(insn.insn)) return interpret(insn, true);
  // The push may change memory and RSP, and needs R10.
  if (insn.insn.is_memory || insn.insn.rm == x86::kRsp) {
    const HostOperand target = HostOperand::state(state::scratch(kScratchValue));
    load_target(insn);
    asm_.store(target, kHostR10);
    push_return_address(insn);
    asm_.mov(kHostR10, target);
  } else {
    push_return_address(insn);
    load_target(insn);
  }
  name_indirect(insn, -8);
  save_shift();
  asm_.call_indirect(cached_target(asm_, privilege(mode_)));
  emit_return_site(next_rip(insn));
  go_to(block.next, next_rip(insn), 0, index + 1);
}

/// Its name, should its target be no canonical address. `stack_bytes`: what it has added to RSP.
uint32_t Emitter::name_branch(const RegionInsn& insn, int32_t stack_bytes) {
  fragment_.branches.push_back(
      {.host_offset = static_cast<uint32_t>(asm_.offset()), .guest_offset = insn.offset, .stack_bytes = stack_bytes});
  return static_cast<uint32_t>(asm_.address());
}

/// R10 holds the target.
void Emitter::name_indirect(const RegionInsn& insn, int32_t stack_bytes) {
  const uint32_t name = name_branch(insn, stack_bytes);
  asm_.store_immediate(HostOperand::state(state::scratch(kScratchBranch)), static_cast<int32_t>(name), false);
}

/// RET: the shadow stack says where the return site's host code is, if R10 is what that expects. R11 names the RET.
void Emitter::emit_return(const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  if (insn.operand_size != 8) return interpret(region_insn, true);
  const bool pops = insn.row->operands[0] == Operand::kIw;
  const int32_t stack_bytes = 8 + (pops ? static_cast<int32_t>(insn.immediate & 0xffff) : 0);
  asm_.mov(kHostR10, check(region_insn, stack_address(0), 8, Access::kRead, region_insn.live_before != 0));
  asm_.lea(kHostR9, HostOperand::at(kHostR9, stack_bytes));
  asm_.mov_immediate(kHostR11, name_branch(region_insn, stack_bytes));
  asm_.ret();
}

/// Before a call: the callee may lie in an object with another shift. The return site takes it off the shadow stack.
void Emitter::save_shift() {
  if (shifted_) asm_.push(HostOperand::state(state::kCodeShift));
}

/// Behind a call: a RET has come here with its guest RIP in R10 and its name in R11, which stays; `rip` is the one that
/// belongs here. Flags stay even where this code does not read them: another RIP's may.
void Emitter::emit_return_site(uint64_t rip) {
  if (shifted_) return emit_shifted_return_site(rip);
  const uint64_t negative = uint64_t{0} - rip;
  r11_taken();
  asm_.push(kHostRcx);
  if (fits_int32(negative)) {
    asm_.lea(kHostRcx, HostOperand::at(kHostR10, static_cast<int32_t>(negative)));
  } else {
    cold_words_.push_back({.from = asm_.mov_forward(kHostRcx), .value = negative});
    asm_.lea(kHostRcx, HostOperand::at(kHostRcx, kHostR10, 0));
  }
  const Fixup same = asm_.jrcxz_forward();
  asm_.jmp(stubs_.return_mismatch[privilege(mode_)]);
  asm_.bind_short(same);
  asm_.pop(kHostRcx);
}

/// The same with the shift that save_shift() left, which is valid again: RCX = shift + rip - R10.
void Emitter::emit_shifted_return_site(uint64_t rip) {
  r11_taken();
  asm_.push(kHostRcx);
  asm_.mov(kHostRcx, HostOperand::at(kHostRsp, sizeof(uint64_t)));
  asm_.store(HostOperand::state(state::kCodeShift), kHostRcx);
  asm_.not_(kHostR10);
  asm_.lea(kHostRcx, HostOperand::at(kHostRcx, kHostR10, 0, static_cast<int32_t>(rip + 1)));
  const Fixup same = asm_.jrcxz_forward();
  asm_.not_(kHostR10);
  asm_.jmp(stubs_.return_mismatch[privilege(mode_)]);
  asm_.bind_short(same);
  asm_.pop(kHostRcx);
  asm_.lea(kHostRsp, HostOperand::at(kHostRsp, sizeof(uint64_t)));
}

// --- The stubs behind them.

namespace {

/// Empties the shadow stack and goes on as the indirect branch R11 to R10. Flags stay. `mismatch`: where RCX is on the
/// shadow stack.
uint64_t make_return_miss(Assembler& assembler, unsigned privilege_index, bool mismatch) {
  const uint64_t start = assembler.address();
  if (mismatch) assembler.pop(kHostRcx);
  assembler.store(HostOperand::state(state::scratch(kScratchBranch)), kHostR11, false);
  assembler.mov(kHostRsp, HostOperand::state(state::kReturnStackTop));
  assembler.jmp_indirect(cached_target(assembler, privilege_index));
  return start;
}

/// TranslatorStubs::look_further: RememberedCode::find() in machine code, and a poll.
uint64_t make_look_further(Assembler& assembler, unsigned side, const RememberedCode& remembered, uint64_t miss) {
  using Found = RememberedCode::Found;
  constexpr uint8_t kFoundShift = std::countr_zero(sizeof(Found));
  const uint64_t start = assembler.address();
  std::array<Fixup, 3> misses;
  const auto load = [&](const uint64_t& value) {
    assembler.mov_immediate(kHostRax, reinterpret_cast<uint64_t>(&value));
    assembler.mov(kHostRax, HostOperand::at(kHostRax));
  };
  const auto field = [](size_t offset) { return HostOperand::at(kHostR11, static_cast<int32_t>(offset)); };

  save_flags(assembler);
  assembler.cmp_immediate(HostOperand::state(state::kPoke), 0, false);
  misses[0] = assembler.jcc_forward(kNotEqual);
  assembler.mov_immediate(kHostR11, RememberedCode::kFoundMultiplier);
  assembler.imul(kHostR11, HostOperand::r(kHostR10));
  assembler.shr_immediate(kHostR11, RememberedCode::kFoundShift);
  assembler.shl_immediate(kHostR11, kFoundShift);
  assembler.mov_immediate(kHostRax, reinterpret_cast<uint64_t>(remembered.found(side)));
  assembler.add(kHostR11, HostOperand::r(kHostRax));
  assembler.cmp(kHostR10, field(offsetof(Found, rip)));
  misses[1] = assembler.jcc_forward(kNotEqual);
  load(remembered.epochs(side).local);
  assembler.cmp(kHostRax, field(offsetof(Found, epoch)));
  const Fixup local = assembler.jcc_short_forward(kEqual);
  load(remembered.epochs(side).global);
  assembler.cmp(kHostRax, field(offsetof(Found, epoch)));
  misses[2] = assembler.jcc_forward(kNotEqual);
  assembler.bind_short(local);
  assembler.mov(kHostRax, field(offsetof(Found, shift)));
  assembler.store(HostOperand::state(state::kCodeShift), kHostRax);
  assembler.mov(kHostR11, field(offsetof(Found, host)));
  restore_flags(assembler);
  assembler.jmp_indirect(HostOperand::r(kHostR11));
  for (const Fixup from : misses) assembler.bind(from);
  restore_flags(assembler);
  assembler.jmp(miss);
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

TranslatorStubs make_translator_stubs(Assembler& assembler, const Stubs& runtime, interp::Cpu& cpu,
                                      const RememberedCode& remembered) {
  TranslatorStubs stubs;
  stubs.runtime = runtime;
  for (unsigned i = 0; i < 2; ++i) {
    stubs.look_further[i] = make_look_further(assembler, i, remembered, runtime.exit_indirect);
    stubs.return_miss[i] = make_return_miss(assembler, i, false);
    stubs.return_mismatch[i] = make_return_miss(assembler, i, true);
  }
  stubs.resume_vector = make_resume(assembler, true, false, runtime);
  stubs.resume_x87 = make_resume(assembler, false, true, runtime);
  stubs.resume_both = make_resume(assembler, true, true, runtime);
  make_repeat_stubs(assembler, cpu, stubs);
  make_level_stubs(assembler, cpu, stubs);
  return stubs;
}

// --- The way in for indirect branches.

namespace {

/// R10 - rip + 8 * poke is 0 only where the RIPs are the same and nothing is pending: R10 = rip - 8 * poke would have
/// chosen another entry.
void emit_entry_check(Assembler& assembler, const IndirectEntry& entry) {
  const uint64_t negative = uint64_t{0} - entry.rip;
  const bool near = fits_int32(negative);
  assembler.mov(kHostR11, HostOperand::r(kHostRcx));
  if (!near) {
    assembler.mov_immediate(kHostRcx, negative);
    assembler.lea(kHostR10, HostOperand::at(kHostR10, kHostRcx, 0));
  }
  assembler.mov(kHostRcx, HostOperand::state(state::kPoke), false);
  assembler.lea(kHostRcx, HostOperand::at(kHostR10, kHostRcx, 3, near ? static_cast<int32_t>(negative) : 0));
  const Fixup same = assembler.jrcxz_forward();
  if (!near) {
    assembler.mov_immediate(kHostRcx, entry.rip);
    assembler.lea(kHostR10, HostOperand::at(kHostR10, kHostRcx, 0));
  }
  assembler.mov(kHostRcx, HostOperand::r(kHostR11));
  assembler.jmp(entry.miss);
  assembler.bind_short(same);
  assembler.mov(kHostRcx, HostOperand::r(kHostR11));
}

/// R11 = R10 - rip is the shift, if it is whole pages, and the page of R10 is mapped as one that is so far away.
void emit_shifted_entry_check(Assembler& assembler, const IndirectEntry& entry) {
  const auto rip = static_cast<int32_t>(entry.rip);
  assembler.push(kHostRcx);
  assembler.lea(kHostR11, HostOperand::at(kHostR10, -rip));
  assembler.pext(kHostRcx, kHostR11, HostOperand::state(state::kPageOffsetMask));
  const Fixup whole = assembler.jrcxz_forward();
  const uint64_t miss = assembler.address();
  assembler.lea(kHostR10, HostOperand::at(kHostR11, rip));
  assembler.pop(kHostRcx);
  assembler.jmp(entry.miss);
  assembler.bind_short(whole);
  emit_shifted_mapping_check(assembler, state::kTranslated, entry.number);
  const Fixup mapped = assembler.jrcxz_forward();
  assembler.jmp(miss);
  assembler.bind_short(mapped);
  assembler.mov(kHostRcx, HostOperand::state(state::kPoke), false);
  const Fixup quiet = assembler.jrcxz_forward();
  assembler.jmp(miss);
  assembler.bind_short(quiet);
  assembler.store(HostOperand::state(state::kCodeShift), kHostR11);
  assembler.pop(kHostRcx);
}

}  // namespace

/// Jumped to with R10 = guest RIP by what bits 14:3 of it chose from the indirect-branch cache.
LinkSlot emit_indirect_entry(Assembler& assembler, const IndirectEntry& entry) {
  entry.shifted ? emit_shifted_entry_check(assembler, entry) : emit_entry_check(assembler, entry);
  LinkSlot slot{.target_rip = entry.rip};
  const Fixup link = assembler.jmp_forward();
  slot.rel32_offset = link.at;
  slot.stub_offset = static_cast<uint32_t>(assembler.offset());
  assembler.bind(link);
  assembler.call(entry.exit_link);
  return slot;
}

}  // namespace tenon::jit
