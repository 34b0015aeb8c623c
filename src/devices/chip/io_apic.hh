// I/O APIC: 24 pins, each with a redirection entry that turns it into a message on the APIC bus.
//
// Source: Intel 82093AA I/O APIC data sheet (290566-001), sections 3.0-3.2; version 0x20 and the EOI register as in the
// Intel ICH9 data sheet (316972-004) 13.5.
// The idea: pins and registers change under one lock and yield an Action, the messages to send; they are sent unlocked.
// A level-triggered entry sets remote IRR when it sends and sends again only after the EOI of its vector.
// Scaling: only legacy and INTx interrupts come here; devices with MSI bypass it, so its lock is not on their path.
//
// Not implemented: ExtINT through a pin (the 8259 is wired to LINT0), arbitration ID (reads as the ID).
// Deviation: a pin carries "asserted", not a voltage, so the polarity bit is stored but inverts nothing.
// Extension: bits 55:49 are destination ID bits 14:8, see spec/apic.hh.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "base/mutex.hh"
#include "devices/chip/apic_bus.hh"
#include "vm/bus.hh"
#include "vm/device.hh"

namespace tenon {

class IoApic final : public Device, public EoiListener, public BusHandler {
 public:
  static constexpr unsigned kPinCount = 24;

  /// `bus` outlives the device. Registers itself as the bus's EOI listener.
  explicit IoApic(ApicBus& bus);

  Result<void> map(Bus& mmio, uint64_t base = apic::kIoApicDefaultBase);

  /// Sets a pin; out-of-range pins are ignored. Any thread.
  void set_pin(unsigned pin, bool level);
  bool is_masked(unsigned pin) const;
  /// `listener` runs (any vCPU thread, no lock held) after a guest write that may have changed a mask bit. Before
  /// start.
  void set_mask_listener(std::function<void()> listener) { mask_listener_ = std::move(listener); }

  void end_of_interrupt(uint8_t vector) override;

  /// The register window for tests and callers with their own decoding.
  uint64_t bus_read(uint64_t offset, unsigned size_bytes) override;
  void bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) override;

  std::string_view name() const override { return "ioapic"; }
  void reset() override;
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

 private:
  /// Messages to send once the lock is released.
  struct Action {
    struct Send {
      ApicMessage message;
      unsigned pin = 0;
    };
    std::array<Send, kPinCount> sends;
    unsigned count = 0;
  };

  void set_pin_locked(unsigned pin, bool level, Action& action) TENON_REQUIRES(mutex_);
  void evaluate_level(unsigned pin, Action& action) TENON_REQUIRES(mutex_);
  void queue(unsigned pin, Action& action) TENON_REQUIRES(mutex_);
  uint32_t read_indirect() const TENON_REQUIRES(mutex_);
  void write_indirect(uint32_t value, Action& action) TENON_REQUIRES(mutex_);
  void write_entry(unsigned pin, bool is_high, uint32_t value, Action& action) TENON_REQUIRES(mutex_);
  void perform(const Action& action);

  ApicBus& bus_;

  // Guest-visible; vCPU threads and device threads under mutex_.
  mutable Mutex mutex_;
  std::array<uint64_t, kPinCount> entries_ TENON_GUARDED_BY(mutex_);
  uint32_t levels_ TENON_GUARDED_BY(mutex_) = 0;  // bit n: pin n is asserted
  uint8_t select_ TENON_GUARDED_BY(mutex_) = 0;
  uint8_t id_ TENON_GUARDED_BY(mutex_) = 0;

  // Host glue.
  std::function<void()> mask_listener_;
  BusMapping mapping_;
};

}  // namespace tenon
