#include "devices/chip/post_code.hh"

namespace tenon {
namespace {

constexpr std::string_view kSchema = "post_code";
constexpr uint32_t kVersion = 1;

struct PostCodeV1 {
  uint8_t bytes[PostCode::kPortCount];  // any value is legal
};
static_assert(sizeof(PostCodeV1) == 16);

}  // namespace

void PostCode::reset() {
  for (auto& byte : bytes_) byte = 0;
}

SavedState PostCode::save() const {
  PostCodeV1 wire{};
  for (size_t i = 0; i < kPortCount; ++i) wire.bytes[i] = bytes_[i].load();
  return save_wire(std::string(kSchema), kVersion, wire);
}

Result<void> PostCode::restore(const SavedState& state) {
  const auto wire = TRY(load_wire_state<PostCodeV1>(state, kSchema, kVersion));
  for (size_t i = 0; i < kPortCount; ++i) bytes_[i] = wire.bytes[i];
  return {};
}

}  // namespace tenon
