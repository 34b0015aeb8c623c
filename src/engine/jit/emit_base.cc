// Several accesses off one register: one check of the page for all of them, where it can be.
//
// In a stretch of blocks (Emitter::starts_stretch_), a run of accesses [base + displacement] whose base is not changed
// between the first and the last of them becomes a group. One soft-TLB check, where flags are dead if there is such a
// place, proves that all of [base + lowest, base + highest) lies in one page, which may be written if any of them
// writes, and keeps the host address of the lowest byte in TranslatedState::group_address. The accesses then need no
// check and keep flags. Where there is no such page, control goes to the same code translated without groups
// (kModePlain).
//
// What emit_stack.cc says about relying on a check holds here, too. The A bit may be set by a check whose accesses a
// conditional jump then skips, as processors do; the D bit is not (SDM Vol. 3 4.8).
#include <algorithm>
#include <optional>

#include "engine/jit/emitter.hh"
#include "engine/x86/decode_table.hh"

namespace tenon::jit {

namespace {

constexpr int32_t kSpanMax = 512;
constexpr unsigned kEntryShift = 4;  // log2 of sizeof(TlbEntry)
constexpr unsigned kPageShift = 12;
constexpr int32_t kTableMask = (interp::SoftTlb::kEntries - 1) << kEntryShift;

/// [base + displacement] off a register that the host holds, other than RSP.
bool is_base_operand(const x86::Insn& insn) {
  return insn.is_memory && insn.base < 16 && insn.base != x86::kRsp && !is_homed(insn.base) &&
         insn.index == x86::kNoRegister && insn.address_size == 8 && insn.segment < x86::kFs;
}

/// Jcc and direct JMP: behind them a stretch may go on.
bool goes_on_in_stretch(const x86::Insn& insn) {
  const x86::Operand operand = insn.row->operands[0];
  const bool direct = operand == x86::Operand::kJb || operand == x86::Operand::kJz;
  return direct && (insn.row->op == x86::Op::kJcc || insn.row->op == x86::Op::kJmp);
}

}  // namespace

/// Whether C++ may run in it, or nothing is known of what it does.
bool Emitter::ends_bases(const RegionInsn& insn) const {
  switch (plan_of(insn).kind) {
    case EmitKind::kSame:
    case EmitKind::kVector:
    case EmitKind::kX87:
    case EmitKind::kVectorX87:
    case EmitKind::kNothing:
    case EmitKind::kLea:
    case EmitKind::kPush:
    case EmitKind::kPop: return false;
    case EmitKind::kBranch: return !goes_on_in_stretch(insn.insn);
    default: return true;
  }
}

/// Finds the groups of a stretch, by where their checks stand.
void Emitter::plan_bases() {
  base_groups_.clear();
  r11_group_ = -1;
  if (plain_) return;
  unsigned planned = 0;  // bases with a group that reaches past here
  std::array<unsigned, 16> until{};
  for (unsigned i = stretch_.first; i < stretch_.end && base_groups_.size() < kBaseGroupsMax; ++i) {
    const RegionInsn& insn = region_.insns[i];
    if (ends_bases(insn) || !is_base_operand(insn.insn) || !has_memory_access(insn.insn)) continue;
    const uint8_t base = insn.insn.base;
    if (((planned >> base) & 1) != 0 && i <= until[base]) continue;
    const std::optional<BaseGroup> group = find_base_group(i);
    if (!group) continue;
    planned |= 1u << base;
    until[base] = group->last;
    base_groups_.push_back(*group);
  }
  std::ranges::sort(base_groups_, {}, &BaseGroup::check_before);
}

/// Whether the group's check may stand before instruction `index` instead of behind it.
bool Emitter::may_stand_before(unsigned index, const BaseGroup& group) const {
  const RegionInsn& insn = region_.insns[index];
  if (ends_bases(insn) || (group.writes && insn.insn.row->op == x86::Op::kJcc)) return false;
  return (gprs_written(insn.insn, plan_of(insn).gprs) >> group.base & 1) == 0;
}

/// The group that begins with the access of instruction `first`, if it is worth its check.
std::optional<Emitter::BaseGroup> Emitter::find_base_group(unsigned first) const {
  const x86::Insn& leader = region_.insns[first].insn;
  BaseGroup group{.base = leader.base, .check_before = static_cast<uint8_t>(first)};
  unsigned count = 0;
  bool is_certain = true;
  for (unsigned i = first; i < stretch_.end; ++i) {
    const RegionInsn& insn = region_.insns[i];
    if (ends_bases(insn)) break;
    if (insn.insn.row->op == x86::Op::kJcc) is_certain = false;
    const bool takes_part = is_base_operand(insn.insn) && insn.insn.base == group.base && has_memory_access(insn.insn);
    if (takes_part) {
      // A write that may not come must not make the page dirty.
      if (!is_certain && writes_memory(insn.insn) && !group.writes) break;
      const int32_t at = insn.insn.displacement;
      const auto end = static_cast<int64_t>(at) + x86::memory_operand_size(insn.insn);
      const int64_t low = count == 0 ? at : std::min(group.low, at);
      const int64_t high = count == 0 ? end : std::max<int64_t>(group.high, end);
      if (high - low > kSpanMax || high > INT32_MAX) break;
      group.low = static_cast<int32_t>(low);
      group.high = static_cast<int32_t>(high);
      group.writes = group.writes || writes_memory(insn.insn);
      group.last = static_cast<uint8_t>(i);
      ++count;
    }
    if ((gprs_written(insn.insn, plan_of(insn).gprs) >> group.base & 1) != 0) break;
  }
  if (count < 2) return std::nullopt;
  // Best before the first access or farther up, where the base is the same and flags are dead; else the check keeps
  // them.
  unsigned at = first;
  while (region_.insns[at].live_before != 0) {
    if (at == stretch_.first || !may_stand_before(at - 1, group)) {
      at = first;
      break;
    }
    --at;
  }
  group.check_before = static_cast<uint8_t>(at);
  return group;
}

/// The checks that stand before instruction `index` of the region.
void Emitter::emit_base_checks(unsigned index) {
  for (BaseGroup& group : base_groups_) {
    if (group.check_before != index) continue;
    group.active = true;
    emit_base_check(region_.insns[index], group);
  }
}

void Emitter::emit_base_check(const RegionInsn& insn, const BaseGroup& group) {
  const unsigned mode = tlb_mode(mode_);
  const unsigned write = group.writes ? 1 : 0;
  const bool flags_live = insn.live_before != 0;
  const auto slot = static_cast<unsigned>(&group - base_groups_.data());
  const size_t table = interp::tlb_table_offset(tlb_mode(mode_), group.writes);
  const uint8_t scale = flags_live ? 3 : 0;
  const HostOperand negative_page = HostOperand::state(table, kHostR11, scale);
  const HostOperand host_page = HostOperand::state(table + offsetof(interp::TlbEntry, host_page), kHostR11, scale);
  ColdGroup cold{.from = {},
                 .retry = asm_.address(),
                 .stub = (flags_live ? stubs_.runtime.fill_group_scaled : stubs_.runtime.fill_group)[mode][write],
                 .span = group.high - group.low,
                 .guest_offset = insn.offset,
                 .pops_rcx = flags_live};
  r11_taken();
  asm_.lea(kHostR10, HostOperand::at(host_of(group.base), group.low));
  if (flags_live) {
    cold.from = emit_crossing_test(negative_page, cold.span);
  } else {
    asm_.rorx(kHostR11, kHostR10, kPageShift - kEntryShift, false);
    asm_.and_immediate(HostOperand::r(kHostR11), kTableMask, false);
    asm_.add(kHostR10, negative_page);
    asm_.cmp_immediate(HostOperand::r(kHostR10), static_cast<int32_t>(kPageSize) - cold.span);
    cold.from = asm_.jcc_forward(kAbove);
  }
  cold_groups_.push_back(cold);
  asm_.mov(kHostR11, host_page);
  if (flags_live) {
    asm_.lea(kHostR11, HostOperand::at(kHostR11, kHostR10, 0));
  } else {
    asm_.add(kHostR11, HostOperand::r(kHostR10));
  }
  asm_.store(HostOperand::state(state::group_address(slot)), kHostR11);
  r11_group_ = static_cast<int>(slot);
}

/// The operand where an active group has proven [base + displacement, + size); nothing where none has.
std::optional<HostOperand> Emitter::base_operand(const Address& address, unsigned size_bytes, Access access) {
  const bool plain = address.base != x86::kNoRegister && address.index == x86::kNoRegister && !address.narrow &&
                     address.segment_base == 0 && !address.constant;
  if (!plain) return std::nullopt;
  for (const BaseGroup& group : base_groups_) {
    const bool covered = group.active && group.base == address.base && address.displacement >= group.low &&
                         int64_t{address.displacement} + size_bytes <= group.high;
    if (!covered || (access == Access::kWrite && !group.writes)) continue;
    const auto slot = static_cast<int>(&group - base_groups_.data());
    if (r11_group_ != slot) {
      r11_taken();
      asm_.mov(kHostR11, HostOperand::state(state::group_address(static_cast<unsigned>(slot))));
      r11_group_ = slot;
    }
    return HostOperand::at(kHostR11, address.displacement - group.low);
  }
  return std::nullopt;
}

/// After instruction `index` of the region.
void Emitter::follow_bases(unsigned index) {
  for (BaseGroup& group : base_groups_) {
    if (group.last == index) group.active = false;
  }
}

bool Emitter::has_active_base() const {
  return std::ranges::any_of(base_groups_, [](const BaseGroup& group) { return group.active; });
}

}  // namespace tenon::jit
