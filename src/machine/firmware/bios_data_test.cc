#include "machine/firmware/bios_data.hh"

#include <gtest/gtest.h>

#include "base/byte_order.hh"
#include "machine/firmware/memory_map.hh"

namespace tenon {
namespace {

TEST(BiosData, MemorySizeAndEbdaAgreeWithTheMemoryMap) {
  const auto areas = build_bios_data();
  ASSERT_EQ(areas.size(), 2u);
  const FirmwareTables& data = areas[0];
  const auto word = [&data](uint64_t address) {
    return uint16_t{load_wire<le16>(data.bytes.data() + (address - data.base.value()))};
  };
  EXPECT_EQ(word(0x40e) * 16u, kLowMemoryEnd);
  EXPECT_EQ(word(0x413) * kKiB, kLowMemoryEnd);
  EXPECT_EQ(word(0x400), 0x3f8);
  EXPECT_EQ(areas[1].base, Gpa(kLowMemoryEnd));
  EXPECT_EQ(areas[1].bytes.front(), std::byte{1});
}

}  // namespace
}  // namespace tenon
