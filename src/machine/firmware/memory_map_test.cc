#include "machine/firmware/memory_map.hh"

#include <gtest/gtest.h>

namespace tenon {
namespace {

TEST(MemoryMap, RamIsSplitAtTheHole) {
  const RamLayout small = MUST(ram_layout(512 * kMiB, 40));
  EXPECT_EQ(small.low.size_bytes, 512 * kMiB);
  EXPECT_EQ(small.high.size_bytes, 0u);
  const RamLayout large = MUST(ram_layout(8 * kGiB, 40));
  EXPECT_EQ(large.low.size_bytes, 3 * kGiB);
  EXPECT_EQ(large.high.base, Gpa(4 * kGiB));
  EXPECT_EQ(large.high.size_bytes, 5 * kGiB);
}

TEST(MemoryMap, BadSizesAreErrors) {
  EXPECT_EQ(ram_layout(kMiB, 40).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(ram_layout(512 * kMiB + 1, 40).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(ram_layout(uint64_t{1} << 40, 40).error().code(), ErrorCode::kInvalidArgument);
}

TEST(MemoryMap, RegionsAreSortedAndDisjoint) {
  for (const uint64_t size : {2 * kMiB, 3 * kGiB, 3 * kGiB + kPageSize, 64 * kGiB}) {
    const MemoryMap map = memory_map(MUST(ram_layout(size, 46)));
    for (size_t i = 1; i < map.size(); ++i)
      EXPECT_GE(map[i].range.base.value(), map[i - 1].range.base.value() + map[i - 1].range.size_bytes);
  }
}

TEST(MemoryMap, Window64IsAboveRamAndInsideTheAddressSpace) {
  for (const uint64_t size : {kGiB, 8 * kGiB, 100 * kGiB}) {
    const RamLayout ram = MUST(ram_layout(size, 40));
    const GpaRange window = pci_window_64(ram, 40);
    EXPECT_GE(window.base.value(), ram.high.base.value() + ram.high.size_bytes);
    EXPECT_LE(window.base.value() + window.size_bytes, uint64_t{1} << 40);
    EXPECT_GT(window.size_bytes, 0u);
  }
  EXPECT_EQ(pci_window_64(MUST(ram_layout(32 * kGiB, 36)), 36).size_bytes, 0u);
}

TEST(MemoryMap, HighestPlace) {
  const MemoryMap map = memory_map(MUST(ram_layout(256 * kMiB, 40)));
  EXPECT_EQ(highest_place(map, 5000, kPageSize, Gpa(kMiB), Gpa(4 * kGiB)), Gpa(256 * kMiB - 2 * kPageSize));
  EXPECT_EQ(highest_place(map, 5000, kPageSize, Gpa(kMiB), Gpa(10 * kMiB)), Gpa(10 * kMiB - 2 * kPageSize));
  EXPECT_EQ(highest_place(map, 256 * kMiB, kPageSize, Gpa(0), Gpa(4 * kGiB)), std::nullopt);
  EXPECT_EQ(highest_place(map, 9 * kMiB + 1, kPageSize, Gpa(kMiB), Gpa(10 * kMiB)), std::nullopt);
}

}  // namespace
}  // namespace tenon
