// PCI host bridge: the two ways to configuration space (ports 0xCF8/0xCFC and ECAM) and the bridge's own function 00.0.
//
// Source: PCI Local Bus Specification 3.0 section 3.2.2.3.2; PCI Express Base 4.0 section 7.2.2 (ECAM); Intel Q35 MCH
// data sheet (316966-002) 5.1 for identity and PCIEXBAR. Only bus 0 has devices; configuration reads of other buses and
// empty slots answer all ones (PCI 6.1).
//
// Not implemented: graphics, DRAM and PAM/SMRAM registers (their space reads 0), bridges to further buses.
// Deviation: there is no firmware to program PCIEXBAR, so it comes up with the ECAM window on at pci::kEcamBase.
#pragma once

#include <atomic>
#include <cstdint>

#include "devices/pci/pci_bus.hh"
#include "devices/pci/pci_function.hh"
#include "vm/bus.hh"
#include "vm/device.hh"

namespace tenon {

class PciHost final : public Device, private PciFunction {
 public:
  static constexpr pci::Slot kSlot{.device = 0, .function = 0};

  /// All outlive the host. `ports` and `mmio` are where BARs and ECAM appear.
  PciHost(Bus& ports, Bus& mmio, InterruptSink& interrupts);

  /// Claims ports 0xCF8-0xCFF and the ECAM window, and puts function 00.0 on the bus.
  Result<void> map();
  /// Byte accesses at port 0xCF9 go to `reset_control` (offset 0); before start.
  void set_reset_control(BusHandler& reset_control) { reset_control_ = &reset_control; }

  /// Where devices are added.
  PciBus& bus() { return bus_; }

  std::string_view name() const override { return "pci_host"; }
  void reset() override;
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

 private:
  /// Ports 0xCF8-0xCFF.
  class ConfigPorts final : public BusHandler {
   public:
    explicit ConfigPorts(PciHost& host) : host_(host) {}
    uint64_t bus_read(uint64_t offset, unsigned size_bytes) override;
    void bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) override;

   private:
    PciHost& host_;
  };
  /// The ECAM window.
  class Ecam final : public BusHandler {
   public:
    explicit Ecam(PciHost& host) : host_(host) {}
    uint64_t bus_read(uint64_t offset, unsigned size_bytes) override;
    void bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) override;

   private:
    PciHost& host_;
  };

  void on_config_written(unsigned offset, unsigned size_bytes) override;
  void update_ecam();
  uint64_t read_config(uint32_t bus, uint32_t device_function, unsigned offset, unsigned size_bytes) const;
  void write_config(uint32_t bus, uint32_t device_function, unsigned offset, unsigned size_bytes, uint64_t value);

  Bus& ports_;
  Bus& mmio_;
  PciBus bus_;

  // Guest-visible; any vCPU thread.
  std::atomic<uint32_t> config_address_{0};

  // Host glue.
  BusHandler* reset_control_ = nullptr;
  ConfigPorts config_ports_{*this};
  Ecam ecam_{*this};
  BusMapping ports_mapping_;
  Mutex ecam_mutex_;
  uint64_t ecam_register_ TENON_GUARDED_BY(ecam_mutex_) = 0;  // PCIEXBAR as mapped
  BusMapping ecam_mapping_ TENON_GUARDED_BY(ecam_mutex_);
};

}  // namespace tenon
