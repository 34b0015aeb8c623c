// Interrupt wiring as a device sees it: a level on a pin, or a message. Who listens (our IOAPIC and 8259, or KVM's) is
// the board's business.
#pragma once

#include <cstdint>

#include "vm/address.hh"

namespace tenon {

/// A message-signalled interrupt as the device writes it (SDM Vol. 3 11.11: address 0xFEExxxxx and data).
struct MsiMessage {
  uint64_t address = 0;
  uint32_t data = 0;
};

/// Takes interrupts from devices. Any thread may call, also while a vCPU runs; must not be called under a device's
/// lock.
class InterruptSink {
 public:
  virtual ~InterruptSink() = default;
  /// Sets the level of a global system interrupt. An edge is a set to high followed by a set to low.
  virtual void set_gsi(Gsi gsi, bool level) = 0;
  /// Guest-controlled address and data; a message to nowhere is dropped.
  virtual void send_msi(const MsiMessage& message) = 0;
};

/// One device's end of one interrupt pin. A default-made line is not connected.
class IrqLine {
 public:
  IrqLine() = default;
  IrqLine(InterruptSink& sink, Gsi gsi) : sink_(&sink), gsi_(gsi) {}
  void set(bool level) const {
    if (sink_ != nullptr) sink_->set_gsi(gsi_, level);
  }
  void pulse() const {
    set(true);
    set(false);
  }

 private:
  InterruptSink* sink_ = nullptr;
  Gsi gsi_{};
};

}  // namespace tenon
