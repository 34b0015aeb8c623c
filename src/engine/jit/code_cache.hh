// CodeCache: one vCPU's translated code: where it is, what it was made from, and how it is linked.
//
// Code lies in one CodeMemory, used as a ring of segments: code is appended to the current segment, and before a segment
// is used again all fragments in it are removed, so that eviction goes piece by piece. A Fragment is the code of one
// region; it can be entered at several places (its blocks). It is found by (guest RIP, physical address, mode), because
// the code contains guest RIPs, was made from physical bytes, and depends on the mode.
//
// Links. A direct exit is a `jmp rel32` or `jcc rel32` that first goes to a cold stub of its own (which leaves to the
// dispatcher) and is patched to its target when that is known. A link inside one page, or between pages of global
// mappings, goes straight to the target; one that crosses pages goes through a guard that this class emits, which
// compares the mapping of the target's page now (TranslatedState::code_pages) with the one at link time without
// touching flags. Removing a fragment sends all links to it back to their stubs.
//
// Page mappings. Each pair (linear page, physical page) that has code gets a number. code_pages[privilege][linear page %
// kCodePages] holds the number of the mapping last proven by translating a fetch; the owner clears it when translations
// are forgotten. Number 0 is none.
//
// Threads: the vCPU's own. Scaling: nothing is shared between vCPUs; memory is bounded by the ring and its fragments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/code_memory.hh"
#include "base/result.hh"
#include "engine/interp/cpu.hh"
#include "vm/guest_memory.hh"

namespace tenon::jit {

/// Everything beside the bytes that translation depends on; one byte, see translator.hh.
using Mode = uint8_t;

/// A place where a fragment is entered: a block's start.
struct FragmentEntry {
  uint64_t rip = 0;
  uint32_t host_offset = 0;
};

/// A direct exit.
struct LinkSlot {
  uint64_t target_rip = 0;
  uint32_t rel32_offset = 0;  // of the branch's rel32 in the fragment; must not be touched by two slots
  uint32_t stub_offset = 0;   // of the cold stub `call exit_link`; its return address (+ 5) names the slot
  bool is_poll = false;       // not a link: leaves so that the run loop looks at what is pending, then goes on at target_rip
};

/// Host code offset to guest instruction, for faults and slow accesses. Sorted by host_offset.
struct SideEntry {
  uint32_t host_offset = 0;   // where the instruction's code starts
  uint16_t guest_offset = 0;  // from the start of the page
  bool resumable = false;     // the code here can be entered: it relies on nothing but guest state
};

/// An instruction that the interpreter executes in the middle of translated code.
struct InterpretSite {
  uint64_t rip = 0;
  uint64_t next_rip = 0;
  uint64_t resume = 0;  // executable address to go on at, when nothing else changed; 0: always dispatch
  interp::Step steps[2];  // the instruction and the end step
};

struct Fragment {
  uint64_t linear_page = 0;  // of all its RIPs
  uint64_t gpa_page = 0;
  Mode mode = 0;
  bool global = false;       // its mapping survives CR3 loads
  uint64_t granules = 0;     // of the page, that it was made from
  uint64_t host = 0;         // executable address of its code
  uint32_t size_bytes = 0;
  uint16_t guest_instructions = 0;
  uint16_t guest_bytes = 0;
  std::vector<FragmentEntry> entries;
  std::vector<LinkSlot> slots;       // sorted by stub_offset
  std::vector<SideEntry> side;
  std::vector<std::unique_ptr<InterpretSite>> sites;  // their addresses are in the code

  const LinkSlot* slot_at(uint64_t return_address) const;
  /// The instruction whose code (hot or cold; cold code has entries of its own) contains `address`; nullptr: none.
  const SideEntry* side_at(uint64_t address) const;
};

struct CodeCacheStats {
  uint64_t fragments = 0;          // now
  uint64_t fragments_made = 0;
  uint64_t fragments_invalidated = 0;
  uint64_t fragments_evicted = 0;
  uint64_t code_bytes_made = 0;
  uint64_t guest_bytes_translated = 0;
  uint64_t guest_instructions_translated = 0;
  uint64_t links = 0;
  uint64_t guarded_links = 0;
  uint64_t code_bytes_now = 0;
};

class CodeCache {
 public:
  static constexpr size_t kSegmentBytes = size_t{1} << 20;

  /// `stub_bytes` at the start are never evicted (runtime.hh's stubs). `size_bytes`: a multiple of kSegmentBytes, at
  /// least two of them beside the stubs' own.
  static Result<std::unique_ptr<CodeCache>> create(size_t size_bytes, size_t stub_bytes);

  /// The stub area.
  std::span<std::byte> stub_buffer();
  uint64_t stub_address() const;
  bool contains(uint64_t address) const;  // executable view, stubs included

  /// A place for up to `size_bytes` (<= 128 KiB) of new code; evicts the oldest segment where needed (generation()
  /// then changes). Valid until the next reserve(), link() or add().
  struct Room {
    std::span<std::byte> buffer;
    uint64_t executable = 0;
  };
  Room reserve(size_t size_bytes);
  /// Takes the code that was written at the start of the last reserve()d room. Entries that are there already keep
  /// pointing to the older fragment's code only until now: the newest wins.
  Fragment* add(std::unique_ptr<Fragment> fragment);

  /// Executable address for (rip, physical address of its byte, mode), or 0.
  uint64_t find(uint64_t rip, uint64_t gpa, Mode mode) const;
  /// The fragment whose code contains `address`, or nullptr.
  Fragment* fragment_at(uint64_t address) const;

  /// Makes `slot` of `from` go to `target` (an entry of a live fragment: fragment_at(target)). `privilege` chooses the
  /// half of code_pages that a guard looks at. May allocate a guard; does nothing when there is no room for it.
  void link(Fragment& from, const LinkSlot& slot, uint64_t target, unsigned privilege);
  /// Sends all links that cross pages without a guard back to their stubs: some global translation has changed.
  void unlink_global();

  /// Removes the fragments made from any of `granules` of the physical page. generation() changes if there were any.
  void invalidate(uint64_t gpa_page, uint64_t granules);
  void invalidate_all();
  /// Physical pages that have fragments, for a scan of all versions.
  std::vector<uint64_t> pages() const;

  /// Changes whenever code was removed: whoever keeps executable addresses (indirect-branch cache, shadow return stack,
  /// sites) must drop them.
  uint64_t generation() const { return generation_; }

  /// The number of the mapping of `linear_page` to `gpa_page` (page-aligned addresses), never 0.
  uint32_t mapping_number(uint64_t linear_page, uint64_t gpa_page);

  CodeCacheStats stats() const;

 private:
  explicit CodeCache(CodeMemory memory, size_t stub_bytes);
  // The author of code_cache.cc fills this in.
  uint64_t generation_ = 1;
};

}  // namespace tenon::jit
