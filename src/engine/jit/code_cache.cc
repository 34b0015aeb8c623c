// See code_cache.hh. "Offset" here is from the start of the code memory; it is the same in both views, fits 32 bits,
// and is never 0 for code that can be entered, because the stubs come first.
#include "engine/jit/code_cache.hh"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "base/bits.hh"
#include "base/check.hh"
#include "engine/interp/accelerator.hh"
#include "engine/jit/mode.hh"
#include "engine/jit/remembered_code.hh"

namespace tenon::jit {

namespace {

constexpr size_t kCodeBytesMax = size_t{1} << 30;  // rel32 reaches from any place to any other
constexpr unsigned kCallBytes = 5;                 // of a slot's stub: call rel32

bool is_entry(const Fragment& fragment, uint64_t rip, uint64_t address) {
  return std::ranges::any_of(fragment.entries, [&](const FragmentEntry& entry) {
    return entry.rip == rip && fragment.host + entry.host_offset == address;
  });
}

/// Gives memory whose pages are there already: it is going to be used from end to end.
class PopulatedMemory final : public std::pmr::memory_resource {
  void* do_allocate(size_t bytes, size_t alignment) override {
    void* const memory = std::pmr::new_delete_resource()->allocate(bytes, alignment);
    const auto first = align_up(reinterpret_cast<uintptr_t>(memory), kPageSize);
    const auto end = align_down(reinterpret_cast<uintptr_t>(memory) + bytes, kPageSize);
    if (first < end) populate({reinterpret_cast<std::byte*>(first), end - first});
    return memory;
  }
  void do_deallocate(void* memory, size_t bytes, size_t alignment) override {
    std::pmr::new_delete_resource()->deallocate(memory, bytes, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

constexpr size_t kListBytes = size_t{256} << 10;

}  // namespace

/// The compare is LEA, for JRCXZ (SDM Vol. 2 chapter 3, Jcc: no flags read or written).
void emit_mapping_check(Assembler& assembler, size_t state_offset, const MappedPage& page) {
  using State = interp::TranslatedState;
  if (page.shifted) {
    assembler.mov(kHostR11, HostOperand::state(state_offset + offsetof(State, code_shift)));
    assembler.lea(kHostR10, HostOperand::at(kHostR11, static_cast<int32_t>(page.linear_page)));
    return emit_shifted_mapping_check(assembler, state_offset, page.number);
  }
  const uint64_t entry = page.privilege * State::kCodePages + page.linear_page / kPageSize % State::kCodePages;
  const size_t offset = state_offset + offsetof(State, code_pages) + entry * sizeof(uint32_t);
  assembler.mov(kHostR10, HostOperand::state(offset), false);
  assembler.lea(kHostRcx, HostOperand::at(kHostR10, -static_cast<int32_t>(page.number)));
}

/// The entry is -(number + (shift << kShiftBits)).
void emit_shifted_mapping_check(Assembler& assembler, size_t state_offset, uint32_t number) {
  using State = interp::TranslatedState;
  constexpr uint8_t kRotation = 64 - RememberedCode::kShiftBits;
  assembler.pext(kHostRcx, kHostR10, HostOperand::state(state_offset + offsetof(State, code_page_mask)));
  assembler.mov(kHostRcx, HostOperand::state(state_offset + offsetof(State, shifted_pages), kHostRcx, 3));
  assembler.rorx(kHostR10, kHostR11, kRotation);
  assembler.lea(kHostRcx, HostOperand::at(kHostRcx, kHostR10, 0, static_cast<int32_t>(number)));
}

void InterpretSite::set_steps(std::span<const interp::Step> from) {
  CHECK(from.size() <= std::size(steps));
  std::ranges::copy(from, steps);
}

const LinkSlot* Fragment::slot_at(uint64_t name) const {
  const uint64_t stub_offset = name - host - kCallBytes;
  const auto slot = std::ranges::lower_bound(slots, stub_offset, {}, &LinkSlot::stub_offset);
  if (slot != slots.end() && slot->stub_offset == stub_offset && !slot->plain) return &*slot;
  for (const LinkSlot& plain : slots) {
    if (plain.plain && host + plain.rel32_offset + sizeof(int32_t) == name) return &plain;
  }
  return nullptr;
}

const SideEntry* Fragment::side_at(uint64_t address) const {
  const uint64_t offset = address - host;
  if (offset >= size_bytes) return nullptr;
  const auto after = std::ranges::upper_bound(side, offset, {}, &SideEntry::host_offset);
  return after == side.begin() ? nullptr : &*std::prev(after);
}

// --- Set-up

Result<std::unique_ptr<CodeCache>> CodeCache::create(size_t size_bytes, size_t stub_bytes, size_t state_offset,
                                                     uint32_t mapping_number_max) {
  const size_t stub_segments = std::max<size_t>(1, align_up(stub_bytes, kSegmentBytes) / kSegmentBytes);
  if (size_bytes % kSegmentBytes != 0 || size_bytes > kCodeBytesMax || size_bytes / kSegmentBytes < stub_segments + 2) {
    return fail(ErrorCode::kInvalidArgument, "code cache of " + std::to_string(size_bytes) +
                                                 " bytes: use whole MiB from " + std::to_string(stub_segments + 2) +
                                                 " to 1024");
  }
  CodeMemory memory = TRY(CodeMemory::create(size_bytes, "tenon-jit"));
  return std::unique_ptr<CodeCache>(new CodeCache(std::move(memory), stub_segments, state_offset, mapping_number_max));
}

CodeCache::CodeCache(CodeMemory memory, size_t stub_segments, size_t state_offset, uint32_t mapping_number_max)
    : stub_segments_(stub_segments),
      state_offset_(state_offset),
      mapping_number_max_(mapping_number_max),
      memory_(std::move(memory)),
      executable_(reinterpret_cast<uint64_t>(memory_.executable().data())),
      size_bytes_(memory_.capacity_bytes()),
      list_memory_(std::make_unique<PopulatedMemory>()),
      segments_(size_bytes_ / kSegmentBytes - stub_segments),
      current_(nullptr) {
  CHECK(mapping_number_max_ != 0 && mapping_number_max_ <= kMappingNumberMax);
  open_segment(segments_.front());
}

CodeCache::~CodeCache() = default;

std::span<std::byte> CodeCache::stub_buffer() { return memory_.writable().first(stub_segments_ * kSegmentBytes); }

uint64_t CodeCache::stub_address() const { return executable_; }

// --- Room for code

uint32_t CodeCache::start_of(const Segment& segment) const {
  return static_cast<uint32_t>((static_cast<size_t>(&segment - segments_.data()) + stub_segments_) * kSegmentBytes);
}

CodeCache::Room CodeCache::reserve(size_t size_bytes) {
  CHECK(size_bytes != 0 && size_bytes <= kRoomBytesMax);
  removed_.clear();
  removed_lists_.reset();
  size_t start = align_up(current_->used, kFragmentAlignment);
  if (start + size_bytes > kSegmentBytes - kGuardRoomBytes) {
    open_segment(choose_segment());
    start = 0;
  }
  room_ = start_of(*current_) + static_cast<uint32_t>(start);
  room_bytes_ = size_bytes;
  return {.buffer = memory_.writable().subspan(room_, size_bytes), .executable = executable_ + room_};
}

/// One without fragments costs nobody anything; then one never used; then the oldest. The current segment is the
/// newest, so it is taken only when it is without fragments.
CodeCache::Segment& CodeCache::choose_segment() {
  const auto preference = [](const Segment& segment) {
    const int rank = segment.opened == 0 ? 1 : segment.live == 0 ? 0 : 2;
    return std::pair(rank, segment.opened);
  };
  return *std::ranges::min_element(segments_, {}, preference);
}

void CodeCache::open_segment(Segment& segment) {
  for (Placed& placed : segment.placed) {
    if (placed.fragment == nullptr) continue;
    ++stats_.fragments_evicted;
    remove(*placed.fragment);
  }
  while (segment.first_guarded != kNoLink) unlink(segment.first_guarded);
  std::erase_if(unused_guards_, [&](uint32_t guard) { return &segment_of(guard) == &segment; });
  if (segment.opened == 0) {
    memory_.populate(start_of(segment), kSegmentBytes);
    ++stats_.segments_used;
  }
  segment.placed.clear();
  segment.by_chunk.clear();
  removed_lists_ = std::exchange(segment.lists,
                                 std::make_unique<std::pmr::monotonic_buffer_resource>(kListBytes, list_memory_.get()));
  segment.used = 0;
  segment.opened = ++openings_;
  current_ = &segment;
}

Fragment* CodeCache::add(std::unique_ptr<Fragment> fragment) {
  CHECK(fragment->size_bytes != 0 && fragment->size_bytes <= room_bytes_);  // also: a reserve() of its own
  for (const LinkSlot& slot : fragment->slots) {
    CHECK(slot.rel32_offset + sizeof(uint32_t) <= fragment->size_bytes && slot.stub_offset < fragment->size_bytes);
  }
  Fragment* const added = fragment.get();
  added->host = executable_ + room_;
  added->bookkeeping = {.live = true};
  const uint64_t key = page_key(added->gpa_page, added->mode);
  PageCode* const known = page_code(added->linear_page, key);
  PageCode& page = known != nullptr ? *known : make_page_code(added->linear_page, key);
  for (const FragmentEntry& entry : added->entries) {
    page.entries.set(static_cast<uint16_t>(entry.rip % kPageSize), room_ + entry.host_offset);
  }
  list_in_page(*added, page);
  current_->placed.push_back({.offset = room_, .fragment = std::move(fragment)});
  current_->used = room_ - start_of(*current_) + added->size_bytes;
  current_->by_chunk.resize(align_up(current_->used, kChunkBytes) / kChunkBytes,
                            static_cast<uint16_t>(current_->placed.size() - 1));
  ++current_->live;
  room_bytes_ = 0;

  ++stats_.fragments;
  ++stats_.fragments_made;
  stats_.code_bytes_made += added->size_bytes;
  stats_.code_bytes_now += added->size_bytes;
  stats_.guest_bytes_translated += added->guest_bytes;
  stats_.guest_instructions_translated += added->guest_instructions;
  return added;
}

CodeCache::Placed* CodeCache::placed_at(uint64_t address) {
  const uint64_t offset = address - executable_;
  if (offset < stub_segments_ * kSegmentBytes || offset >= size_bytes_) return nullptr;
  Segment& segment = segment_of(static_cast<uint32_t>(offset));
  const size_t chunk = offset % kSegmentBytes / kChunkBytes;
  if (chunk >= segment.by_chunk.size()) return nullptr;
  std::vector<Placed>& placed = segment.placed;
  size_t index = segment.by_chunk[chunk];
  while (index + 1 < placed.size() && placed[index + 1].offset <= offset) ++index;
  Placed& found = placed[index];
  const bool is_inside =
      found.offset <= offset && found.fragment != nullptr && offset - found.offset < found.fragment->size_bytes;
  return is_inside ? &found : nullptr;
}

Fragment* CodeCache::fragment_at(uint64_t address) const {
  const Placed* placed = const_cast<CodeCache*>(this)->placed_at(address);  // looks only
  return placed == nullptr ? nullptr : placed->fragment.get();
}

// --- Removal

void CodeCache::remove(Fragment& fragment) {
  const uint64_t host_offset = fragment.host - executable_;
  OffsetTable& entries = fragment.bookkeeping.page->entries;
  for (const FragmentEntry& entry : fragment.entries) {
    const auto offset = static_cast<uint16_t>(entry.rip % kPageSize);
    // A newer fragment's entry stays.
    if (entries.find(offset) == host_offset + entry.host_offset) entries.erase(offset);
  }
  Fragment::Bookkeeping& bookkeeping = fragment.bookkeeping;
  while (bookkeeping.first_incoming != kNoLink) unlink(bookkeeping.first_incoming);
  for (const uint32_t link : fragment.outgoing) {
    if (link != kNoLink) unlink(link);
  }
  unlist(fragment);
  bookkeeping.live = false;
  ++generation_;
  --stats_.fragments;
  stats_.code_bytes_now -= fragment.size_bytes;
  --segment_of(static_cast<uint32_t>(host_offset)).live;
  removed_.push_back(std::move(placed_at(fragment.host)->fragment));
}

PageCode& CodeCache::make_page_code(uint64_t linear_page, uint64_t key) {
  if (unused_page_numbers_.empty()) {
    page_codes_.emplace_back();
    unused_page_numbers_.push_back(static_cast<uint32_t>(page_codes_.size()));
  }
  const uint32_t number = unused_page_numbers_.back();
  unused_page_numbers_.pop_back();
  page_numbers_.set(linear_page, key, number);
  auto page = std::make_unique<PageCode>();
  page->linear_page = linear_page;
  page->key = key;
  PageCode*& first = pages_[key & ~(kPageSize - 1)];
  page->next_of_gpa = first;
  first = page.get();
  page_codes_[number - 1] = std::move(page);
  return *first;
}

/// It has no fragments any more.
void CodeCache::drop_page_code(PageCode& page) {
  const auto known = pages_.find(page.key & ~(kPageSize - 1));
  if (known->second == &page && page.next_of_gpa == nullptr) {
    pages_.erase(known);
  } else {
    PageCode** link = &known->second;
    while (*link != &page) link = &(*link)->next_of_gpa;
    *link = page.next_of_gpa;
  }
  if (last_page_ == &page) last_page_ = nullptr;
  const uint32_t number = page_numbers_.find(page.linear_page, page.key);
  page_numbers_.erase(page.linear_page, page.key);
  unused_page_numbers_.push_back(number);
  page_codes_[number - 1].reset();
}

void CodeCache::list_in_page(Fragment& fragment, PageCode& page) {
  Fragment* const next = page.first_fragment;
  fragment.bookkeeping.page = &page;
  fragment.bookkeeping.next_in_page = next;
  if (next != nullptr) next->bookkeeping.previous_in_page = &fragment;
  page.first_fragment = &fragment;
}

void CodeCache::unlist(Fragment& fragment) {
  Fragment* const next = fragment.bookkeeping.next_in_page;
  Fragment* const previous = fragment.bookkeeping.previous_in_page;
  PageCode& page = *fragment.bookkeeping.page;
  if (next != nullptr) next->bookkeeping.previous_in_page = previous;
  (previous != nullptr ? previous->bookkeeping.next_in_page : page.first_fragment) = next;
  fragment.bookkeeping.page = nullptr;
  if (page.first_fragment == nullptr) drop_page_code(page);
}

void CodeCache::invalidate(uint64_t gpa_page, uint64_t granules) {
  const auto known = pages_.find(gpa_page);
  if (known == pages_.end()) return;
  for (PageCode* page = known->second; page != nullptr;) {
    PageCode* const next_page = page->next_of_gpa;
    for (Fragment* fragment = page->first_fragment; fragment != nullptr;) {
      Fragment* const next = fragment->bookkeeping.next_in_page;
      if ((fragment->granules & granules) != 0) {
        ++stats_.fragments_invalidated;
        remove(*fragment);
      }
      fragment = next;
    }
    page = next_page;
  }
}

/// As remove() of each, but nothing needs to be patched or looked up.
void CodeCache::invalidate_all() {
  if (stats_.fragments == 0) return;
  for (Segment& segment : segments_) {
    for (Placed& placed : segment.placed) {
      if (placed.fragment == nullptr) continue;
      placed.fragment->bookkeeping = {};
      placed.fragment->outgoing.clear();
      removed_.push_back(std::move(placed.fragment));
    }
    segment.placed.clear();
    segment.by_chunk.clear();
    segment.live = 0;
    segment.first_guarded = kNoLink;
  }
  page_numbers_.clear();
  page_codes_.clear();
  unused_page_numbers_.clear();
  last_page_ = nullptr;
  pages_.clear();
  links_.clear();
  first_unused_link_ = kNoLink;
  first_global_ = kNoLink;
  unused_guards_.clear();  // their bytes come back when their segments are opened again
  stats_.fragments_invalidated += stats_.fragments;
  stats_.fragments = 0;
  stats_.links = 0;
  stats_.guarded_links = 0;
  stats_.code_bytes_now = 0;
  ++generation_;
}

std::vector<uint64_t> CodeCache::pages() const {
  std::vector<uint64_t> pages;
  pages.reserve(pages_.size());
  for (const auto& [gpa_page, first] : pages_) pages.push_back(gpa_page);
  return pages;
}

// --- Links

void CodeCache::link(Fragment& from, const LinkSlot& slot, uint64_t target, unsigned privilege) {
  if (!from.bookkeeping.live || slot.is_poll) return;
  const auto index = static_cast<size_t>(&slot - from.slots.data());
  CHECK(index < from.slots.size());
  Link link{.from = &from,
            .target = fragment_at(target),
            .slot = static_cast<uint32_t>(index),
            .target_offset = static_cast<uint32_t>(target - executable_),
            .privilege = static_cast<uint8_t>(privilege)};
  CHECK(link.target != nullptr && is_entry(*link.target, slot.target_rip, target));

  if (from.outgoing.empty()) from.outgoing.assign(from.slots.size(), kNoLink);
  const uint32_t old = from.outgoing[index];
  if (old != kNoLink) {
    // A guard leads back to the dispatcher whenever it has not seen the page since the last CR3 load: mostly it is
    // right.
    if (links_[old].target_offset == link.target_offset && links_[old].privilege == link.privilege) return;
    unlink(old);
  }
  // Within a page, the mapping that `from` was entered by is the one `target` needs. Global ones outlive everything but
  // what calls unlink_global().
  if (from.linear_page == link.target->linear_page && from.gpa_page == link.target->gpa_page) {
    link.kind = LinkKind::kSamePage;
    make_link(link, link.target_offset);
  } else if (from.global && link.target->global && !is_shifted(from.mode)) {
    link.kind = LinkKind::kGlobal;
    make_link(link, link.target_offset);
  } else {
    link.kind = LinkKind::kGuarded;
    const uint32_t number = mapping_number(link.target->linear_page, link.target->gpa_page);
    if (!from.bookkeeping.live) return;  // the numbers started anew
    link.guard = allocate_guard();
    if (link.guard == 0) return;
    emit_guard(link, number);
    make_link(link, link.guard);
  }
}

void CodeCache::make_link(const Link& link, uint32_t goes_to) {
  uint32_t id = first_unused_link_;
  if (id == kNoLink) {
    id = static_cast<uint32_t>(links_.size());
    links_.push_back(link);
  } else {
    first_unused_link_ = links_[id].incoming.next;
    links_[id] = link;
  }
  push(link.target->bookkeeping.first_incoming, id, &Link::incoming);
  if (uint32_t* const group = group_head(link)) push(*group, id, &Link::group);
  link.from->outgoing[link.slot] = id;
  patch(*link.from, link.from->slots[link.slot], goes_to);
  ++stats_.links;
  if (link.kind == LinkKind::kGuarded) ++stats_.guarded_links;
}

void CodeCache::unlink(uint32_t id) {
  const Link link = links_[id];
  const LinkSlot& slot = link.from->slots[link.slot];
  patch(*link.from, slot, static_cast<uint32_t>(link.from->host - executable_) + slot.stub_offset);
  link.from->outgoing[link.slot] = kNoLink;
  pull(link.target->bookkeeping.first_incoming, id, &Link::incoming);
  if (uint32_t* const group = group_head(link)) pull(*group, id, &Link::group);
  if (link.kind == LinkKind::kGuarded) {
    unused_guards_.push_back(link.guard);
    --stats_.guarded_links;
  }
  links_[id] = {.incoming = {.next = first_unused_link_}};
  first_unused_link_ = id;
  --stats_.links;
}

void CodeCache::unlink_global() {
  while (first_global_ != kNoLink) unlink(first_global_);
}

uint32_t* CodeCache::group_head(const Link& link) {
  switch (link.kind) {
    case LinkKind::kSamePage: return nullptr;
    case LinkKind::kGlobal: return &first_global_;
    case LinkKind::kGuarded: return &segment_of(link.guard).first_guarded;
  }
  return nullptr;
}

void CodeCache::push(uint32_t& head, uint32_t id, Link::Hook Link::*hook) {
  links_[id].*hook = {.next = head};
  if (head != kNoLink) (links_[head].*hook).previous = id;
  head = id;
}

void CodeCache::pull(uint32_t& head, uint32_t id, Link::Hook Link::*hook) {
  const Link::Hook old = links_[id].*hook;
  if (old.next != kNoLink) (links_[old.next].*hook).previous = old.previous;
  if (old.previous != kNoLink) {
    (links_[old.previous].*hook).next = old.next;
  } else {
    head = old.next;
  }
}

void CodeCache::patch(const Fragment& from, const LinkSlot& slot, uint32_t goes_to) {
  const uint64_t at = from.host - executable_ + slot.rel32_offset;
  const auto relative = static_cast<int32_t>(goes_to - (at + sizeof(int32_t)));
  std::memcpy(memory_.writable().data() + at, &relative, sizeof(relative));
}

// --- Guards

/// One that is not in use any more, else room in the current segment, else in any: reserve() leaves some in each. 0:
/// none.
uint32_t CodeCache::allocate_guard() {
  if (!unused_guards_.empty()) {
    const uint32_t guard = unused_guards_.back();
    unused_guards_.pop_back();
    return guard;
  }
  const auto has_room = [](const Segment& segment) { return segment.used + kGuardBytes <= kSegmentBytes; };
  Segment* segment = current_;
  if (!has_room(*segment)) {
    const auto other = std::ranges::find_if(segments_, [&](const Segment& s) { return s.live != 0 && has_room(s); });
    if (other == segments_.end()) return 0;
    segment = &*other;
  }
  const uint32_t guard = start_of(*segment) + segment->used;
  segment->used += kGuardBytes;
  if (segment == current_) room_bytes_ = 0;  // that room is gone
  return guard;
}

/// Goes to the target while code_pages says that the target's page is mapped as it was, else to the slot's stub. Only
/// R10 and R11 are free, and flags may be live.
void CodeCache::emit_guard(const Link& link, uint32_t number) {
  const uint64_t stub = link.from->host + link.from->slots[link.slot].stub_offset;
  std::array<std::byte, 2 * kGuardBytes> buffer;  // the assembler wants to see more room than it uses
  Assembler code(buffer, executable_ + link.guard);
  code.push(kHostRcx);
  emit_mapping_check(code, state_offset_,
                     {.linear_page = link.target->linear_page,
                      .number = number,
                      .privilege = link.privilege,
                      .shifted = is_shifted(link.from->mode)});
  const Fixup hit = code.jrcxz_forward();
  code.pop(kHostRcx);
  code.jmp(stub);
  code.bind_short(hit);
  code.pop(kHostRcx);
  code.jmp(executable_ + link.target_offset);
  CHECK(!code.overflowed() && code.offset() <= kGuardBytes);
  std::ranges::copy(code.code(), memory_.writable().begin() + link.guard);
}

// --- Mapping numbers

uint32_t CodeCache::mapping_number(uint64_t linear_page, uint64_t gpa_page) {
  if (const uint32_t known = numbers_.find(linear_page, gpa_page)) return known;
  if (last_number_ == mapping_number_max_) {
    // An entry of code_pages may still hold any old number, also where no code is left to remove.
    invalidate_all();
    numbers_.clear();
    numbers_max_ = kNumbersMin;
    last_number_ = 0;
    ++generation_;
  }
  if (numbers_.size() >= numbers_max_) forget_unused_numbers();
  numbers_.set(linear_page, gpa_page, ++last_number_);
  return last_number_;
}

/// A guard holds the number of its target's page, and a target is live while it is linked: so a number without live
/// fragments is in no guard, and what code_pages still says of it matches nothing.
void CodeCache::forget_unused_numbers() {
  PairTable kept;
  for (const Segment& segment : segments_) {
    for (const Placed& placed : segment.placed) {
      if (placed.fragment == nullptr) continue;
      const uint64_t linear_page = placed.fragment->linear_page;
      const uint64_t gpa_page = placed.fragment->gpa_page;
      if (const uint32_t number = numbers_.find(linear_page, gpa_page)) kept.set(linear_page, gpa_page, number);
    }
  }
  numbers_ = std::move(kept);
  numbers_max_ = std::max(kNumbersMin, numbers_.size() * 2);
}

CodeCacheStats CodeCache::stats() const { return stats_; }

}  // namespace tenon::jit
