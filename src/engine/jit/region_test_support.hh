// What must hold for the region of any page from any start: for region_test.cc and region_fuzz.cc.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "base/check.hh"
#include "engine/jit/region.hh"
#include "engine/x86/cpu_state.hh"

namespace tenon::jit {

using RegionPage = std::array<uint8_t, 4096>;

inline bool operator==(const RegionBlock& a, const RegionBlock& b) {
  return a.first == b.first && a.count == b.count && a.end == b.end && a.loop_head == b.loop_head && a.next == b.next &&
         a.taken == b.taken && a.start_offset == b.start_offset && a.end_offset == b.end_offset &&
         a.taken_offset == b.taken_offset && a.live_in == b.live_in;
}

inline bool operator==(const RegionInsn& a, const RegionInsn& b) {
  return a.offset == b.offset && a.live_before == b.live_before && a.live_after == b.live_after &&
         a.insn.row == b.insn.row && a.insn.length == b.insn.length && a.insn.immediate == b.insn.immediate;
}

inline std::span<const RegionBlock> blocks_of(const Region& region) {
  return {region.blocks.data(), region.block_count};
}
inline std::span<const RegionInsn> insns_of(const Region& region, const RegionBlock& block) {
  return {region.insns.data() + block.first, block.count};
}

inline bool same_region(const Region& a, const Region& b) {
  return a.insn_count == b.insn_count && a.granules == b.granules && std::ranges::equal(blocks_of(a), blocks_of(b)) &&
         std::equal(a.insns.begin(), a.insns.begin() + a.insn_count, b.insns.begin());
}

inline bool ends_in_conditional(const RegionBlock& block) { return block.end == BlockEnd::kConditional; }

/// Instructions are those of the bytes, one behind the other, and only the last one branches.
inline void check_block_insns(const RegionPage& page, const Region& region, const RegionBlock& block) {
  unsigned offset = block.start_offset;
  const auto insns = insns_of(region, block);
  for (size_t i = 0; i < insns.size(); ++i) {
    CHECK(insns[i].offset == offset);
    x86::Insn again;
    CHECK(x86::decode(std::span(page).subspan(offset), x86::CodeSize::k64, again) == x86::DecodeStatus::kOk);
    CHECK(again.row == insns[i].insn.row && again.length == insns[i].insn.length);
    const bool ends = (again.row->flags & (x86::kBranch | x86::kSerializing)) != 0;
    const bool may_go_on = block.end == BlockEnd::kFallThrough || block.end == BlockEnd::kUndecodable;
    CHECK(ends == (i + 1 == insns.size() && !may_go_on));
    offset += again.length;
  }
  CHECK(offset == block.end_offset && offset <= page.size());
}

/// Links name the blocks that start there, whenever there is one.
inline void check_links(const Region& region, const RegionBlock& block) {
  const auto check_link = [&region](uint8_t link, bool is_wanted, int64_t offset) {
    const auto blocks = blocks_of(region);
    const auto found = std::ranges::find(blocks, offset, &RegionBlock::start_offset);
    const bool is_inside = is_wanted && found != blocks.end();
    CHECK(link == (is_inside ? found - blocks.begin() : RegionBlock::kOutside));
  };
  const bool jumps = block.end == BlockEnd::kJump || block.end == BlockEnd::kCall || ends_in_conditional(block);
  const bool goes_on = block.end == BlockEnd::kFallThrough || block.end == BlockEnd::kCall ||
                       block.end == BlockEnd::kIndirectCall || ends_in_conditional(block);
  check_link(block.next, goes_on, block.end_offset);
  check_link(block.taken, jumps, block.taken_offset);
  if (!jumps) return;
  const RegionInsn& last = insns_of(region, block).back();
  CHECK(block.taken_offset == last.offset + last.insn.length + last.insn.immediate);
}

inline bool is_loop_head(const Region& region, size_t index) {
  return std::ranges::any_of(blocks_of(region), [&](const RegionBlock& block) {
    return block.taken == index && insns_of(region, block).back().offset >= region.blocks[index].start_offset;
  });
}

/// Flags before and after each instruction agree with each other, and with the blocks that follow.
inline void check_flags(const Region& region, const RegionBlock& block, bool strict) {
  const auto insns = insns_of(region, block);
  for (size_t i = 0; i < insns.size(); ++i) {
    const RegionInsn& insn = insns[i];
    CHECK(((insn.live_before | insn.live_after) & ~x86::kArithmeticFlags) == 0);
    if (strict) {
      CHECK(insn.live_before == x86::kArithmeticFlags && insn.live_after == x86::kArithmeticFlags);
      continue;
    }
    CHECK(insn.live_before == (flags_read(insn.insn) | (insn.live_after & ~flags_killed(insn.insn))));
    if (i + 1 < insns.size()) CHECK(insn.live_after == insns[i + 1].live_before);
  }
  if (insns.empty()) return;
  CHECK(block.live_in == insns.front().live_before);
  const uint16_t live_out = insns.back().live_after;
  for (const uint8_t link : {block.next, block.taken}) {
    const bool by_return = link == block.next && (block.end == BlockEnd::kCall || block.end == BlockEnd::kIndirectCall);
    if (link == RegionBlock::kOutside || by_return) continue;
    CHECK((region.blocks[link].live_in & ~live_out) == 0);
  }
}

inline void check_region(const RegionPage& page, unsigned start_offset, const RegionOptions& options,
                         const Region& region) {
  CHECK(region.block_count >= 1 && region.block_count <= kRegionBlocksMax);
  CHECK(region.insn_count <= std::clamp(options.insns_max, 1u, kRegionInsnsMax));
  CHECK(region.blocks[0].start_offset == start_offset);
  std::array<bool, 4096> covered{};
  unsigned first = 0;
  for (size_t i = 0; i < region.block_count; ++i) {
    const RegionBlock& block = region.blocks[i];
    CHECK(block.first == first);
    first += block.count;
    CHECK(block.count != 0 || (i == 0 && region.block_count == 1 && block.end == BlockEnd::kUndecodable));
    CHECK(block.loop_head == is_loop_head(region, i));
    check_block_insns(page, region, block);
    check_links(region, block);
    check_flags(region, block, options.strict_flags);
    for (unsigned offset = block.start_offset; offset < block.end_offset; ++offset) {
      CHECK(!covered[offset]);
      covered[offset] = true;
      CHECK((region.granules >> offset / 64 & 1) != 0);
    }
  }
  CHECK(first == region.insn_count);
}

/// Bytes in granules that are not marked do not matter: `noise` in their place changes nothing.
inline void check_granules(const RegionPage& page, unsigned start_offset, const RegionOptions& options,
                           const Region& region, const RegionPage& noise) {
  RegionPage other = page;
  for (size_t i = 0; i < other.size(); ++i) {
    if ((region.granules >> i / 64 & 1) == 0) other[i] = noise[i];
  }
  const auto again = std::make_unique<Region>();
  find_region(other, start_offset, options, *again);
  CHECK(same_region(region, *again));
}

}  // namespace tenon::jit
