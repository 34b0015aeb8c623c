// RememberedCode: what one vCPU knows of where its code is: translations of the pages it fetches from, the
// indirect-branch cache and the page mappings that guards of links look at (TranslatedState::indirect, code_pages).
//
// All of it holds until the guest drops translations. Global ones (PTE.G) survive CR3 loads, so a kernel keeps
// everything. What a process has is put away when its address space is left and comes back with it, where the soft TLB
// still knows that address space (SoftTlb::context(): a PCID whose translations were kept). So a switch costs what is
// in use, and INVLPG of a page that no code was fetched from costs one look into a hash table.
//
// "Side" is 0 for CPL 0-2 and 1 for CPL 3: the tables that translated code of that privilege looks at.
//
// Threads: the vCPU's own. Memory is bounded: kContexts address spaces with the two tables each at most.
// Source: SDM Vol. 3 4.10 (what may be cached, and what drops it).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/interp/cpu.hh"
#include "engine/jit/pair_table.hh"

namespace tenon::jit {

class RememberedCode {
 public:
  /// Translation of one page of code for one side.
  struct Line {
    uint64_t page = ~uint64_t{0};
    uint64_t gpa_page = 0;
    uint64_t stamp = 0;  // it holds while this is the current one of its kind
    uint64_t shift = 0;  // RIP - that of its code; 0: the code there is not shifted (mode.hh)
    bool global = false;
  };

  /// Where code of `rip` was found lately. It holds while `epoch` is one of the side's two.
  struct alignas(32) Found {
    uint64_t rip = 0;
    uint64_t host = 0;
    uint64_t epoch = 0;
    uint64_t shift = 0;  // of the line
  };
  /// What Found of a side may be: a new number whenever its executable addresses or translations go wrong.
  struct Epochs {
    uint64_t local = 0;
    uint64_t global = 0;
  };
  /// Found of `rip`: found(side)[rip * kFoundMultiplier >> kFoundShift]. The indirect-branch cache has one target for
  /// some bits of a RIP; stubs look here for the others (make_look_further() in emit_branch.cc).
  static constexpr unsigned kFoundBits = 13;
  static constexpr unsigned kFoundShift = 64 - kFoundBits;
  /// Shifts are multiples of the page size below 2^47: in shifted_pages they leave the low bits to mapping numbers.
  static constexpr unsigned kShiftBits = 17;
  static constexpr uint64_t kFoundMultiplier = 0x9e3779b97f4a7c15;  // 2^64 divided by the golden ratio

  explicit RememberedCode(interp::TranslatedState& state) : state_(state) {}

  /// Makes all entries of the indirect-branch cache empty; they lead to `miss`, a stub for each side.
  void start(const std::array<uint64_t, 2>& miss);

  const Found* found(unsigned side) const { return found_[side].data(); }
  const Epochs& epochs(unsigned side) const { return epochs_[side]; }

  // --- What is known.

  /// Where `rip` was looked up lately, or nullptr.
  const Found* find(unsigned side, uint64_t rip) const {
    const Found& found = found_[side][rip * kFoundMultiplier >> kFoundShift];
    const Epochs& epochs = epochs_[side];
    const bool holds = found.rip == rip && (found.epoch == epochs.local || found.epoch == epochs.global);
    return holds ? &found : nullptr;
  }
  /// nullptr: not known.
  const Line* find_line(unsigned side, uint64_t rip) const {
    const uint64_t page = rip / kPageSize;
    const Line& line = lines_[side][page % kLines];
    return line.page == page && line.stamp == (line.global ? global_stamp_ : local_stamp_) ? &line : nullptr;
  }
  const Line& add_line(unsigned side, uint64_t rip, const interp::Translation& translation, uint64_t shift);
  /// The shift of a line not far from `rip`, the nearest that is known; 0: of none.
  uint64_t shift_near(unsigned side, uint64_t rip) const;
  /// `line` is that of `rip`.
  void set_mapping(unsigned side, const Line& line, uint32_t number);
  void add(unsigned side, const Line& line, uint64_t rip, uint64_t host);
  /// Indirect branches to `rip` go to `host`, which looks whether that is right.
  void add_indirect(unsigned side, const Line& line, uint64_t rip, uint64_t host);

  /// Whose code may have run, since the last loss, that goes with the next CR3 load.
  using Sides = std::array<bool, 2>;
  Sides local_sides() const { return local_sides_; }

  // --- Dropping.

  /// CR3 was loaded or the current context dropped: from now on `context` is the current one. `keep`: what was known in
  /// the last one holds again when that comes back. False: nothing has changed.
  bool enter_context(uint64_t context, bool keep);
  /// Translations of another context were dropped.
  void forget_context(uint64_t context);
  /// Translations in [first, first + size) were dropped. What that means for what is known:
  enum class Loss : uint8_t { kNothing, kLocal, kAll };
  Loss forget_range(uint64_t first, uint64_t size_bytes);
  /// Translations of all contexts and global ones were dropped.
  void forget_all();
  /// Code was removed: executable addresses are wrong.
  void forget_addresses();
  /// The same for one side, whose mode has changed.
  void forget_addresses(unsigned side);

 private:
  using State = interp::TranslatedState;
  static constexpr unsigned kSides = 2;
  static constexpr unsigned kLines = 1024;
  static constexpr unsigned kContexts = 8;
  static constexpr unsigned kIndirectShift = 3;

  /// A set of table indices.
  template <unsigned size>
  struct IndexSet {
    static_assert(size <= 64 * 64);
    std::array<uint64_t, size / 64> words{};
    uint64_t used = 0;  // bit i: words[i] may be something else than 0

    void set(unsigned index) {
      words[index / 64] |= uint64_t{1} << (index % 64);
      used |= uint64_t{1} << (index / 64);
    }
    void clear(unsigned index) { words[index / 64] &= ~(uint64_t{1} << (index % 64)); }
    /// Calls visit(index) for each and empties the set.
    template <typename Visit>
    void take(Visit&& visit);
  };

  class PageSet {
   public:
    void add(uint64_t page);
    bool has_any_in(uint64_t first, uint64_t size_bytes) const;
    void clear();

   private:
    PairTable table_;
    std::vector<uint64_t> list_;
  };

  struct Saved {
    uint16_t index;
    uint8_t side;
    uint64_t value;
  };
  /// An address space that may come back.
  struct Kept {
    uint64_t context = 0;  // 0: none
    uint64_t stamp = 0;
    std::array<uint64_t, kSides> addresses{};  // address_numbers_ when it was left
    std::array<uint64_t, kSides> epochs{};     // local ones
    Sides local_sides{};
    std::vector<Saved> indirect;
    std::vector<Saved> mappings;
    std::vector<Saved> shifted;
    PageSet pages;
  };

  static unsigned index_of(uint64_t rip) {
    return static_cast<unsigned>(rip >> kIndirectShift) % State::kIndirectEntries;
  }
  void empty_local(Kept* kept);
  void restore(Kept& kept);

  State& state_;
  std::array<uint64_t, kSides> miss_{};
  uint64_t context_ = 0;
  uint64_t last_stamp_ = 2;
  uint64_t local_stamp_ = 1;
  uint64_t global_stamp_ = 2;
  std::array<Epochs, kSides> epochs_{};
  std::array<uint64_t, kSides> address_numbers_{};  // counted up when the side's executable addresses go wrong
  std::array<std::array<Line, kLines>, kSides> lines_{};
  std::array<std::array<Found, size_t{1} << kFoundBits>, kSides> found_{};
  std::array<IndexSet<State::kIndirectEntries>, kSides> local_indirect_{};
  std::array<IndexSet<State::kCodePages>, kSides> local_pages_{};  // entries of code_pages that are not global
  IndexSet<State::kCodePages> shifted_pages_{};                    // and of shifted_pages
  Sides local_sides_{};
  // Linear pages that something known relies on.
  PageSet pages_local_;
  PageSet pages_global_;
  std::array<Kept, kContexts> kept_{};
  unsigned next_kept_ = 0;  // to be replaced
};

}  // namespace tenon::jit
