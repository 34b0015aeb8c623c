#include "engine/interp/soft_tlb_fill.hh"

#include "engine/interp/cpu.hh"

namespace tenon::interp {

// --- Level 2.

bool SoftTlb::find(uint64_t linear, TlbPage& page) const {
  const uint64_t wanted = page_tag(linear);
  const uint64_t local = wanted | (context_ & kContextMask);
  const uint64_t global = wanted | (global_context_ & kContextMask);
  // Without branches: nobody could predict which of the ways it is.
  uint64_t any = 0;
  page.word = 0;
#pragma GCC unroll 4
  for (const Line& line : level2_->lines[set_of(linear)]) {
    const uint64_t mask = uint64_t{0} - static_cast<uint64_t>((line.tag == local) | (line.tag == global));
    page.word |= line.word & mask;
    any |= mask;
  }
  return any != 0;
}

unsigned SoftTlb::backing_of(uint64_t gpa) const {
  for (size_t i = 1; i < backings_.size(); ++i) {
    if (gpa - backings_[i].first < backings_[i].size_bytes) return static_cast<unsigned>(i);
  }
  return 0;
}

TlbPage SoftTlb::insert(uint64_t linear, const x86::Translation& translation) {
  const uint64_t gpa = translation.gpa & TlbPage::kGpaMask;
  uint64_t word = gpa | uint64_t{backing_of(gpa)} << TlbPage::kBackingShift;
  if (translation.rights.writable) word |= TlbPage::kWritable;
  if (translation.rights.user) word |= TlbPage::kUser;
  if (translation.rights.no_execute) word |= TlbPage::kNoExecute;
  if (translation.dirty) word |= TlbPage::kDirty;
  if (translation.global) word |= TlbPage::kGlobal;
  (translation.global ? global_large_ : local_large_).note(linear, translation.page_size);
  Line& line = line_for(linear);
  line =
      Line{.tag = page_tag(linear) | ((translation.global ? global_context_ : context_) & kContextMask), .word = word};
  return TlbPage{word};
}

/// Where to put the page of `linear`: in place of what is known of it, so that it is never there twice; else where
/// nothing is, or the line of the oldest other context, which is likely to have been dropped; else any.
SoftTlb::Line& SoftTlb::line_for(uint64_t linear) {
  const uint64_t wanted = page_tag(linear);
  const uint64_t local = context_ & kContextMask;
  const uint64_t global = global_context_ & kContextMask;
  Line(&set)[kWays] = level2_->lines[set_of(linear)];
  Line* oldest = nullptr;
  uint64_t oldest_age = 0;
  for (Line& line : set) {
    if (line.tag == (wanted | local) || line.tag == (wanted | global)) return line;
    const uint64_t context = line.tag & kContextMask;
    if (context == local || context == global) continue;
    const uint64_t age = line.tag == 0 ? kContextMask + 1 : (last_context_ - context) & kContextMask;
    if (age <= oldest_age) continue;
    oldest = &line;
    oldest_age = age;
  }
  return oldest != nullptr ? *oldest : set[next_way_++ % kWays];
}

// --- Level 1.

void SoftTlb::set_entry(unsigned mode, unsigned write, unsigned index, const TlbEntry& entry, bool local) {
  tables_[mode][write][index] = entry;
  Use& use = use_[mode][write];
  (local ? use.local : use.global).set(index);
}

bool SoftTlb::enter(TlbMode mode, bool write_protect, uint64_t linear, TlbPage page) {
  if (page.backing() == 0 || mode == kTlbNever) return false;
  const TlbBacking& backing = backings_[page.backing()];
  const uint64_t gpa = page.gpa();
  const TlbEntry entry{.negative_page = 0 - (linear & ~(kPageSize - 1)), .host_page = backing.host_minus_gpa + gpa};
  const unsigned index = index_of(linear);
  const bool local = !page.has(TlbPage::kGlobal);
  set_entry(mode, 0, index, entry, local);
  const bool allowed = page.has(TlbPage::kWritable) || (mode != kTlbUser && !write_protect);
  if (!allowed || !page.has(TlbPage::kDirty) || backing.read_only) return true;
  const CodeWatch::Page& code = backing.code_pages[(gpa - backing.first) / kPageSize];
  if (code.granules.load(std::memory_order_acquire) == 0) set_entry(mode, 1, index, entry, local);
  return true;
}

// --- Both.

namespace {

[[gnu::noinline]] bool walk_page(Cpu& cpu, uint64_t linear, x86::PageAccess access, TlbPage& page,
                                 uint32_t& error_code) {
  ++cpu.counters.tlb_walks;
  x86::Translation translation;
  if (!x86::walk(*cpu.memory, cpu.paging, linear, access, translation, error_code)) return false;
  page = cpu.tlb.insert(linear, translation);
  return true;
}

}  // namespace

bool translate_page(Cpu& cpu, uint64_t linear, x86::PageAccess access, TlbPage& page, uint32_t& error_code) {
  if (!cpu.tlb.find(linear, page)) [[unlikely]]
    return walk_page(cpu, linear, access, page, error_code);
  const x86::PageRights rights{.writable = page.has(TlbPage::kWritable),
                               .user = page.has(TlbPage::kUser),
                               .no_execute = page.has(TlbPage::kNoExecute)};
  // What an entry forbids is asked of the tables again: they may have changed (SDM Vol. 3 4.10.4.3). So is a write to a
  // clean page, for D.
  const bool enough = x86::permits(cpu.paging, rights, access) && (!access.write || page.has(TlbPage::kDirty));
  if (enough) [[likely]]
    return true;
  return walk_page(cpu, linear, access, page, error_code);
}

}  // namespace tenon::interp

/// Flat: refills are as frequent as first accesses after each CR3 load.
[[gnu::flatten]] bool tenon_tlb_fill(tenon::interp::Cpu* cpu, uint64_t linear, uint32_t access) {
  using namespace tenon;
  using namespace tenon::interp;
  const TlbMode mode = cpu->tlb_mode;
  if (mode == kTlbNever || !x86::is_canonical(linear)) return false;
  const TlbEntry& entry = cpu->tlb.table(mode, access != 0)[SoftTlb::index_of(linear)];
  if (linear + entry.negative_page < kPageSize) return false;  // it was there: the access crosses into the next page
  ++cpu->counters.tlb_misses;
  uint32_t& to_failure = cpu->translated.refills_to_failure;
  if (to_failure != 0 && --to_failure == 0) [[unlikely]]
    return false;
  // The mode stands for CPL, CR4.SMAP and EFLAGS.AC as update_mode() saw them.
  const x86::PageAccess who{
      .write = access != 0, .fetch = false, .user = mode == kTlbUser, .user_pages_ok = mode != kTlbSupervisor};
  TlbPage page;
  uint32_t error_code = 0;
  if (!translate_page(*cpu, linear, who, page, error_code)) return false;
  if (!cpu->tlb.enter(mode, cpu->paging.write_protect, linear, page)) return false;
  return linear + entry.negative_page < kPageSize;
}

bool tenon_group_fill(tenon::interp::Cpu* cpu, uint64_t linear, uint64_t size_bytes, uint32_t access) {
  using namespace tenon;
  using namespace tenon::interp;
  if (linear % kPageSize + size_bytes > kPageSize || cpu->tlb_mode == kTlbNever) return false;
  const TlbEntry& entry = cpu->tlb.table(cpu->tlb_mode, access != 0)[SoftTlb::index_of(linear)];
  return linear + entry.negative_page < kPageSize || tenon_tlb_fill(cpu, linear, access);
}

bool tenon_stack_fill(tenon::interp::Cpu* cpu, uint64_t linear, uint64_t size_bytes, uint32_t access) {
  using namespace tenon;
  using namespace tenon::interp;
  if (!tenon_group_fill(cpu, linear, size_bytes, access)) return false;
  const TlbEntry& entry = cpu->tlb.table(cpu->tlb_mode, access != 0)[SoftTlb::index_of(linear)];
  const unsigned side = cpu->cpl == 3 ? 1 : 0;
  cpu->translated.stack_negative_page[side] = entry.negative_page;
  cpu->translated.stack_addend[side] = entry.host_page + entry.negative_page;
  return true;
}
