// Region: what is translated at once: up to 64 instructions in up to 8 basic blocks of one guest page, found by
// following fall-through, direct jumps and both ways of conditional ones from the first instruction, up to what is
// translated already.
//
// A block can be entered at its start from anywhere, but for those that rely on what was checked in the one before
// (Emitter::plan_stretches()). What the region is good for beside that is flag liveness, which runs over all its blocks
// and looks a few instructions ahead behind its direct exits inside the page.
//
// Source: SDM Vol. 1 3.4.3.1 (status flags); "Flags Affected" of each instruction is in x86/table_*.cc.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "engine/x86/insn.hh"

namespace tenon::jit {

constexpr unsigned kRegionInsnsMax = 64;
constexpr unsigned kRegionBlocksMax = 8;

/// How the last instruction of a block passes control on.
enum class BlockEnd : uint8_t {
  kFallThrough,  // the next block starts here, or the region's limits were reached: goes on at `end_offset`
  kJump,         // direct JMP to `taken_offset`
  kConditional,  // Jcc to `taken_offset`, else `end_offset`; also JCXZ and LOOPcc
  kCall,         // direct CALL to `taken_offset`, returns to `end_offset`
  kIndirectJump,
  kIndirectCall,  // returns to `end_offset`
  kReturn,        // near RET
  kStop,  // the last instruction ends translated code (kBranch or kSerializing rows that are none of the above, also
          // POPF, CPUID, MOV to segment): whoever executes it finds out where to go on
  kUndecodable,  // nothing (more) can be decoded at `end_offset`, or the instruction there crosses the page's end: to
                 // be interpreted
};

struct RegionInsn {
  x86::Insn insn;
  uint16_t offset = 0;       // from the start of the page
  uint16_t live_before = 0;  // arithmetic flags whose value before this instruction may still be read (RFLAGS bits)
  uint16_t live_after = 0;
};

struct RegionBlock {
  static constexpr uint8_t kOutside = 0xff;
  uint8_t first = 0;  // index of its first instruction
  uint8_t count = 0;  // 0 only in a region of one block with kUndecodable
  BlockEnd end = BlockEnd::kFallThrough;
  bool loop_head = false;    // target of a branch in the region at the same or a later offset: every loop has one
  uint8_t next = kOutside;   // block at `end_offset`, where it is in the region
  uint8_t taken = kOutside;  // block at the direct target
  uint16_t start_offset = 0;
  uint16_t end_offset = 0;   // of the byte after the last instruction; 4096 at the end of the page
  int64_t taken_offset = 0;  // of the direct target from the start of the page; may be in any other page
  uint16_t live_in = 0;      // arithmetic flags live at its start
};

struct Region {
  std::array<RegionInsn, kRegionInsnsMax> insns;
  std::array<RegionBlock, kRegionBlocksMax> blocks;  // blocks[0] starts at the region's start
  uint8_t insn_count = 0;
  uint8_t block_count = 0;
  /// Bytes of the page that were looked at, one bit for each 64-byte granule (CodeWatch): instructions and look-ahead.
  uint64_t granules = 0;
};

/// A private copy of a guest page, made as far as it is looked at.
class PageCopy {
 public:
  virtual ~PageCopy() = default;
  std::span<const uint8_t, 4096> bytes() const { return bytes_; }
  /// The instruction at `offset` is going to be looked at.
  void need(unsigned offset) {
    const unsigned last = (offset + x86::kInsnLengthMax - 1) / 64;
    const uint64_t missing = (uint64_t{1} << offset / 64 | (last < 64 ? uint64_t{1} << last : 0)) & ~present_;
    if (missing != 0) {
      copy(missing, bytes_);
      present_ |= missing;
    }
  }

 protected:
  /// The next need() copies anew.
  void forget() { present_ = 0; }

 private:
  /// Copies these granules to their places in `to`.
  virtual void copy(uint64_t granules, std::array<uint8_t, 4096>& to) = 0;

  uint64_t present_ = 0;
  std::array<uint8_t, 4096> bytes_{};
};

/// Answers what find_region() cannot see: the code in other pages, and what is translated already.
class Elsewhere {
 public:
  virtual ~Elsewhere() = default;
  /// Arithmetic flags live at the code `offset` bytes from the start of the page (outside it).
  virtual uint16_t live_at(int64_t offset) = 0;
  /// Whether the code at `offset` of the page can be linked to: the region ends there and does not repeat it.
  virtual bool is_translated(unsigned offset) = 0;
};

struct RegionOptions {
  bool strict_flags = false;  // all flags count as live everywhere a fault or an exit may show them
  unsigned insns_max = kRegionInsnsMax;
  Elsewhere* elsewhere = nullptr;  // none: all flags live behind exits to other pages
  PageCopy* copy = nullptr;        // whose bytes are the page; none: all of the page is there
};

/// Finds the region of 64-bit code that starts at `page[start_offset]`. `page` is a private copy of the guest page:
/// what was found depends on nothing else. Never fails: where the first instruction cannot be translated there is one
/// empty block with kUndecodable. Blocks are in the order in which they should be emitted (fall-through next to each
/// other); instructions of a block are consecutive in `insns`, in the order of the blocks, and no two of a region
/// overlap. About 1 to 3 microseconds; no allocation. Any thread.
void find_region(std::span<const uint8_t, 4096> page, unsigned start_offset, const RegionOptions& options, Region& out);

/// The region of one instruction that starts at `offset` of its page and goes on in the next: one block, flags live
/// after it. Granules: the last one of its first page.
void make_single_region(const x86::Insn& insn, unsigned offset, Region& out);

/// Arithmetic flags live at `offset` of the page, found by looking a few instructions ahead; adds the granules looked
/// at.
uint16_t live_flags_at(PageCopy& page, unsigned offset, uint64_t& granules);

/// Arithmetic flags (kArithmeticFlags bits) that `insn` may read, and those it certainly overwrites (defined or
/// undefined, but independent of their old value). Shifts by CL and REP compares keep flags when the count is 0: no
/// kill.
uint16_t flags_read(const x86::Insn& insn);
uint16_t flags_killed(const x86::Insn& insn);

}  // namespace tenon::jit
