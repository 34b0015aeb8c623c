#include "vm/guest_memory.hh"

#include <algorithm>
#include <limits>
#include <string>

#include "base/bits.hh"
#include "base/shared_memory.hh"

namespace tenon {

namespace {

constexpr uint64_t kHugePageSize = 2u << 20;

/// From here on huge pages save more in TLB misses and page faults than they waste in half-used pages.
constexpr uint64_t kHugePagesFrom = 256u << 20;

/// The table entry sizes the cost named in the header: 16 bytes a page.
static_assert(sizeof(CodeWatch::Page) == 16);

std::string describe(const GpaRange& range) {
  return "guest range " + std::to_string(range.base.value()) + " + " + std::to_string(range.size_bytes) + " bytes";
}

/// The first entry of `sorted` (by range.base) that starts above `gpa`.
template <typename Vector>
auto first_above(Vector& sorted, Gpa gpa) {
  return std::upper_bound(sorted.begin(), sorted.end(), gpa,
                          [](Gpa value, const auto& entry) { return value < entry.range.base; });
}

/// The entry of `sorted` whose range holds `gpa`, or nullptr.
template <typename Vector>
auto find_in(Vector& sorted, Gpa gpa) -> decltype(sorted.data()) {
  const auto above = first_above(sorted, gpa);
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

bool CodeWatch::note_write(Gpa gpa, uint64_t size_bytes) const {
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
        hit = true;
      }
    }
    address += count;
    left -= count;
  }
  return hit;
}

Result<void> GuestMemory::add(GpaRange range, ExtentKind kind, std::string_view name) {
  if (range.size_bytes == 0 || range.base.page_offset() != 0 || range.size_bytes % kPageSize != 0)
    return fail(ErrorCode::kInvalidArgument, describe(range) + " for " + std::string(name) + ": not whole pages");
  if (!range.base.plus(range.size_bytes - 1) || range.size_bytes > std::numeric_limits<size_t>::max() / 2)
    return fail(ErrorCode::kOutOfRange, describe(range) + " for " + std::string(name) + ": passes the address space");
  for (const Extent& extent : extents_) {
    if (extent.range.overlaps(range))
      return fail(ErrorCode::kInvalidArgument,
                  describe(range) + " for " + std::string(name) + ": overlaps " + describe(extent.range));
  }

  const std::string label = "tenon:" + std::string(name);
  Mapping memory = TRY(Mapping::anonymous(range.size_bytes, kHugePageSize, label));
  if (range.size_bytes >= kHugePagesFrom) memory.prefer_huge_pages();
  const size_t table_bytes = align_up(range.size_bytes / kPageSize * sizeof(CodeWatch::Page), kPageSize);
  Mapping pages = TRY(Mapping::anonymous(table_bytes, kPageSize, "tenon:code-watch"));

  extents_.insert(first_above(extents_, range.base), {.range = range, .kind = kind, .host = memory.data()});
  mappings_.push_back(std::move(memory));
  code_watch_.tables_.insert(first_above(code_watch_.tables_, range.base),
                             CodeWatch::Table{.range = range, .pages = std::move(pages)});
  return {};
}

uint64_t GuestMemory::ram_size_bytes() const {
  uint64_t sum = 0;
  for (const Extent& extent : extents_)
    if (extent.kind == ExtentKind::kPrivate) sum += extent.range.size_bytes;
  return sum;
}

const Extent* GuestMemory::find(Gpa gpa) const { return find_in(extents_, gpa); }

std::byte* GuestMemory::host_address(Gpa gpa, uint64_t size_bytes) const {
  const Extent* extent = find(gpa);
  if (extent == nullptr || !extent->range.contains(gpa, size_bytes)) return nullptr;
  return extent->host + (gpa.value() - extent->range.base.value());
}

GuestSpan GuestMemory::span(Gpa gpa, uint64_t size_bytes) const {
  std::byte* host = host_address(gpa, size_bytes);
  return host == nullptr ? GuestSpan() : GuestSpan(host, size_bytes);
}

template <typename Visit>
bool GuestMemory::visit(Gpa gpa, uint64_t size_bytes, Visit&& visit_piece) const {
  uint64_t done = 0;
  while (done < size_bytes) {
    const std::optional<Gpa> at = gpa.plus(done);
    const Extent* extent = at ? find(*at) : nullptr;
    if (extent == nullptr) return false;
    const uint64_t offset = at->value() - extent->range.base.value();
    const uint64_t count = std::min(size_bytes - done, extent->range.size_bytes - offset);
    if (!visit_piece(*extent, extent->host + offset, done, count)) return false;
    done += count;
  }
  return true;
}

bool GuestMemory::covers(Gpa gpa, uint64_t size_bytes, bool for_writing) const {
  return visit(gpa, size_bytes, [&](const Extent& extent, std::byte*, uint64_t, uint64_t) {
    return !for_writing || extent.kind != ExtentKind::kRom;
  });
}

bool GuestMemory::read(Gpa gpa, std::span<std::byte> out) const {
  if (const std::byte* host = host_address(gpa, out.size()); host != nullptr) {
    copy_from_shared(out.data(), host, out.size());
    return true;
  }
  if (!covers(gpa, out.size(), false)) return false;
  return visit(gpa, out.size(), [&](const Extent&, const std::byte* host, uint64_t done, uint64_t count) {
    copy_from_shared(out.data() + done, host, count);
    return true;
  });
}

bool GuestMemory::write(Gpa gpa, std::span<const std::byte> bytes) { return copy_in(gpa, bytes, false); }

bool GuestMemory::load(Gpa gpa, std::span<const std::byte> bytes) { return copy_in(gpa, bytes, true); }

bool GuestMemory::copy_in(Gpa gpa, std::span<const std::byte> bytes, bool rom_too) {
  if (!covers(gpa, bytes.size(), !rom_too)) return false;
  const bool written = visit(gpa, bytes.size(), [&](const Extent&, std::byte* host, uint64_t done, uint64_t count) {
    copy_to_shared(host, bytes.data() + done, count);
    return true;
  });
  code_watch_.note_write(gpa, bytes.size());
  return written;
}

}  // namespace tenon
