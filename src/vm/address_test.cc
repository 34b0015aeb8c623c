#include "vm/address.hh"

#include <gtest/gtest.h>

namespace tenon {
namespace {

constexpr uint64_t kTop = ~uint64_t{0};

TEST(Gpa, AddsOnlyWithoutWrapping) {
  EXPECT_EQ(Gpa(0x1000).plus(0x234), Gpa(0x1234));
  EXPECT_EQ(Gpa(kTop).plus(0), Gpa(kTop));
  EXPECT_EQ(Gpa(kTop).plus(1), std::nullopt);
  EXPECT_EQ(Gpa(1).plus(kTop), std::nullopt);
}

TEST(Gpa, PageNumberAndOffset) {
  EXPECT_EQ(Gpa(0x12345).page_number(), 0x12u);
  EXPECT_EQ(Gpa(0x12345).page_offset(), 0x345u);
}

TEST(GpaRange, ContainsCountsTheWholeAccess) {
  constexpr GpaRange range{Gpa(0x1000), 0x1000};
  EXPECT_TRUE(range.contains(Gpa(0x1000), 0x1000));
  EXPECT_FALSE(range.contains(Gpa(0x1000), 0x1001));
  EXPECT_TRUE(range.contains(Gpa(0x1fff)));
  EXPECT_FALSE(range.contains(Gpa(0x1fff), 2));
  EXPECT_FALSE(range.contains(Gpa(0xfff)));
  EXPECT_FALSE(range.contains(Gpa(0x2000)));
  EXPECT_FALSE(range.contains(Gpa(0x1800), kTop));  // would wrap
}

TEST(GpaRange, ContainsAtTheEndOfTheAddressSpace) {
  constexpr GpaRange range{Gpa(kTop - 0xfff), 0x1000};
  EXPECT_TRUE(range.contains(Gpa(kTop)));
  EXPECT_FALSE(range.contains(Gpa(kTop), 2));
  EXPECT_FALSE(range.contains(Gpa(0)));
}

TEST(GpaRange, Overlaps) {
  constexpr GpaRange range{Gpa(0x1000), 0x1000};
  EXPECT_TRUE(range.overlaps({Gpa(0x1fff), 1}));
  EXPECT_TRUE(range.overlaps({Gpa(0), 0x1001}));
  EXPECT_TRUE(range.overlaps({Gpa(0), 0x10000}));
  EXPECT_TRUE(range.overlaps(range));
  EXPECT_FALSE(range.overlaps({Gpa(0x2000), 1}));
  EXPECT_FALSE(range.overlaps({Gpa(0), 0x1000}));
  EXPECT_FALSE(range.overlaps({Gpa(0x1800), 0}));
  constexpr GpaRange last{Gpa(kTop - 0xfff), 0x1000};
  EXPECT_TRUE(last.overlaps({Gpa(kTop), 1}));
  EXPECT_FALSE(last.overlaps({Gpa(0), 0x1000}));
}

}  // namespace
}  // namespace tenon
