// TestFunction: the smallest complete PCI device, for tests and fuzzers. A memory BAR with one register, an I/O BAR,
// MSI-X, MSI and INTx. It shows what a device author writes.
#pragma once

#include <cstdint>

#include "devices/pci/pci_function.hh"
#include "vm/device.hh"

namespace tenon {

class TestFunction final : public Device, public PciFunction {
 public:
  static constexpr unsigned kVectors = 5;
  static constexpr unsigned kMemoryBar = 0, kIoBar = 2, kMsixBar = 4;
  static constexpr uint64_t kMemorySize = 0x4000, kIoSize = 32;

  TestFunction()
      : PciFunction({.vendor_id = 0x1234,
                     .device_id = 0x5678,
                     .class_code = 0xff0000,
                     .subsystem_vendor_id = 0x1af4,
                     .subsystem_id = 7,
                     .intx = pci::IntxPin::kA}) {
    add_bar(kMemoryBar, kMemorySize, BarKind::kMemory64, register_);
    add_bar(kIoBar, kIoSize, BarKind::kIo, register_);
    add_msix(kMsixBar, kVectors);
    add_msi(4);
  }

  using PciFunction::is_bus_master;
  using PciFunction::notify;
  using PciFunction::set_intx;

  /// The last value written through either BAR.
  uint64_t value() const { return register_.value; }

  std::string_view name() const override { return "test0"; }
  void reset() override { reset_config(); }
  SavedState save() const override { return {.schema = "test", .version = 1, .bytes = save_config()}; }
  Result<void> restore(const SavedState& state) override { return restore_config(state.bytes); }

 private:
  struct RegisterHandler final : BusHandler {
    uint64_t bus_read(uint64_t /*offset*/, unsigned /*size_bytes*/) override { return value; }
    void bus_write(uint64_t /*offset*/, unsigned /*size_bytes*/, uint64_t written) override { value = written; }
    std::atomic<uint64_t> value{0};
  };
  RegisterHandler register_;
};

}  // namespace tenon
