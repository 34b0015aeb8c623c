// Accesses to the guest's stack: one check of the page for all of a stretch's, where it can be.
//
// Most memory accesses of compiled code are at known distances from RSP, and most of them lie where flags live, where a
// soft-TLB check is dear. So the stretch (Emitter::starts_stretch_) is looked through first: a run of accesses whose
// distance from RSP at one point is known becomes a group, and one check there, if possible where flags are dead,
// proves that [lowest, highest) lies in the page of the stack's one-entry TLB (TranslatedState::stack_*), which may be
// written. The accesses then take its addend and nothing else. Where the group does not lie in one writable page,
// control goes to the same code translated without groups (kModePlain).
//
// That a translation is used for the rest of a block without being looked up again is what a processor's TLB does, too.
// But nothing in a group may rely on it after C++ ran that could have dropped it: an interpreted instruction ends the
// group, and code inside a group is not resumed.
//
// Deviation: the check sets the page's D bit where the group only reads, or comes to none of its accesses because a
// conditional jump is taken before (SDM Vol. 3 4.8).
#include <algorithm>
#include <optional>

#include "engine/jit/emitter.hh"
#include "engine/x86/decode_table.hh"

namespace tenon::jit {

namespace {

using x86::Insn;
using x86::Op;
using x86::Operand;

constexpr int32_t kSpanMax = 2048;  // the more, the likelier it crosses into another page

bool is_plain_same(EmitKind kind) {
  switch (kind) {
    case EmitKind::kSame:
    case EmitKind::kVector:
    case EmitKind::kX87:
    case EmitKind::kVectorX87:
    case EmitKind::kNothing:
    case EmitKind::kLea: return true;
    default: return false;
  }
}

/// [RSP + displacement], with nothing that is not known here.
bool is_stack_operand(const Insn& insn) {
  return insn.is_memory && insn.base == x86::kRsp && insn.index == x86::kNoRegister && insn.address_size == 8 &&
         insn.segment < x86::kFs && x86::memory_operand_size(insn) != 0;
}

/// By how much an instruction that may write RSP moves it; nothing if that is not known.
std::optional<int32_t> constant_change(const Insn& insn) {
  const bool immediate = insn.row->operands[1] == Operand::kIz || insn.row->operands[1] == Operand::kIbs;
  const bool to_rsp = !insn.is_memory && insn.rm == x86::kRsp && insn.operand_size == 8;
  const auto amount = static_cast<int32_t>(insn.immediate);
  constexpr int32_t kLarge = 1 << 20;
  if (amount > kLarge || amount < -kLarge) return std::nullopt;
  if (insn.row->op == Op::kAdd && immediate && to_rsp) return amount;
  if (insn.row->op == Op::kSub && immediate && to_rsp) return -amount;
  const bool lea = insn.row->op == Op::kLea && insn.reg == x86::kRsp && insn.base == x86::kRsp &&
                   insn.index == x86::kNoRegister && insn.address_size == 8 && insn.operand_size == 8;
  if (lea && insn.displacement <= kLarge && insn.displacement >= -kLarge) return insn.displacement;
  return std::nullopt;
}

}  // namespace

Emitter::StackUse Emitter::stack_use(const Insn& insn, const InsnPlan& plan, BlockEnd end) const {
  StackUse use;
  const EmitKind kind = plan.kind;
  const bool near64 = insn.operand_size == 8;
  if (kind == EmitKind::kInterpret) {
    use.ends_group = true;
    return use;
  }
  if (is_stack_operand(insn) && kind != EmitKind::kLea && kind != EmitKind::kBitString)
    use.access(insn.displacement, x86::memory_operand_size(insn));
  if (is_plain_same(kind)) {
    if ((gprs_written(insn, plan.gprs) >> x86::kRsp & 1) == 0) return use;
    const std::optional<int32_t> change = constant_change(insn);
    use.ends_group = !change;
    use.change = change.value_or(0);
  } else if (kind == EmitKind::kPush && near64) {
    use.access(-8, 8);
    use.change = -8;
  } else if (kind == EmitKind::kPop && near64 && !insn.is_memory) {
    const unsigned guest = insn.row->operands[0] == Operand::kZv ? insn.reg : insn.rm;
    use.access(0, 8);
    use.change = 8;
    use.ends_group = guest == x86::kRsp;
  } else if ((end == BlockEnd::kCall || end == BlockEnd::kIndirectCall) && near64) {
    use.access(-8, 8);
  } else if (end == BlockEnd::kReturn && near64) {
    use.access(0, 8);
  } else if (kind != EmitKind::kBranch) {
    use.ends_group = true;
  }
  return use;
}

/// Finds the groups of a stretch. Their checks stand before RegionInsns, in order.
void Emitter::plan_stack() {
  stack_groups_.clear();
  stack_ = {};
  if (plain_) return;
  for (unsigned start = stretch_.first; start < stretch_.end;) start = plan_group(start);
}

/// One group from instruction `start` of the region on; returns where to look for the next.
unsigned Emitter::plan_group(unsigned start) {
  StackGroup group;
  bool any = false;
  unsigned first_access = 0;
  int32_t rsp = 0;  // from where it was at `start`
  unsigned i = start;
  for (; i < stretch_.end; ++i) {
    const StackUse& use = plans_[i].stack;
    int32_t low = any ? group.low : rsp;
    int32_t high = any ? group.high : rsp;
    for (unsigned j = 0; j < use.count; ++j) {
      const int32_t at = rsp + use.accesses[j].offset;
      const bool first = !any && j == 0;
      low = first ? at : std::min(low, at);
      high = first ? at + use.accesses[j].size_bytes : std::max(high, at + use.accesses[j].size_bytes);
    }
    if (high - low > kSpanMax) break;
    if (use.count != 0) {
      if (!any) first_access = i;
      any = true;
      group.last = static_cast<uint8_t>(i);
      group.low = low;
      group.high = high;
    }
    rsp += use.change;
    if (use.ends_group) {
      ++i;
      break;
    }
  }
  if (any) place_check(start, first_access, group);
  return std::max(i, start + 1);
}

/// The check goes before the first access, or farther up where flags are dead.
void Emitter::place_check(unsigned start, unsigned first_access, StackGroup group) {
  unsigned at = first_access;
  while (at > start && region_.insns[at].live_before != 0) --at;
  if (region_.insns[at].live_before != 0) at = first_access;
  int32_t rsp = 0;
  for (unsigned i = start; i < at; ++i) rsp += plans_[i].stack.change;
  group.check_before = static_cast<uint8_t>(at);
  group.low -= rsp;
  group.high -= rsp;
  stack_groups_.push_back(group);
}

/// Proves that the group's bytes lie in the stack's page, or goes on in code that does without.
void Emitter::emit_stack_check(const RegionInsn& insn, const StackGroup& group) {
  const unsigned side = privilege(mode_);
  const HostOperand negative_page = HostOperand::state(state::stack_negative_page(side));
  const HostOperand lowest = HostOperand::at(kHostR9, group.low);
  const int32_t span = group.high - group.low;
  ColdGroup cold{.from = {},
                 .retry = asm_.address(),
                 .stub = stubs_.runtime.fill_stack[side],
                 .span = span,
                 .guest_offset = insn.offset};
  if (insn.live_before == 0) {
    if (group.low == 0) {
      asm_.mov(kHostR10, HostOperand::r(kHostR9));
    } else {
      asm_.lea(kHostR10, lowest);
    }
    asm_.add(kHostR10, negative_page);
    asm_.cmp_immediate(HostOperand::r(kHostR10), static_cast<int32_t>(kPageSize) - span);
    cold.from = asm_.jcc_forward(kAbove);
  } else {
    // R10 = offset in the page; its page bits and those of the last byte's offset must all be 0.
    asm_.mov(kHostR10, negative_page);
    asm_.lea(kHostR10, HostOperand::at(kHostR10, kHostR9, 0, group.low));
    const HostOperand page_number = HostOperand::state(state::kPageNumberMask);
    asm_.push(kHostRcx);
    asm_.lea(kHostRcx, HostOperand::at(kHostR10, span - 1));
    asm_.pext(kHostR11, kHostR10, page_number);
    asm_.pext(kHostRcx, kHostRcx, page_number);
    asm_.lea(kHostRcx, HostOperand::at(kHostRcx, kHostR11, 0));
    const Fixup hit = asm_.jrcxz_forward();
    cold.from = asm_.jmp_forward();
    cold.pops_rcx = true;
    asm_.bind_short(hit);
    asm_.pop(kHostRcx);
  }
  r11_taken();  // the fill may have changed it
  cold_groups_.push_back(cold);
  stack_ = {.active = true, .last = group.last, .low = group.low, .high = group.high, .rsp = 0};
}

/// The operand where the active group has proven [RSP + displacement, + size); nothing where it has not.
std::optional<HostOperand> Emitter::stack_operand(const Address& address, unsigned size_bytes) {
  const bool plain = address.base == x86::kRsp && address.index == x86::kNoRegister && !address.narrow &&
                     address.segment_base == 0 && !address.constant && address.bit_index == x86::kNoRegister;
  if (!stack_.active || !plain) return std::nullopt;
  const int64_t at = int64_t{stack_.rsp} + address.displacement;
  if (at < stack_.low || at + size_bytes > stack_.high) return std::nullopt;
  if (!r11_is_stack_) {
    r11_taken();
    asm_.mov(kHostR11, HostOperand::state(state::stack_addend(privilege(mode_))));
  }
  r11_is_stack_ = true;
  return HostOperand::at(kHostR11, kHostR9, 0, address.displacement);
}

/// After an instruction of the region.
void Emitter::follow_stack(unsigned index) {
  if (!stack_.active) return;
  const StackUse& use = plans_[index].stack;
  stack_.rsp += use.change;
  if (use.ends_group || index == stack_.last) stack_.active = false;
}

}  // namespace tenon::jit
