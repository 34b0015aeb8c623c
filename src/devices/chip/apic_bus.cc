#include "devices/chip/apic_bus.hh"

#include <bit>

#include "base/check.hh"
#include "devices/chip/local_apic.hh"

namespace tenon {

using apic::DeliveryMode;
using apic::DestinationMode;

ApicBus::ApicBus(uint32_t apic_count_max)
    : count_max_(apic_count_max), slots_(std::make_unique<std::atomic<LocalApic*>[]>(apic_count_max)) {}

void ApicBus::attach(LocalApic& apic) {
  CHECK(apic.id() < count_max_);
  CHECK(slots_[apic.id()].load() == nullptr);
  slots_[apic.id()].store(&apic, std::memory_order_release);
  uint32_t end = id_end_.load();
  while (end <= apic.id() && !id_end_.compare_exchange_weak(end, apic.id() + 1)) {
  }
}

template <typename Visit>
void ApicBus::for_each_target(const ApicMessage& message, Visit&& visit) const {
  const auto visit_id = [&](uint32_t id) {
    LocalApic* apic = at(id);
    if (apic != nullptr && apic->is_enabled()) visit(*apic);
  };
  const uint32_t end = id_end_.load(std::memory_order_acquire);
  const bool is_x2apic = message.source == ApicMessage::Source::kX2apicIpi;
  // SDM Vol. 3 11.6.2.1 and 11.12.9: all ones is everybody in either destination mode.
  const uint32_t broadcast = is_x2apic ? apic::kX2apicBroadcast : apic::kXapicBroadcast;
  if (message.destination == broadcast) {
    for (uint32_t id = 0; id < end; ++id) visit_id(id);
    return;
  }
  if (message.destination_mode == DestinationMode::kPhysical) return visit_id(message.destination);

  // SDM Vol. 3 11.12.10.2: cluster and bit of an x2APIC logical ID are the APIC ID itself.
  const uint32_t cluster = message.destination >> 16;
  for (uint32_t bits = message.destination & 0xffff; bits != 0; bits &= bits - 1) {
    LocalApic* apic = at(cluster * 16 + static_cast<uint32_t>(std::countr_zero(bits)));
    if (apic != nullptr && apic->is_enabled() && apic->is_x2apic()) visit(*apic);
  }
  // SDM Vol. 3 11.6.2.2: in xAPIC mode, software chose every LDR, so each has to be asked.
  if (message.destination > 0xff) return;
  for (uint32_t id = 0; id < end; ++id) {
    LocalApic* apic = at(id);
    if (apic != nullptr && apic->is_enabled() && !apic->is_x2apic() && apic->matches_logical(message.destination))
      visit(*apic);
  }
}

/// SDM Vol. 3 11.6.2.4: the addressed processor with the lowest priority; among equals the vector chooses, so that one
/// source stays on one processor and different sources spread.
LocalApic* ApicBus::lowest_priority(const ApicMessage& message) const {
  unsigned lowest = 0x100;
  unsigned equals = 0;
  for_each_target(message, [&](LocalApic& apic) {
    if (!apic.is_software_enabled()) return;
    const unsigned priority = apic.arbitration_priority() >> 4;
    equals = priority < lowest ? 1 : equals + (priority == lowest ? 1 : 0);
    if (priority < lowest) lowest = priority;
  });
  if (equals == 0) return nullptr;
  // Priorities may change between the two visits: then the last match seen is as good a choice.
  unsigned skip = message.vector % equals;
  bool is_found = false;
  LocalApic* chosen = nullptr;
  for_each_target(message, [&](LocalApic& apic) {
    if (is_found || !apic.is_software_enabled()) return;
    if (apic.arbitration_priority() >> 4 > lowest && chosen != nullptr) return;
    chosen = &apic;
    is_found = apic.arbitration_priority() >> 4 <= lowest && skip-- == 0;
  });
  return chosen;
}

bool ApicBus::deliver(const ApicMessage& message) {
  if (message.delivery_mode == DeliveryMode::kLowestPriority) {
    LocalApic* target = lowest_priority(message);
    if (target != nullptr) target->accept(message);
    return target != nullptr;
  }
  bool is_delivered = false;
  for_each_target(message, [&](LocalApic& apic) {
    apic.accept(message);
    is_delivered = true;
  });
  return is_delivered;
}

void ApicBus::deliver_all(const ApicMessage& message, const LocalApic* except) {
  const uint32_t end = id_end_.load(std::memory_order_acquire);
  for (uint32_t id = 0; id < end; ++id) {
    LocalApic* apic = at(id);
    if (apic != nullptr && apic != except && apic->is_enabled()) apic->accept(message);
  }
}

void ApicBus::send_msi(const MsiMessage& message) {
  using namespace apic::msi;
  if (AddressPrefix::get(message.address) != AddressPrefix::get(kAddressBase)) return;
  const bool is_level = DataLevel::test(message.data);
  if (is_level && !DataAssert::test(message.data)) return;  // SDM Vol. 3 11.11.2: a deassert message; nothing to undo
  ApicMessage out;
  out.destination = static_cast<uint32_t>(AddressDestination::get(message.address) |
                                          AddressExtendedDestination::get(message.address) << 8);
  out.destination_mode = AddressLogical::test(message.address) ? DestinationMode::kLogical : DestinationMode::kPhysical;
  out.delivery_mode = static_cast<DeliveryMode>(DataDeliveryMode::get(message.data));
  // SDM Vol. 3 11.11.1: the redirection hint asks for the lowest-priority processor of the addressed ones.
  if (AddressRedirectionHint::test(message.address) && out.delivery_mode == DeliveryMode::kFixed)
    out.delivery_mode = DeliveryMode::kLowestPriority;
  out.vector = static_cast<uint8_t>(DataVector::get(message.data));
  out.is_level = is_level;
  deliver(out);
}

}  // namespace tenon
