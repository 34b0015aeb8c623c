// Finding the blocks of a region, then the liveness of the arithmetic flags in it.
//
// Discovery grows chains: from a start along fall-through and direct JMPs, until a chain reaches what is known already
// or leaves the page. Targets met on the way wait in a short list; the next chain starts at a target behind its branch
// (a loop) if there is one, then at one ahead, and at a CALL's return site last. Blocks are appended in that order,
// which so is the order to emit. A branch into a known block splits it. Instructions of a region never overlap: what
// would run into the middle of a known instruction is left outside.
//
// Liveness is the usual backward fixpoint: live before = read, or live after and not overwritten. Nothing is known of
// what follows RET, indirect branches and instructions that leave translated code: all flags are live there. Behind
// direct exits inside the page a few instructions are decoded to find out; CALL counts as a jump for this, as all flags
// are live at the RET anyway.
//
// Deviation: a store that rewrites what was looked at behind an exit, between the last flag-setting instruction and
// that exit, shows dead flags to the new code, unless RegionOptions::strict_flags.
//
// Source: SDM Vol. 1 3.4.3.1 (status flags), Vol. 2 "Flags Affected" of each instruction.
#include "engine/jit/region.hh"

#include <algorithm>
#include <cstddef>

#include "base/check.hh"
#include "engine/x86/cpu_state.hh"

namespace tenon::jit {
namespace {

using x86::CodeSize;
using x86::DecodeStatus;
using x86::Insn;
using x86::Op;

constexpr unsigned kPageSize = 4096;
constexpr unsigned kGranuleSize = 64;
constexpr unsigned kLookAheadMax = 12;
constexpr uint16_t kAllFlags = x86::kArithmeticFlags;

struct Page {
  std::span<const uint8_t, kPageSize> bytes;
  PageCopy* copy = nullptr;
};

/// What an instruction or a run of them does with the flags.
struct FlagEffect {
  uint16_t read = 0;    // before it is overwritten
  uint16_t killed = 0;  // certainly overwritten

  uint16_t live_before(uint16_t live_after) const { return static_cast<uint16_t>(read | (live_after & ~killed)); }
};

/// Whether the count of a shift or rotation by an immediate is not 0 for sure. The count is taken modulo 32, or 64 with
/// a 64-bit operand (SDM Vol. 2, SAL/SAR/SHL/SHR); byte operands with REX.W: whatever the processor does, it is 32
/// or 64.
bool shifts_for_sure(const Insn& insn) {
  const auto& operands = insn.row->operands;
  if (operands[1] != x86::Operand::kIb && operands[2] != x86::Operand::kIb) return false;
  const bool is_64 = insn.operand_size == 8 && operands[0] != x86::Operand::kEb;
  return (insn.immediate & (is_64 ? 63 : 31)) != 0;
}

/// Of an instruction with kFlagsMayKeep or kModIgnored that else overwrites `written`.
uint16_t killed_for_sure(const Insn& insn, uint16_t written) {
  const x86::OpcodeRow& row = *insn.row;
  // MOV CR and DR: undefined by the manual, but every processor keeps them, and so does the interpreter.
  if ((row.flags & x86::kModIgnored) != 0) return 0;
  if ((row.flags & x86::kRep) != 0) {
    const bool repeats = (insn.prefixes & (x86::kPrefixRep | x86::kPrefixRepne)) != 0;
    return repeats ? uint16_t{0} : written;
  }
  return shifts_for_sure(insn) ? written : uint16_t{0};
}

FlagEffect effect_of(const Insn& insn) {
  const x86::OpcodeRow& row = *insn.row;
  const auto read = static_cast<uint16_t>(row.rflags_read & kAllFlags);
  const auto written = static_cast<uint16_t>((row.rflags_written | row.rflags_undefined) & kAllFlags);
  if ((row.flags & (x86::kFlagsMayKeep | x86::kModIgnored)) == 0) [[likely]]
    return {read, written};
  return {read, killed_for_sure(insn, written)};
}

bool ends_block(const Insn& insn) { return (insn.row->flags & (x86::kBranch | x86::kSerializing)) != 0; }

bool is_direct(const Insn& insn) {
  return insn.row->operands[0] == x86::Operand::kJb || insn.row->operands[0] == x86::Operand::kJz;
}

BlockEnd end_of(const Insn& insn) {
  switch (insn.row->op) {
    case Op::kJmp: return is_direct(insn) ? BlockEnd::kJump : BlockEnd::kIndirectJump;
    case Op::kCall: return is_direct(insn) ? BlockEnd::kCall : BlockEnd::kIndirectCall;
    case Op::kRet: return BlockEnd::kReturn;
    case Op::kJcc:
    case Op::kJcxz:
    case Op::kLoop:
    case Op::kLoope:
    case Op::kLoopne: return BlockEnd::kConditional;
    default: return BlockEnd::kStop;
  }
}

bool has_target(BlockEnd end) {
  return end == BlockEnd::kJump || end == BlockEnd::kConditional || end == BlockEnd::kCall;
}

/// Whether control can come to `end_offset`, be it by a RET.
bool has_successor(BlockEnd end) {
  return end == BlockEnd::kFallThrough || end == BlockEnd::kConditional || end == BlockEnd::kCall ||
         end == BlockEnd::kIndirectCall;
}

bool in_page(int64_t offset) { return offset >= 0 && offset < kPageSize; }

DecodeStatus decode_at(Page page, unsigned offset, Insn& insn) {
  if (page.copy != nullptr) page.copy->need(offset);
  return x86::decode(page.bytes.subspan(offset), CodeSize::k64, insn);
}

/// Granules of `size` bytes at `offset`, which end in the page.
uint64_t granules_of(unsigned offset, unsigned size) {
  const unsigned first = offset / kGranuleSize;
  const unsigned last = (offset + size - 1) / kGranuleSize;
  return (~uint64_t{0} << first) & (~uint64_t{0} >> (63 - last));
}

/// Granules of the bytes that decide that what is at `offset` is no instruction.
uint64_t granules_of_undecodable(unsigned offset) {
  return granules_of(offset, std::min(x86::kInsnLengthMax, kPageSize - offset));
}

// --- Discovery.

class Finder {
 public:
  Finder(Page page, const RegionOptions& options, Region& region)
      : page_(page),
        insns_max_(std::clamp(options.insns_max, 1u, kRegionInsnsMax)),
        elsewhere_(options.elsewhere),
        region_(region) {}

  void run(unsigned start_offset) {
    grow_chain(start_offset);
    if (region_.block_count == 0) append_block(start_offset, start_offset, 0, BlockEnd::kUndecodable);
    while (pending_count_ != 0 && has_room()) {
      const unsigned offset = take_pending();
      if (!is_known(offset) && !is_translated(offset)) grow_chain(offset);
    }
    link();
  }

 private:
  enum class Priority : uint8_t { kBackward, kForward, kReturnSite };
  struct Pending {
    uint16_t offset;
    Priority priority;
  };

  bool has_room() const { return region_.block_count < kRegionBlocksMax && region_.insn_count < insns_max_; }

  void grow_chain(unsigned offset);
  bool decode_block(unsigned start);
  unsigned next_known_start(unsigned offset) const;
  unsigned next_wanted_start(unsigned offset) const;
  void append_block(unsigned start, unsigned end_offset, unsigned first, BlockEnd end);
  bool is_known(unsigned offset);
  bool is_translated(unsigned offset) const { return elsewhere_ != nullptr && elsewhere_->is_translated(offset); }
  void split(unsigned block_index, unsigned offset);
  void add_pending(int64_t offset, Priority priority);
  unsigned take_pending();
  void link();

  Page page_;
  unsigned insns_max_;
  Elsewhere* elsewhere_;
  Region& region_;
  std::array<Pending, kRegionBlocksMax> pending_;  // each block adds one at most
  unsigned pending_count_ = 0;
};

/// Adds blocks from `offset`, which is_known() denied, until nothing new follows directly: what is translated already
/// is linked to.
void Finder::grow_chain(unsigned offset) {
  while (has_room() && decode_block(offset)) {
    const RegionBlock& block = region_.blocks[region_.block_count - 1];
    int64_t follow = -1;
    switch (block.end) {
      case BlockEnd::kJump: follow = block.taken_offset; break;
      case BlockEnd::kFallThrough: follow = block.end_offset; break;
      case BlockEnd::kConditional: {
        follow = block.end_offset;
        const unsigned branch = region_.insns[region_.insn_count - 1u].offset;
        add_pending(block.taken_offset, block.taken_offset <= branch ? Priority::kBackward : Priority::kForward);
        break;
      }
      case BlockEnd::kCall:
      case BlockEnd::kIndirectCall: add_pending(block.end_offset, Priority::kReturnSite); break;
      default: break;
    }
    if (!in_page(follow) || is_known(static_cast<unsigned>(follow)) || is_translated(static_cast<unsigned>(follow)))
      return;
    offset = static_cast<unsigned>(follow);
  }
}

/// Appends the block that starts at `start`; false if there is not one whole instruction.
bool Finder::decode_block(unsigned start) {
  const unsigned first = region_.insn_count;
  const unsigned known = next_known_start(start);
  const bool may_cut = region_.block_count + 1u < kRegionBlocksMax;
  unsigned wanted = may_cut ? next_wanted_start(start) : kPageSize;
  unsigned offset = start;
  BlockEnd end = BlockEnd::kFallThrough;
  while (offset < known && region_.insn_count < insns_max_) {
    RegionInsn& slot = region_.insns[region_.insn_count];
    if (decode_at(page_, offset, slot.insn) != DecodeStatus::kOk) {
      region_.granules |= granules_of_undecodable(offset);
      end = BlockEnd::kUndecodable;
      break;
    }
    const unsigned after = offset + slot.insn.length;
    if (after > known) {  // overlaps
      region_.granules |= granules_of(offset, slot.insn.length);
      break;
    }
    slot.offset = static_cast<uint16_t>(offset);
    ++region_.insn_count;
    offset = after;
    if (ends_block(slot.insn)) {
      end = end_of(slot.insn);
      break;
    }
    if (offset >= wanted) {
      if (offset == wanted) break;
      wanted = next_wanted_start(offset - 1);
      if (offset == wanted) break;
    }
  }
  if (offset == start) return false;
  append_block(start, offset, first, end);
  return true;
}

/// Offset of the first known instruction after `offset`, else the page's end. Blocks do not contain `offset`.
unsigned Finder::next_known_start(unsigned offset) const {
  unsigned next = kPageSize;
  for (unsigned i = 0; i < region_.block_count; ++i) {
    const unsigned start = region_.blocks[i].start_offset;
    if (start > offset) next = std::min(next, start);
  }
  return next;
}

/// The same for targets that are still to be looked at. A return site alone is no reason to cut a block.
unsigned Finder::next_wanted_start(unsigned offset) const {
  unsigned next = kPageSize;
  for (unsigned i = 0; i < pending_count_; ++i) {
    if (pending_[i].offset > offset && pending_[i].priority != Priority::kReturnSite) {
      next = std::min<unsigned>(next, pending_[i].offset);
    }
  }
  return next;
}

void Finder::append_block(unsigned start, unsigned end_offset, unsigned first, BlockEnd end) {
  RegionBlock& block = region_.blocks[region_.block_count++];
  block = RegionBlock{};
  block.first = static_cast<uint8_t>(first);
  block.count = static_cast<uint8_t>(region_.insn_count - first);
  block.end = end;
  block.start_offset = static_cast<uint16_t>(start);
  block.end_offset = static_cast<uint16_t>(end_offset);
  if (block.count == 0) return;
  region_.granules |= granules_of(start, end_offset - start);
  if (has_target(end)) block.taken_offset = end_offset + region_.insns[region_.insn_count - 1u].insn.immediate;
}

/// Whether no block is to be made for `offset`: there is one, or it was made by a split just now, or it is in the
/// middle of an instruction, or there is no room for the split.
bool Finder::is_known(unsigned offset) {
  for (unsigned i = 0; i < region_.block_count; ++i) {
    const RegionBlock& block = region_.blocks[i];
    if (offset < block.start_offset || offset >= block.end_offset) continue;
    if (offset != block.start_offset && region_.block_count < kRegionBlocksMax) split(i, offset);
    return true;
  }
  return false;
}

/// Makes a block of its own of what stands in a block from `offset` on, if an instruction starts there.
void Finder::split(unsigned block_index, unsigned offset) {
  RegionBlock& front = region_.blocks[block_index];
  unsigned at = front.first;
  while (region_.insns[at].offset < offset) {
    if (++at == unsigned{front.first} + front.count) return;
  }
  if (region_.insns[at].offset != offset) return;
  std::copy_backward(region_.blocks.begin() + block_index, region_.blocks.begin() + region_.block_count,
                     region_.blocks.begin() + region_.block_count + 1);
  ++region_.block_count;
  RegionBlock& back = region_.blocks[block_index + 1];
  back.first = static_cast<uint8_t>(at);
  back.count = static_cast<uint8_t>(front.count - (at - front.first));
  back.start_offset = static_cast<uint16_t>(offset);
  front.count = static_cast<uint8_t>(at - front.first);
  front.end = BlockEnd::kFallThrough;
  front.end_offset = static_cast<uint16_t>(offset);
  front.taken_offset = 0;
}

/// Splits at once where the target is known, for that costs nothing; the others wait.
void Finder::add_pending(int64_t offset, Priority priority) {
  if (!in_page(offset)) return;
  const auto target = static_cast<uint16_t>(offset);
  if (priority != Priority::kReturnSite && is_known(target)) return;
  for (unsigned i = 0; i < pending_count_; ++i) {
    if (pending_[i].offset != target) continue;
    pending_[i].priority = std::min(pending_[i].priority, priority);
    return;
  }
  CHECK(pending_count_ < pending_.size());
  pending_[pending_count_++] = {target, priority};
}

/// The best of those that wait, of equal ones the one that came first.
unsigned Finder::take_pending() {
  const auto begin = pending_.begin();
  const auto end = begin + pending_count_;
  const auto best = std::min_element(begin, end, [](Pending a, Pending b) { return a.priority < b.priority; });
  const unsigned offset = best->offset;
  std::copy(best + 1, end, best);
  --pending_count_;
  return offset;
}

void Finder::link() {
  const std::span blocks(region_.blocks.data(), region_.block_count);
  const auto block_at = [blocks](int64_t offset) {
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (blocks[i].start_offset == offset) return static_cast<uint8_t>(i);
    }
    return RegionBlock::kOutside;
  };
  for (RegionBlock& block : blocks) {
    if (has_successor(block.end)) block.next = block_at(block.end_offset);
    if (!has_target(block.end)) continue;
    block.taken = block_at(block.taken_offset);
    if (block.taken == RegionBlock::kOutside) continue;
    const unsigned branch = region_.insns[block.first + block.count - 1u].offset;
    RegionBlock& target = blocks[block.taken];
    target.loop_head |= target.start_offset <= branch;
  }
}

// --- Liveness.

/// Flags that may be read by the code at `offset` before it overwrites them.
uint16_t look_ahead_in(Page page, int64_t offset, uint64_t& granules, Elsewhere* elsewhere) {
  FlagEffect sum;
  bool may_jump = true;
  Insn insn;
  for (unsigned count = 0; count < kLookAheadMax && in_page(offset); ++count) {
    const auto at = static_cast<unsigned>(offset);
    if (decode_at(page, at, insn) != DecodeStatus::kOk) {
      granules |= granules_of_undecodable(at);
      return sum.live_before(kAllFlags);
    }
    granules |= granules_of(at, insn.length);
    const FlagEffect effect = effect_of(insn);
    sum.read |= effect.read & ~sum.killed;
    sum.killed |= effect.killed;
    if ((sum.read | sum.killed) == kAllFlags) return sum.live_before(kAllFlags);
    offset += insn.length;
    if (!ends_block(insn)) continue;
    const BlockEnd end = end_of(insn);
    if (!may_jump || (end != BlockEnd::kJump && end != BlockEnd::kCall)) return sum.live_before(kAllFlags);
    may_jump = false;
    offset += insn.immediate;
  }
  const bool left = !in_page(offset);
  return sum.live_before(left && elsewhere != nullptr ? elsewhere->live_at(offset) : kAllFlags);
}

class Liveness {
 public:
  Liveness(Page page, Region& region, Elsewhere* elsewhere) : page_(page), region_(region), elsewhere_(elsewhere) {}

  void run() {
    for (unsigned i = 0; i < region_.block_count; ++i) summarize(i);
    while (iterate()) {
    }
    for (unsigned i = 0; i < region_.block_count; ++i) mark_instructions(region_.blocks[i], live_out(i));
  }

 private:
  void summarize(unsigned block_index);
  bool iterate();
  void mark_instructions(const RegionBlock& block, uint16_t live) const;
  uint16_t look_ahead(int64_t offset);

  uint16_t live_out(unsigned block_index) const {
    const RegionBlock& block = region_.blocks[block_index];
    uint16_t live = live_outside_[block_index];
    if (block.next != RegionBlock::kOutside && block.end <= BlockEnd::kConditional) {
      live |= region_.blocks[block.next].live_in;
    }
    if (block.taken != RegionBlock::kOutside) live |= region_.blocks[block.taken].live_in;
    return live;
  }

  Page page_;
  Region& region_;
  Elsewhere* elsewhere_;
  std::array<FlagEffect, kRegionInsnsMax> effects_;
  std::array<FlagEffect, kRegionBlocksMax> block_effects_;
  std::array<uint16_t, kRegionBlocksMax> live_outside_;  // after the block, where control leaves the region
};
static_assert(BlockEnd::kFallThrough < BlockEnd::kConditional && BlockEnd::kJump < BlockEnd::kConditional &&
              BlockEnd::kConditional < BlockEnd::kCall);

/// What the block does as a whole, and what is live where control leaves the region behind it.
void Liveness::summarize(unsigned block_index) {
  const RegionBlock& block = region_.blocks[block_index];
  FlagEffect sum;
  for (unsigned i = block.first; i < unsigned{block.first} + block.count; ++i) {
    effects_[i] = effect_of(region_.insns[i].insn);
    sum.read |= effects_[i].read & ~sum.killed;
    sum.killed |= effects_[i].killed;
  }
  block_effects_[block_index] = sum;

  uint16_t live = 0;
  switch (block.end) {
    case BlockEnd::kFallThrough:
    case BlockEnd::kJump:
    case BlockEnd::kConditional:
    case BlockEnd::kCall:
      if (block.end != BlockEnd::kCall && has_successor(block.end) && block.next == RegionBlock::kOutside) {
        live |= look_ahead(block.end_offset);
      }
      if (has_target(block.end) && block.taken == RegionBlock::kOutside) live |= look_ahead(block.taken_offset);
      break;
    default: live = kAllFlags; break;
  }
  live_outside_[block_index] = live;
}

/// One round from the last block to the first; whether anything changed. Only ever adds flags, so that it ends.
bool Liveness::iterate() {
  bool changed = false;
  for (unsigned i = region_.block_count; i-- != 0;) {
    const uint16_t live_in = block_effects_[i].live_before(live_out(i));
    changed |= live_in != region_.blocks[i].live_in;
    region_.blocks[i].live_in = live_in;
  }
  return changed;
}

void Liveness::mark_instructions(const RegionBlock& block, uint16_t live) const {
  for (unsigned i = block.first + block.count; i-- != block.first;) {
    region_.insns[i].live_after = live;
    live = effects_[i].live_before(live);
    region_.insns[i].live_before = live;
  }
}

uint16_t Liveness::look_ahead(int64_t offset) { return look_ahead_in(page_, offset, region_.granules, elsewhere_); }

void mark_all_live(Region& region) {
  for (unsigned i = 0; i < region.block_count; ++i) region.blocks[i].live_in = kAllFlags;
  for (unsigned i = 0; i < region.insn_count; ++i) {
    region.insns[i].live_before = kAllFlags;
    region.insns[i].live_after = kAllFlags;
  }
}

}  // namespace

uint16_t live_flags_at(PageCopy& page, unsigned offset, uint64_t& granules) {
  return look_ahead_in({page.bytes(), &page}, offset, granules, nullptr);
}

uint16_t flags_read(const Insn& insn) { return effect_of(insn).read; }
uint16_t flags_killed(const Insn& insn) { return effect_of(insn).killed; }

void find_region(std::span<const uint8_t, 4096> page, unsigned start_offset, const RegionOptions& options,
                 Region& out) {
  CHECK(start_offset < kPageSize);
  out.insn_count = 0;
  out.block_count = 0;
  out.granules = 0;
  Finder({page, options.copy}, options, out).run(start_offset);
  if (options.strict_flags) return mark_all_live(out);
  Liveness({page, options.copy}, out, options.elsewhere).run();
}

void make_single_region(const Insn& insn, unsigned offset, Region& out) {
  out.insn_count = 1;
  out.block_count = 1;
  out.granules = uint64_t{1} << (kPageSize / kGranuleSize - 1);
  RegionInsn& single = out.insns[0];
  single.insn = insn;
  single.offset = static_cast<uint16_t>(offset);
  single.live_before = effect_of(insn).live_before(kAllFlags);
  single.live_after = kAllFlags;
  RegionBlock& block = out.blocks[0];
  block = {};
  block.count = 1;
  block.end = ends_block(insn) ? end_of(insn) : BlockEnd::kFallThrough;
  block.start_offset = static_cast<uint16_t>(offset);
  block.end_offset = static_cast<uint16_t>(offset + insn.length);
  if (has_target(block.end)) block.taken_offset = block.end_offset + insn.immediate;
  block.live_in = single.live_before;
}

}  // namespace tenon::jit
