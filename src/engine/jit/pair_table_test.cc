#include "engine/jit/pair_table.hh"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <random>
#include <utility>

namespace tenon::jit {
namespace {

TEST(PairTable, FindsWhatWasSetLast) {
  PairTable table;
  EXPECT_EQ(table.find(0, 0), 0u);
  table.set(0, 0, 1);
  table.set(0, 1, 2);
  table.set(1, 0, 3);
  table.set(0, 1, 4);
  EXPECT_EQ(table.size(), 3u);
  EXPECT_EQ(table.find(0, 0), 1u);
  EXPECT_EQ(table.find(0, 1), 4u);
  EXPECT_EQ(table.find(1, 0), 3u);
  EXPECT_EQ(table.find(1, 1), 0u);
  table.clear();
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.find(0, 0), 0u);
}

/// Few keys in a small table, so that runs are long, wrap around its end and are cut everywhere.
TEST(PairTable, AgreesWithAMapUnderRandomUse) {
  std::mt19937_64 random(1);
  for (const unsigned keys : {10u, 24u, 4000u}) {
    PairTable table;
    std::map<std::pair<uint64_t, uint64_t>, uint32_t> model;
    for (unsigned i = 0; i < 100'000; ++i) {
      const uint64_t first = 0xffff'ffff'8100'0000 + random() % keys * 16;
      const uint64_t second = (random() % 3) << 12;
      if (random() % 2 == 0) {
        const auto value = static_cast<uint32_t>(random() | 1);
        table.set(first, second, value);
        model[{first, second}] = value;
      } else {
        table.erase(first, second);
        model.erase({first, second});
      }
      const uint64_t other = 0xffff'ffff'8100'0000 + random() % keys * 16;
      const auto expected = model.find({other, second});
      ASSERT_EQ(table.find(other, second), expected == model.end() ? 0 : expected->second);
      ASSERT_EQ(table.size(), model.size());
    }
    for (const auto& [key, value] : model) ASSERT_EQ(table.find(key.first, key.second), value);
  }
}

TEST(OffsetTable, HoldsAllOffsetsOfAPage) {
  OffsetTable table;
  for (uint16_t offset = 0; offset < 4096; ++offset) table.set(offset, offset + 1u);
  EXPECT_EQ(table.size(), 4096u);
  for (uint16_t offset = 0; offset < 4096; offset += 2) table.erase(offset);
  for (uint16_t offset = 0; offset < 4096; ++offset) ASSERT_EQ(table.find(offset), offset % 2 == 0 ? 0 : offset + 1u);
}

}  // namespace
}  // namespace tenon::jit
