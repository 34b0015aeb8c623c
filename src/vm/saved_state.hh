// Saved state: each device's own versioned structure, written beside the device from its first commit.
//
// A structure consists of le16/le32/le64 and bytes, is standard layout with asserted size, only ever grows at its end,
// and never gives a field a new meaning. restore() gets bytes that may be hostile: validate every field, name the bad
// one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.hh"

namespace tenon {

struct SavedState {
  std::string schema;    // the device's model name, for example "uart16550"
  uint32_t version = 0;  // of the structure in `bytes`
  std::vector<std::byte> bytes;
};

template <typename Wire>
SavedState save_wire(std::string schema, uint32_t version, const Wire& wire) {
  static_assert(std::is_trivially_copyable_v<Wire> && std::is_standard_layout_v<Wire> && alignof(Wire) == 1);
  SavedState state{.schema = std::move(schema), .version = version, .bytes = std::vector<std::byte>(sizeof(Wire))};
  std::memcpy(state.bytes.data(), &wire, sizeof(Wire));
  return state;
}

/// The structure back, or an error naming schema, version and size as found and as wanted.
template <typename Wire>
Result<Wire> load_wire_state(const SavedState& state, std::string_view schema, uint32_t version) {
  static_assert(std::is_trivially_copyable_v<Wire> && alignof(Wire) == 1);
  if (state.schema != schema || state.version != version || state.bytes.size() != sizeof(Wire))
    return fail(ErrorCode::kCorrupt, "saved state of " + std::string(schema) + " version " + std::to_string(version) +
                                         " (" + std::to_string(sizeof(Wire)) + " bytes): found " + state.schema +
                                         " version " + std::to_string(state.version) + " (" +
                                         std::to_string(state.bytes.size()) + " bytes)");
  Wire wire;
  std::memcpy(&wire, state.bytes.data(), sizeof(Wire));
  return wire;
}

/// One row of a restore()'s validation: `value` was found, at most `max` (or only bits of `max`) is possible.
struct SavedField {
  std::string_view name;
  uint64_t value = 0;
  uint64_t max = 0;
  enum class Rule : uint8_t { kAtMost, kOnlyBits } rule = Rule::kAtMost;
};

/// kCorrupt naming the first field that breaks its rule.
inline Result<void> check_saved_fields(std::string_view schema, std::initializer_list<SavedField> fields) {
  for (const SavedField& field : fields) {
    const bool is_good =
        field.rule == SavedField::Rule::kAtMost ? field.value <= field.max : (field.value & ~field.max) == 0;
    if (!is_good)
      return fail(ErrorCode::kCorrupt, "saved state of " + std::string(schema) + ": " + std::string(field.name) +
                                           " is " + std::to_string(field.value) + ", allowed " +
                                           (field.rule == SavedField::Rule::kAtMost ? "at most " : "bits ") +
                                           std::to_string(field.max));
  }
  return {};
}

}  // namespace tenon
