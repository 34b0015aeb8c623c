#include "machine/loader/decompress.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "machine/loader/synthetic_streams.hh"

namespace tenon {
namespace {

using synthetic::Buffer;
using ::testing::HasSubstr;

/// Half text, half noise, long enough for several buffers.
Buffer sample(size_t size_bytes) {
  Buffer buffer(size_bytes);
  std::mt19937 random(1);
  for (size_t i = 0; i < size_bytes; ++i)
    buffer[i] = static_cast<std::byte>(i % 8 < 4 ? random() : 'a' + i / 4096 % 26);
  return buffer;
}

class DecompressFormats : public ::testing::TestWithParam<Compression> {};

TEST_P(DecompressFormats, RoundTrip) {
  for (const size_t size : {size_t{1}, size_t{4096}, size_t{2} << 20}) {
    const Buffer plain = sample(size);
    const Buffer packed = synthetic::pack(GetParam(), plain);
    EXPECT_EQ(detect_compression(packed), GetParam());
    const auto exact = decompress(GetParam(), packed, size);
    ASSERT_TRUE(exact) << exact.error().message();
    EXPECT_TRUE(*exact == plain);
  }
}

TEST_P(DecompressFormats, OutputOverTheLimitIsRefused) {
  const Buffer packed = synthetic::pack(GetParam(), sample(100'000));
  const auto result = decompress(GetParam(), packed, 99'999);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kOutOfRange) << result.error().message();
  EXPECT_THAT(result.error().message(), HasSubstr("99999"));
}

TEST_P(DecompressFormats, EveryTruncationIsAnError) {
  const Buffer plain = sample(3000);
  const Buffer packed = synthetic::pack(GetParam(), plain);
  for (size_t size = 0; size < packed.size(); ++size) {
    const auto result = decompress(GetParam(), std::span(packed).first(size), 1 << 20);
    // A legacy lz4 frame has no end mark: cut before its first block it is a valid empty stream.
    if (GetParam() == Compression::kLz4 && size <= 4) continue;
    EXPECT_FALSE(result) << "cut to " << size;
  }
}

TEST_P(DecompressFormats, TrailingDataIsAnError) {
  Buffer packed = synthetic::pack(GetParam(), sample(3000));
  packed.resize(packed.size() + 3, std::byte{0xee});
  const auto result = decompress(GetParam(), packed, 1 << 20);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kCorrupt);
}

INSTANTIATE_TEST_SUITE_P(All, DecompressFormats,
                         ::testing::Values(Compression::kGzip, Compression::kXz, Compression::kLz4, Compression::kZstd),
                         [](const auto& test) { return std::string(name(test.param)); });

TEST(Decompress, Lz4LegacyFrameWithSeveralBlocks) {
  const Buffer plain = sample(10'000);
  const auto result = decompress(Compression::kLz4, synthetic::lz4(plain, 1000), plain.size());
  ASSERT_TRUE(result) << result.error().message();
  EXPECT_TRUE(*result == plain);
}

TEST(Decompress, UnsupportedFormatsSayWhatToDo) {
  for (const std::string_view magic :
       {std::string_view("\x5d\0\0\x80", 4), std::string_view("BZh9"), std::string_view("\x89LZO\0\r", 6)}) {
    const Buffer packed = synthetic::to_buffer(magic);
    const Compression format = detect_compression(packed);
    EXPECT_NE(format, Compression::kNone);
    const auto result = decompress(format, packed, 1000);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), ErrorCode::kUnsupported);
    EXPECT_THAT(result.error().message(), HasSubstr(std::string(name(format))));
    EXPECT_THAT(result.error().message(), HasSubstr("extract-vmlinux"));
  }
}

TEST(Decompress, SmallBombIsStoppedAtTheLimit) {
  const Buffer packed = synthetic::gzip(Buffer(64 << 20));
  ASSERT_LT(packed.size(), 100'000u);
  EXPECT_EQ(decompress(Compression::kGzip, packed, 1 << 20).error().code(), ErrorCode::kOutOfRange);
}

}  // namespace
}  // namespace tenon
