// CodeCacheModel: random use of a CodeCache, checked against a plain list of fragments. For code_cache_test.cc and
// code_cache_fuzz.cc.
//
// Fragments hold no code but their branches, which are read back and followed. The model says what each branch must go
// to, what each look-up finds, and which fragments may go when room is made: all of the segment that the new room is
// in, and that only when every segment has live fragments and this one was opened before all others.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "base/check.hh"
#include "engine/jit/code_cache.hh"
#include "vm/fuzz_input.hh"

namespace tenon::jit {

class CodeCacheModel {
 public:
  explicit CodeCacheModel(size_t segments)
      : cache_(MUST(CodeCache::create((segments + 1) * CodeCache::kSegmentBytes, 100, 0x1000))),  // valid sizes
        opened_(segments) {
    opened_[0] = ++openings_;
  }

  /// One random operation.
  void step(FuzzInput& input) {
    const uint8_t choice = input.take<uint8_t>();
    if (choice < 90) return add(input);
    if (choice < 220) return link(input);
    if (choice < 230) return look_up(input);
    if (choice < 240) return number(input);
    if (choice < 243) return unlink_global();
    if (choice < 253) return invalidate(take_page(input), uint64_t{1} << (input.take<uint8_t>() % 8));
    if (choice < 255) return invalidate(take_page(input), input.take<uint8_t>());
    if (input.take<uint8_t>() < 16) remove_all();
  }

  /// Everything that can be seen of the cache.
  void check() const {
    std::set<uint64_t> pages;
    uint64_t links = 0;
    uint64_t guarded = 0;
    uint64_t bytes = 0;
    for (const Made& made : made_) {
      pages.insert(made.fragment->gpa_page);
      bytes += made.fragment->size_bytes;
      CHECK(cache_->fragment_at(made.host) == made.fragment && made.fragment->host == made.host);
      CHECK(cache_->fragment_at(made.host + made.fragment->size_bytes - 1) == made.fragment);
      for (size_t i = 0; i < made.links.size(); ++i) {
        check_link(made, i);
        links += made.links[i].target != 0 ? 1 : 0;
        guarded += made.links[i].guard != 0 ? 1 : 0;
      }
    }
    for (const auto& [key, address] : entries_) {
      CHECK(cache_->find(std::get<0>(key), std::get<1>(key), std::get<2>(key)) == address);
    }
    const std::vector<uint64_t> found = cache_->pages();
    CHECK(found.size() == pages.size() && std::set<uint64_t>(found.begin(), found.end()) == pages);
    const CodeCacheStats stats = cache_->stats();
    CHECK(stats.fragments == made_.size() && stats.code_bytes_now == bytes);
    CHECK(stats.links == links && stats.guarded_links == guarded);
    CHECK(stats.fragments_made - stats.fragments_evicted - stats.fragments_invalidated == made_.size());
  }

  CodeCacheStats stats() const { return cache_->stats(); }

 private:
  static constexpr unsigned kPages = 8;  // physical; half as many linear ones
  static constexpr uint64_t kLinear = 0xffff'ffff'8000'0000;
  static constexpr size_t kGuardBytes = 40;

  struct MadeLink {
    uint64_t target = 0;  // 0: not linked
    uint64_t guard = 0;   // 0: straight
    bool global = false;
  };
  struct Made {
    Fragment* fragment = nullptr;
    uint64_t host = 0;
    std::vector<MadeLink> links;  // by slot
  };
  using Key = std::tuple<uint64_t, uint64_t, Mode>;

  static uint64_t take_rip(FuzzInput& input) {
    return kLinear + input.take<uint8_t>() % (kPages / 2) * kPageSize + input.take<uint8_t>() % 8 * 16;
  }

  static uint64_t take_page(FuzzInput& input) { return input.take<uint8_t>() % kPages * kPageSize; }

  size_t segment_of(uint64_t address) const {
    return (address - cache_->stub_address()) / CodeCache::kSegmentBytes - 1;
  }
  static bool is_inside(const Made& made, uint64_t address) { return address - made.host < made.fragment->size_bytes; }

  void add(FuzzInput& input) {
    const bool large = input.take_below(4) == 0;
    const uint32_t size = 256 + input.take_below(large ? CodeCache::kRoomBytesMax - 256 : 6000);
    const uint64_t generation = cache_->generation();
    const CodeCache::Room room = cache_->reserve(size);
    removed_ = nullptr;
    note_room(room, size, generation);

    auto fragment = std::make_unique<Fragment>();
    fragment->linear_page = take_rip(input) & ~(kPageSize - 1);
    fragment->gpa_page = take_page(input);
    fragment->mode = static_cast<Mode>(input.take<uint8_t>() % 2);
    fragment->global = input.take<uint8_t>() % 2 != 0;
    fragment->granules = input.take<uint8_t>();
    fragment->size_bytes = size - input.take<uint8_t>() % 64;
    for (unsigned i = input.take<uint8_t>() % 4; i-- > 0;) {
      const uint64_t rip = fragment->linear_page | (take_rip(input) & (kPageSize - 1));
      fragment->entries.push_back({.rip = rip, .host_offset = i * 4});
    }
    const unsigned slots = input.take<uint8_t>() % 5;
    for (unsigned i = 0; i < slots; ++i) write_branch(*fragment, room, i, take_rip(input), input.take<uint8_t>());

    Fragment* const added = cache_->add(std::move(fragment));
    CHECK(added->host == room.executable);
    for (const FragmentEntry& entry : added->entries) {
      entries_[{entry.rip, added->gpa_page | (entry.rip % kPageSize), added->mode}] = added->host + entry.host_offset;
    }
    made_.push_back({.fragment = added, .host = added->host, .links = std::vector<MadeLink>(slots)});
  }

  /// `jmp` to a stub of its own.
  static void write_branch(Fragment& fragment, const CodeCache::Room& room, uint32_t i, uint64_t target_rip,
                           uint8_t kind) {
    const LinkSlot slot{
        .target_rip = target_rip, .rel32_offset = 21 + i * 8, .stub_offset = 100 + i * 10, .is_poll = kind < 16};
    const uint32_t relative = slot.stub_offset - slot.rel32_offset - 4;
    std::memcpy(room.buffer.data() + slot.rel32_offset, &relative, sizeof(relative));
    fragment.slots.push_back(slot);
  }

  void note_room(const CodeCache::Room& room, uint32_t size, uint64_t generation) {
    CHECK(room.buffer.size() >= size && cache_->contains(room.executable));
    CHECK(cache_->contains(room.executable + size - 1));
    const size_t segment = segment_of(room.executable);
    CHECK(segment < opened_.size() && segment == segment_of(room.executable + size - 1));
    const bool is_opened = (room.executable - cache_->stub_address()) % CodeCache::kSegmentBytes == 0;
    const bool removed = is_opened && empty_segment(segment);
    CHECK(removed == (cache_->generation() != generation));
    for (const Made& made : made_) {
      CHECK(made.host + made.fragment->size_bytes <= room.executable || made.host >= room.executable + size);
      for (const MadeLink& link : made.links) {
        CHECK(link.guard == 0 || link.guard + kGuardBytes <= room.executable || link.guard >= room.executable + size);
      }
    }
  }

  /// Model's part of opening a segment. True: there were fragments.
  bool empty_segment(size_t segment) {
    std::vector<unsigned> live(opened_.size());
    for (const Made& made : made_) ++live[segment_of(made.host)];
    const bool evicts = live[segment] != 0;
    for (size_t i = 0; i < opened_.size() && evicts; ++i) CHECK(live[i] != 0 && opened_[i] >= opened_[segment]);
    opened_[segment] = ++openings_;
    std::erase_if(made_, [&](const Made& made) { return segment_of(made.host) == segment && (forget(made), true); });
    for (Made& made : made_) {
      for (MadeLink& link : made.links) {
        if (link.guard != 0 && segment_of(link.guard) == segment) link = {};
      }
    }
    return evicts;
  }

  /// Links to `gone` and its entries; uses nothing of the Fragment that may be destroyed.
  void forget(const Made& gone) {
    for (Made& made : made_) {
      for (MadeLink& link : made.links) {
        if (link.target != 0 && is_inside(gone, link.target)) link = {};
      }
    }
    std::erase_if(entries_, [&](const auto& entry) { return is_inside(gone, entry.second); });
  }

  template <typename Predicate>
  void remove_if(Predicate&& predicate, uint64_t generation) {
    bool removed = false;
    for (auto made = made_.begin(); made != made_.end();) {
      if (!predicate(*made)) {
        ++made;
        continue;
      }
      removed = true;
      removed_ = made->fragment;
      CHECK(cache_->fragment_at(made->host) == nullptr);
      forget(*made);
      made = made_.erase(made);
    }
    CHECK(removed == (cache_->generation() != generation));
  }

  void invalidate(uint64_t gpa_page, uint64_t granules) {
    const uint64_t generation = cache_->generation();
    cache_->invalidate(gpa_page, granules);
    remove_if(
        [&](const Made& made) {
          return made.fragment->gpa_page == gpa_page && (made.fragment->granules & granules) != 0;
        },
        generation);
  }

  void remove_all() {
    const uint64_t generation = cache_->generation();
    cache_->invalidate_all();
    remove_if([](const Made&) { return true; }, generation);
  }

  void unlink_global() {
    cache_->unlink_global();
    for (Made& made : made_) {
      for (MadeLink& link : made.links) {
        if (link.global) link = {};
      }
    }
  }

  void link(FuzzInput& input) {
    if (made_.empty()) return;
    Made& made = *std::next(made_.begin(), input.take_below(static_cast<uint32_t>(made_.size())));
    if (made.links.empty()) return;
    const size_t index = input.take_below(static_cast<uint32_t>(made.links.size()));
    const LinkSlot& slot = made.fragment->slots[index];
    uint64_t target = 0;
    const uint32_t first = input.take_below(kPages);
    for (unsigned i = 0; i < kPages && target == 0; ++i) {
      target = find(slot.target_rip, (first + i) % kPages * kPageSize, made.fragment->mode);
    }
    if (target == 0) return;
    if (removed_ != nullptr && !removed_->slots.empty()) cache_->link(*removed_, removed_->slots[0], target, 0);
    const uint64_t generation = cache_->generation();
    cache_->link(*made.fragment, slot, target, input.take_below(2));
    CHECK(cache_->generation() == generation);
    if (!slot.is_poll) note_link(made, index, target);
  }

  void note_link(Made& made, size_t index, uint64_t target) {
    const Fragment& from = *made.fragment;
    const Fragment& to = *cache_->fragment_at(target);
    const bool same_page = from.linear_page == to.linear_page && from.gpa_page == to.gpa_page;
    const bool both_global = from.global && to.global;
    MadeLink link{.target = target, .global = both_global && !same_page};
    if (!same_page && !both_global) link.guard = followed(made, index);
    made.links[index] = link;
    check_link(made, index);
  }

  /// Where the branch of a slot goes.
  uint64_t followed(const Made& made, size_t index) const {
    return branch_target(made.host + made.fragment->slots[index].rel32_offset);
  }
  static uint64_t branch_target(uint64_t rel32_address) {
    int32_t relative = 0;
    std::memcpy(&relative, reinterpret_cast<const void*>(rel32_address), sizeof(relative));
    return rel32_address + sizeof(relative) + static_cast<int64_t>(relative);
  }

  void check_link(const Made& made, size_t index) const {
    const MadeLink& link = made.links[index];
    const uint64_t stub = made.host + made.fragment->slots[index].stub_offset;
    const uint64_t goes_to = followed(made, index);
    CHECK(goes_to == (link.target == 0 ? stub : link.guard != 0 ? link.guard : link.target));
    if (link.guard == 0) return;
    CHECK(cache_->contains(link.guard) && cache_->fragment_at(link.guard) == nullptr);
    CHECK(segment_of(link.guard) == segment_of(link.guard + kGuardBytes - 1));
    CHECK(has_jump(link.guard, stub) && has_jump(link.guard, link.target));
  }

  /// JMP rel32, or rel8 where it is near (SDM Vol. 2, JMP).
  static bool has_jump(uint64_t guard, uint64_t target) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(guard);
    for (size_t i = 0; i + 5 <= kGuardBytes; ++i) {
      if (bytes[i] == 0xe9 && branch_target(guard + i + 1) == target) return true;
      if (bytes[i] == 0xeb && guard + i + 2 + static_cast<int64_t>(static_cast<int8_t>(bytes[i + 1])) == target)
        return true;
    }
    return false;
  }

  /// Asks cache and model.
  uint64_t find(uint64_t rip, uint64_t gpa_page, Mode mode) const {
    const uint64_t gpa = gpa_page | (rip % kPageSize);
    const auto entry = entries_.find({rip, gpa, mode});
    const uint64_t found = cache_->find(rip, gpa, mode);
    CHECK(found == (entry == entries_.end() ? 0 : entry->second));
    return found;
  }

  void look_up(FuzzInput& input) {
    const uint64_t rip = take_rip(input);
    find(rip, take_page(input), static_cast<Mode>(input.take<uint8_t>() % 3));
    const uint64_t address = cache_->stub_address() + input.take<uint32_t>() % (8u << 20);
    Fragment* expected = nullptr;
    for (const Made& made : made_) {
      if (is_inside(made, address)) expected = made.fragment;
    }
    CHECK(cache_->fragment_at(address) == expected);
  }

  void number(FuzzInput& input) {
    const uint64_t linear_page = take_rip(input) & ~(kPageSize - 1);
    const uint64_t gpa_page = take_page(input);
    const uint32_t number = cache_->mapping_number(linear_page, gpa_page);
    CHECK(number != 0);
    const auto [known, is_new] = numbers_.try_emplace({linear_page, gpa_page}, number);
    CHECK(known->second == number);
    if (is_new) CHECK(numbers_seen_.insert(number).second);
  }

  std::unique_ptr<CodeCache> cache_;
  std::list<Made> made_;
  std::map<Key, uint64_t> entries_;
  std::map<std::pair<uint64_t, uint64_t>, uint32_t> numbers_;
  std::set<uint32_t> numbers_seen_;
  Fragment* removed_ = nullptr;   // some removed one, readable until the next reserve()
  std::vector<uint64_t> opened_;  // by segment: when
  uint64_t openings_ = 0;
};

}  // namespace tenon::jit
