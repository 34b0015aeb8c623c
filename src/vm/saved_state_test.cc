#include "vm/saved_state.hh"

#include <gtest/gtest.h>

#include "base/byte_order.hh"

namespace tenon {
namespace {

struct WidgetV1 {
  le32 count;     // 0
  uint8_t level;  // 4
};
static_assert(sizeof(WidgetV1) == 5);

TEST(SavedState, RoundTrip) {
  const SavedState state = save_wire("widget", 1, WidgetV1{.count = 0x12345678, .level = 9});
  EXPECT_EQ(state.bytes.size(), 5u);
  EXPECT_EQ(state.bytes[0], std::byte{0x78});
  const Result<WidgetV1> wire = load_wire_state<WidgetV1>(state, "widget", 1);
  ASSERT_TRUE(wire.has_value());
  EXPECT_EQ(wire->count, 0x12345678u);
  EXPECT_EQ(wire->level, 9);
}

TEST(SavedState, WrongSchemaVersionOrSizeIsCorruptAndSaysWhich) {
  const SavedState good = save_wire("widget", 1, WidgetV1{});
  SavedState other = good;
  other.schema = "gadget";
  SavedState newer = good;
  newer.version = 2;
  SavedState shorter = good;
  shorter.bytes.pop_back();
  for (const auto& [state, found] : {std::pair(other, "gadget"), {newer, "version 2"}, {shorter, "(4 bytes)"}}) {
    const Result<WidgetV1> wire = load_wire_state<WidgetV1>(state, "widget", 1);
    ASSERT_FALSE(wire.has_value());
    EXPECT_EQ(wire.error().code(), ErrorCode::kCorrupt);
    EXPECT_NE(wire.error().message().find(found), std::string::npos) << wire.error().message();
  }
}

TEST(SavedState, FieldsAreCheckedByTheirRule) {
  using Rule = SavedField::Rule;
  EXPECT_TRUE(check_saved_fields("widget", {{"count", 5, 5}, {"flags", 0x30, 0xf0, Rule::kOnlyBits}}).has_value());
  const Result<void> too_large = check_saved_fields("widget", {{"count", 6, 5}});
  ASSERT_FALSE(too_large.has_value());
  EXPECT_EQ(too_large.error().message(), "saved state of widget: count is 6, allowed at most 5");
  const Result<void> bad_bits = check_saved_fields("widget", {{"count", 1, 5}, {"flags", 1, 0xf0, Rule::kOnlyBits}});
  ASSERT_FALSE(bad_bits.has_value());
  EXPECT_NE(bad_bits.error().message().find("flags"), std::string::npos);
}

}  // namespace
}  // namespace tenon
