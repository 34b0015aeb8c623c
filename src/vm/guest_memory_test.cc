#include "vm/guest_memory.hh"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/shared_memory.hh"

namespace tenon {
namespace {

constexpr uint64_t kMiB = 1u << 20;

std::vector<std::byte> pattern(size_t size_bytes) {
  std::vector<std::byte> bytes(size_bytes);
  for (size_t i = 0; i < size_bytes; ++i) bytes[i] = static_cast<std::byte>(i * 7 + 3);
  return bytes;
}

/// RAM at 0-1 MiB, ROM right behind it, a hole, RAM at 4-5 MiB.
void add_extents(GuestMemory& memory) {
  ASSERT_TRUE(memory.add({Gpa(4 * kMiB), kMiB}, ExtentKind::kPrivate, "high").has_value());
  ASSERT_TRUE(memory.add({Gpa(0), kMiB}, ExtentKind::kPrivate, "low").has_value());
  ASSERT_TRUE(memory.add({Gpa(kMiB), 2 * kPageSize}, ExtentKind::kRom, "rom").has_value());
}

TEST(GuestMemory, ExtentsAreSortedAndAligned) {
  GuestMemory memory;
  add_extents(memory);
  ASSERT_EQ(memory.extents().size(), 3u);
  EXPECT_TRUE(std::is_sorted(memory.extents().begin(), memory.extents().end(),
                             [](const Extent& a, const Extent& b) { return a.range.base < b.range.base; }));
  for (const Extent& extent : memory.extents()) EXPECT_EQ(reinterpret_cast<uintptr_t>(extent.host) % (2 * kMiB), 0u);
  EXPECT_EQ(memory.ram_size_bytes(), 2 * kMiB);
}

TEST(GuestMemory, AddRefusesBadRanges) {
  GuestMemory memory;
  add_extents(memory);
  const auto code_of = [&](uint64_t base, uint64_t size_bytes) {
    const Result<void> result = memory.add({Gpa(base), size_bytes}, ExtentKind::kPrivate, "bad");
    return result.has_value() ? std::nullopt : std::optional(result.error().code());
  };
  EXPECT_EQ(code_of(8 * kMiB, 0), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(8 * kMiB + 1, kPageSize), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(8 * kMiB, kPageSize + 1), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code_of(~uint64_t{0} - 4095, 2 * kPageSize), ErrorCode::kOutOfRange);
  EXPECT_EQ(code_of(0, kPageSize), ErrorCode::kInvalidArgument);                // inside another
  EXPECT_EQ(code_of(3 * kMiB, 4 * kMiB), ErrorCode::kInvalidArgument);          // around another
  EXPECT_EQ(code_of(5 * kMiB - kPageSize, kMiB), ErrorCode::kInvalidArgument);  // across its end
  EXPECT_EQ(memory.extents().size(), 3u);
}

TEST(GuestMemory, ReadAndWriteCheckEveryByte) {
  GuestMemory memory;
  add_extents(memory);
  const std::vector<std::byte> out = pattern(100);
  std::vector<std::byte> in(100);
  EXPECT_TRUE(memory.write(Gpa(5 * kMiB - 100), out));
  EXPECT_TRUE(memory.read(Gpa(5 * kMiB - 100), in));
  EXPECT_EQ(in, out);

  EXPECT_FALSE(memory.write(Gpa(5 * kMiB - 99), out));
  EXPECT_FALSE(memory.read(Gpa(5 * kMiB - 99), in));
  EXPECT_FALSE(memory.read(Gpa(4 * kMiB - 1), in));
  EXPECT_FALSE(memory.read(Gpa(~uint64_t{0} - 10), in));
  EXPECT_FALSE(memory.write(Gpa(~uint64_t{0}), out));
}

TEST(GuestMemory, RefusedWriteChangesNothing) {
  GuestMemory memory;
  add_extents(memory);
  const std::vector<std::byte> out = pattern(64);
  EXPECT_FALSE(memory.write(Gpa(kMiB - 32), out));  // the second half would be ROM
  std::vector<std::byte> in(32, std::byte{1});
  EXPECT_TRUE(memory.read(Gpa(kMiB - 32), in));
  EXPECT_EQ(in, std::vector<std::byte>(32));
}

TEST(GuestMemory, AccessAcrossAdjacentExtents) {
  GuestMemory memory;
  add_extents(memory);
  const std::vector<std::byte> out = pattern(101);
  EXPECT_TRUE(memory.load(Gpa(kMiB - 50), out));  // RAM and ROM behind it
  std::vector<std::byte> in(101);
  EXPECT_TRUE(memory.read(Gpa(kMiB - 50), in));
  EXPECT_EQ(in, out);
  EXPECT_EQ(memory.host_address(Gpa(kMiB - 50), 101), nullptr);
  EXPECT_EQ(memory.span(Gpa(kMiB - 50), 101).size_bytes(), 0u);
  EXPECT_EQ(memory.span(Gpa(kMiB - 50), 50).size_bytes(), 50u);
}

TEST(GuestMemory, RomIsForLoadersOnly) {
  GuestMemory memory;
  add_extents(memory);
  const uint32_t value = 0x12345678;
  EXPECT_FALSE(memory.write_object(Gpa(kMiB), value));
  EXPECT_TRUE(memory.load(Gpa(kMiB), std::as_bytes(std::span(&value, 1))));
  uint32_t seen = 0;
  EXPECT_TRUE(memory.read_object(Gpa(kMiB), seen));
  EXPECT_EQ(seen, value);
}

TEST(GuestMemory, EveryAlignmentAndSize) {
  GuestMemory memory;
  ASSERT_TRUE(memory.add({Gpa(0), kPageSize}, ExtentKind::kPrivate, "ram").has_value());
  const std::vector<std::byte> out = pattern(40);
  for (uint64_t base = 0; base < 16; ++base)
    for (size_t size = 0; size <= out.size(); ++size) {
      const std::vector<std::byte> zero(64);
      ASSERT_TRUE(memory.write(Gpa(0), zero));
      ASSERT_TRUE(memory.write(Gpa(base), std::span(out).first(size)));
      std::vector<std::byte> expected(64);
      std::copy_n(out.begin(), size, expected.begin() + static_cast<ptrdiff_t>(base));
      std::vector<std::byte> seen(64);
      ASSERT_TRUE(memory.read(Gpa(0), seen));
      ASSERT_EQ(seen, expected) << base << " " << size;
    }
}

TEST(GuestMemory, EmptyAccessOutsideIsFine) {
  GuestMemory memory;
  EXPECT_TRUE(memory.read(Gpa(123), {}));
  EXPECT_TRUE(memory.write(Gpa(123), {}));
}

TEST(GuestMemory, AlignedAccessesAreSingleAccesses) {
  GuestMemory memory;
  ASSERT_TRUE(memory.add({Gpa(0), kPageSize}, ExtentKind::kPrivate, "ram").has_value());
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (int i = 0; i < 20'000; ++i) memory.write_object(Gpa(8), i % 2 == 0 ? ~uint64_t{0} : uint64_t{0});
    done = true;
  });
  bool torn = false;
  while (!done) {
    uint64_t seen = 0;
    memory.read_object(Gpa(8), seen);
    torn = torn || (seen != 0 && seen != ~uint64_t{0});
  }
  writer.join();
  EXPECT_FALSE(torn);
}

TEST(GuestMemory, MappingIsNamedWhereTheHostKeepsNames) {
  GuestMemory memory;
  ASSERT_TRUE(memory.add({Gpa(0), kMiB}, ExtentKind::kPrivate, "name-test").has_value());
  std::ifstream maps("/proc/self/maps");
  const std::string text((std::istreambuf_iterator<char>(maps)), std::istreambuf_iterator<char>());
  if (text.find("[anon:") == std::string::npos) GTEST_SKIP() << "this host kernel keeps no names of anonymous memory";
  EXPECT_NE(text.find("[anon:tenon:name-test]"), std::string::npos);
}

/// Whether the host was asked for huge pages in the mapping that starts at `address` ("hg", proc_pid_smaps(5)).
bool asks_for_huge_pages(const std::byte* address) {
  std::ifstream smaps("/proc/self/smaps");
  std::ostringstream start;
  start << std::hex << reinterpret_cast<uintptr_t>(address) << '-';
  bool here = false;
  for (std::string line; std::getline(smaps, line);) {
    if (line.find(':') == std::string::npos || line.find('-') < line.find(' ')) here = line.starts_with(start.str());
    if (here && line.starts_with("VmFlags:")) return line.find(" hg") != std::string::npos;
  }
  return false;
}

TEST(GuestMemory, HugePagesAreAskedForWhereTheyAreWanted) {
  if (!std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled")) GTEST_SKIP() << "no transparent huge pages";
  GuestMemory memory;
  ASSERT_TRUE(memory.add({Gpa(0), 2 * kMiB}, ExtentKind::kPrivate, "base").has_value());
  ASSERT_TRUE(memory.add({Gpa(4 * kMiB), 2 * kMiB}, ExtentKind::kPrivate, "huge", HostPages::kHuge).has_value());
  EXPECT_FALSE(asks_for_huge_pages(memory.host_address(Gpa(0), 1)));
  EXPECT_TRUE(asks_for_huge_pages(memory.host_address(Gpa(4 * kMiB), 1)));
}

TEST(CodeWatch, HasAPageWhereverThereIsMemory) {
  GuestMemory memory;
  add_extents(memory);
  const CodeWatch& watch = memory.code_watch();
  EXPECT_NE(watch.page(Gpa(0)), nullptr);
  EXPECT_EQ(watch.page(Gpa(kPageSize - 1)), watch.page(Gpa(0)));
  EXPECT_EQ(watch.page(Gpa(kPageSize)), watch.page(Gpa(0)) + 1);
  EXPECT_NE(watch.page(Gpa(kMiB)), nullptr);
  EXPECT_EQ(watch.page(Gpa(2 * kMiB)), nullptr);
  EXPECT_EQ(watch.page(Gpa(5 * kMiB)), nullptr);
}

TEST(CodeWatch, VersionGrowsOnlyWhenAWatchedGranuleIsWritten) {
  GuestMemory memory;
  add_extents(memory);
  CodeWatch::Page* page = memory.code_watch().page(Gpa(kPageSize));
  const uint64_t value = 1;
  EXPECT_TRUE(memory.write_object(Gpa(kPageSize), value));
  EXPECT_EQ(page->version, 0u);

  page->granules = uint64_t{1} << 2;  // bytes 128-191
  EXPECT_TRUE(memory.write_object(Gpa(kPageSize + 120), value));
  EXPECT_EQ(page->version, 0u);
  EXPECT_TRUE(memory.write_object(Gpa(kPageSize + 121), value));
  EXPECT_EQ(page->version, 1u);
  EXPECT_TRUE(memory.write_object(Gpa(kPageSize + 191), value));
  EXPECT_EQ(page->version, 2u);
  EXPECT_TRUE(memory.write_object(Gpa(kPageSize + 192), value));
  EXPECT_EQ(page->version, 2u);
}

TEST(CodeWatch, WriteAcrossPagesIsNotedInEach) {
  GuestMemory memory;
  add_extents(memory);
  const CodeWatch& watch = memory.code_watch();
  for (uint64_t n = 0; n < 4; ++n) watch.page(Gpa(n * kPageSize))->granules = ~uint64_t{0};
  EXPECT_TRUE(memory.write(Gpa(kPageSize - 1), pattern(kPageSize + 2)));
  EXPECT_EQ(watch.page(Gpa(0))->version, 1u);
  EXPECT_EQ(watch.page(Gpa(kPageSize))->version, 1u);
  EXPECT_EQ(watch.page(Gpa(2 * kPageSize))->version, 1u);
  EXPECT_EQ(watch.page(Gpa(3 * kPageSize))->version, 0u);
  EXPECT_TRUE(watch.note_write(Gpa(0), 1));
  EXPECT_FALSE(watch.note_write(Gpa(0), 0));
  EXPECT_FALSE(watch.note_write(Gpa(~uint64_t{0}), 5000));
}

/// The promise engines rely on: set granule, fence, decode; against write, note. Never old bytes with an unchanged
/// version.
TEST(CodeWatch, DecoderSeesNewBytesOrANewVersion) {
  GuestMemory memory;
  ASSERT_TRUE(memory.add({Gpa(0), kPageSize}, ExtentKind::kPrivate, "ram").has_value());
  CodeWatch::Page* page = memory.code_watch().page(Gpa(0));
  for (uint32_t round = 1; round <= 300; ++round) {
    page->granules = 0;
    std::atomic<bool> go = false;
    std::thread writer([&] {
      while (!go) std::this_thread::yield();
      memory.write_object(Gpa(0), round);
    });
    go = true;
    const uint64_t version = page->version;
    page->granules.fetch_or(1);
    full_fence();
    uint32_t decoded = 0;
    memory.read_object(Gpa(0), decoded);
    writer.join();
    EXPECT_TRUE(decoded == round || page->version != version);
  }
}

}  // namespace
}  // namespace tenon
