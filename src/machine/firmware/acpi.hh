// The ACPI tables of the board: RSDP, XSDT, FADT, FACS, MADT, MCFG, WAET and DSDT.
//
// Source: ACPI Specification 6.4. The guest starts in ACPI mode (SMI_CMD is 0). HPET is absent: the guest's clocks are the
// TSC, the personality's clock and the PM timer.
// Scaling: MADT and DSDT grow by 8 to 50 bytes a vCPU; 128 KiB hold the tables of over 1000 vCPUs.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.hh"
#include "machine/firmware/aml.hh"
#include "vm/address.hh"

namespace tenon {

constexpr uint32_t kAcpiVcpusMax = 4096;  // AML names of processors have three hexadecimal digits

/// What the tables describe.
struct AcpiConfig {
  uint32_t vcpus = 1;             // APIC IDs 0 to vcpus - 1
  uint16_t pm_base = 0x600;       // PM1 events, +4 PM1 control, +8 timer
  uint16_t reset_port = 0xcf9;
  uint8_t reset_value = 0x06;
  uint8_t sci_gsi = 9;
  GpaRange io_apic;
  GpaRange local_apic;
  GpaRange ecam;
  std::vector<GpaRange> pci_windows_32;
  GpaRange pci_window_64;         // size 0: none
};

/// The GSI and, without an IOAPIC, the ISA IRQ behind pin 0-3 (INTA-INTD) of a device on bus 0. The board wires it, \_PRT
/// tells it.
constexpr unsigned kPciInterruptLines = 4;
constexpr unsigned pci_interrupt_line(unsigned device, unsigned pin) { return (device + pin) % kPciInterruptLines; }
constexpr uint32_t kPciInterruptGsi = 16;
constexpr uint8_t kPciInterruptIsaIrq[kPciInterruptLines] = {10, 11, 10, 11};

/// Tables ready to be copied to guest memory.
struct FirmwareTables {
  Gpa base;
  std::vector<std::byte> bytes;
};

/// The tables laid out from `base` on, RSDP first. kOutOfRange where they need more than `size_bytes_max`.
Result<FirmwareTables> build_acpi(const AcpiConfig& config, Gpa base, uint64_t size_bytes_max);

/// The DSDT's AML without its header.
aml::Code build_dsdt(const AcpiConfig& config);

}  // namespace tenon
