#include "base/byte_order.hh"

#include <gtest/gtest.h>

namespace tenon {
namespace {

struct Header {
  uint8_t kind;  // 0
  le32 length;   // 1
  le64 address;  // 5
};
static_assert(sizeof(Header) == 13 && std::is_trivially_copyable_v<Header>);

TEST(ByteOrder, WireLayout) {
  const Header header = {.kind = 1, .length = 0x01020304, .address = 0x1122334455667788};
  const uint8_t expected[] = {1, 4, 3, 2, 1, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
  EXPECT_EQ(std::memcmp(&header, expected, sizeof expected), 0);
}

TEST(ByteOrder, LoadFromUnalignedBytes) {
  const uint8_t bytes[] = {0xff, 2, 0x78, 0x56, 0x34, 0x12, 1, 0, 0, 0, 0, 0, 0, 0x80};
  const auto header = load_wire<Header>(bytes + 1);
  EXPECT_EQ(header.kind, 2);
  EXPECT_EQ(header.length, 0x12345678u);
  EXPECT_EQ(header.address, 0x8000000000000001u);
}

TEST(ByteOrder, SixteenBitsRoundTrip) {
  for (uint32_t value = 0; value < 0x10000; value += 0x101)
    EXPECT_EQ(static_cast<uint16_t>(le16(static_cast<uint16_t>(value))), value);
}

}  // namespace
}  // namespace tenon
