#include "engine/interp/soft_tlb.hh"

#include <bit>

namespace tenon::interp {
namespace {

constexpr uint64_t kMebibyte = uint64_t{1} << 20;
/// Backing indices fit above TlbPage's address bits.
constexpr size_t kBackingsMax = size_t{1} << (64 - TlbPage::kBackingShift);

}  // namespace

void LargePageFilter::clear() {
  regions.reset();
  gigabytes.reset();
  noted = 0;
}

Result<void> SoftTlb::attach(const GuestMemory& memory) {
  if (memory.extents().size() >= kBackingsMax) {
    return fail(ErrorCode::kOutOfRange, "soft TLB of " + std::to_string(memory.extents().size()) +
                                            " extents of guest memory: at most " + std::to_string(kBackingsMax - 1));
  }
  storage_ = TRY(Mapping::anonymous(sizeof(Level2), kPageSize, "tenon:soft-tlb"));
  // SAFETY: the mapping is large enough, page-aligned and zero-filled, and all zeroes is a Level2 without entries.
  level2_ = reinterpret_cast<Level2*>(storage_.data());
  backings_.assign(1, TlbBacking{});
  for (const Extent& extent : memory.extents()) {
    const uint64_t first = extent.range.base.value();
    backings_.push_back(TlbBacking{.first = first,
                                   .size_bytes = extent.range.size_bytes,
                                   .host_minus_gpa = reinterpret_cast<uint64_t>(extent.host) - first,
                                   .code_pages = memory.code_watch().page(extent.range.base),
                                   .read_only = extent.kind == ExtentKind::kRom});
  }
  return {};
}

// --- Emptying level 1.

void SoftTlb::make_all_empty() {
  for (auto& mode : tables_) {
    for (auto& table : mode) {
      for (unsigned i = 0; i < kEntries; ++i) table[i] = empty_entry(i);
    }
  }
}

void SoftTlb::empty(unsigned mode, unsigned write, Bitmap& which) {
  ++drops_;
  for (; which.words != 0; which.words &= which.words - 1) {
    uint64_t& bits = which.bits[std::countr_zero(which.words)];
    const auto first = static_cast<unsigned>(std::countr_zero(which.words)) * 64;
    for (; bits != 0; bits &= bits - 1) {
      const unsigned index = first + static_cast<unsigned>(std::countr_zero(bits));
      tables_[mode][write][index] = empty_entry(index);
    }
  }
}

void SoftTlb::empty_table(unsigned mode, unsigned write) {
  empty(mode, write, use_[mode][write].local);
  empty(mode, write, use_[mode][write].global);
}

void SoftTlb::empty_tables() {
  for (unsigned mode = 0; mode < kTlbNever; ++mode) {
    empty_table(mode, 0);
    empty_table(mode, 1);
  }
}

void SoftTlb::empty_write_tables() {
  for (unsigned mode = 0; mode < kTlbNever; ++mode) empty_table(mode, 1);
}

void SoftTlb::empty_local() {
  for (unsigned mode = 0; mode < kTlbNever; ++mode) {
    for (unsigned write = 0; write < 2; ++write) empty(mode, write, use_[mode][write].local);
  }
}

/// Empties entries for linear pages in [first, first + size).
void SoftTlb::empty_range(uint64_t first, uint64_t size_bytes) {
  ++drops_;
  const auto empty_if_inside = [&](unsigned mode, unsigned write, unsigned index) {
    TlbEntry& entry = tables_[mode][write][index];
    if (0 - entry.negative_page - first < size_bytes) entry = empty_entry(index);
  };
  for (unsigned mode = 0; mode < kTlbNever; ++mode) {
    for (unsigned write = 0; write < 2; ++write) {
      if (size_bytes == kPageSize) {
        empty_if_inside(mode, write, index_of(first));
        continue;
      }
      const Use& use = use_[mode][write];
      for (uint32_t words = use.local.words | use.global.words; words != 0; words &= words - 1) {
        const auto word = static_cast<unsigned>(std::countr_zero(words));
        for (uint64_t bits = use.local.bits[word] | use.global.bits[word]; bits != 0; bits &= bits - 1) {
          empty_if_inside(mode, write, word * 64 + static_cast<unsigned>(std::countr_zero(bits)));
        }
      }
    }
  }
}

// --- Contexts.

uint64_t SoftTlb::new_context() {
  if ((++last_context_ & kContextMask) == 0) start_contexts_over();
  return last_context_;
}

/// The tags in level 2 are about to repeat.
void SoftTlb::start_contexts_over() {
  for (auto& set : level2_->lines) {
    for (Line& line : set) line = Line{.tag = 0, .word = 0};
  }
  first_context_ = last_context_ + 1;
  global_context_ = ++last_context_;
  context_ = ++last_context_;
  level2_->contexts[pcid_] = context_;
  ++last_context_;
}

void SoftTlb::change_context(uint16_t pcid, bool keep) {
  const bool same = pcid == pcid_;
  pcid_ = pcid;
  // A filter that says yes to most of what it is asked makes every INVLPG a sweep.
  if (local_large_.noted > LargePageFilter::kRegions / 8) return drop_contexts();
  uint64_t& context = level2_->contexts[pcid];
  if (keep && context >= first_context_) {
    if (same) return;
    context_ = context;
  } else {
    const uint64_t fresh = new_context();
    context_ = context = fresh;
  }
  empty_local();
}

void SoftTlb::drop_context(uint16_t pcid) {
  if (pcid == pcid_) return change_context(pcid, false);
  level2_->contexts[pcid] = 0;
}

void SoftTlb::drop_contexts() {
  const uint64_t fresh = new_context();
  first_context_ = fresh;
  level2_->contexts[pcid_] = context_ = fresh;
  local_large_.clear();
  empty_local();
}

void SoftTlb::drop_all() {
  global_context_ = new_context();
  global_large_.clear();
  empty_tables();
  drop_contexts();
}

// --- Single pages.

uint64_t SoftTlb::dropped_size(uint64_t linear, x86::PagingKind paging, bool globals) const {
  if (local_large_.has_gigabyte(linear) || (globals && global_large_.has_gigabyte(linear))) return 1024 * kMebibyte;
  if (!local_large_.has_region(linear) && !(globals && global_large_.has_region(linear))) return kPageSize;
  return paging == x86::PagingKind::k32Bit ? 4 * kMebibyte : 2 * kMebibyte;
}

/// Empties level-2 lines for [first, first + size) of one context, and global ones if wanted.
void SoftTlb::drop_lines(uint64_t first, uint64_t size_bytes, uint64_t context, bool globals) {
  const uint64_t first_page = page_tag(first) >> kContextBits;
  const uint64_t pages = size_bytes / kPageSize;
  const auto drop_in = [&](Line(&set)[kWays]) {
    for (Line& line : set) {
      const uint64_t tag = line.tag & kContextMask;
      const bool named = tag == (context & kContextMask) || (globals && tag == (global_context_ & kContextMask));
      if (named && (line.tag >> kContextBits) - first_page < pages) line.tag = 0;
    }
  };
  if (pages >= kSets) {
    for (auto& set : level2_->lines) drop_in(set);
  } else {
    for (uint64_t page = 0; page < pages; ++page) drop_in(level2_->lines[set_of(first + page * kPageSize)]);
  }
}

bool SoftTlb::drop_page(uint64_t linear, x86::PagingKind paging) {
  const uint64_t size = dropped_size(linear, paging, true);
  const uint64_t first = linear & ~(size - 1);
  empty_range(first, size);
  drop_lines(first, size, context_, true);
  return size != kPageSize;
}

bool SoftTlb::drop_page_of(uint16_t pcid, uint64_t linear, x86::PagingKind paging) {
  const uint64_t context = level2_->contexts[pcid];
  if (context < first_context_) return false;
  const uint64_t size = dropped_size(linear, paging, false);
  const uint64_t first = linear & ~(size - 1);
  if (pcid == pcid_) empty_range(first, size);
  drop_lines(first, size, context, false);
  return size != kPageSize;
}

void SoftTlb::drop_piece(uint64_t linear) {
  const uint64_t first = linear & ~(kPageSize - 1);
  empty_range(first, kPageSize);
  drop_lines(first, kPageSize, context_, true);
}

}  // namespace tenon::interp
