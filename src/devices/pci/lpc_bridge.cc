#include "devices/pci/lpc_bridge.hh"

namespace tenon {
namespace {

// ICH9 13.1.
constexpr unsigned kPmBase = 0x40;
constexpr unsigned kAcpiControl = 0x44;
constexpr unsigned kPirqAToD = 0x60;
constexpr unsigned kPirqEToH = 0x68;
constexpr uint8_t kAcpiEnabled = 0x80;   // ACPI_CNTL bit 7; SCI on IRQ 9 is 0 in bits 2:0
constexpr uint8_t kPirqDisabled = 0x80;  // PIRQx_ROUT bit 7: not routed to the 8259
constexpr uint8_t kPirqWritable = 0x8f;
constexpr uint32_t kIoSpaceIndicator = 1;

constexpr PciIdentity kIdentity = {.vendor_id = 0x8086,
                                   .device_id = 0x2918,  // ICH9 LPC
                                   .class_code = 0x060100,
                                   .revision = 2,
                                   .is_multi_function = true};

constexpr std::string_view kSchema = "lpc_bridge";
constexpr uint32_t kVersion = 1;

}  // namespace

LpcBridge::LpcBridge(uint16_t acpi_base) : PciFunction(kIdentity) {
  config().set(kPmBase, 4, acpi_base | kIoSpaceIndicator);
  config().set(kAcpiControl, 1, kAcpiEnabled);
  for (const unsigned first : {kPirqAToD, kPirqEToH}) {
    for (unsigned i = 0; i < 4; ++i) {
      config().set(first + i, 1, kPirqDisabled);
      config().set_writable(first + i, 1, kPirqWritable);
    }
  }
}

SavedState LpcBridge::save() const {
  return {.schema = std::string(kSchema), .version = kVersion, .bytes = save_config()};
}

Result<void> LpcBridge::restore(const SavedState& state) {
  if (state.schema != kSchema || state.version != kVersion)
    return fail(ErrorCode::kCorrupt, "saved state of lpc_bridge version 1: found " + state.schema + " version " +
                                         std::to_string(state.version));
  return restore_config(state.bytes);
}

}  // namespace tenon
