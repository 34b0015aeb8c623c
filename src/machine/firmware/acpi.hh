// The ACPI tables of the board: RSDP, XSDT, FADT, FACS, MADT, MCFG, WAET and DSDT.
//
// Source: ACPI Specification 6.4. The guest switches to ACPI mode through the SMI command port. HPET is absent: the
// guest's clocks are the TSC, the personality's clock and the PM timer. Scaling: MADT and DSDT grow by 8 to 50 bytes a
// vCPU; 128 KiB hold the tables of over 1000 vCPUs.
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
  uint32_t vcpus = 1;  // APIC IDs 0 to vcpus - 1
  uint16_t pm1_event_port = 0x600;
  uint16_t pm1_control_port = 0x604;
  uint16_t pm_timer_port = 0x608;
  uint16_t gpe0_port = 0x620;
  uint8_t gpe0_size_bytes = 4;
  uint16_t smi_command_port = 0xb2;
  uint8_t acpi_enable = 0x02;
  uint8_t acpi_disable = 0x03;
  uint16_t reset_port = 0xcf9;
  uint8_t reset_value = 0x06;
  uint8_t sci_gsi = 9;
  GpaRange io_apic;
  GpaRange local_apic;
  GpaRange ecam;
  std::vector<GpaRange> pci_windows_32;
  GpaRange pci_window_64;  // size 0: none
};

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
