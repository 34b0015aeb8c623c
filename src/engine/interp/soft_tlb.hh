// SoftTlb: what one vCPU remembers of the guest's page tables, in two levels.
//
// Level 1 is a set of direct-mapped tables that the interpreter and translated code look into with a handful of
// instructions; there is one for reads and one for writes for each TlbMode, so a hit needs no check of rights. Level 2
// remembers translations themselves, tagged with the address space (PCID) they belong to, and refills level 1 without a
// walk of the page tables. Who translates and fills:
// soft_tlb_fill.hh.
//
// Level 1 is a fixed contract with translated code (SoftTlb::table_offset()): entry = table[(linear >> 12) % 1024] by
// the first byte of the access; it hits where `linear + entry.negative_page <= 4096 - size` (unsigned), which also
// fails where the access crosses its page; the bytes are then at `entry.host_page + (linear + entry.negative_page)`.
// The sum wraps at 2^64, so nothing needs to be checked about `linear` first. An empty entry holds a page that never
// looks at its index. A write entry exists only while the page may be written in that mode, PTE.D is set, it is RAM and
// nothing was ever decoded from it (CodeWatch), so dirty bits and self-modifying code cost nothing on a hit.
//
// Level 2 entries carry a 28-bit context tag instead of a PCID: dropping everything of a PCID is taking a new tag for
// it. Tags are numbered up for ever in 64 bits; where the low 28 wrap, all of level 2 is emptied. Level 1 holds
// translations of the current PCID and global ones; two bitmaps say which entries of each table may hold either, so a
// flush costs what was filled.
//
// Source: Intel SDM Vol. 3 4.10 (caching translation information).
// Not implemented: paging-structure caches. Threads: the vCPU's own.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/fd.hh"
#include "base/result.hh"
#include "engine/x86/paging.hh"
#include "vm/guest_memory.hh"

namespace tenon::interp {

/// Level-1 tables by who asks: CPL 3; CPL 0-2 that may not touch user pages (CR4.SMAP and not AC); CPL 0-2 that may.
/// kTlbNever is never filled: every access takes the slow path, which then checks alignment (CR0.AM, AC, CPL 3) and
/// data breakpoints (DR7).
enum TlbMode : uint8_t { kTlbUser, kTlbSupervisor, kTlbSupervisorUser, kTlbNever, kTlbModes };

/// One level-1 entry. negative_page = 0 - (linear address of the page); host_page = host address of the page.
struct TlbEntry {
  uint64_t negative_page;
  uint64_t host_page;
};
static_assert(sizeof(TlbEntry) == 16);

/// A translation as level 2 keeps it, in one word: guest physical page in bits 51:12, TlbPageBits in the rest.
struct TlbPage {
  uint64_t word = 0;

  enum Bits : uint64_t {
    kWritable = 1u << 0,  // R/W of all levels, before CR0.WP
    kUser = 1u << 1,      // U/S of all levels
    kNoExecute = 1u << 2,
    kDirty = 1u << 3,
    kGlobal = 1u << 4,  // survives CR3 loads (PTE.G with CR4.PGE)
  };
  static constexpr unsigned kBackingShift = 52;
  static constexpr uint64_t kGpaMask = ((uint64_t{1} << 52) - 1) & ~(kPageSize - 1);

  uint64_t gpa() const { return word & kGpaMask; }
  bool has(Bits bit) const { return (word & bit) != 0; }
  /// Index into SoftTlb's list of extents, 0 where there is no memory (MMIO).
  unsigned backing() const { return static_cast<unsigned>(word >> kBackingShift); }
};

/// What a page of guest physical memory is on the host: an Extent, in the form a refill needs.
struct TlbBacking {
  uint64_t first = 0;  // gpa
  uint64_t size_bytes = 0;
  uint64_t host_minus_gpa = 0;
  CodeWatch::Page* code_pages = nullptr;  // of `first`
  bool read_only = false;                 // ROM
};

/// Where a level holds pieces of pages larger than 4 KiB, so that INVLPG can drop all of them (SDM Vol. 3 4.10.4.1).
/// Hashed: it may name regions that hold none. A 4-MiB page is two regions.
struct LargePageFilter {
  static constexpr unsigned kRegions = 4096;   // of 2 MiB
  static constexpr unsigned kGigabytes = 512;  // of 1 GiB
  std::bitset<kRegions> regions;
  std::bitset<kGigabytes> gigabytes;
  unsigned noted = 0;  // bits set in both

  void note(uint64_t linear, uint64_t page_size) {
    if (page_size <= kPageSize) return;
    if (page_size > (uint64_t{4} << 20)) return note_bit(gigabytes, (linear >> 30) % kGigabytes);
    note_bit(regions, (linear >> 21) % kRegions);
    if (page_size > (uint64_t{2} << 20)) note_bit(regions, ((linear >> 21) ^ 1) % kRegions);
  }
  void clear();
  bool has_region(uint64_t linear) const { return regions.test((linear >> 21) % kRegions); }
  bool has_gigabyte(uint64_t linear) const { return gigabytes.test((linear >> 30) % kGigabytes); }

 private:
  template <size_t size>
  void note_bit(std::bitset<size>& bits, size_t index) {
    noted += bits.test(index) ? 0 : 1;
    bits.set(index);
  }
};

class SoftTlb {
 public:
  static constexpr unsigned kEntries = 1024;  // of a level-1 table
  static constexpr unsigned kSets = 2048;     // of level 2
  static constexpr unsigned kWays = 4;
  static constexpr unsigned kPcids = 4096;

  SoftTlb() { make_all_empty(); }
  SoftTlb(const SoftTlb&) = delete;
  SoftTlb& operator=(const SoftTlb&) = delete;

  /// Once, before anything else: the extents of `memory` are fixed from now on.
  Result<void> attach(const GuestMemory& memory);

  // --- Level 1.

  static constexpr unsigned index_of(uint64_t linear) { return static_cast<unsigned>(linear / kPageSize) % kEntries; }
  /// Byte offset of the table from the start of SoftTlb, for translated code.
  static constexpr size_t table_offset(TlbMode mode, bool write);
  TlbEntry* table(TlbMode mode, bool write) { return tables_[mode][write ? 1 : 0]; }
  const TlbEntry* table(TlbMode mode, bool write) const { return tables_[mode][write ? 1 : 0]; }
  static constexpr TlbEntry empty_entry(unsigned index) {
    // The page half a table away, so that not even an access that starts just before it looks here.
    const uint64_t page = index ^ (kEntries / 2);
    return TlbEntry{.negative_page = uint64_t{0} - page * kPageSize, .host_page = 0};
  }
  /// Takes `page`, the translation of `linear` that `mode` may read, into the mode's read table and, where it may be
  /// written without anybody's notice, into its write table. `write_protect` is CR0.WP. False: it is MMIO.
  bool enter(TlbMode mode, bool write_protect, uint64_t linear, TlbPage page);
  /// Empties every table, or every write table. Level 2 stays: rights that it does not hold have changed.
  void empty_tables();
  void empty_write_tables();

  /// Changes whenever translations may have gone from level 1: copies of its entries are then no longer good.
  uint64_t drops() const { return drops_; }

  // --- Level 2.

  /// The translation of the page of `linear` (canonical) in the current context, where level 2 has it.
  bool find(uint64_t linear, TlbPage& page) const;
  /// Takes what a walk found.
  TlbPage insert(uint64_t linear, const x86::Translation& translation);
  const TlbBacking& backing(TlbPage page) const { return backings_[page.backing()]; }
  /// Number of the current context: never the same again after its translations were dropped.
  uint64_t context() const { return context_; }
  uint16_t pcid() const { return pcid_; }
  /// The same of another PCID; may be stale where that has none.
  uint64_t context_of(uint16_t pcid) const { return level2_->contexts[pcid]; }

  // --- Dropping translations (SDM Vol. 3 4.10.4.1). The names of the instructions are examples.

  /// Makes `pcid` the current one; `keep` its translations (MOV to CR3 with bit 63) or drop them. Globals stay.
  void change_context(uint16_t pcid, bool keep);
  /// INVPCID type 1: everything of `pcid` but globals.
  void drop_context(uint16_t pcid);
  /// INVPCID type 3: everything of every PCID but globals.
  void drop_contexts();
  /// Everything (INVPCID type 2, MOV to CR4 that changes PGE).
  void drop_all();
  /// INVLPG: the page of `linear` in the current context, also as a global one. True: it may have lain in a page of
  /// more than 4 KiB, and all of that went, too. `paging` says how large such a page is.
  bool drop_page(uint64_t linear, x86::PagingKind paging);
  /// How much around `linear` they drop: all of the largest page that may have been there.
  uint64_t dropped_size(uint64_t linear, x86::PagingKind paging, bool globals) const;
  /// INVPCID type 0: the same in the context of `pcid`, which globals do not belong to.
  bool drop_page_of(uint16_t pcid, uint64_t linear, x86::PagingKind paging);
  /// #PF: the 4 KiB at `linear` alone.
  void drop_piece(uint64_t linear);

 private:
  friend struct SoftTlbTestAccess;

  /// Entries of one level-1 table. A bit of `words` is set where a word of `bits` is not 0.
  struct Bitmap {
    uint64_t bits[kEntries / 64];
    uint32_t words;
    static_assert(kEntries / 64 <= 32, "as many as `words` has bits");

    void set(unsigned index) {
      bits[index / 64] |= uint64_t{1} << (index % 64);
      words |= 1u << (index / 64);
    }
  };
  /// Which entries are in use, and perhaps some that no longer are or that the other bitmap names rightly.
  struct Use {
    Bitmap local;
    Bitmap global;
  };
  struct Line {
    uint64_t tag;   // page_tag() | context tag; 0: empty
    uint64_t word;  // TlbPage
  };
  /// Host memory of its own, so that it costs nothing until it is used.
  struct Level2 {
    Line lines[kSets][kWays];
    uint64_t contexts[kPcids];  // number of each PCID's context; below first_context_: none
  };

  static constexpr unsigned kContextBits = 28;
  static constexpr uint64_t kContextMask = (uint64_t{1} << kContextBits) - 1;

  static uint64_t page_tag(uint64_t linear) { return linear / kPageSize << kContextBits; }
  static unsigned set_of(uint64_t linear) {
    const uint64_t page = linear / kPageSize;
    return static_cast<unsigned>(page ^ (page >> 11)) % kSets;
  }

  void make_all_empty();
  void empty(unsigned mode, unsigned write, Bitmap& which);
  void empty_table(unsigned mode, unsigned write);
  void empty_local();
  void empty_range(uint64_t first, uint64_t size_bytes);
  void set_entry(unsigned mode, unsigned write, unsigned index, const TlbEntry& entry, bool local);
  uint64_t new_context();
  void start_contexts_over();
  void drop_lines(uint64_t first, uint64_t size_bytes, uint64_t context, bool globals);
  unsigned backing_of(uint64_t gpa) const;
  Line& line_for(uint64_t linear);

  alignas(64) TlbEntry tables_[kTlbModes][2][kEntries];  // [mode][0 = read, 1 = write]
  Use use_[kTlbNever][2]{};
  Level2* level2_ = nullptr;
  uint64_t context_ = 1;         // of the current PCID
  uint64_t global_context_ = 1;  // stands for every PCID
  uint64_t last_context_ = 1;
  uint64_t first_context_ = 1;  // contexts with lower numbers are dropped
  uint64_t drops_ = 0;
  uint16_t pcid_ = 0;
  uint8_t next_way_ = 0;  // of level 2, to be replaced
  LargePageFilter local_large_;
  LargePageFilter global_large_;
  std::vector<TlbBacking> backings_;  // [0] is MMIO
  Mapping storage_;
};

constexpr size_t SoftTlb::table_offset(TlbMode mode, bool write) {
  return offsetof(SoftTlb, tables_) + (size_t{mode} * 2 + (write ? 1 : 0)) * sizeof(TlbEntry) * kEntries;
}
static_assert(SoftTlb::table_offset(kTlbUser, true) - SoftTlb::table_offset(kTlbUser, false) == 16384);

}  // namespace tenon::interp
