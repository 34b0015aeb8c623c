#include "machine/loader/initrd.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <random>

#include "machine/loader/synthetic_streams.hh"

namespace tenon {
namespace {

using synthetic::Buffer;
using ::testing::HasSubstr;

Buffer archive() {
  std::string noise(20'000, ' ');
  std::mt19937 random(2);
  for (char& c : noise) c = static_cast<char>(random());
  return synthetic::make_cpio({{"init", "#!/bin/sh\n"}, {"bin/busybox", noise}});
}

Buffer operator+(Buffer a, const Buffer& b) {
  synthetic::append(a, b);
  return a;
}

class InitrdFormats : public ::testing::TestWithParam<Compression> {};

TEST_P(InitrdFormats, WholeArchivePasses) {
  const Buffer packed = synthetic::pack(GetParam(), archive());
  const auto result = check_initrd(packed);
  EXPECT_TRUE(result) << result.error().message();
}

TEST_P(InitrdFormats, EarlyArchiveBeforeItAndPaddingPass) {
  const Buffer early = synthetic::make_cpio({{"kernel/x86/microcode/GenuineIntel.bin", "code"}}) + Buffer(512);
  const auto result = check_initrd(early + synthetic::pack(GetParam(), archive()) + Buffer(16));
  EXPECT_TRUE(result) << result.error().message();
}

TEST_P(InitrdFormats, ArchiveAfterItPasses) {
  const auto result = check_initrd(synthetic::pack(GetParam(), archive()) + Buffer(4) + archive());
  EXPECT_TRUE(result) << result.error().message();
}

TEST_P(InitrdFormats, TruncationIsNamed) {
  const Buffer early = synthetic::make_cpio({{"early", "x"}});
  Buffer packed = early + synthetic::pack(GetParam(), archive());
  packed.resize(packed.size() - 300);
  const auto result = check_initrd(packed);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(result.error().message(), HasSubstr(fmt::format("starts at offset {:#x}", early.size())));
}

INSTANTIATE_TEST_SUITE_P(All, InitrdFormats,
                         ::testing::Values(Compression::kNone, Compression::kGzip, Compression::kXz, Compression::kLz4,
                                           Compression::kZstd),
                         [](const auto& test) { return std::string(name(test.param)); });

TEST(Initrd, BytesOfNoKnownFormatPass) {
  EXPECT_TRUE(check_initrd(Buffer(5000, std::byte{0x42})));
  EXPECT_TRUE(check_initrd({}));
}

TEST(Initrd, CpioMemberCutOffIsNamed) {
  Buffer cut = archive();
  cut.resize(5000);
  const auto result = check_initrd(cut);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message(), HasSubstr("bin/busybox"));
}

TEST(Initrd, CpioBadSizeField) {
  Buffer bad = archive();
  bad[56] = std::byte{'z'};
  EXPECT_THAT(check_initrd(bad).error().message(), HasSubstr("bad size field"));
}

}  // namespace
}  // namespace tenon
