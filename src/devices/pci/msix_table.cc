#include "devices/pci/msix_table.hh"

#include <algorithm>
#include <bit>

#include "base/bits.hh"
#include "base/check.hh"

namespace tenon {
namespace {

using pci::msix::kEntrySize;
using pci::msix::kVectorsMax;
constexpr uint32_t kPendingAlignment = 2048;
constexpr uint64_t kAddressWritable = ~uint64_t{3};               // 6.8.2.7: bits 1:0 are zero
constexpr uint64_t kDataControlWritable = 0x0000'0001'ffff'ffff;  // 6.8.2.9: only the mask bit of vector control
constexpr uint64_t kMaskBit = uint64_t{1} << 32;

}  // namespace

MsixTable::MsixTable(unsigned vector_count)
    : vector_count_(vector_count),
      pending_offset_(static_cast<uint32_t>(align_up(uint64_t{vector_count} * kEntrySize, kPendingAlignment))),
      size_bytes_(std::bit_ceil(std::max<uint64_t>(pending_offset_ + align_up(vector_count, 64) / 8, 4096))),
      entries_(std::make_unique<Entry[]>(vector_count)),
      pending_(std::make_unique<std::atomic<uint32_t>[]>((vector_count + 31) / 32)) {
  CHECK(vector_count >= 1);
  CHECK(vector_count <= kVectorsMax);
  reset();
}

void MsixTable::reset() {
  is_enabled_ = is_function_masked_ = false;
  for (unsigned i = 0; i < vector_count_; ++i) {
    entries_[i].address = 0;
    entries_[i].data_control = kMaskBit;  // 6.8.2.9: masked after reset
  }
  for (unsigned i = 0; i < (vector_count_ + 31) / 32; ++i) pending_[i] = 0;
}

bool MsixTable::is_masked(unsigned vector) const {
  return is_function_masked_.load() || (entries_[vector].data_control.load() & kMaskBit) != 0;
}

void MsixTable::send(unsigned vector) {
  if (sink_ == nullptr) return;
  sink_->send_msi({.address = entries_[vector].address.load(),
                   .data = static_cast<uint32_t>(entries_[vector].data_control.load())});
}

void MsixTable::send_pending(unsigned vector) {
  const uint32_t bit = 1u << vector % 32;
  std::atomic<uint32_t>& word = pending_[vector / 32];
  if ((word.load() & bit) == 0 || !is_enabled() || is_masked(vector)) return;
  if ((word.fetch_and(~bit) & bit) != 0) send(vector);
}

void MsixTable::notify(unsigned vector) {
  if (vector >= vector_count_ || !is_enabled()) return;
  if (!is_masked(vector)) return send(vector);
  pending_[vector / 32].fetch_or(1u << vector % 32);
  send_pending(vector);  // it may have been unmasked in between
}

void MsixTable::set_state(bool is_enabled, bool is_function_masked) {
  const bool was_open = is_enabled_.exchange(is_enabled);
  const bool was_masked = is_function_masked_.exchange(is_function_masked);
  if (!is_enabled || is_function_masked || (was_open && !was_masked)) return;
  for (unsigned vector = 0; vector < vector_count_; ++vector) send_pending(vector);
}

uint64_t MsixTable::read_dword(uint64_t offset) const {
  const unsigned vector = static_cast<unsigned>(offset / kEntrySize);
  if (vector < vector_count_) {
    const Entry& entry = entries_[vector];
    const uint64_t half = offset % kEntrySize < 8 ? entry.address.load() : entry.data_control.load();
    return offset % 8 == 0 ? half & 0xffffffff : half >> 32;
  }
  if (offset < pending_offset_) return 0;
  const uint64_t word = (offset - pending_offset_) / 4;
  return word < (vector_count_ + 31) / 32 ? pending_[word].load() : 0;
}

void MsixTable::write_dword(uint64_t offset, uint32_t value) {
  const unsigned vector = static_cast<unsigned>(offset / kEntrySize);
  if (vector >= vector_count_) return;  // the pending bits are read-only (6.8.2.10)
  Entry& entry = entries_[vector];
  const bool is_address = offset % kEntrySize < 8;
  std::atomic<uint64_t>& half = is_address ? entry.address : entry.data_control;
  const uint64_t writable = is_address ? kAddressWritable : kDataControlWritable;
  const unsigned shift = offset % 8 == 0 ? 0 : 32;
  const uint64_t mask = writable & (uint64_t{0xffffffff} << shift);
  uint64_t old = half.load();
  while (!half.compare_exchange_weak(old, (old & ~mask) | (uint64_t{value} << shift & mask))) {
  }
  send_pending(vector);
}

uint64_t MsixTable::bus_read(uint64_t offset, unsigned size_bytes) {
  const uint64_t dword = align_down(offset, 4);
  uint64_t value = read_dword(dword) >> (8 * (offset % 4));
  if (size_bytes == 8) value |= read_dword(dword + 4) << (32 - 8 * (offset % 4));
  return size_bytes == 8 ? value : value & ((uint64_t{1} << 8 * size_bytes) - 1);
}

void MsixTable::bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) {
  // 6.8.2: software uses aligned DWORD or QWORD accesses; anything else is undefined and ignored here.
  if (size_bytes < 4 || offset % size_bytes != 0) return;
  write_dword(offset, static_cast<uint32_t>(value));
  if (size_bytes == 8) write_dword(offset + 4, static_cast<uint32_t>(value >> 32));
}

MsixTable::SavedVector MsixTable::save(unsigned vector) const {
  return {.address = entries_[vector].address.load(),
          .data_control = entries_[vector].data_control.load(),
          .is_pending = (pending_[vector / 32].load() >> vector % 32 & 1) != 0};
}

Result<void> MsixTable::restore(unsigned vector, const SavedVector& saved) {
  if ((saved.address & ~kAddressWritable) != 0 || (saved.data_control & ~kDataControlWritable) != 0)
    return fail(ErrorCode::kCorrupt, "saved MSI-X vector " + std::to_string(vector) + ": reserved bits are set");
  entries_[vector].address = saved.address;
  entries_[vector].data_control = saved.data_control;
  const uint32_t bit = 1u << vector % 32;
  if (saved.is_pending) {
    pending_[vector / 32].fetch_or(bit);
  } else {
    pending_[vector / 32].fetch_and(~bit);
  }
  return {};
}

}  // namespace tenon
