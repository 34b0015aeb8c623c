#include "engine/jit/emitter.hh"

#include "engine/interp/trace_builder.hh"

namespace tenon::jit {

namespace {

using x86::Insn;

constexpr size_t in_translated(size_t offset) { return offsetof(interp::Cpu, translated) + offset; }

/// Branches that the end of the block emits.
bool emitted_by_end(BlockEnd end) {
  switch (end) {
    case BlockEnd::kJump:
    case BlockEnd::kConditional:
    case BlockEnd::kCall:
    case BlockEnd::kIndirectJump:
    case BlockEnd::kIndirectCall:
    case BlockEnd::kReturn: return true;
    default: return false;
  }
}

/// Whether lockstep compares it: it does the same again from the same state, and its template never calls the
/// interpreter in the middle of a block.
bool is_compared(const Insn& insn, EmitKind kind) {
  const bool random = insn.row->op == x86::Op::kRdrand || insn.row->op == x86::Op::kRdseed;
  return kind <= EmitKind::kBranch && !random;
}

}  // namespace

size_t gpr_offset(unsigned guest) { return offsetof(interp::Cpu, gpr) + guest * sizeof(uint64_t); }

void save_flags(Assembler& assembler) {
  assembler.store(HostOperand::state(state::scratch(kScratchRax)), kHostRax);
  assembler.lahf();
  assembler.seto_al();
  assembler.store(HostOperand::state(state::scratch(kScratchFlags)), kHostRax, false);
}

void restore_flags(Assembler& assembler) {
  assembler.mov(kHostRax, HostOperand::state(state::scratch(kScratchFlags)), false);
  assembler.add_al(127);  // OF where AL was 1
  assembler.sahf();
  assembler.mov(kHostRax, HostOperand::state(state::scratch(kScratchRax)));
}

namespace state {

size_t scratch(unsigned slot) {
  return in_translated(offsetof(interp::TranslatedState, scratch)) + slot * sizeof(uint64_t);
}

const size_t kTranslated = in_translated(0);
const size_t kCodeShift = in_translated(offsetof(interp::TranslatedState, code_shift));
const size_t kPoke = in_translated(offsetof(interp::TranslatedState, poke));
const size_t kVectorLive = in_translated(offsetof(interp::TranslatedState, vector_live));
const size_t kX87Live = in_translated(offsetof(interp::TranslatedState, x87_live));
const size_t kIndexMask = in_translated(offsetof(interp::TranslatedState, index_mask));
const size_t kPageNumberMask = in_translated(offsetof(interp::TranslatedState, page_number_mask));
const size_t kPageOffsetMask = in_translated(offsetof(interp::TranslatedState, page_offset_mask));
const size_t kIndirectMask = in_translated(offsetof(interp::TranslatedState, indirect_mask));
const size_t kInstructions = in_translated(offsetof(interp::TranslatedState, translated_instructions));
const size_t kHostTscOffset = in_translated(offsetof(interp::TranslatedState, host_tsc_offset));
const size_t kReturnStackTop = in_translated(offsetof(interp::TranslatedState, return_stack_top));

const size_t kSystemFlags = offsetof(interp::Cpu, system_flags);

size_t indirect_table(unsigned privilege) {
  return in_translated(offsetof(interp::TranslatedState, indirect)) +
         privilege * sizeof(uint64_t) * interp::TranslatedState::kIndirectEntries;
}

size_t stack_negative_page(unsigned privilege) {
  return in_translated(offsetof(interp::TranslatedState, stack_negative_page)) + privilege * sizeof(uint64_t);
}
size_t group_address(unsigned slot) {
  return in_translated(offsetof(interp::TranslatedState, group_address)) + slot * sizeof(uint64_t);
}
size_t stack_addend(unsigned privilege) {
  return in_translated(offsetof(interp::TranslatedState, stack_addend)) + privilege * sizeof(uint64_t);
}

}  // namespace state

bool Emitter::run(const Assembler& assembler, Fragment& fragment, uint32_t second_mapping) {
  asm_ = assembler;
  mode_ = fragment.mode & static_cast<Mode>(~kModePlain);
  plain_ = (fragment.mode & kModePlain) != 0;
  shifted_ = is_shifted(fragment.mode);
  second_mapping_ = second_mapping;
  fragment_.linear_page = fragment.linear_page;
  fragment_.entries.clear();
  fragment_.slots.clear();
  fragment_.side.clear();
  fragment_.branches.clear();
  fragment_.sites.clear();
  block_address_.fill(0);
  block_fixups_.clear();
  cold_fills_.clear();
  cold_loads_.clear();
  cold_exits_.clear();
  cold_poll_exits_.clear();
  cold_groups_.clear();
  cold_words_.clear();
  cold_interprets_.clear();
  plan();
  plan_stretches();
  for (unsigned i = 0; i < region_.block_count; ++i) emit_block(i);
  for (const BlockFixup& fixup : block_fixups_) asm_.bind(fixup.from, block_address_[fixup.block]);
  emit_cold();
  fragment.entries = fragment_.entries;
  fragment.slots = fragment_.slots;
  fragment.side = fragment_.side;
  fragment.branches = fragment_.branches;
  fragment.sites = std::move(fragment_.sites);
  fragment.size_bytes = static_cast<uint32_t>(asm_.offset());
  return !asm_.overflowed();
}

void Emitter::plan() {
  for (unsigned i = 0; i < region_.block_count; ++i) {
    const RegionBlock& block = region_.blocks[i];
    for (unsigned j = 0; j < block.count; ++j) {
      const BlockEnd end = j + 1u == block.count ? block.end : BlockEnd::kFallThrough;
      plan_insn(region_.insns[block.first + j].insn, end, plans_[block.first + j]);
    }
  }
}

void Emitter::plan_stretches() {
  std::array<uint8_t, kRegionBlocksMax> ways_in{};
  const auto count = [&](uint8_t block) {
    if (block != RegionBlock::kOutside) ++ways_in[block];
  };
  for (unsigned i = 0; i < region_.block_count; ++i) {
    count(region_.blocks[i].next);
    count(region_.blocks[i].taken);
  }
  starts_stretch_[0] = true;
  for (unsigned i = 1; i < region_.block_count; ++i) {
    const RegionBlock& before = region_.blocks[i - 1];
    const uint8_t behind = before.end == BlockEnd::kJump ? before.taken : before.next;
    starts_stretch_[i] =
        before.end > BlockEnd::kConditional || behind != i || ways_in[i] != 1 || region_.blocks[i].loop_head;
  }
}

/// Plans what is checked where from block `index` on, of which nothing is known here.
void Emitter::begin_stretch(unsigned index) {
  unsigned last = index;
  while (last + 1 < region_.block_count && !starts_stretch_[last + 1]) ++last;
  stretch_ = {.first = region_.blocks[index].first,
              .end = unsigned{region_.blocks[last].first} + region_.blocks[last].count};
  checked_early_ = nullptr;
  plan_stack();
  plan_bases();
}

/// In place: a plan made elsewhere and copied is read before it is written.
void Emitter::plan_insn(const Insn& insn, BlockEnd end, InsnPlan& plan) const {
  plan.kind = emit_kind(insn);
  if (!is_allowed(insn, plan.kind) || cuts_rip(insn)) plan.kind = EmitKind::kInterpret;
  find_gpr_operands(insn, plan.gprs);
  plan.stack = stack_use(insn, plan, end);
  const bool divides = insn.row->op == x86::Op::kDiv || insn.row->op == x86::Op::kIdiv;
  const bool same = plan.kind == EmitKind::kSame && !insn.is_memory && plan.gprs.homed == 0 && !divides;
  const auto is_here = [](uint8_t reg) { return reg >= 16 || !is_homed(reg); };
  const bool lea = plan.kind == EmitKind::kLea && insn.operand_size != 2 && plan.gprs.homed == 0 &&
                   is_here(insn.base) && is_here(insn.index);
  plan.registers_only = same || lea || plan.kind == EmitKind::kNothing;
}

void Emitter::emit_block(unsigned index) {
  const RegionBlock& block = region_.blocks[index];
  const uint64_t start_rip = rip_of(block.start_offset);
  block_address_[index] = asm_.address();
  if (starts_stretch_[index]) begin_stretch(index);
  if (block.count != 0 && can_resume()) {
    fragment_.entries.push_back({start_rip, static_cast<uint32_t>(asm_.offset())});
    vector_known_ = false;
    x87_known_ = false;
    r11_taken();
    r10_home_ = {};
  }
  side_entry(block.start_offset, true);
  if (second_mapping_ != 0) guard_second_page();
  if (block.loop_head) poll(start_rip, block.live_in != 0);
  if (options_.count_instructions) count_block(block);
  const unsigned end = unsigned{block.first} + block.count;
  for (unsigned i = block.first; i < end; ++i) {
    const RegionInsn& insn = region_.insns[i];
    if (i != block.first) side_entry(insn.offset, true);
    size_t& group = stretch_.stack_group;
    if (group < stack_groups_.size() && stack_groups_[group].check_before == i)
      emit_stack_check(insn, stack_groups_[group++]);
    emit_base_checks(i);
    check_early(block, i);
    last_in_block_ = i + 1 == end;
    if (last_in_block_ && emitted_by_end(block.end)) break;
    if (last_in_block_ && block.end == BlockEnd::kStop && !goes_on(insn.insn)) {
      emit_transfer(insn);
    } else {
      emit_insn(insn);
    }
    follow_stack(i);
    follow_bases(i);
    if (checked_early_ == &insn) checked_early_ = nullptr;
  }
  emit_end(block, index);
}

void Emitter::side_entry(uint16_t guest_offset, bool resumable) {
  fragment_.side.push_back({static_cast<uint32_t>(asm_.offset()), guest_offset, resumable && can_resume()});
}

/// Whether what is emitted here relies on nothing but guest state.
bool Emitter::can_resume() const { return !stack_.active && checked_early_ == nullptr && !has_active_base(); }

/// Keeps flags: RCX = 0 where the mapping is the one translated from.
void Emitter::guard_second_page() {
  asm_.push(kHostRcx);
  emit_mapping_check(asm_, state::kTranslated,
                     {.linear_page = fragment_.linear_page + kPageSize,
                      .number = second_mapping_,
                      .privilege = privilege(mode_),
                      .shifted = shifted_});
  const Fixup same = asm_.jrcxz_forward();
  cold_exits_.push_back({.from = asm_.jmp_forward(),
                         .target_rip = rip_of(region_.blocks[0].start_offset),
                         .is_guard = true,
                         .pops_rcx = true});
  asm_.bind_short(same);
  asm_.pop(kHostRcx);
}

void Emitter::count_block(const RegionBlock& block) {
  const HostOperand count = HostOperand::state(state::kInstructions);
  asm_.mov(kHostR10, count);
  asm_.lea(kHostR10, HostOperand::at(kHostR10, block.count));
  asm_.store(count, kHostR10);
}

/// Whether the host may execute it as it is: exposed to the guest, and allowed by control registers.
bool Emitter::is_allowed(const Insn& insn, EmitKind kind) const {
  if (options_.lockstep && !is_compared(insn, kind)) return false;
  if (!cpu_.features.test(static_cast<size_t>(x86::required_feature(insn)))) return false;
  const bool vector = kind == EmitKind::kVector || kind == EmitKind::kVectorX87;
  const bool x87 = kind == EmitKind::kX87 || kind == EmitKind::kVectorX87;
  if (x87 && (mode_ & kModeX87) == 0) return false;
  if (!vector) return true;
  return (mode_ & ((insn.row->flags & x86::kAvxState) != 0 ? kModeAvx : kModeVector)) != 0;
}

void Emitter::emit_insn(const RegionInsn& region_insn) {
  const EmitKind kind = plan_of(region_insn).kind;
  if (kind >= EmitKind::kString) r11_taken();  // those end a group and use R11 as they like
  switch (kind) {
    case EmitKind::kInterpret:
    case EmitKind::kSyscall:
    case EmitKind::kSysret:
    case EmitKind::kBranch: return interpret(region_insn, false);
    case EmitKind::kSame:
    case EmitKind::kVector:
    case EmitKind::kX87:
    case EmitKind::kVectorX87: return emit_same(region_insn, kind);
    case EmitKind::kNothing: return;
    case EmitKind::kLea: return emit_lea(region_insn);
    case EmitKind::kPush: return emit_push(region_insn);
    case EmitKind::kPop: return emit_pop(region_insn);
    case EmitKind::kLeave: return emit_leave(region_insn);
    case EmitKind::kString: return emit_string(region_insn);
    case EmitKind::kBitString: return emit_bit_string(region_insn);
    case EmitKind::kFlagBit: return emit_flag_bit(region_insn);
    case EmitKind::kPushFlags: return emit_push_flags(region_insn);
    case EmitKind::kPopFlags: return emit_pop_flags(region_insn);
    case EmitKind::kTime: return emit_time(region_insn);
    case EmitKind::kBase: return emit_base(region_insn);
    case EmitKind::kSwapgs: return emit_swapgs(region_insn);
    case EmitKind::kReadControl: return emit_read_control(region_insn);
    case EmitKind::kReadSegment: return emit_read_segment(region_insn);
    case EmitKind::kSerialize: return emit_serialize(region_insn);
  }
}

/// The interpreter's handler executes it. `stops`: nobody knows yet where control goes on.
void Emitter::interpret(const RegionInsn& region_insn, bool stops) {
  InterpretSite& site = make_site(region_insn);
  asm_.mov_immediate(kHostR10, reinterpret_cast<uint64_t>(&site));
  asm_.jmp(stubs_.runtime.exit_interpret);
  end_template(site);
  if (stops) site.resume = 0;
}

/// Code behind the template may be come to from the interpreter: C++ may have dropped what was checked before.
void Emitter::end_template(InterpretSite& site) {
  stack_.active = false;
  for (BaseGroup& group : base_groups_) group.active = false;
  checked_early_ = nullptr;
  r11_taken();
  site.resume = asm_.address();
}

InterpretSite& Emitter::make_site(const RegionInsn& region_insn) {
  auto site = std::make_unique<InterpretSite>();
  site->rip = rip_of(region_insn.offset);
  site->next_rip = next_rip(region_insn);
  site->shifted = shifted_;
  site->operation = region_insn.insn.row->op;
  interp::TraceBuilder builder(cpu_, x86::CodeSize::k64);
  builder.add(region_insn.insn);
  builder.finish(interp::end_of_trace);
  site->set_steps(builder.steps());
  fragment_.sites.push_back(std::move(site));
  return *fragment_.sites.back();
}

// --- Registers that are loaded only where they are needed.

void Emitter::need_vector(const RegionInsn& insn) {
  if (!vector_known_) need_live(insn, state::kVectorLive, stubs_.runtime.load_vector);
  vector_known_ = true;
}

void Emitter::need_x87(const RegionInsn& insn) {
  if (!x87_known_) need_live(insn, state::kX87Live, stubs_.runtime.load_x87);
  x87_known_ = true;
}

void Emitter::need_live(const RegionInsn& insn, size_t flag_offset, uint64_t stub) {
  if (insn.live_before == 0) {
    asm_.cmp_byte_immediate(HostOperand::state(flag_offset), 0);
    const Fixup from = asm_.jcc_forward(kEqual);
    return cold_loads_.push_back({.from = from, .back = asm_.address(), .stub = stub});
  }
  // MOVZX ECX, byte: RCX is 0 where the registers must be loaded.
  asm_.push(kHostRcx);
  asm_.encode({.map = x86::OpcodeMap::k0F,
               .opcode = 0xb6,
               .has_modrm = true,
               .reg = kHostRcx,
               .rm = HostOperand::state(flag_offset)});
  const Fixup load = asm_.jrcxz_forward();
  const Fixup live = asm_.jmp_short_forward();
  asm_.bind_short(load);
  asm_.call(stub);
  asm_.bind_short(live);
  asm_.pop(kHostRcx);
}

// --- Cold code.

void Emitter::emit_cold() {
  emit_cold_fills();
  emit_cold_groups();
  for (const ColdLoad& load : cold_loads_) {
    asm_.bind(load.from);
    asm_.call(load.stub);
    asm_.jmp(load.back);
  }
  emit_cold_interprets();
  emit_cold_exits();
  emit_plain_exits();
  for (const ColdWord& word : cold_words_) {
    asm_.bind(word.from);
    asm_.word(word.value);
  }
}

void Emitter::emit_cold_interprets() {
  for (const ColdInterpret& cold : cold_interprets_) {
    asm_.bind(cold.from);
    asm_.mov_immediate(kHostR10, reinterpret_cast<uint64_t>(cold.site));
    asm_.jmp(stubs_.runtime.exit_interpret);
  }
}

void Emitter::emit_cold_fills() {
  for (const ColdFill& fill : cold_fills_) {
    asm_.bind(fill.from);
    side_entry(fill.guest_offset, false);
    if (fill.pops_rcx) asm_.pop(kHostRcx);
    if (fill.entry_offset >= 0) asm_.mov_immediate(kHostR11, static_cast<uint64_t>(fill.entry_offset));
    asm_.call(fill.stub);
    asm_.jmp(fill.retry);
  }
}

void Emitter::emit_cold_exits() {
  for (const ColdPollExit& exit : cold_poll_exits_) {
    asm_.bind(exit.from);
    exit_to(exit.target_rip, exit.target_rip);
  }
  for (const ColdExit& exit : cold_exits_) {
    asm_.bind(exit.from);
    if (exit.pops_rcx) asm_.pop(kHostRcx);
    fragment_.slots.push_back({.target_rip = exit.target_rip,
                               .rel32_offset = exit.from.at,
                               .stub_offset = static_cast<uint32_t>(asm_.offset()),
                               .is_poll = exit.is_poll,
                               .is_guard = exit.is_guard});
    asm_.call(stubs_.runtime.exit_link);
  }
}

void Emitter::emit_cold_groups() {
  for (ColdGroup& cold : cold_groups_) {
    asm_.bind(cold.from);
    side_entry(cold.guest_offset, false);
    if (cold.pops_rcx) asm_.pop(kHostRcx);
    asm_.call(cold.stub);
    asm_.bind(asm_.jmp_forward(), cold.retry);  // GroupFillData, from here
    asm_.word(static_cast<uint16_t>(cold.span));
    cold.from = asm_.rel32();
  }
}

/// How groups go on in code without them: they share the stub that leaves, as R10 says who comes (exit_named_link).
void Emitter::emit_plain_exits() {
  if (cold_groups_.empty()) return;
  const auto stub_offset = static_cast<uint32_t>(asm_.offset());
  for (const ColdGroup& cold : cold_groups_) {
    asm_.bind(cold.from);
    fragment_.slots.push_back({.target_rip = rip_of(cold.guest_offset),
                               .rel32_offset = cold.from.at,
                               .stub_offset = stub_offset,
                               .plain = true});
  }
  asm_.bind(asm_.jmp_forward(), stubs_.runtime.exit_named_link);
}

}  // namespace tenon::jit
