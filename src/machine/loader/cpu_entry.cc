#include "machine/loader/cpu_entry.hh"

#include <cstring>
#include <vector>

#include "spec/boot.hh"

namespace tenon {

namespace {

// Descriptors (SDM Vol. 3 3.4.5), all with base 0 and accessed or busy already set.
constexpr uint64_t kCode32 = 0x00cf9b000000ffff;
constexpr uint64_t kCode64 = 0x00af9b000000ffff;
constexpr uint64_t kData = 0x00cf93000000ffff;
constexpr uint64_t kTss32Busy = 0x00008b0000000067;
constexpr uint16_t kTssSelector = 0x20;

// Page-table entry bits (SDM Vol. 3 Table 4-15 ff.).
constexpr uint64_t kPresentWritable = 0x3;
constexpr uint64_t kLargePage = 0x80;
constexpr uint64_t kLargePageSize = 2 * kMiB;
constexpr unsigned kDirectories = 4;  // one GiB each

/// The descriptor cache that loading `descriptor` would give (base 0 in all of ours).
x86::Segment segment_of(uint64_t descriptor, uint16_t selector) {
  x86::Segment segment;
  const auto attributes = static_cast<uint32_t>(descriptor >> 40) & 0xf0ff;
  const auto limit = static_cast<uint32_t>((descriptor & 0xffff) | ((descriptor >> 32) & 0xf0000));
  const bool granularity = (attributes & 0x8000) != 0;
  segment.attributes = attributes;
  segment.limit = granularity ? (limit << 12) | 0xfff : limit;
  segment.selector = selector;
  return segment;
}

std::vector<std::byte> to_bytes(const std::vector<uint64_t>& words) {
  std::vector<std::byte> bytes(words.size() * sizeof(uint64_t));
  std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

void set_segments(BootImage& image, uint64_t code_descriptor) {
  const std::vector<uint64_t> gdt = {0, 0, code_descriptor, kData, kTss32Busy, 0};
  x86::CpuState& cpu = image.cpu;
  cpu.segments.fill(segment_of(kData, boot::kBootDs));
  cpu.segments[x86::kCs] = segment_of(code_descriptor, boot::kBootCs);
  cpu.tr = segment_of(kTss32Busy, kTssSelector);
  cpu.gdtr = {low_memory::kGdt.value(), static_cast<uint16_t>(gdt.size() * sizeof(uint64_t) - 1)};
  image.add(low_memory::kGdt, image.keep(to_bytes(gdt)), "GDT");
}

}  // namespace

void enter_protected_mode(BootImage& image, uint32_t entry) {
  image.cpu.reset(true);
  set_segments(image, kCode32);
  image.cpu.gpr.fill(0);
  image.cpu.cr0 = x86::kCr0Pe | x86::kCr0Et;
  image.cpu.rip = entry;
}

void enter_long_mode(BootImage& image, uint64_t entry) {
  image.cpu.reset(true);
  set_segments(image, kCode64);
  const uint64_t tables = low_memory::kPageTables.value();
  constexpr size_t kEntries = kPageSize / sizeof(uint64_t);
  std::vector<uint64_t> words((2 + kDirectories) * kEntries);
  words[0] = (tables + kPageSize) | kPresentWritable;
  for (unsigned i = 0; i < kDirectories; ++i) words[kEntries + i] = (tables + (2 + i) * kPageSize) | kPresentWritable;
  for (size_t i = 0; i < kDirectories * kEntries; ++i)
    words[2 * kEntries + i] = (i * kLargePageSize) | kPresentWritable | kLargePage;
  image.add(low_memory::kPageTables, image.keep(to_bytes(words)), "page tables");
  x86::CpuState& cpu = image.cpu;
  cpu.gpr.fill(0);
  // The TSS in TR is a 64-bit one after a switch to long mode; type 11 is busy in both (SDM Vol. 3 Table 3-2).
  cpu.cr0 = x86::kCr0Pe | x86::kCr0Et | x86::kCr0Pg;
  cpu.cr3 = tables;
  cpu.cr4 = x86::kCr4Pae;
  cpu.efer = x86::kEferLme | x86::kEferLma;
  cpu.rip = entry;
}

}  // namespace tenon
