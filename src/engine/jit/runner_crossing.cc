// Instructions whose bytes lie in two pages. Each is a fragment of its own, found by its first byte like all others,
// and made from two pages: its code begins with a guard that the second page is mapped as it was when it was translated
// (TranslatedState::code_pages), and when code in the second page changes, the fragments at the end of the first page
// go, too.
//
// Source: SDM Vol. 3 4.7 (a fetch faults for the page that its bytes lie in).
#include <algorithm>

#include "engine/interp/cpu_inline.hh"
#include "engine/jit/runner.hh"

namespace tenon::jit {

namespace {

constexpr uint64_t kPageMask = ~(kPageSize - 1);
constexpr uint64_t kLastGranule = uint64_t{1} << 63;
constexpr uint64_t kFirstGranule = 1;

}  // namespace

/// Translates the instruction at `rip`, in `first`'s page, that goes on in the next page. nullptr: it cannot be, or the
/// fetch from the next page has faulted.
Fragment* Runner::translate_crossing(uint64_t rip, const RememberedCode::Line& first, Mode mode) {
  const auto offset = static_cast<unsigned>(rip % kPageSize);
  if (offset + x86::kInsnLengthMax <= kPageSize) return nullptr;
  const RememberedCode::Line first_line = first;
  likely_shift_ = first_line.shift;
  const RememberedCode::Line* found = fetch((rip & kPageMask) + kPageSize);
  likely_shift_ = 0;
  if (found == nullptr) return nullptr;
  const RememberedCode::Line second = *found;
  if (second.shift != first_line.shift) return nullptr;
  constexpr unsigned kTries = 8;
  for (unsigned i = 0; i < kTries; ++i) {
    const std::byte* host = cpu_.memory->host_address(Gpa(second.gpa_page), kPageSize);
    if (host == nullptr || !page_copy_.open(*cpu_.memory, first_line.gpa_page)) return nullptr;
    page_copy_.need(offset);
    std::array<uint8_t, CodeWatch::kGranuleSize> head;
    interp::copy_host(head.data(), host, head.size());
    const std::span<const uint8_t> tail = page_copy_.bytes().subspan(offset);
    if (!watch(first_line.gpa_page, kLastGranule, page_copy_.bytes().data())) {
      page_copy_.close();
      continue;
    }
    if (!watch(second.gpa_page, kFirstGranule, head.data())) continue;
    if (!translator_->find_crossing(tail, std::span(head).first(x86::kInsnLengthMax), offset)) return nullptr;
    std::vector<uint64_t>& firsts = crossing_[second.gpa_page];
    if (std::ranges::find(firsts, first_line.gpa_page) == firsts.end()) firsts.push_back(first_line.gpa_page);
    const bool global = first_line.global && second.global;
    return translator_->translate((rip & kPageMask) - first_line.shift, first_line.gpa_page, global, mode,
                                  second.gpa_page);
  }
  return nullptr;
}

/// A crossing instruction's guard has failed: where to go on.
uint64_t Runner::after_guard(uint64_t rip, uint64_t host, uint64_t second_gpa_page) {
  if (mode_is_stale_) refresh_mode();
  const RememberedCode::Line* second = mode_ == kModeInvalid ? nullptr : fetch((rip & kPageMask) + kPageSize);
  if (second == nullptr) return 0;
  if (second->gpa_page == second_gpa_page && (second->shift == 0 || second->shift == state_.code_shift)) return host;
  // Another page follows in this address space.
  const RememberedCode::Line* first = fetch(rip);
  if (first == nullptr) return 0;
  cache_->invalidate(first->gpa_page, kLastGranule);
  drop_after_removal();
  return look_up(rip);
}

/// Code at the start of `gpa_page` has changed: so may have instructions that go on there.
void Runner::invalidate_crossing(uint64_t gpa_page) {
  const auto found = crossing_.find(gpa_page);
  if (found == crossing_.end()) return;
  for (const uint64_t first : found->second) cache_->invalidate(first, kLastGranule);
  crossing_.erase(found);
}

}  // namespace tenon::jit
