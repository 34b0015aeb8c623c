#include "machine/loader/boot_image.hh"

#include <fmt/format.h>

#include <algorithm>

namespace tenon {

namespace {

std::string describe(const BootSegment& segment) {
  const GpaRange range = segment.range();
  return fmt::format("{} at {:#x}-{:#x}", segment.name, range.base.value(), range.base.value() + range.size_bytes - 1);
}

}  // namespace

void BootImage::add_string(Gpa base, std::string_view text, std::string name) {
  std::vector<std::byte> bytes(text.size() + 1);
  std::transform(text.begin(), text.end(), bytes.begin(), [](char c) { return static_cast<std::byte>(c); });
  add(base, keep(std::move(bytes)), std::move(name));
}

Gpa BootImage::end_of_high_segments() const {
  uint64_t end = kHighMemoryStart;
  for (const BootSegment& segment : segments) {
    const GpaRange range = segment.range();
    if (range.base.value() >= kHighMemoryStart) end = std::max(end, range.base.value() + range.size_bytes);
  }
  return Gpa(end);
}

Result<void> check_placement(const BootImage& image, const MemoryMap& memory) {
  std::vector<const BootSegment*> sorted;
  for (const BootSegment& segment : image.segments) {
    if (segment.range().size_bytes == 0) continue;
    if (!is_usable(memory, segment.range()))
      return fail(ErrorCode::kOutOfRange,
                  describe(segment) +
                      ": not inside the machine's usable memory; give the machine more memory, or "
                      "build the kernel for another address");
    sorted.push_back(&segment);
  }
  std::ranges::sort(sorted, {}, [](const BootSegment* segment) { return segment->base; });
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i - 1]->range().overlaps(sorted[i]->range()))
      return fail(ErrorCode::kOutOfRange, describe(*sorted[i]) + " overlaps " + describe(*sorted[i - 1]));
  }
  return {};
}

Result<void> check_inside(Bytes file, uint64_t offset, uint64_t size_bytes, std::string_view what) {
  if (offset <= file.size() && size_bytes <= file.size() - offset) return {};
  return fail(ErrorCode::kCorrupt, fmt::format("{} ({} bytes at offset {:#x}) ends after the file ({} bytes): the file "
                                               "is truncated or corrupt",
                                               what, size_bytes, offset, file.size()));
}

}  // namespace tenon
