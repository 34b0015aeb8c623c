#include "machine/firmware/memory_map.hh"

#include <fmt/format.h>

#include <algorithm>

#include "base/bits.hh"

namespace tenon {

namespace {

constexpr uint64_t kRamSizeMin = 2 * kMiB;
constexpr uint64_t kWindow64Size = 32 * kGiB;

uint64_t end_of(GpaRange range) { return range.base.value() + range.size_bytes; }

}  // namespace

Result<RamLayout> ram_layout(uint64_t size_bytes, unsigned address_bits) {
  if (size_bytes < kRamSizeMin || size_bytes % kPageSize != 0)
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("memory of {} bytes: give a multiple of 4 KiB, at least 2 MiB", size_bytes));
  const uint64_t limit = uint64_t{1} << std::clamp(address_bits, 36u, 52u);
  if (size_bytes > limit / 2)
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("memory of {} GiB: this engine has {} physical address bits, so at most {} GiB fit",
                            size_bytes / kGiB, address_bits, limit / 2 / kGiB));
  RamLayout layout;
  layout.low = {Gpa(0), std::min(size_bytes, kPciHoleStart)};
  layout.high = {Gpa(kPciHoleEnd), size_bytes - layout.low.size_bytes};
  return layout;
}

GpaRange pci_window_64(const RamLayout& ram, unsigned address_bits) {
  const uint64_t top = std::max(end_of(ram.high), kPciHoleEnd);
  const uint64_t base = align_up(top, kWindow64Size);
  const uint64_t limit = uint64_t{1} << std::clamp(address_bits, 36u, 52u);
  if (base + kWindow64Size > limit) return {};
  return {Gpa(base), kWindow64Size};
}

MemoryMap memory_map(const RamLayout& ram) {
  MemoryMap map = {
      {{Gpa(0), kLowMemoryEnd}, boot::kE820Ram},
      {{Gpa(kLowMemoryEnd), 0xa0000 - kLowMemoryEnd}, boot::kE820Reserved},
      {kFirmwareArea, boot::kE820Reserved},
      {{Gpa(kHighMemoryStart), end_of(ram.low) - kHighMemoryStart}, boot::kE820Ram},
      // PCI Firmware 3.0 4.1.2: the MMCONFIG range is reported as reserved.
      {kEcam, boot::kE820Reserved},
  };
  if (ram.high.size_bytes > 0) map.push_back({ram.high, boot::kE820Ram});
  return map;
}

bool is_usable(const MemoryMap& map, GpaRange range) {
  return std::ranges::any_of(map, [&](const MemoryRegion& region) {
    return region.type == boot::kE820Ram && region.range.contains(range.base, range.size_bytes);
  });
}

std::optional<Gpa> highest_place(const MemoryMap& map, uint64_t size_bytes, uint64_t alignment, Gpa floor,
                                 Gpa ceiling) {
  for (auto region = map.rbegin(); region != map.rend(); ++region) {
    if (region->type != boot::kE820Ram) continue;
    const uint64_t start = std::max(region->range.base.value(), floor.value());
    const uint64_t end = std::min(end_of(region->range), ceiling.value());
    if (end <= start || end - start < size_bytes) continue;
    const uint64_t place = align_down(end - size_bytes, alignment);
    if (place >= start) return Gpa(place);
  }
  return std::nullopt;
}

}  // namespace tenon
