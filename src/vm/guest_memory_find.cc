// The part of GuestMemory and CodeWatch that page walks need. Translated code calls it with guest vectors in the host's
// registers: compiled for general registers only, and calls nothing that is not.
#include <algorithm>

#include "base/shared_memory.hh"
#include "vm/guest_memory.hh"

namespace tenon {

namespace {

/// The entry of `sorted` (by range.base) whose range holds `gpa`, or nullptr.
template <typename Vector>
auto find_in(Vector& sorted, Gpa gpa) -> decltype(sorted.data()) {
  const auto above = std::upper_bound(sorted.begin(), sorted.end(), gpa,
                                      [](Gpa value, const auto& entry) { return value < entry.range.base; });
  if (above == sorted.begin()) return nullptr;
  const auto entry = std::prev(above);
  return entry->range.contains(gpa) ? &*entry : nullptr;
}

/// Granules [first byte / 64, last byte / 64] of a page, where both bytes lie in that page.
uint64_t granule_mask(uint64_t first_byte, uint64_t last_byte) {
  const uint64_t first = first_byte / CodeWatch::kGranuleSize;
  const uint64_t last = last_byte / CodeWatch::kGranuleSize;
  return (~uint64_t{0} << first) & (~uint64_t{0} >> (63 - last));
}

}  // namespace

CodeWatch::Page* CodeWatch::page(Gpa gpa) const {
  const Table* table = find_in(tables_, gpa);
  if (table == nullptr) return nullptr;
  const uint64_t index = (gpa.value() - table->range.base.value()) / kPageSize;
  // SAFETY: the mapping holds range.size_bytes / kPageSize entries and is zero-filled by the host, which is a valid
  // Page (two zero atomics of standard layout).
  return reinterpret_cast<Page*>(table->pages.data()) + index;
}

bool CodeWatch::note_write(Gpa gpa, uint64_t size_bytes, CodeChanges::Listener* writer) const {
  if (size_bytes == 0) return false;
  // The write must be visible before the granules are looked at: an engine sets its bit, fences, and then decodes.
  full_fence();
  bool hit = false;
  uint64_t address = gpa.value();
  uint64_t left = std::min(size_bytes - 1, ~address) + 1;  // stops at 2^64
  while (left > 0) {
    const uint64_t offset = address % kPageSize;
    const uint64_t count = std::min(left, kPageSize - offset);
    Page* entry = page(Gpa(address));
    if (entry != nullptr) {
      const uint64_t mask = granule_mask(offset, offset + count - 1);
      if ((entry->granules.load(std::memory_order_acquire) & mask) != 0) {
        entry->version.fetch_add(1, std::memory_order_acq_rel);
        changes_.note(Gpa(address), count, writer);
        hit = true;
      }
    }
    address += count;
    left -= count;
  }
  return hit;
}

const Extent* GuestMemory::find(Gpa gpa) const { return find_in(extents_, gpa); }

std::byte* GuestMemory::host_address(Gpa gpa, uint64_t size_bytes) const {
  const Extent* extent = find(gpa);
  if (extent == nullptr || !extent->range.contains(gpa, size_bytes)) return nullptr;
  return extent->host + (gpa.value() - extent->range.base.value());
}

}  // namespace tenon
