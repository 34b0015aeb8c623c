// InterruptChips: our own interrupt controllers, for engines that bring none: a local APIC a vCPU, one IOAPIC, the pair
// of 8259s, and the 8254 whose interrupt they share.
//
// It is also the router between global system interrupts and pins. ISA interrupts reach both controllers and the guest
// masks one of them. GSI 2 is the 8254: pin 2 of the IOAPIC, input 0 of the 8259 (the MADT's interrupt source
// override). Scaling: MSIs go straight to the APIC bus, without a lock here.
#pragma once

#include <memory>
#include <vector>

#include "base/result.hh"
#include "devices/chip/apic_bus.hh"
#include "devices/chip/i8254.hh"
#include "devices/chip/i8259.hh"
#include "devices/chip/io_apic.hh"
#include "devices/chip/local_apic.hh"
#include "vm/bus.hh"
#include "vm/clock.hh"
#include "vm/irq_line.hh"

namespace tenon {

class InterruptChips final : public InterruptSink {
 public:
  /// All outlive this object. `signals` has one entry a vCPU.
  InterruptChips(Clock& clock, std::vector<VcpuSignal>& signals, unsigned physical_address_bits);

  Result<void> map(Bus& ports, Bus& mmio);

  void set_gsi(Gsi gsi, bool level) override;
  void send_msi(const MsiMessage& message) override { apic_bus_.send_msi(message); }

  LocalApic& local_apic(VcpuId id) { return *local_apics_[number(id)]; }
  void enable_pv_eoi(GuestMemory& memory);

  /// Every chip, for lifecycle and saved state.
  std::vector<Device*> devices();
  /// What firmware would program after a reset: LINT0 of the bootstrap processor takes the 8259's interrupts, and where
  /// IDs do not fit in 8 bits all local APICs are in x2APIC mode (ACPI 6.4 5.2.12.12).
  void set_firmware_defaults();

 private:
  void update_timer_listening();

  ApicBus apic_bus_;
  std::vector<std::unique_ptr<LocalApic>> local_apics_;
  IoApic io_apic_;
  I8259Pair i8259_;
  I8254 i8254_;
};

}  // namespace tenon
