#include "base/code_memory.hh"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <string>
#include <vector>

namespace tenon {
namespace {

constexpr std::array<uint8_t, 6> kReturn42{0xb8, 42, 0, 0, 0, 0xc3};  // mov eax, 42; ret

TEST(CodeMemory, RunsWhatWasAppended) {
  auto memory = CodeMemory::create(1, "test-code");
  ASSERT_TRUE(memory.has_value()) << memory.error().message();
  const std::byte* first = memory->append(kReturn42);
  std::array<uint8_t, 6> other = kReturn42;
  other[1] = 7;
  const std::byte* second = memory->append(other);
  ASSERT_NE(first, nullptr);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(reinterpret_cast<int (*)()>(reinterpret_cast<uintptr_t>(first))(), 42);
  EXPECT_EQ(reinterpret_cast<int (*)()>(reinterpret_cast<uintptr_t>(second))(), 7);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(second) % CodeMemory::kAlignment, 0u);
  EXPECT_GE(second - first, 6);
}

TEST(CodeMemory, FullReturnsNullAndKeepsWhatIsThere) {
  auto memory = CodeMemory::create(4096, "test-code");
  ASSERT_TRUE(memory.has_value());
  const std::byte* first = memory->append(kReturn42);
  EXPECT_EQ(memory->append(std::vector<uint8_t>(4096)), nullptr);
  EXPECT_NE(memory->append(std::vector<uint8_t>(4096 - 16)), nullptr);
  EXPECT_EQ(memory->append(kReturn42), nullptr);
  EXPECT_EQ(memory->size_bytes(), 4096u);
  EXPECT_EQ(reinterpret_cast<int (*)()>(reinterpret_cast<uintptr_t>(first))(), 42);
}

TEST(CodeMemory, EmptyIsAnError) { EXPECT_FALSE(CodeMemory::create(0, "none").has_value()); }

/// No address is both writable and executable, by what the kernel says of the two views.
TEST(CodeMemory, NoViewIsWritableAndExecutable) {
  auto memory = CodeMemory::create(8192, "tenon-code-views");
  ASSERT_TRUE(memory.has_value());
  std::ifstream maps("/proc/self/maps");
  std::vector<std::string> protections;
  for (std::string line; std::getline(maps, line);)
    if (line.find("tenon-code-views") != std::string::npos) protections.push_back(line.substr(line.find(' ') + 1, 4));
  std::sort(protections.begin(), protections.end());
  EXPECT_EQ(protections, (std::vector<std::string>{"r-xs", "rw-s"}));
}

TEST(CodeMemory, ViewsShareBytes) {
  auto memory = CodeMemory::create(4096, "test-code");
  ASSERT_TRUE(memory.has_value());
  memory->writable()[100] = std::byte{0x5a};
  EXPECT_EQ(memory->executable()[100], std::byte{0x5a});
}

}  // namespace
}  // namespace tenon
