#include "devices/pci/pci_bus.hh"

#include <string>

#include "base/check.hh"

namespace tenon {

PciBus::PciBus(Bus& ports, Bus& mmio, InterruptSink& interrupts) : ports_(ports), mmio_(mmio), interrupts_(interrupts) {
  for (uint32_t i = 0; i < pci::kIntxGsiCount; ++i) {
    const IrqLine line(interrupts_, Gsi{pci::kIntxGsiFirst + i});
    wires_[i].pin.connect([line](bool level) { line.set(level); });
  }
}

Result<void> PciBus::add(pci::Slot slot, PciFunction& function) {
  CHECK(slot.device < pci::kDeviceCount);
  CHECK(slot.function < pci::kFunctionCount);
  if (find(slot) != nullptr)
    return fail(ErrorCode::kBusy, "PCI slot 00:" + std::to_string(slot.device) + "." + std::to_string(slot.function) +
                                      " has a function already");
  function.connect({.ports = &ports_, .mmio = &mmio_, .interrupts = &interrupts_, .wire = this, .slot = slot});
  functions_[index(slot)].store(&function, std::memory_order_release);
  return {};
}

void PciBus::remove(pci::Slot slot) {
  PciFunction* function = functions_[index(slot)].exchange(nullptr, std::memory_order_acq_rel);
  if (function != nullptr) function->disconnect();
}

/// Each function calls once a change, in order, so counting them is enough.
void PciBus::set_intx(pci::Slot slot, pci::IntxPin pin, bool level) {
  if (pin == pci::IntxPin::kNone) return;
  Wire& wire = wires_[pci::intx_gsi(slot.device, pin) - pci::kIntxGsiFirst];
  {
    const MutexLock lock(wire.mutex);
    wire.asserted += level ? 1 : -1;
    wire.pin.note(wire.asserted != 0);
  }
  wire.pin.publish();
}

}  // namespace tenon
