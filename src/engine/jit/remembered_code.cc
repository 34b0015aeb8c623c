#include "engine/jit/remembered_code.hh"

#include <algorithm>
#include <bit>

namespace tenon::jit {

template <unsigned size>
template <typename Visit>
void RememberedCode::IndexSet<size>::take(Visit&& visit) {
  for (; used != 0; used &= used - 1) {
    const auto i = static_cast<unsigned>(std::countr_zero(used));
    for (; words[i] != 0; words[i] &= words[i] - 1) visit(i * 64 + static_cast<unsigned>(std::countr_zero(words[i])));
  }
}

void RememberedCode::PageSet::add(uint64_t page) {
  if (table_.find(page, 0) != 0) return;
  table_.set(page, 0, 1);
  list_.push_back(page);
}

bool RememberedCode::PageSet::has_any_in(uint64_t first, uint64_t size_bytes) const {
  const uint64_t first_page = first / kPageSize;
  const uint64_t count = size_bytes / kPageSize;
  if (count > list_.size()) {
    return std::ranges::any_of(list_, [&](uint64_t page) { return page - first_page < count; });
  }
  for (uint64_t i = 0; i < count; ++i) {
    if (table_.find(first_page + i, 0) != 0) return true;
  }
  return false;
}

void RememberedCode::PageSet::clear() {
  if (list_.empty()) return;
  table_.clear();
  list_.clear();
}

void RememberedCode::start(const std::array<uint64_t, 2>& miss) {
  miss_ = miss;
  forget_addresses();
}

// --- What is known.

const RememberedCode::Line& RememberedCode::add_line(unsigned side, uint64_t rip,
                                                     const interp::Translation& translation, uint64_t shift) {
  const uint64_t page = rip / kPageSize;
  (translation.global ? pages_global_ : pages_local_).add(page);
  if (!translation.global) local_sides_[side] = true;
  Line& line = lines_[side][page % kLines];
  line = {.page = page,
          .gpa_page = translation.gpa.value() & ~(kPageSize - 1),
          .stamp = translation.global ? global_stamp_ : local_stamp_,
          .shift = shift,
          .global = translation.global};
  return line;
}

uint64_t RememberedCode::shift_near(unsigned side, uint64_t rip) const {
  constexpr uint64_t kNear = (uint64_t{64} << 20) / kPageSize;
  const uint64_t page = rip / kPageSize;
  uint64_t shift = 0;
  uint64_t nearest = kNear;
  for (const Line& line : lines_[side]) {
    const uint64_t distance = line.page < page ? page - line.page : line.page - page;
    if (line.shift == 0 || distance >= nearest || find_line(side, line.page * kPageSize) == nullptr) continue;
    shift = line.shift;
    nearest = distance;
  }
  return shift;
}

void RememberedCode::set_mapping(unsigned side, const Line& line, uint32_t number) {
  const auto index = static_cast<unsigned>(line.page % State::kCodePages);
  if (line.shift != 0) {
    state_.shifted_pages[index] = uint64_t{0} - (number + (line.shift << kShiftBits));
    return shifted_pages_.set(index);
  }
  state_.code_pages[side][index] = number;
  line.global ? local_pages_[side].clear(index) : local_pages_[side].set(index);
}

void RememberedCode::add(unsigned side, const Line& line, uint64_t rip, uint64_t host) {
  found_[side][rip * kFoundMultiplier >> kFoundShift] = {
      .rip = rip, .host = host, .epoch = line.global ? epochs_[side].global : epochs_[side].local, .shift = line.shift};
}

void RememberedCode::add_indirect(unsigned side, const Line& line, uint64_t rip, uint64_t host) {
  const unsigned index = index_of(rip);
  state_.indirect[side][index] = host;
  line.global ? local_indirect_[side].clear(index) : local_indirect_[side].set(index);
}

// --- Dropping.

/// Takes what is not global out of the tables, into `kept` where there is one.
void RememberedCode::empty_local(Kept* kept) {
  for (uint8_t side = 0; side < kSides; ++side) {
    local_indirect_[side].take([&](unsigned index) {
      uint64_t& host = state_.indirect[side][index];
      if (kept != nullptr) kept->indirect.push_back({static_cast<uint16_t>(index), side, host});
      host = miss_[side];
    });
    local_pages_[side].take([&](unsigned index) {
      uint32_t& number = state_.code_pages[side][index];
      if (kept != nullptr) kept->mappings.push_back({static_cast<uint16_t>(index), side, number});
      number = 0;
    });
  }
  shifted_pages_.take([&](unsigned index) {
    uint64_t& mapping = state_.shifted_pages[index];
    if (kept != nullptr) kept->shifted.push_back({static_cast<uint16_t>(index), 1, mapping});
    mapping = 0;
  });
  if (kept != nullptr) std::swap(kept->pages, pages_local_);
  pages_local_.clear();
  local_sides_ = {};
  local_stamp_ = ++last_stamp_;
  for (Epochs& epochs : epochs_) epochs.local = ++last_stamp_;
}

void RememberedCode::restore(Kept& kept) {
  kept.context = 0;
  local_stamp_ = kept.stamp;
  local_sides_ = kept.local_sides;
  std::swap(pages_local_, kept.pages);
  for (const auto& [index, side, number] : kept.mappings) {
    state_.code_pages[side][index] = static_cast<uint32_t>(number);
    local_pages_[side].set(index);
  }
  for (const auto& [index, side, mapping] : kept.shifted) {
    state_.shifted_pages[index] = mapping;
    shifted_pages_.set(index);
  }
  for (unsigned side = 0; side < kSides; ++side) {
    if (kept.addresses[side] == address_numbers_[side]) epochs_[side].local = kept.epochs[side];
  }
  for (const auto& [index, side, host] : kept.indirect) {
    if (kept.addresses[side] != address_numbers_[side]) continue;
    state_.indirect[side][index] = host;
    local_indirect_[side].set(index);
  }
}

bool RememberedCode::enter_context(uint64_t context, bool keep) {
  if (context == context_) return false;
  Kept* kept = nullptr;
  if (keep) {
    kept = &kept_[next_kept_++ % kContexts];
    // One that has just been asked for is likely to be asked for again.
    if (kept->context == context) kept = &kept_[next_kept_++ % kContexts];
    kept->context = context_;
    kept->stamp = local_stamp_;
    kept->local_sides = local_sides_;
    kept->addresses = address_numbers_;
    for (unsigned side = 0; side < kSides; ++side) kept->epochs[side] = epochs_[side].local;
    kept->indirect.clear();
    kept->mappings.clear();
    kept->shifted.clear();
  }
  empty_local(kept);
  context_ = context;
  const auto known = std::ranges::find(kept_, context, &Kept::context);
  if (known != kept_.end()) restore(*known);
  return true;
}

void RememberedCode::forget_context(uint64_t context) {
  const auto known = std::ranges::find(kept_, context, &Kept::context);
  if (known != kept_.end()) known->context = 0;
}

RememberedCode::Loss RememberedCode::forget_range(uint64_t first, uint64_t size_bytes) {
  if (pages_global_.has_any_in(first, size_bytes)) {
    forget_all();
    return Loss::kAll;
  }
  if (!pages_local_.has_any_in(first, size_bytes)) return Loss::kNothing;
  empty_local(nullptr);
  return Loss::kLocal;
}

void RememberedCode::forget_all() {
  for (Kept& kept : kept_) kept.context = 0;
  empty_local(nullptr);
  pages_global_.clear();
  global_stamp_ = ++last_stamp_;
  for (auto& table : state_.code_pages) table.fill(0);
  forget_addresses();
}

void RememberedCode::forget_addresses() {
  for (unsigned side = 0; side < kSides; ++side) forget_addresses(side);
}

void RememberedCode::forget_addresses(unsigned side) {
  ++address_numbers_[side];
  epochs_[side] = {.local = ++last_stamp_, .global = ++last_stamp_};
  state_.indirect[side].fill(miss_[side]);
  local_indirect_[side] = {};
}

}  // namespace tenon::jit
