#include "engine/jit/code_cache.hh"

#include <asm/prctl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "engine/interp/accelerator.hh"
#include "engine/jit/assembler.hh"
#include "engine/jit/code_cache_model.hh"

namespace tenon::jit {
namespace {

/// What GS base points to, with the state anywhere inside, as in interp::Cpu.
struct FakeCpu {
  std::array<std::byte, 192> before{};
  interp::TranslatedState translated;
};
constexpr size_t kStateOffset = offsetof(FakeCpu, translated);

/// GS base is `cpu` while it lives. SAFETY: glibc keeps nothing in GS on x86-64.
class GsScope {
 public:
  explicit GsScope(FakeCpu& cpu) {
    EXPECT_EQ(syscall(SYS_arch_prctl, ARCH_GET_GS, &old_), 0);
    EXPECT_EQ(syscall(SYS_arch_prctl, ARCH_SET_GS, &cpu), 0);
  }
  ~GsScope() { syscall(SYS_arch_prctl, ARCH_SET_GS, old_); }
  GsScope(const GsScope&) = delete;
  GsScope& operator=(const GsScope&) = delete;

 private:
  unsigned long old_ = 0;
};

/// RCX and RFLAGS where a link led to.
struct Seen {
  uint64_t rcx = 0;
  uint64_t flags = 0;
};

constexpr uint64_t kGo = 0x10;    // page offset of the entry that takes the slot
constexpr uint64_t kLand = 0x40;  // of the entry that says which fragment it is in

struct Place {
  uint64_t linear_page = 0;
  uint64_t gpa_page = 0;
  bool global = false;
  uint64_t granules = 1;
  Mode mode = 0;
};

constexpr Place kFirst{.linear_page = 0x7f00'0000'1000, .gpa_page = 0x5000};
constexpr Place kSecond{.linear_page = 0x7f00'0000'2000, .gpa_page = 0x9000};
constexpr Place kGlobalFirst{.linear_page = 0xffff'ffff'8100'0000, .gpa_page = 0x10'0000, .global = true};
constexpr Place kGlobalSecond{.linear_page = 0xffff'ffff'8100'1000, .gpa_page = 0x10'1000, .global = true};

class CodeCacheTest : public testing::Test {
 protected:
  static constexpr size_t kSegments = 3;

  void SetUp() override { create(kSegments); }

  void create(size_t segments, uint32_t mapping_number_max = CodeCache::kMappingNumberMax) {
    auto cache = CodeCache::create((segments + 1) * CodeCache::kSegmentBytes, 4096, kStateOffset, mapping_number_max);
    ASSERT_TRUE(cache.has_value()) << cache.error().message();
    cache_ = std::move(*cache);
    // The exit that all stubs call: returns their return address, which is inside the fragment.
    Assembler code(cache_->stub_buffer(), cache_->stub_address());
    code.pop(kHostRax);
    record(code);
    code.ret();
    ASSERT_FALSE(code.overflowed());
  }

  /// Stores RCX and RFLAGS in the Seen at RDX.
  static void record(Assembler& code) {
    constexpr uint8_t kPushFlags = 0x9c;
    code.store(HostOperand::at(kHostRdx), kHostRcx);
    code.bytes({&kPushFlags, 1});
    code.pop(kHostR8);
    code.store(HostOperand::at(kHostRdx, offsetof(Seen, flags)), kHostR8);
  }

  /// A fragment that can be called as `uint64_t (uint64_t rcx, uint64_t compare_with, Seen*)`. Its entry kGo sets RCX
  /// and flags and takes the slot to `target_rip`; kLand returns `id`. Padded to `size_bytes`.
  Fragment* add(const Place& place, uint64_t target_rip = 0, uint32_t id = 0, uint32_t size_bytes = 0) {
    const CodeCache::Room room = cache_->reserve(std::max<size_t>(256, size_bytes));
    Assembler code(room.buffer, room.executable);
    auto fragment = std::make_unique<Fragment>();
    fragment->linear_page = place.linear_page;
    fragment->gpa_page = place.gpa_page;
    fragment->global = place.global;
    fragment->granules = place.granules;
    fragment->mode = place.mode;
    fragment->guest_bytes = 10;
    fragment->guest_instructions = 3;

    fragment->entries.push_back({.rip = place.linear_page + kGo, .host_offset = static_cast<uint32_t>(code.offset())});
    code.mov(kHostRcx, HostOperand::r(kHostRdi));
    code.cmp(kHostRcx, HostOperand::r(kHostRsi));
    const Fixup slot = code.jmp_forward();
    fragment->entries.push_back(
        {.rip = place.linear_page + kLand, .host_offset = static_cast<uint32_t>(code.offset())});
    record(code);
    code.mov_immediate(kHostRax, id);
    code.ret();
    code.bind(slot);
    const auto stub = static_cast<uint32_t>(code.offset());
    code.call(cache_->stub_address());
    fragment->slots.push_back({.target_rip = target_rip, .rel32_offset = slot.at, .stub_offset = stub});
    EXPECT_FALSE(code.overflowed());
    fragment->size_bytes = std::max(static_cast<uint32_t>(code.offset()), size_bytes);
    return cache_->add(std::move(fragment));
  }

  uint64_t entry(const Place& place, uint64_t page_offset) const {
    return cache_->find(place.linear_page + page_offset, place.gpa_page + page_offset, place.mode);
  }

  void link(Fragment* from, const Place& target, unsigned privilege = 0) {
    ASSERT_NE(entry(target, kLand), 0u);
    cache_->link(*from, from->slots[0], entry(target, kLand), privilege);
  }

  /// Takes the slot of `from`: kAtStub where it goes to its stub, else the id of where it lands.
  static constexpr uint64_t kAtStub = ~uint64_t{0};
  uint64_t go(const Fragment* from, uint64_t rcx = 7, uint64_t compare_with = 8) {
    const GsScope gs(cpu_);
    const auto code = reinterpret_cast<uint64_t (*)(uint64_t, uint64_t, Seen*)>(from->host);
    const uint64_t result = code(rcx, compare_with, &seen_);
    if (from->slot_at(result) == &from->slots[0]) return kAtStub;
    return result;
  }

  void map_now(const Place& place, unsigned privilege = 0) {
    code_page(place, privilege) = cache_->mapping_number(place.linear_page, place.gpa_page);
  }
  uint32_t& code_page(const Place& place, unsigned privilege = 0) {
    return cpu_.translated.code_pages[privilege][place.linear_page / kPageSize % interp::TranslatedState::kCodePages];
  }

  /// Fills the ring until a segment has been opened. Each of these is on a page of its own.
  void fill_segment() {
    const uint64_t start = next_fill_;
    size_t segment = 0;
    for (bool is_first = true;; is_first = false) {
      const Place place{.linear_page = next_fill_ << 12, .gpa_page = next_fill_ << 12};
      const size_t now = (add(place, 0, 0, 100'000)->host - cache_->stub_address()) / CodeCache::kSegmentBytes;
      ++next_fill_;
      if (!is_first && now != segment) break;
      segment = now;
    }
    filled_ = {start, next_fill_};
  }

  FakeCpu cpu_;
  std::unique_ptr<CodeCache> cache_;
  Seen seen_;
  uint64_t next_fill_ = 0x8'0000;
  std::pair<uint64_t, uint64_t> filled_;
};

TEST_F(CodeCacheTest, CreateRefusesSizesThatMakeNoRing) {
  constexpr size_t kMiB = CodeCache::kSegmentBytes;
  EXPECT_FALSE(CodeCache::create(2 * kMiB, 100, 0).has_value());
  EXPECT_FALSE(CodeCache::create(3 * kMiB, kMiB + 1, 0).has_value());
  EXPECT_FALSE(CodeCache::create(4 * kMiB + 4096, 100, 0).has_value());
  EXPECT_FALSE(CodeCache::create(1025 * kMiB, 100, 0).has_value());
  EXPECT_TRUE(CodeCache::create(3 * kMiB, kMiB, 0).has_value());
}

TEST_F(CodeCacheTest, FindsByRipPhysicalAddressAndMode) {
  Fragment* fragment = add(kFirst);
  EXPECT_EQ(entry(kFirst, kGo), fragment->host);
  EXPECT_EQ(entry(kFirst, kLand), fragment->host + fragment->entries[1].host_offset);
  EXPECT_EQ(entry(kFirst, 0x20), 0u);
  EXPECT_EQ(cache_->find(kFirst.linear_page + kGo, kSecond.gpa_page + kGo, 0), 0u);
  EXPECT_EQ(cache_->find(kSecond.linear_page + kGo, kFirst.gpa_page + kGo, 0), 0u);
  EXPECT_EQ(cache_->find(kFirst.linear_page + kGo, kFirst.gpa_page + kGo, 1), 0u);
  EXPECT_EQ(fragment->host % CodeCache::kFragmentAlignment, 0u);
  EXPECT_TRUE(cache_->contains(fragment->host));
  EXPECT_TRUE(cache_->contains(cache_->stub_address()));
  EXPECT_FALSE(cache_->contains(cache_->stub_address() - 1));
  EXPECT_FALSE(cache_->contains(cache_->stub_address() + (kSegments + 1) * CodeCache::kSegmentBytes));
}

TEST_F(CodeCacheTest, FragmentAtKnowsWhereCodeEnds) {
  std::vector<Fragment*> fragments;
  for (uint32_t i = 0; i < 20; ++i) {
    fragments.push_back(add({.linear_page = i << 12, .gpa_page = i << 12}, 0, 0, 200 + i));
  }
  for (const Fragment* fragment : fragments) {
    EXPECT_EQ(cache_->fragment_at(fragment->host), fragment);
    EXPECT_EQ(cache_->fragment_at(fragment->host + fragment->size_bytes - 1), fragment);
    EXPECT_NE(cache_->fragment_at(fragment->host + fragment->size_bytes), fragment);
    EXPECT_NE(cache_->fragment_at(fragment->host - 1), fragment);
  }
  EXPECT_EQ(cache_->fragment_at(fragments.back()->host + fragments.back()->size_bytes), nullptr);
  EXPECT_EQ(cache_->fragment_at(cache_->stub_address()), nullptr);
  EXPECT_EQ(cache_->fragment_at(0), nullptr);
  cache_->invalidate(fragments[10]->gpa_page, 1);
  EXPECT_EQ(cache_->fragment_at(fragments[10]->host), nullptr);
  EXPECT_EQ(cache_->fragment_at(fragments[11]->host), fragments[11]);
  EXPECT_EQ(cache_->fragment_at(fragments[9]->host), fragments[9]);
}

TEST(Fragment, SlotsAndSideEntriesAreFoundByAddress) {
  Fragment fragment;
  fragment.host = 0x10000;
  fragment.size_bytes = 100;
  fragment.slots = {{.target_rip = 1, .rel32_offset = 3, .stub_offset = 60},
                    {.target_rip = 2, .rel32_offset = 9, .stub_offset = 70}};
  fragment.side = {{.host_offset = 4, .guest_offset = 100},
                   {.host_offset = 10, .guest_offset = 103},
                   {.host_offset = 60, .guest_offset = 100}};
  EXPECT_EQ(fragment.slot_at(0x10000 + 65)->target_rip, 1u);
  EXPECT_EQ(fragment.slot_at(0x10000 + 75)->target_rip, 2u);
  EXPECT_EQ(fragment.slot_at(0x10000 + 66), nullptr);
  EXPECT_EQ(fragment.slot_at(0x10000 + 80), nullptr);
  EXPECT_EQ(fragment.slot_at(0), nullptr);
  EXPECT_EQ(fragment.side_at(0x10000 + 3), nullptr);
  EXPECT_EQ(fragment.side_at(0x10000 + 4)->guest_offset, 100);
  EXPECT_EQ(fragment.side_at(0x10000 + 9)->guest_offset, 100);
  EXPECT_EQ(fragment.side_at(0x10000 + 10)->guest_offset, 103);
  EXPECT_EQ(fragment.side_at(0x10000 + 99)->host_offset, 60u);
  EXPECT_EQ(fragment.side_at(0x10000 + 100), nullptr);
  EXPECT_EQ(fragment.side_at(0x10000 - 1), nullptr);
}

TEST_F(CodeCacheTest, NewestEntryWinsAndOutlivesTheOlder) {
  Place place = kFirst;
  place.granules = 1;
  Fragment* older = add(place);
  place.granules = 2;
  Fragment* newer = add(place);
  EXPECT_EQ(entry(kFirst, kGo), newer->host);
  cache_->invalidate(kFirst.gpa_page, 1);
  EXPECT_EQ(cache_->fragment_at(older->host), nullptr);
  EXPECT_EQ(entry(kFirst, kGo), newer->host);
  EXPECT_EQ(entry(kFirst, kLand), newer->host + newer->entries[1].host_offset);
}

TEST_F(CodeCacheTest, RemovingTheNewestLeavesNoEntry) {
  Place place = kFirst;
  place.granules = 1;
  Fragment* older = add(place);
  place.granules = 2;
  add(place);
  cache_->invalidate(kFirst.gpa_page, 2);
  EXPECT_EQ(entry(kFirst, kGo), 0u);
  EXPECT_EQ(cache_->fragment_at(older->host), older);
  cache_->invalidate(kFirst.gpa_page, 1);
  EXPECT_EQ(entry(kFirst, kGo), 0u);
  EXPECT_TRUE(cache_->pages().empty());
}

TEST_F(CodeCacheTest, InvalidateGoesByGranuleAndPage) {
  Place place = kFirst;
  for (unsigned bit = 0; bit < 64; ++bit) {
    place.granules = uint64_t{1} << bit;
    place.linear_page = kFirst.linear_page + bit * kPageSize;
    add(place);
  }
  add(kSecond);
  const uint64_t generation = cache_->generation();
  cache_->invalidate(kFirst.gpa_page + 0x1000, ~uint64_t{0});
  cache_->invalidate(kFirst.gpa_page, 0);
  EXPECT_EQ(cache_->generation(), generation);
  cache_->invalidate(kFirst.gpa_page, 0x8000'0000'0000'0003);
  EXPECT_NE(cache_->generation(), generation);
  EXPECT_EQ(cache_->stats().fragments, 62u);
  EXPECT_EQ(cache_->stats().fragments_invalidated, 3u);
  EXPECT_EQ(entry(kFirst, kGo), 0u);
  place.linear_page = kFirst.linear_page + 2 * kPageSize;
  EXPECT_NE(entry(place, kGo), 0u);
  EXPECT_EQ(cache_->pages().size(), 2u);
  cache_->invalidate(kFirst.gpa_page, ~uint64_t{0});
  EXPECT_EQ(cache_->pages(), std::vector<uint64_t>{kSecond.gpa_page});
}

TEST_F(CodeCacheTest, SamePageLinkIsStraightAndFollowsItsTarget) {
  Fragment* from = add(kFirst, kFirst.linear_page + kLand, 1);
  Place other = kFirst;
  other.granules = 2;
  Fragment* target = add(other, 0, 2);
  EXPECT_EQ(go(from), kAtStub);
  link(from, kFirst);
  EXPECT_EQ(go(from), 2u);
  EXPECT_EQ(cache_->stats().links, 1u);
  EXPECT_EQ(cache_->stats().guarded_links, 0u);
  cache_->unlink_global();
  EXPECT_EQ(go(from), 2u);
  cache_->invalidate(target->gpa_page, 2);
  EXPECT_EQ(go(from), kAtStub);
  EXPECT_EQ(cache_->stats().links, 0u);
}

TEST_F(CodeCacheTest, LinkToItselfGoesWithIt) {
  Fragment* self = add(kFirst, kFirst.linear_page + kLand, 9);
  link(self, kFirst);
  EXPECT_EQ(go(self), 9u);
  cache_->invalidate(kFirst.gpa_page, 1);
  EXPECT_EQ(cache_->stats().links, 0u);
  EXPECT_EQ(cache_->stats().fragments, 0u);
}

TEST_F(CodeCacheTest, GlobalLinkIsStraightUntilAGlobalTranslationChanges) {
  Fragment* from = add(kGlobalFirst, kGlobalSecond.linear_page + kLand, 1);
  add(kGlobalSecond, 0, 2);
  Fragment* within = add(kSecond, kSecond.linear_page + kLand, 3);
  link(within, kSecond);
  link(from, kGlobalSecond);
  EXPECT_EQ(cache_->stats().guarded_links, 0u);
  EXPECT_EQ(go(from), 2u);  // code_pages says nothing of it
  cache_->unlink_global();
  EXPECT_EQ(go(from), kAtStub);
  EXPECT_EQ(go(within), 3u);
  link(from, kGlobalSecond);
  EXPECT_EQ(go(from), 2u);
  cache_->invalidate(kGlobalFirst.gpa_page, 1);  // its link leaves that list too
  cache_->unlink_global();
  EXPECT_EQ(cache_->stats().links, 1u);
}

TEST_F(CodeCacheTest, GuardAsksWhichPageIsMappedNow) {
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  add(kSecond, 0, 2);
  link(from, kSecond);
  EXPECT_EQ(cache_->stats().guarded_links, 1u);
  EXPECT_EQ(go(from), kAtStub);
  map_now(kSecond, 1);
  EXPECT_EQ(go(from), kAtStub);  // the other privilege's
  map_now(kSecond, 0);
  EXPECT_EQ(go(from), 2u);
  Place remapped = kSecond;
  remapped.gpa_page += 0x1000;
  map_now(remapped);
  EXPECT_EQ(go(from), kAtStub);
  map_now(kSecond);
  EXPECT_EQ(go(from), 2u);
  code_page(kSecond) = 0;
  EXPECT_EQ(go(from), kAtStub);
  cache_->unlink_global();
  map_now(kSecond);
  EXPECT_EQ(go(from), 2u);
}

TEST_F(CodeCacheTest, GuardKeepsFlagsAndRcxBothWays) {
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  add(kSecond, 0, 2);
  const std::array<std::pair<uint64_t, uint64_t>, 6> operands{
      {{0, 0}, {1, 2}, {2, 1}, {0x8000'0000'0000'0000, 1}, {0x10, 0xf}, {~uint64_t{0}, 0x7fff'ffff'ffff'ffff}}};
  for (const unsigned privilege : {0u, 1u}) {
    for (const auto& [rcx, other] : operands) {
      cache_->invalidate_all();
      from = add(kFirst, kSecond.linear_page + kLand, 1);
      add(kSecond, 0, 2);
      EXPECT_EQ(go(from, rcx, other), kAtStub);
      const uint64_t flags = seen_.flags;  // a plain jump's
      code_page(kSecond, privilege) = 0;
      link(from, kSecond, privilege);
      seen_ = {};
      EXPECT_EQ(go(from, rcx, other), kAtStub);
      EXPECT_EQ(seen_.rcx, rcx);
      EXPECT_EQ(seen_.flags, flags);
      map_now(kSecond, privilege);
      seen_ = {};
      EXPECT_EQ(go(from, rcx, other), 2u);
      EXPECT_EQ(seen_.rcx, rcx);
      EXPECT_EQ(seen_.flags, flags);
    }
  }
}

TEST_F(CodeCacheTest, GuardComparesLargeNumbers) {
  create(kSegments, 300);
  for (uint64_t i = 0; i < 290; ++i) cache_->mapping_number(i << 12, 0);
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  add(kSecond, 0, 2);
  map_now(kSecond);
  link(from, kSecond);
  EXPECT_EQ(go(from), 2u);
  code_page(kSecond) += 256;
  EXPECT_EQ(go(from), kAtStub);
}

TEST_F(CodeCacheTest, LinkingAgainChangesNothingUnlessTheTargetDiffers) {
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  add(kSecond, 0, 2);
  Place remapped = kSecond;
  remapped.gpa_page += 0x1000;
  add(remapped, 0, 3);
  link(from, kSecond);
  std::array<std::byte, 64> before{};
  std::memcpy(before.data(), reinterpret_cast<const void*>(from->host), before.size());
  link(from, kSecond);
  EXPECT_EQ(std::memcmp(before.data(), reinterpret_cast<const void*>(from->host), before.size()), 0);
  map_now(kSecond);
  EXPECT_EQ(go(from), 2u);
  link(from, remapped);
  EXPECT_EQ(cache_->stats().guarded_links, 1u);
  EXPECT_EQ(go(from), kAtStub);
  map_now(remapped);
  EXPECT_EQ(go(from), 3u);
  cache_->invalidate(kSecond.gpa_page, 1);
  EXPECT_EQ(go(from), 3u);
  cache_->invalidate(remapped.gpa_page, 1);
  EXPECT_EQ(go(from), kAtStub);
}

TEST_F(CodeCacheTest, PollsStayAtTheirStubs) {
  Fragment* from = add(kFirst, kFirst.linear_page + kLand, 1);
  from->slots[0].is_poll = true;
  link(from, kFirst);
  EXPECT_EQ(go(from), kAtStub);
  EXPECT_EQ(cache_->stats().links, 0u);
}

TEST_F(CodeCacheTest, RemovedFragmentStaysReadableUntilReserve) {
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  add(kSecond, 0, 2);
  const uint64_t host = from->host;
  cache_->invalidate(kFirst.gpa_page, 1);
  EXPECT_EQ(cache_->fragment_at(host), nullptr);
  EXPECT_EQ(from->linear_page, kFirst.linear_page);
  EXPECT_EQ(go(from), kAtStub);
  link(from, kSecond);
  EXPECT_EQ(cache_->stats().links, 0u);
  EXPECT_EQ(go(from), kAtStub);
  cache_->invalidate(kSecond.gpa_page, 1);
  add(kFirst);
  EXPECT_EQ(cache_->stats().fragments, 1u);
}

TEST_F(CodeCacheTest, EvictionTakesTheOldestSegmentAndItsLinks) {
  Fragment* target = add(kSecond, kFirst.linear_page + kLand, 2);
  const uint64_t oldest = target->host;
  fill_segment();
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  link(from, kSecond);
  link(target, kFirst);
  map_now(kSecond);
  map_now(kFirst);
  EXPECT_EQ(go(from), 2u);
  EXPECT_EQ(go(target), 1u);
  const uint64_t generation = cache_->generation();
  fill_segment();
  EXPECT_EQ(cache_->generation(), generation);
  EXPECT_EQ(cache_->stats().segments_used, kSegments);
  EXPECT_EQ(go(from), 2u);
  fill_segment();  // wraps
  EXPECT_NE(cache_->generation(), generation);
  EXPECT_GT(cache_->stats().fragments_evicted, 1u);
  EXPECT_EQ(cache_->stats().fragments_invalidated, 0u);
  EXPECT_EQ(entry(kSecond, kLand), 0u);
  EXPECT_EQ(go(from), kAtStub);
  EXPECT_EQ(cache_->stats().links, 0u);
  // What evicted it is not patched when the target of its old link goes.
  Fragment* now_there = cache_->fragment_at(oldest);
  ASSERT_NE(now_there, nullptr);
  cache_->invalidate(kFirst.gpa_page, 1);
  EXPECT_EQ(go(now_there), kAtStub);
}

TEST_F(CodeCacheTest, GuardGoesWithTheSegmentItIsIn) {
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  add(kSecond, 0, 2);
  fill_segment();
  link(from, kSecond);  // its guard is in the second segment now
  map_now(kSecond);
  EXPECT_EQ(go(from), 2u);
  fill_segment();
  for (uint64_t page : cache_->pages()) {
    const uint64_t address = cache_->find(page + kGo, page + kGo, 0);
    const bool in_second = address != 0 && (address - cache_->stub_address()) / CodeCache::kSegmentBytes == 2;
    if (in_second) cache_->invalidate(page, ~uint64_t{0});
  }
  const uint64_t generation = cache_->generation();
  EXPECT_EQ(go(from), 2u);
  fill_segment();  // the second has no live fragment, so it is opened before the first, which is older
  EXPECT_EQ(cache_->generation(), generation);
  EXPECT_EQ(cache_->stats().fragments_evicted, 0u);
  EXPECT_EQ(cache_->stats().links, 0u);
  EXPECT_EQ(go(from), kAtStub);
  link(from, kSecond);
  EXPECT_EQ(go(from), 2u);
}

TEST_F(CodeCacheTest, OldCodeCanBeLinkedWhenTheRingIsFull) {
  // A segment holds seven of this size, and would hold eight and nothing else. So many fill the last one in both cases.
  constexpr uint32_t kSize = CodeCache::kRoomBytesMax;
  constexpr unsigned kCount = 7 * 8;
  const auto place = [](uint64_t i) { return Place{.linear_page = i << 12, .gpa_page = i << 12}; };
  for (unsigned i = 1; i < kCount; ++i) add(place(i), kSecond.linear_page + kLand, 1, kSize);
  add(kSecond, 0, 2, kSize);
  map_now(kSecond);
  unsigned linked = 0;
  for (unsigned i = 1; i < kCount; ++i) {
    if (entry(place(i), kGo) == 0) continue;
    Fragment* from = cache_->fragment_at(entry(place(i), kGo));
    link(from, kSecond);
    EXPECT_EQ(go(from), 2u);
    ++linked;
  }
  EXPECT_EQ(linked, kSegments * 7 - 1);
  EXPECT_EQ(cache_->stats().guarded_links, linked);
}

TEST_F(CodeCacheTest, GuardsAreUsedAgain) {
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  Place remapped = kSecond;
  remapped.gpa_page += 0x1000;
  add(kSecond, 0, 2);
  add(remapped, 0, 3);
  for (unsigned i = 0; i < 50'000; ++i) {  // twice what a segment has room for
    link(from, kSecond);
    link(from, remapped);
  }
  EXPECT_EQ(cache_->stats().guarded_links, 1u);
  map_now(remapped);
  EXPECT_EQ(go(from), 3u);
}

TEST_F(CodeCacheTest, RemovedCodeMakesRoomWithoutEviction) {
  add(kFirst);
  for (unsigned i = 0; i < 2000; ++i) {
    add(kSecond, 0, 0, 4000);
    cache_->invalidate(kSecond.gpa_page, 1);
  }
  EXPECT_EQ(cache_->stats().fragments_evicted, 0u);
  EXPECT_EQ(cache_->stats().segments_used, 2u);
  EXPECT_NE(entry(kFirst, kGo), 0u);
}

TEST_F(CodeCacheTest, RoomEndsWithTheNextGuard) {
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  add(kSecond, 0, 2);
  cache_->reserve(256);
  link(from, kSecond);
  auto late = std::make_unique<Fragment>();
  late->size_bytes = 16;
  EXPECT_DEATH(cache_->add(std::move(late)), "check failed");
}

TEST_F(CodeCacheTest, InvalidateAllLeavesNothing) {
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  add(kSecond, 0, 2);
  add(kGlobalFirst, kGlobalSecond.linear_page + kLand);
  add(kGlobalSecond);
  link(from, kSecond);
  link(cache_->fragment_at(entry(kGlobalFirst, kGo)), kGlobalSecond);
  const uint64_t generation = cache_->generation();
  cache_->invalidate_all();
  EXPECT_EQ(cache_->generation(), generation + 1);
  cache_->invalidate_all();
  EXPECT_EQ(cache_->generation(), generation + 1);
  EXPECT_EQ(entry(kFirst, kGo), 0u);
  EXPECT_EQ(cache_->stats().fragments, 0u);
  EXPECT_EQ(cache_->stats().links, 0u);
  EXPECT_EQ(cache_->stats().code_bytes_now, 0u);
  EXPECT_EQ(cache_->stats().fragments_invalidated, 4u);
  EXPECT_TRUE(cache_->pages().empty());
  cache_->unlink_global();
  from = add(kFirst, kSecond.linear_page + kLand, 1);
  add(kSecond, 0, 2);
  map_now(kSecond);
  link(from, kSecond);
  EXPECT_EQ(go(from), 2u);
  EXPECT_EQ(cache_->stats().links, 1u);
}

TEST_F(CodeCacheTest, MappingNumbersNameMappings) {
  const uint32_t first = cache_->mapping_number(0x1000, 0x2000);
  EXPECT_NE(first, 0u);
  EXPECT_EQ(cache_->mapping_number(0x1000, 0x2000), first);
  EXPECT_NE(cache_->mapping_number(0x1000, 0x3000), first);
  EXPECT_NE(cache_->mapping_number(0x2000, 0x2000), first);
  EXPECT_NE(cache_->mapping_number(0, 0), 0u);
}

TEST_F(CodeCacheTest, NumbersOfLiveCodeAreKept) {
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  add(kSecond, 0, 2);
  link(from, kSecond);
  map_now(kSecond);
  const uint32_t number = cache_->mapping_number(kSecond.linear_page, kSecond.gpa_page);
  uint32_t last = 0;
  const uint64_t generation = cache_->generation();
  for (uint64_t i = 0; i < 100'000; ++i) {
    const uint32_t now = cache_->mapping_number(i << 12, 0x77000);
    EXPECT_GT(now, last);
    last = now;
  }
  EXPECT_EQ(cache_->mapping_number(kSecond.linear_page, kSecond.gpa_page), number);
  EXPECT_EQ(cache_->generation(), generation);
  EXPECT_EQ(go(from), 2u);
  EXPECT_GT(cache_->mapping_number(0, 0x77000), last);  // forgotten, and not used again
}

TEST_F(CodeCacheTest, NumbersStartAnewWithNoCodeLeft) {
  create(kSegments, 4);
  Fragment* from = add(kFirst, kSecond.linear_page + kLand, 1);
  add(kSecond, 0, 2);
  for (uint64_t i = 0; i < 4; ++i) EXPECT_EQ(cache_->mapping_number(i << 12, 0), i + 1);
  uint64_t generation = cache_->generation();
  link(from, kSecond);  // needs a fifth
  EXPECT_NE(cache_->generation(), generation);
  EXPECT_EQ(cache_->stats().fragments, 0u);
  EXPECT_EQ(cache_->stats().links, 0u);
  EXPECT_EQ(go(from), kAtStub);
  EXPECT_EQ(cache_->mapping_number(kSecond.linear_page, kSecond.gpa_page), 1u);
  for (uint64_t i = 0; i < 3; ++i) cache_->mapping_number(i << 12, 0);
  generation = cache_->generation();
  EXPECT_EQ(cache_->mapping_number(0x8000, 0), 1u);
  EXPECT_NE(cache_->generation(), generation);  // although there was nothing to remove: code_pages may hold old numbers
}

TEST_F(CodeCacheTest, StatsCountWhatWasTranslated) {
  Fragment* first = add(kFirst);
  add(kSecond);
  const CodeCacheStats before = cache_->stats();
  EXPECT_EQ(before.fragments, 2u);
  EXPECT_EQ(before.code_bytes_now, 2u * first->size_bytes);
  cache_->invalidate(kFirst.gpa_page, 1);
  const CodeCacheStats stats = cache_->stats();
  EXPECT_EQ(stats.fragments, 1u);
  EXPECT_EQ(stats.fragments_made, 2u);
  EXPECT_EQ(stats.fragments_invalidated, 1u);
  EXPECT_EQ(stats.code_bytes_made, before.code_bytes_made);
  EXPECT_EQ(stats.code_bytes_now * 2, before.code_bytes_now);
  EXPECT_EQ(stats.guest_bytes_translated, 20u);
  EXPECT_EQ(stats.guest_instructions_translated, 6u);
  EXPECT_EQ(stats.segments_used, 1u);
}

TEST(CodeCacheModel, AgreesUnderRandomUse) {
  std::mt19937_64 random(3);
  std::vector<uint8_t> bytes(1'800'000);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  FuzzInput input(bytes.data(), bytes.size());
  CodeCacheModel model(3);
  unsigned steps = 0;
  uint64_t fragments_max = 0;
  uint64_t guarded_max = 0;
  for (; !input.is_empty(); ++steps) {
    model.step(input);
    if (steps % 64 == 0) model.check();
    fragments_max = std::max(fragments_max, model.stats().fragments);
    guarded_max = std::max(guarded_max, model.stats().guarded_links);
  }
  model.check();
  EXPECT_GT(fragments_max, 120u);
  EXPECT_GT(guarded_max, 40u);
  EXPECT_GT(steps, 100'000u);
  EXPECT_GT(model.stats().fragments_evicted, 1000u);
  EXPECT_GT(model.stats().fragments_invalidated, 1000u);
}

}  // namespace
}  // namespace tenon::jit
