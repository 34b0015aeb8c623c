// LPC bridge, function 1f.0: the south bridge's ISA side as software that walks PCI expects it.
//
// Source: Intel ICH9 data sheet (316972-004) section 13.1 (LPC interface configuration registers).
// The chips behind it (8259, 8254, RTC, ACPI) are separate devices at fixed ports; this function names them: PMBASE
// says where the ACPI block is, the PIRQ registers are kept for software that reads them back.
//
// Not implemented: moving the ACPI block (PMBASE is read-only), GPIO, generic decode ranges, root complex register
// block, and routing by PIRQx: INTx arrives at the I/O APIC as GSIs 16-23 whatever the registers say, and not at the
// 8259.
#pragma once

#include <cstdint>

#include "devices/pci/pci_bus.hh"
#include "devices/pci/pci_function.hh"
#include "vm/device.hh"

namespace tenon {

class LpcBridge final : public Device, private PciFunction {
 public:
  static constexpr pci::Slot kSlot{.device = 0x1f, .function = 0};

  /// `acpi_base` is the port of the ACPI block (AcpiPm::kBase).
  explicit LpcBridge(uint16_t acpi_base);

  Result<void> add_to(PciBus& bus) { return bus.add(kSlot, *this); }

  std::string_view name() const override { return "lpc_bridge"; }
  void reset() override { reset_config(); }
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;
};

}  // namespace tenon
