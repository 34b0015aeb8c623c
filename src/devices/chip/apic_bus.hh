// ApicBus: carries interrupt messages between I/O APICs, message-signalling devices and local APICs.
//
// Source: Intel SDM Vol. 3 11.6 (issuing interprocessor interrupts), 11.11 (MSI), 11.12.10 (x2APIC logical
// destinations). Addressing: an IPI in x2APIC mode carries a 32-bit destination. MSI and I/O APIC entries carry 8 bits,
// or 15 with the extended destination ID (spec/apic.hh), so devices reach APIC IDs 0-32767; beyond that interrupt
// remapping is needed.
//
// Threads: any thread may deliver; no lock is taken. attach() happens before the VM starts or when a vCPU is added.
// Scaling: a physical destination is one array access. An x2APIC logical destination visits at most 16 array slots.
// Only broadcasts and xAPIC logical destinations (flat and cluster model, where LDR is software's choice) visit every
// vCPU.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "spec/apic.hh"
#include "vm/irq_line.hh"

namespace tenon {

class LocalApic;

/// One message on the bus. `destination` is as wide as its source allows.
struct ApicMessage {
  uint32_t destination = 0;
  apic::DestinationMode destination_mode = apic::DestinationMode::kPhysical;
  apic::DeliveryMode delivery_mode = apic::DeliveryMode::kFixed;
  uint8_t vector = 0;
  bool is_level = false;
  /// Where it comes from: an 8-bit 0xff from a device or an xAPIC is a broadcast even to APICs in x2APIC mode.
  enum class Source : uint8_t { kDevice, kXapicIpi, kX2apicIpi } source = Source::kDevice;
};

/// Told about the EOI of a level-triggered vector (SDM Vol. 3 11.8.5). Any vCPU thread, no lock held.
class EoiListener {
 public:
  virtual ~EoiListener() = default;
  virtual void end_of_interrupt(uint8_t vector) = 0;
};

class ApicBus {
 public:
  /// Room for APIC IDs 0 to `apic_count_max` - 1.
  explicit ApicBus(uint32_t apic_count_max);
  ApicBus(const ApicBus&) = delete;
  ApicBus& operator=(const ApicBus&) = delete;

  /// `apic` outlives the bus's last message; its ID is below apic_count_max and not taken.
  void attach(LocalApic& apic);
  /// The one listener (our IOAPIC); before the VM starts.
  void set_eoi_listener(EoiListener& listener) { eoi_listener_ = &listener; }

  /// Delivers to every APIC that accepts it. Returns false where no APIC was addressed.
  bool deliver(const ApicMessage& message);
  /// To all attached APICs; `except` (or nullptr) is left out. For ICR shorthands.
  void deliver_all(const ApicMessage& message, const LocalApic* except);
  /// A device's MSI: decodes address and data (both guest-controlled). A message that is not an interrupt is dropped.
  void send_msi(const MsiMessage& message);
  void broadcast_eoi(uint8_t vector) {
    if (eoi_listener_ != nullptr) eoi_listener_->end_of_interrupt(vector);
  }

 private:
  LocalApic* at(uint32_t id) const { return id < count_max_ ? slots_[id].load(std::memory_order_acquire) : nullptr; }
  /// Calls `visit(LocalApic&)` for every APIC that `message` addresses.
  template <typename Visit>
  void for_each_target(const ApicMessage& message, Visit&& visit) const;
  LocalApic* lowest_priority(const ApicMessage& message) const;

  const uint32_t count_max_;
  std::unique_ptr<std::atomic<LocalApic*>[]> slots_;  // by APIC ID
  std::atomic<uint32_t> id_end_{0};                   // one more than the highest attached ID
  EoiListener* eoi_listener_ = nullptr;
};

}  // namespace tenon
