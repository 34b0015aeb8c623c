#include "base/bits.hh"

#include <gtest/gtest.h>

namespace tenon {
namespace {

using Vector = Bits<7, 0>;
using Mode = Bits<10, 8>;
using All = Bits<63, 0>;

static_assert(Vector::kMask == 0xff && Mode::kMask == 0x700 && All::kMask == ~uint64_t{0});

TEST(Bits, GetTestMakeSet) {
  EXPECT_EQ(Mode::get(0x12345), 3u);
  EXPECT_TRUE(Mode::test(0x100));
  EXPECT_FALSE(Mode::test(0x8ff));
  EXPECT_EQ(Mode::make(0xf), 0x700u);
  EXPECT_EQ(Mode::set(uint32_t{0xffff'ffff}, 0), 0xffff'f8ffu);
  EXPECT_EQ(All::set(uint64_t{1}, ~uint64_t{0}), ~uint64_t{0});
  EXPECT_EQ(Bit<63>::get(uint64_t{1} << 63), 1u);
}

TEST(Bits, Alignment) {
  EXPECT_EQ(align_down(0x1fff, 0x1000), 0x1000u);
  EXPECT_EQ(align_up(0x1001, 0x1000), 0x2000u);
  EXPECT_EQ(align_up(0x1000, 0x1000), 0x1000u);
  EXPECT_TRUE(is_power_of_two(uint64_t{1} << 63));
  EXPECT_FALSE(is_power_of_two(0));
  EXPECT_FALSE(is_power_of_two(6));
}

}  // namespace
}  // namespace tenon
