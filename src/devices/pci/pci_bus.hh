// PciBus: the functions of bus 0 and the INTx wires behind them.
//
// Source: PCI Local Bus Specification 3.0 section 2.2.6 (INTx is shared, level-sensitive, wired-OR).
// Threads: configuration accesses look a function up without a lock. add() and remove() happen before the VM starts or,
// for hotplug, on the main thread while vCPUs run; a removed function may be destroyed once every vCPU has stopped
// once.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "base/mutex.hh"
#include "base/result.hh"
#include "devices/pci/pci_function.hh"
#include "spec/pci.hh"
#include "vm/bus.hh"
#include "vm/irq_line.hh"
#include "vm/output_pin.hh"

namespace tenon {

class PciBus final : private IntxWire {
 public:
  /// All three outlive the bus. INTx arrives at `interrupts` as GSIs 16-23 (pci::intx_gsi).
  PciBus(Bus& ports, Bus& mmio, InterruptSink& interrupts);

  /// Puts `function` into `slot`; it outlives the bus or is removed first. kBusy names the slot where one is there.
  Result<void> add(pci::Slot slot, PciFunction& function);
  void remove(pci::Slot slot);

  /// nullptr where the slot is empty. Any thread.
  PciFunction* find(pci::Slot slot) const { return functions_[index(slot)].load(std::memory_order_acquire); }

 private:
  static size_t index(pci::Slot slot) { return size_t{slot.device} * pci::kFunctionCount + slot.function; }
  void set_intx(pci::Slot slot, pci::IntxPin pin, bool level) override;

  /// One GSI: how many functions assert it.
  struct Wire {
    Mutex mutex;
    uint32_t asserted TENON_GUARDED_BY(mutex) = 0;
    OutputPin pin;
  };

  Bus& ports_;
  Bus& mmio_;
  InterruptSink& interrupts_;
  std::array<std::atomic<PciFunction*>, size_t{pci::kDeviceCount} * pci::kFunctionCount> functions_{};
  std::array<Wire, pci::kIntxGsiCount> wires_;
};

}  // namespace tenon
