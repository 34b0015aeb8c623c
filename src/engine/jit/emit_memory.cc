// Checked access to guest memory (see interp/soft_tlb.hh for the tables and why one compare is enough).
#include <algorithm>

#include "base/check.hh"
#include "engine/jit/emitter.hh"

namespace tenon::jit {

namespace {

constexpr unsigned kEntryShift = 4;  // log2 of sizeof(TlbEntry)
constexpr unsigned kPageShift = 12;
constexpr size_t kHostPage = offsetof(interp::TlbEntry, host_page);
constexpr int32_t kTableMask = (interp::SoftTlb::kEntries - 1) << kEntryShift;
static_assert(sizeof(interp::TlbEntry) == size_t{1} << kEntryShift && kPageSize == uint64_t{1} << kPageShift);

constexpr HostOperand kChecked = HostOperand::at(kHostR11, kHostR10, 0);

}  // namespace

Emitter::Address Emitter::address_of(const RegionInsn& region_insn) const {
  const x86::Insn& insn = region_insn.insn;
  Address address{.base = insn.base, .index = insn.index, .scale = insn.scale, .displacement = insn.displacement};
  address.narrow = insn.address_size == 4;
  if (insn.segment >= x86::kFs) {
    address.segment_base = offsetof(interp::Cpu, window) + insn.segment * sizeof(interp::SegmentWindow) +
                           offsetof(interp::SegmentWindow, base);
  }
  const bool no_registers = insn.base == x86::kNoRegister && insn.index == x86::kNoRegister;
  if (insn.base != x86::kRipBase && !no_registers) return address;
  address.constant = true;
  const uint64_t base = no_registers ? 0 : next_rip(region_insn);
  address.linear = base + static_cast<uint64_t>(int64_t{insn.displacement});
  address.shifted = shifted_ && !no_registers;
  if (address.narrow) address.linear &= 0xffffffff;
  return address;
}

/// `to` = base + index << scale + displacement; R10 and R11 take homed registers.
void Emitter::emit_sum(HostRegister to, const Address& address) {
  HostOperand sum{.is_register = false, .scale = address.scale, .displacement = address.displacement};
  if (address.base != x86::kNoRegister) {
    sum.base = is_homed(address.base) ? HostRegister{kHostR10} : host_of(address.base);
    if (is_homed(address.base)) asm_.mov(kHostR10, home(address.base));
  }
  if (address.index != x86::kNoRegister) {
    sum.index = is_homed(address.index) ? HostRegister{kHostR11} : host_of(address.index);
    if (is_homed(address.index)) {
      asm_.mov(kHostR11, home(address.index));
      r11_taken();
    }
  }
  const bool plain = sum.index == kNoHostRegister && sum.displacement == 0 && sum.base != kNoHostRegister;
  if (!plain || address.narrow) return asm_.lea(to, sum, !address.narrow);
  if (sum.base != to) asm_.mov(to, HostOperand::r(sum.base));
}

/// R10 = linear address.
void Emitter::emit_linear(const Address& address, bool flags_live) {
  if (address.constant) {
    asm_.mov_immediate(kHostR10, address.linear);
    if (address.shifted) add_state(state::kCodeShift, flags_live);
  } else {
    emit_sum(kHostR10, address);
  }
  if (address.bit_index != x86::kNoRegister) emit_bit_unit(address);
  if (address.segment_base != 0) add_state(address.segment_base, flags_live);
}

/// R10 += the state at `offset`.
void Emitter::add_state(size_t offset, bool flags_live) {
  if (!flags_live) return asm_.add(kHostR10, HostOperand::state(offset));
  asm_.mov(kHostR11, HostOperand::state(offset));
  asm_.lea(kHostR10, HostOperand::at(kHostR10, kHostR11, 0));
}

HostOperand Emitter::check(const RegionInsn& insn, const Address& address, unsigned size_bytes, Access access,
                           bool flags_live) {
  CHECK(size_bytes != 0 && size_bytes <= 64);
  if (checked_early_ == &insn) {
    checked_early_ = nullptr;
    return kChecked;
  }
  if (const std::optional<HostOperand> operand = stack_operand(address, size_bytes)) return *operand;
  if (const std::optional<HostOperand> operand = base_operand(address, size_bytes, access)) return *operand;
  r11_taken();
  return flags_live ? check_keeping_flags(insn, address, size_bytes, access)
                    : check_short(insn, address, size_bytes, access);
}

/// Compilers like to put a load between a comparison and its jump. Where flags are dead before this instruction but
/// live at the next access of memory, and only registers are touched up to there, that access is checked here already.
void Emitter::check_early(const RegionBlock& block, unsigned index) {
  constexpr unsigned kDistanceMax = 6;
  const RegionInsn& here = region_.insns[index];
  const unsigned end = unsigned{block.first} + block.count;
  const size_t next_group = stretch_.stack_group;
  if (checked_early_ != nullptr || plain_ || here.live_before != 0 || here.live_after == 0) return;
  unsigned stop = next_group < stack_groups_.size() ? stack_groups_[next_group].check_before : end;
  for (const BaseGroup& group : base_groups_) {
    if (group.check_before > index) stop = std::min<unsigned>(stop, group.check_before);
  }
  unsigned written = 0;
  for (unsigned i = index; i < std::min({end, stop, index + kDistanceMax}); ++i) {
    const RegionInsn& insn = region_.insns[i];
    const InsnPlan& plan = plan_of(insn);
    if (plan.registers_only) {
      written |= gprs_written(insn.insn, plan.gprs);
      continue;
    }
    const bool last = i + 1 == end;
    const bool branch = last && (block.end == BlockEnd::kIndirectJump || block.end == BlockEnd::kIndirectCall);
    const bool fits = insn.insn.is_memory && (plan.kind == EmitKind::kSame || (branch && insn.insn.operand_size == 8));
    if (i == index || !fits || insn.live_before == 0 || !has_memory_access(insn.insn)) return;
    const Address address = address_of(insn);
    const auto is_written = [&](uint8_t reg) { return reg < 16 && (written >> reg & 1) != 0; };
    if (address.base == x86::kRsp || is_written(address.base) || is_written(address.index)) return;
    const unsigned size = branch ? 8 : x86::memory_operand_size(insn.insn);
    const Access access = !branch && writes_memory(insn.insn) ? Access::kWrite : Access::kRead;
    for (const BaseGroup& group : base_groups_) {
      if (group.active && group.base == address.base && address.index == x86::kNoRegister) return;
    }
    r11_taken();
    check_short(here, address, size, access);
    checked_early_ = &insn;
    return;
  }
}

HostOperand Emitter::check_short(const RegionInsn& insn, const Address& address, unsigned size_bytes, Access access) {
  const bool write = access == Access::kWrite;
  const size_t table = interp::tlb_table_offset(tlb_mode(mode_), write);
  const uint64_t retry = asm_.address();
  emit_linear(address, false);
  ColdFill cold{.from = {},
                .retry = retry,
                .stub = stubs_.runtime.fill[tlb_mode(mode_)][write ? 1 : 0],
                .guest_offset = insn.offset};
  HostOperand entry = HostOperand::state(table, kHostR11, 0);
  if (address.constant && !address.shifted && address.segment_base == 0 && address.bit_index == x86::kNoRegister) {
    const unsigned offset = interp::SoftTlb::index_of(address.linear) << kEntryShift;
    cold.entry_offset = static_cast<int32_t>(offset);
    entry = HostOperand::state(table + offset);
  } else {
    asm_.rorx(kHostR11, kHostR10, kPageShift - kEntryShift, false);
    asm_.and_immediate(HostOperand::r(kHostR11), kTableMask, false);
  }
  asm_.add(kHostR10, entry);
  asm_.cmp_immediate(HostOperand::r(kHostR10), static_cast<int32_t>(kPageSize - size_bytes));
  cold.from = asm_.jcc_forward(kAbove);
  cold_fills_.push_back(cold);
  entry.displacement += static_cast<int32_t>(kHostPage);
  asm_.mov(kHostR11, entry);
  return kChecked;
}

/// With R10 = linear address of `size_bytes` (at most a page): the look-up without touching flags. R10 += negative_page
/// of the entry, at 8 * R11 in the table. Returns the jump for misses, with RCX on the shadow stack. The test adds size
/// - 1 to the offset in the page before comparing its page bits with 0: what starts up to size - 1 bytes before an
/// entry's page never looks at that entry, because the page before has another index.
Fixup Emitter::emit_crossing_test(const HostOperand& negative_page, int32_t size_bytes) {
  asm_.push(kHostRcx);
  asm_.pext(kHostR11, kHostR10, HostOperand::state(state::kIndexMask));
  asm_.lea(kHostR11, HostOperand::at(kHostR11, kHostR11, 0));  // R11 = 2 * index
  asm_.mov(kHostRcx, negative_page);
  asm_.lea(kHostR10, HostOperand::at(kHostR10, kHostRcx, 0));
  asm_.lea(kHostRcx, HostOperand::at(kHostR10, size_bytes - 1));
  asm_.pext(kHostRcx, kHostRcx, HostOperand::state(state::kPageNumberMask));
  const Fixup hit = asm_.jrcxz_forward();
  const Fixup miss = asm_.jmp_forward();
  asm_.bind_short(hit);
  asm_.pop(kHostRcx);
  return miss;
}

HostOperand Emitter::check_keeping_flags(const RegionInsn& insn, const Address& address, unsigned size_bytes,
                                         Access access) {
  const bool write = access == Access::kWrite;
  const size_t table = interp::tlb_table_offset(tlb_mode(mode_), write);
  const uint64_t retry = asm_.address();
  emit_linear(address, true);
  const HostOperand negative_page = HostOperand::state(table, kHostR11, 3);
  cold_fills_.push_back({.from = emit_crossing_test(negative_page, static_cast<int32_t>(size_bytes)),
                         .retry = retry,
                         .stub = stubs_.runtime.fill_scaled[tlb_mode(mode_)][write ? 1 : 0],
                         .guest_offset = insn.offset,
                         .pops_rcx = true});
  asm_.mov(kHostR11, HostOperand::state(table + kHostPage, kHostR11, 3));
  return kChecked;
}

HostOperand Emitter::collapse(const HostOperand& operand) {
  asm_.lea(kHostR10, operand);
  return HostOperand::at(kHostR10);
}

HostRegister Emitter::free_beside(HostOperand& operand) {
  if (operand.base != kHostR10 && operand.index != kHostR10) return kHostR10;
  operand = collapse(operand);
  r11_taken();
  return kHostR11;
}

}  // namespace tenon::jit
