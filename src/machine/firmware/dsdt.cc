// The DSDT: what the guest cannot find by itself. Processors, the PCI host bridge with its windows and interrupt
// routing, serial ports, the clock, and the sleep state that switches off.
#include <fmt/format.h>

#include "machine/firmware/acpi.hh"
#include "spec/acpi.hh"
#include "spec/pci.hh"

namespace tenon {

namespace {

using aml::Code;

constexpr unsigned kPciPins = 4;

/// _PRT: {device, pin, no link device, GSI} for every pin of bus 0 (6.2.13). INTx reaches the IOAPIC only, so the
/// answer is the same whatever \_PIC was told.
Code interrupt_routing() {
  std::vector<Code> rows;
  for (uint8_t device = 0; device < pci::kDeviceCount; ++device) {
    for (uint8_t pin = 0; pin < kPciPins; ++pin) {
      const uint64_t address = uint64_t{device} << 16 | 0xffff;
      const uint32_t gsi = pci::intx_gsi(device, static_cast<pci::IntxPin>(pin + 1));
      rows.push_back(aml::package({aml::integer(address), aml::integer(pin), aml::integer(0), aml::integer(gsi)}));
    }
  }
  return aml::name("_PRT", aml::package(rows));
}

/// _OSC grants native control of hot plug, PME, AER and the PCI Express capability (PCI Firmware 3.2 4.5.1).
Code operating_system_capabilities() {
  constexpr uint64_t kGranted = 0x1d;
  constexpr uint64_t kUnrecognizedUuid = 0x4;
  const Code capabilities = aml::argument(3);
  return aml::method(
      "_OSC", 4,
      {
          aml::dword_field(capabilities, 0, "CDW1"),
          aml::if_then(aml::equal(aml::argument(0), aml::uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")),
                       {
                           aml::dword_field(capabilities, 8, "CDW3"),
                           aml::bit_and(aml::path("CDW3"), aml::integer(kGranted), aml::path("CDW3")),
                       }),
          aml::else_do({aml::bit_or(aml::path("CDW1"), aml::integer(kUnrecognizedUuid), aml::path("CDW1"))}),
          aml::return_value(capabilities),
      });
}

Code host_bridge_resources(const AcpiConfig& config) {
  Code windows;
  for (const GpaRange& window : config.pci_windows_32) {
    const Code one = aml::memory_window_32(window);
    windows.insert(windows.end(), one.begin(), one.end());
  }
  const bool has_64 = config.pci_window_64.size_bytes != 0;
  return aml::resource_template({
      aml::bus_numbers(0, 255),
      aml::io_ports(0xcf8, 8),
      aml::io_window(0x0000, 0x0cf7),
      aml::io_window(0x0d00, 0xffff),
      windows,
      has_64 ? aml::memory_window_64(config.pci_window_64) : Code(),
  });
}

Code host_bridge(const AcpiConfig& config) {
  return aml::device("PCI0", {
                                 aml::name("_HID", aml::eisa_id("PNP0A08")),
                                 aml::name("_CID", aml::eisa_id("PNP0A03")),
                                 aml::name("_UID", aml::integer(0)),
                                 aml::name("_SEG", aml::integer(0)),
                                 aml::name("_BBN", aml::integer(0)),
                                 aml::name("_CRS", host_bridge_resources(config)),
                                 interrupt_routing(),
                                 operating_system_capabilities(),
                             });
}

/// The configuration space belongs to the board (PCI Firmware 3.2 4.1.2).
Code motherboard_resources(const AcpiConfig& config) {
  const auto base = static_cast<uint32_t>(config.ecam.base.value());
  const auto size = static_cast<uint32_t>(config.ecam.size_bytes);
  return aml::device("MBRD", {
                                 aml::name("_HID", aml::eisa_id("PNP0C02")),
                                 aml::name("_UID", aml::integer(0)),
                                 aml::name("_CRS", aml::resource_template({aml::fixed_memory_32(base, size)})),
                             });
}

struct IsaDevice {
  const char* name;
  const char* id;
  uint8_t unit;
  uint16_t port;
  uint8_t port_count;
  uint8_t irq;
};

// clang-format off
constexpr IsaDevice kIsaDevices[] = {
    {"COM1", "PNP0501", 1, 0x3f8, 8, 4},
    {"COM2", "PNP0501", 2, 0x2f8, 8, 3},
    {"RTC",  "PNP0B00", 0, 0x070, 2, 8},
};
// clang-format on

Code isa_device(const IsaDevice& row) {
  return aml::device(
      row.name,
      {
          aml::name("_HID", aml::eisa_id(row.id)),
          aml::name("_UID", aml::integer(row.unit)),
          aml::name("_CRS", aml::resource_template({aml::io_ports(row.port, row.port_count), aml::irq(row.irq)})),
      });
}

Code processor(uint32_t id) {
  return aml::device(fmt::format("C{:03X}", id), {
                                                     aml::name("_HID", aml::string("ACPI0007")),
                                                     aml::name("_UID", aml::integer(id)),
                                                 });
}

}  // namespace

aml::Code build_dsdt(const AcpiConfig& config) {
  std::vector<Code> devices = {host_bridge(config), motherboard_resources(config)};
  for (const IsaDevice& row : kIsaDevices) devices.push_back(isa_device(row));
  for (uint32_t id = 0; id < config.vcpus; ++id) devices.push_back(processor(id));
  const Code sleep_type = aml::integer(acpi::kSleepTypeS5);
  const Code parts[] = {
      aml::name("_S5", aml::package({sleep_type, sleep_type, aml::integer(0), aml::integer(0)})),
      aml::scope("\\_SB", devices),
  };
  return aml::concatenate(parts);
}

}  // namespace tenon
