#include "vm/guest_memory.hh"

#include <algorithm>
#include <limits>
#include <string>

#include "base/bits.hh"
#include "base/shared_memory.hh"

namespace tenon {

namespace {

constexpr uint64_t kHugePageSize = 2u << 20;

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

}  // namespace

Result<void> GuestMemory::add(GpaRange range, ExtentKind kind, std::string_view name, HostPages pages_of_host) {
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
  if (pages_of_host == HostPages::kHuge) memory.prefer_huge_pages();
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
