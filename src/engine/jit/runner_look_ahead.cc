// Which flags live behind an exit to another page: the code there is looked at, too, so that memory checks before calls
// need not keep flags that every callee overwrites.
//
// What was looked at is watched like translated code: when it changes, the fragments that relied on it go. A fragment
// relies on the mapping of the other page as it was, too.
//
// Deviation: where the same physical page of code runs in two address spaces with different code
// behind one of its direct branches, the other code may see arithmetic flags that the branch's block has left behind,
// not the ones it computed last. TranslatorOptions::strict_flags rules that out.
//
// Source: SDM Vol. 1 3.4.3.1.
#include <bit>

#include "engine/interp/cpu_inline.hh"
#include "engine/interp/soft_tlb_fill.hh"
#include "engine/jit/runner.hh"

namespace tenon::jit {

namespace {

constexpr uint16_t kAllFlags = x86::kArithmeticFlags;
constexpr uint64_t kPageMask = ~(kPageSize - 1);

}  // namespace

uint16_t Runner::live_at(int64_t offset) {
  const uint64_t linear = looking_from_ + static_cast<uint64_t>(offset);
  if (!x86::is_canonical(linear)) return kAllFlags;
  Look& look = looks_[(linear ^ linear >> 12) % looks_.size()];
  if (look.linear != linear || look.stamp != look_stamp_) look = look_at(linear);
  if (look.granules != 0) relied_on_.push_back({look.gpa_page, look.granules});
  return look.live;
}

/// Nothing of this shows in the guest but A bits, which processors set for code they only prefetch, too.
Runner::Look Runner::look_at(uint64_t linear) {
  Look look{.linear = linear, .stamp = look_stamp_, .gpa_page = 0, .granules = 0, .live = kAllFlags};
  uint64_t gpa_page = 0;
  if (!find_page(linear, gpa_page)) return look;
  constexpr unsigned kTries = 2;  // what was copied before may have changed
  for (unsigned i = 0; i < kTries; ++i) {
    if (!looked_page_.open(*cpu_.memory, gpa_page)) return look;
    uint64_t granules = 0;
    const uint16_t live = live_flags_at(looked_page_, static_cast<unsigned>(linear % kPageSize), granules);
    if (live == kAllFlags) return look;
    if (watch(gpa_page, granules, looked_page_.bytes().data())) {
      look.gpa_page = gpa_page;
      look.granules = granules;
      look.live = live;
      return look;
    }
    looked_page_.close();
  }
  return look;
}

/// Where the code page of `linear` lies now, if it is mapped.
bool Runner::find_page(uint64_t linear, uint64_t& gpa_page) {
  if (const RememberedCode::Line* line = remembered_.find_line(privilege(mode_), linear)) {
    gpa_page = line->gpa_page;
    return true;
  }
  const x86::PageAccess access{.write = false, .fetch = true, .user = cpu_.cpl == 3, .user_pages_ok = false};
  interp::TlbPage page;
  uint32_t error_code = 0;
  if (!interp::translate_page(cpu_, linear, access, page, error_code)) return false;
  gpa_page = page.gpa();
  return true;
}

bool Runner::GuestPage::open(const GuestMemory& memory, uint64_t gpa_page) {
  host_ = memory.host_address(Gpa(gpa_page), kPageSize);
  if (gpa_page != gpa_page_) forget();
  gpa_page_ = host_ == nullptr ? kNoPage : gpa_page;
  return host_ != nullptr;
}

void Runner::GuestPage::copy(uint64_t granules, std::array<uint8_t, kPageSize>& to) {
  for (; granules != 0; granules &= granules - 1) {
    const size_t at = static_cast<size_t>(std::countr_zero(granules)) * CodeWatch::kGranuleSize;
    interp::copy_host(to.data() + at, host_ + at, CodeWatch::kGranuleSize);
  }
}

bool Runner::is_translated(unsigned offset) {
  if (lockstep_ != nullptr) return false;  // the code of a block is all of it, also in kModePlain
  const RememberedCode::Line& line = looking_from_line_;
  return cache_->find(looking_from_ - line.shift + offset, line.gpa_page + offset, looking_mode_) != 0;
}

/// Before find_region() for code in `linear_page`.
void Runner::begin_looking(uint64_t linear_page, const RememberedCode::Line& line, Mode mode) {
  looking_from_ = linear_page;
  looking_from_line_ = line;
  looking_mode_ = mode;
  relied_on_.clear();
}

/// After translation of `granules` of `gpa_page`: remembers what it relied on.
void Runner::note_looks(uint64_t gpa_page, uint64_t granules) {
  for (const auto& [page, looked] : relied_on_) {
    std::vector<Dependent>& dependents = dependents_[page];
    if (!dependents.empty()) {
      Dependent& last = dependents.back();
      if (last.gpa_page == gpa_page && last.granules == granules) {
        last.looked |= looked;
        continue;
      }
    }
    dependents.push_back({.looked = looked, .gpa_page = gpa_page, .granules = granules});
  }
}

/// `granules` of `gpa_page` have changed.
void Runner::invalidate_dependents(uint64_t gpa_page, uint64_t granules) {
  ++look_stamp_;
  const auto found = dependents_.find(gpa_page);
  if (found == dependents_.end()) return;
  std::erase_if(found->second, [&](const Dependent& dependent) {
    if ((dependent.looked & granules) == 0) return false;
    cache_->invalidate(dependent.gpa_page, dependent.granules);
    return true;
  });
  if (found->second.empty()) dependents_.erase(found);
}

}  // namespace tenon::jit
