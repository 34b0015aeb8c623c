// CodeCache: one vCPU's translated code: where it is, what it was made from, and how it is linked.
//
// Code lies in one CodeMemory, cut into segments: code is appended to the current segment, and when it is full the next
// one is opened: one that has no live fragment left, else one never used, else the oldest, whose fragments are removed
// first. So eviction goes piece by piece, and host memory is used only as live code grows. A Fragment is the code of
// one region; it can be entered at several places (its blocks). It is found by (guest RIP, physical address, mode),
// because the code contains guest RIPs, was made from physical bytes, and depends on the mode.
//
// Links. A direct exit is a `jmp rel32` or `jcc rel32` that first goes to a cold stub of its own (which leaves to the
// dispatcher) and is patched to its target when that is known. A link inside one page, or between pages of global
// mappings, goes straight to the target; one that crosses pages goes through a guard that this class emits, which
// compares the mapping of the target's page now (TranslatedState::code_pages) with the one at link time without
// touching flags. Removing a fragment sends all links to it back to their stubs. A guard takes room in some segment and
// goes with it; the end of each segment is kept for guards, so that old code can still be linked when the ring is full.
//
// Page mappings. Each pair (linear page, physical page) that has code gets a number. code_pages[privilege][linear page
// % kCodePages] holds the number of the mapping last proven by translating a fetch; the owner clears it when
// translations are forgotten, and when generation() changes. Number 0 is none. Fragments in kModeShifted (mode.hh) have
// nominal RIPs, and numbers of nominal pages; shifted_pages holds the shift with the number, and guards between them
// compare both. Numbers go up to 2^29 and then start
// anew, with everything removed; those of mappings without fragments are forgotten from time to time and not used
// again.
//
// Removed fragments. Code is removed between two instructions, but sometimes with the dispatcher or an interpreted
// instruction (InterpretSite) of that very code still at work. So a removed Fragment and its bytes stay readable until
// the next reserve(); nothing finds it any more, and link() from it does nothing.
//
// Patching writes through the writable view of CodeMemory what the same thread executes through the other one. The
// processor notices stores to code it has fetched by their physical address (SDM Vol. 3 12.6); the way from here back
// to translated code is far longer than what is prefetched.
//
// Threads: the vCPU's own. Scaling: nothing is shared between vCPUs; memory is bounded by the ring and its fragments.
// Find, link and unlink cost the same however much code there is; removal costs what the fragment has of entries, slots
// and links to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <memory_resource>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/code_memory.hh"
#include "base/result.hh"
#include "engine/interp/cpu.hh"
#include "engine/jit/assembler.hh"
#include "engine/jit/pair_table.hh"
#include "vm/guest_memory.hh"

namespace tenon::jit {

/// Everything beside the bytes that translation depends on; fits a page offset, see mode.hh.
using Mode = uint16_t;

/// A place where a fragment is entered: a block's start.
struct FragmentEntry {
  uint64_t rip = 0;
  uint32_t host_offset = 0;
};

/// A direct exit.
struct LinkSlot {
  uint64_t target_rip = 0;
  uint32_t rel32_offset = 0;  // of the branch's rel32 in the fragment; must not be touched by two slots
  uint32_t stub_offset = 0;   // of the cold stub `call exit_link`; its return address (+ 5) names the slot; of
                              // `plain` ones the stub is the fragment's only one, and the end of rel32 is the name
  bool is_poll = false;  // not a link: leaves so that the run loop looks at what is pending, then goes on at target_rip
  bool is_guard =
      false;  // leaves because the second page of its one instruction is not mapped as it was (runner_crossing.cc)
  bool plain = false;  // goes to the same code in kModePlain (mode.hh)
};

/// Host code offset to guest instruction, for faults and slow accesses. Sorted by host_offset.
struct SideEntry {
  uint32_t host_offset = 0;   // where the instruction's code starts
  uint16_t guest_offset = 0;  // from the start of the page
  bool resumable = false;     // the code here can be entered: it relies on nothing but guest state
};

/// An indirect branch or return, to be found when its target turns out to be no canonical address.
struct BranchSite {
  uint32_t host_offset = 0;   // its name, with the fragment's address
  uint16_t guest_offset = 0;  // from the start of the page
  int32_t stack_bytes = 0;    // what it has added to RSP
};

/// An instruction that the interpreter executes in the middle of translated code.
struct InterpretSite {
  uint64_t rip = 0;  // nominal where its fragment is `shifted`
  uint64_t next_rip = 0;
  bool shifted = false;
  uint64_t resume = 0;    // executable address to go on at, when nothing else changed; 0: always dispatch
  x86::Op operation{};    // for statistics
  interp::Step steps[3];  // a helper at most, the instruction, and the end step (interp/trace_builder.hh)

  void set_steps(std::span<const interp::Step> from);
};

struct PageCode;

/// Fragment::second_gpa_page of all but crossing instructions.
constexpr uint64_t kNoSecondPage = ~uint64_t{0};

struct Fragment {
  /// `lists`: where its lists are.
  explicit Fragment(std::pmr::memory_resource* lists = std::pmr::get_default_resource())
      : entries(lists), slots(lists), side(lists), branches(lists), outgoing(lists) {}

  uint64_t linear_page = 0;  // of all its RIPs; nominal in kModeShifted, as they are
  uint64_t gpa_page = 0;
  uint64_t second_gpa_page = kNoSecondPage;  // where its one instruction goes on
  Mode mode = 0;
  bool global = false;    // its mapping survives CR3 loads
  uint64_t granules = 0;  // of the page, that it was made from
  uint64_t host = 0;      // executable address of its code; set by CodeCache::add()
  uint32_t size_bytes = 0;
  uint16_t guest_instructions = 0;
  uint16_t guest_bytes = 0;
  bool uses_vector = true;  // may work on x87 or vector registers; false is found in lockstep only
  std::pmr::vector<FragmentEntry> entries;
  std::pmr::vector<LinkSlot> slots;  // sorted by stub_offset
  std::pmr::vector<SideEntry> side;  // sorted by host_offset
  std::pmr::vector<BranchSite> branches;
  std::vector<std::unique_ptr<InterpretSite>> sites;  // their addresses are in the code

  /// The slot of that name (LinkSlot::stub_offset); nullptr: none.
  const LinkSlot* slot_at(uint64_t name) const;
  /// The instruction whose code (hot or cold; cold code has entries of its own) contains `address`; nullptr: none.
  const SideEntry* side_at(uint64_t address) const;

  /// CodeCache's own.
  struct Bookkeeping {
    bool live = false;  // added and not removed
    uint32_t first_incoming = ~uint32_t{0};
    PageCode* page = nullptr;
    Fragment* next_in_page = nullptr;
    Fragment* previous_in_page = nullptr;
  } bookkeeping = {};
  /// Likewise: by slot its link or kNoLink; empty before the first link.
  std::pmr::vector<uint32_t> outgoing;
};

/// What is translated of one page, at one linear address and in one mode. CodeCache's own.
struct PageCode {
  uint64_t linear_page = 0;
  uint64_t key = 0;     // physical page and mode
  OffsetTable entries;  // by offset in the page: offset in the code memory
  Fragment* first_fragment = nullptr;
  PageCode* next_of_gpa = nullptr;  // of the same physical page
};

/// Made, invalidated and evicted count up; the rest is what there is now.
struct CodeCacheStats {
  uint64_t fragments = 0;
  uint64_t fragments_made = 0;
  uint64_t fragments_invalidated = 0;
  uint64_t fragments_evicted = 0;
  uint64_t code_bytes_made = 0;
  uint64_t guest_bytes_translated = 0;
  uint64_t guest_instructions_translated = 0;
  uint64_t links = 0;
  uint64_t guarded_links = 0;  // of `links`
  uint64_t code_bytes_now = 0;
  uint64_t segments_used = 0;  // opened at least once: what the ring takes of host memory, in kSegmentBytes
};

/// A page of code, as guards know it.
struct MappedPage {
  uint64_t linear_page = 0;
  uint32_t number = 0;  // CodeCache::mapping_number()
  unsigned privilege = 0;
  bool shifted = false;  // linear_page is nominal: code_shift belongs to it
};
/// RCX = 0 where the page is mapped so now. R10 and R11 change, flags stay. `state_offset` as in CodeCache::create().
void emit_mapping_check(Assembler& assembler, size_t state_offset, const MappedPage& page);
/// The same for the page of the linear address in R10, shifted by R11, which stays.
void emit_shifted_mapping_check(Assembler& assembler, size_t state_offset, uint32_t number);

class CodeCache {
 public:
  static constexpr size_t kSegmentBytes = size_t{1} << 20;
  static constexpr size_t kRoomBytesMax = size_t{128} << 10;
  static constexpr size_t kFragmentAlignment = 32;
  static constexpr uint32_t kMappingNumberMax = 0x1fff'ffff;  // must fit below a shift in shifted_pages

  /// `stub_bytes` at the start are never evicted (runtime.hh's stubs); they take whole segments. `size_bytes`: a
  /// multiple of kSegmentBytes up to 1 GiB, at least two segments beside the stubs' own. `state_offset`: of
  /// TranslatedState from what GS base is while translated code runs.
  static Result<std::unique_ptr<CodeCache>> create(size_t size_bytes, size_t stub_bytes, size_t state_offset,
                                                   uint32_t mapping_number_max = kMappingNumberMax);
  ~CodeCache();
  CodeCache(const CodeCache&) = delete;
  CodeCache& operator=(const CodeCache&) = delete;

  /// The stub area.
  std::span<std::byte> stub_buffer();
  uint64_t stub_address() const;
  /// Executable view, stubs included.
  bool contains(uint64_t address) const { return address - executable_ < size_bytes_; }

  /// A place for up to `size_bytes` (<= kRoomBytesMax) of new code; evicts the oldest segment where needed
  /// (generation() then changes). Valid until the next reserve(), link() or add().
  struct Room {
    std::span<std::byte> buffer;
    uint64_t executable = 0;
  };
  Room reserve(size_t size_bytes);
  /// For the code that goes into the room that was reserved last.
  std::unique_ptr<Fragment> make_fragment() const { return std::make_unique<Fragment>(current_->lists.get()); }
  /// Takes the code that was written at the start of the last reserve()d room; sets `host`. Entries that are there
  /// already keep pointing to the older fragment's code only until now: the newest wins. When the newest goes, the
  /// older one's does not come back.
  Fragment* add(std::unique_ptr<Fragment> fragment);

  /// Executable address for (rip, physical address of its byte, mode), or 0.
  uint64_t find(uint64_t rip, uint64_t gpa, Mode mode) const {
    const PageCode* page = page_code(rip & ~(kPageSize - 1), page_key(gpa, mode));
    const uint32_t offset = page == nullptr ? 0 : page->entries.find(static_cast<uint16_t>(rip % kPageSize));
    return offset == 0 ? 0 : executable_ + offset;
  }
  /// The fragment whose code contains `address`, or nullptr (guards and stubs are in none).
  Fragment* fragment_at(uint64_t address) const;

  /// Makes `slot` of `from` go to `target`: the entry of a live fragment for slot.target_rip, from find(). `privilege`
  /// (0: CPL 0-2, 1: CPL 3) chooses the half of code_pages that a guard looks at. Either both fragments are shifted,
  /// and by the same now, or none is. May allocate a guard; does nothing when there is no room for it, when the slot is
  /// a poll, or when `from` was removed by a reserve() since it was found.
  void link(Fragment& from, const LinkSlot& slot, uint64_t target, unsigned privilege);
  /// Sends all links that cross pages without a guard back to their stubs: some global translation has changed.
  void unlink_global();

  /// Removes the fragments made from any of `granules` of the physical page. generation() changes if there were any.
  void invalidate(uint64_t gpa_page, uint64_t granules);
  void invalidate_all();
  bool has_code(uint64_t gpa_page) const { return pages_.contains(gpa_page); }
  /// Physical pages that have fragments, for a scan of all versions.
  std::vector<uint64_t> pages() const;

  /// Changes whenever code was removed: whoever keeps executable addresses (indirect-branch cache, shadow return stack,
  /// sites) or mapping numbers (code_pages) must drop them before translated code runs again.
  uint64_t generation() const { return generation_; }

  /// The number of the mapping of `linear_page` to `gpa_page` (page-aligned addresses), never 0. Every 2^29 new numbers
  /// it removes all code (generation() changes) before it starts with 1 again.
  uint32_t mapping_number(uint64_t linear_page, uint64_t gpa_page);

  CodeCacheStats stats() const;

 private:
  static constexpr uint32_t kNoLink = ~uint32_t{0};
  // Of each segment's end, for guards only. About as many as one link out of four pages of code needs.
  static constexpr size_t kGuardRoomBytes = size_t{32} << 10;
  static constexpr size_t kGuardBytes = 72;
  static constexpr size_t kNumbersMin = 4096;
  static constexpr size_t kChunkBytes = 256;
  static_assert(kSegmentBytes / kFragmentAlignment <= size_t{UINT16_MAX} + 1);

  enum class LinkKind : uint8_t { kSamePage, kGlobal, kGuarded };

  /// A slot that goes to a target; in links_, by index. Unused ones are a list through incoming.next.
  struct Link {
    struct Hook {
      uint32_t next = kNoLink;
      uint32_t previous = kNoLink;
    };
    Fragment* from = nullptr;
    Fragment* target = nullptr;
    uint32_t slot = 0;           // index in from->slots
    uint32_t target_offset = 0;  // in the code memory
    uint32_t guard = 0;          // likewise; kGuarded only
    LinkKind kind = LinkKind::kSamePage;
    uint8_t privilege = 0;
    Hook incoming = {};  // list of the target
    Hook group = {};     // list of the guard's segment, or of all kGlobal
  };

  /// A fragment by place. Removed ones stay as holes until the segment is opened again.
  struct Placed {
    uint32_t offset = 0;  // in the code memory
    std::unique_ptr<Fragment> fragment;
  };

  struct Segment {
    uint64_t opened = 0;  // which opening of a segment this was, 0: never
    uint32_t used = 0;    // bytes; at the end of them there may be guards
    uint32_t live = 0;    // fragments
    uint32_t first_guarded = kNoLink;
    std::unique_ptr<std::pmr::monotonic_buffer_resource> lists;  // of its fragments
    std::vector<Placed> placed;                                  // by offset
    // For each kChunkBytes that have code: index in `placed` of the first fragment that reaches into them.
    std::vector<uint16_t> by_chunk;
  };

  CodeCache(CodeMemory memory, size_t stub_segments, size_t state_offset, uint32_t mapping_number_max);

  /// RIP and physical address have the same offset in their pages, so those bits are free for the mode.
  static uint64_t page_key(uint64_t gpa, Mode mode) { return (gpa & ~(kPageSize - 1)) | mode; }

  /// nullptr: nothing of it is translated. What is found is likely to be asked for again.
  PageCode* page_code(uint64_t linear_page, uint64_t key) const {
    if (last_page_ != nullptr && last_page_->linear_page == linear_page && last_page_->key == key) return last_page_;
    const uint32_t number = page_numbers_.find(linear_page, key);
    if (number == 0) return nullptr;
    return last_page_ = page_codes_[number - 1].get();
  }
  PageCode& make_page_code(uint64_t linear_page, uint64_t key);
  void drop_page_code(PageCode& page);

  Segment& segment_of(uint32_t offset) { return segments_[offset / kSegmentBytes - stub_segments_]; }
  uint32_t start_of(const Segment& segment) const;
  Placed* placed_at(uint64_t address);
  Segment& choose_segment();
  void open_segment(Segment& segment);

  /// Takes the fragment out of everything; its bytes and itself stay until the next reserve().
  void remove(Fragment& fragment);
  void list_in_page(Fragment& fragment, PageCode& page);
  void unlist(Fragment& fragment);

  uint32_t* group_head(const Link& link);
  void push(uint32_t& head, uint32_t link, Link::Hook Link::*hook);
  void pull(uint32_t& head, uint32_t link, Link::Hook Link::*hook);
  void make_link(const Link& link, uint32_t goes_to);
  void unlink(uint32_t link);
  void patch(const Fragment& from, const LinkSlot& slot, uint32_t goes_to);
  uint32_t allocate_guard();
  void emit_guard(const Link& link, uint32_t number);
  void forget_unused_numbers();

  const size_t stub_segments_;
  const size_t state_offset_;
  const uint32_t mapping_number_max_;
  CodeMemory memory_;
  uint64_t executable_;
  uint64_t size_bytes_;

  const std::unique_ptr<std::pmr::memory_resource> list_memory_;
  std::unique_ptr<std::pmr::monotonic_buffer_resource> removed_lists_;  // of fragments in removed_
  std::vector<Segment> segments_;                                       // never resized
  Segment* current_;
  uint64_t openings_ = 0;
  uint32_t room_ = 0;  // of the last reserve()
  size_t room_bytes_ = 0;
  std::vector<std::unique_ptr<Fragment>> removed_;  // since the last reserve()

  PairTable page_numbers_;                             // (linear page, page_key()) -> index in page_codes_ + 1
  std::vector<std::unique_ptr<PageCode>> page_codes_;  // nullptr: unused
  std::vector<uint32_t> unused_page_numbers_;
  mutable PageCode* last_page_ = nullptr;          // that was found
  std::unordered_map<uint64_t, PageCode*> pages_;  // physical page -> what was made from it
  std::vector<Link> links_;
  uint32_t first_unused_link_ = kNoLink;
  uint32_t first_global_ = kNoLink;
  std::vector<uint32_t> unused_guards_;  // offsets; in segments as they are now

  PairTable numbers_;  // (linear page, physical page) -> mapping number
  size_t numbers_max_ = kNumbersMin;
  uint32_t last_number_ = 0;

  uint64_t generation_ = 1;
  CodeCacheStats stats_;
};

}  // namespace tenon::jit
