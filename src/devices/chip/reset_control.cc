#include "devices/chip/reset_control.hh"

#include "base/bits.hh"

namespace tenon {
namespace {

// RST_CNT, ICH9 13.7.5: SYS_RST 1 chooses the kind, RST_CPU 2 starts it on a 0 to 1 transition, FULL_RST 3.
using ResetCpu = Bit<2>;
constexpr uint8_t kWritable = 0x0e;

constexpr std::string_view kSchema = "reset_control";
constexpr uint32_t kVersion = 1;

struct ResetControlV1 {
  uint8_t value;  // 0
};
static_assert(sizeof(ResetControlV1) == 1);

}  // namespace

uint64_t ResetControl::bus_read(uint64_t /*offset*/, unsigned /*size_bytes*/) { return value_.load(); }

void ResetControl::bus_write(uint64_t /*offset*/, unsigned /*size_bytes*/, uint64_t value) {
  const auto next = static_cast<uint8_t>(value & kWritable);
  const uint8_t before = value_.exchange(next);
  // Soft, hard and full reset are the same to a virtual machine: power is never cut.
  if (!ResetCpu::test(before) && ResetCpu::test(next) && request_reset_) request_reset_();
}

SavedState ResetControl::save() const {
  return save_wire(std::string(kSchema), kVersion, ResetControlV1{.value = value_.load()});
}

Result<void> ResetControl::restore(const SavedState& state) {
  const auto wire = TRY(load_wire_state<ResetControlV1>(state, kSchema, kVersion));
  TRY(check_saved_fields(kSchema, {{"value", wire.value, kWritable, SavedField::Rule::kOnlyBits}}));
  value_ = wire.value;
  return {};
}

}  // namespace tenon
