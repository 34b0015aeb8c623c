#include "devices/chip/io_apic.hh"

#include "base/bits.hh"
#include "base/byte_order.hh"

namespace tenon {
namespace {

using apic::DeliveryMode;
using apic::DestinationMode;

// Directly mapped registers, 82093AA 3.1; EOI: ICH9 13.5.3.
constexpr uint64_t kWindowSize = 0x1000;
constexpr uint64_t kIoRegSel = 0x00;
constexpr uint64_t kIoWin = 0x10;
constexpr uint64_t kEoi = 0x40;

// Registers behind IOREGSEL, 82093AA 3.2.
constexpr uint8_t kIoApicId = 0x00;
constexpr uint8_t kIoApicVer = 0x01;
constexpr uint8_t kIoApicArb = 0x02;
constexpr uint8_t kIoRedTbl = 0x10;
constexpr uint32_t kVersionValue = 0x20 | (IoApic::kPinCount - 1) << 16;

// IOREDTBL, 82093AA 3.2.4.
using Vector = Bits<7, 0>;
using Mode = Bits<10, 8>;
using Logical = Bit<11>;
using RemoteIrr = Bit<14>;
using Level = Bit<15>;
using Masked = Bit<16>;
using ExtendedDestination = Bits<55, 49>;
using Destination = Bits<63, 56>;
constexpr uint64_t kWritable = 0xfffe'0000'0001'afff;  // not delivery status (12) and remote IRR (14)

using IdField = Bits<27, 24>;

constexpr std::string_view kSchema = "ioapic";
constexpr uint32_t kVersion = 1;

struct IoApicV1 {
  le64 entries[IoApic::kPinCount];  // 0
  le32 levels;                      // 192
  uint8_t select;                   // 196
  uint8_t id;                       // 197
};
static_assert(sizeof(IoApicV1) == 198);

/// Only fixed and lowest-priority entries are answered by an EOI, so only they can be level-triggered (82093AA 3.2.4).
bool is_level_triggered(uint64_t entry) {
  const auto mode = static_cast<DeliveryMode>(Mode::get(entry));
  return Level::test(entry) && (mode == DeliveryMode::kFixed || mode == DeliveryMode::kLowestPriority);
}

}  // namespace

IoApic::IoApic(ApicBus& bus) : bus_(bus) {
  bus_.set_eoi_listener(*this);
  reset();
}

Result<void> IoApic::map(Bus& mmio, uint64_t base) {
  mapping_ = TRY(mmio.map(base, kWindowSize, *this, "ioapic"));
  return {};
}

// Pins and messages.

void IoApic::set_pin(unsigned pin, bool level) {
  if (pin >= kPinCount) return;
  Action action;
  {
    const MutexLock lock(mutex_);
    set_pin_locked(pin, level, action);
  }
  perform(action);
}

void IoApic::set_pin_locked(unsigned pin, bool level, Action& action) {
  const bool was_high = (levels_ >> pin & 1) != 0;
  if (was_high == level) return;
  levels_ ^= 1u << pin;
  if (!level) return;
  if (is_level_triggered(entries_[pin])) return evaluate_level(pin, action);
  // 82093AA 3.2.4, "Interrupt Mask": an edge on a masked pin is ignored, not held.
  if (!Masked::test(entries_[pin])) queue(pin, action);
}

void IoApic::evaluate_level(unsigned pin, Action& action) {
  uint64_t& entry = entries_[pin];
  const bool is_asserted = (levels_ >> pin & 1) != 0;
  if (!is_asserted || !is_level_triggered(entry) || Masked::test(entry) || RemoteIrr::test(entry)) return;
  entry = RemoteIrr::set(entry, 1);
  queue(pin, action);
}

void IoApic::queue(unsigned pin, Action& action) {
  const uint64_t entry = entries_[pin];
  ApicMessage message;
  message.destination = static_cast<uint32_t>(Destination::get(entry) | ExtendedDestination::get(entry) << 8);
  message.destination_mode = Logical::test(entry) ? DestinationMode::kLogical : DestinationMode::kPhysical;
  message.delivery_mode = static_cast<DeliveryMode>(Mode::get(entry));
  message.vector = static_cast<uint8_t>(Vector::get(entry));
  message.is_level = is_level_triggered(entry);
  action.sends[action.count++] = {.message = message, .pin = pin};
}

void IoApic::perform(const Action& action) {
  for (unsigned i = 0; i < action.count; ++i) {
    const Action::Send& send = action.sends[i];
    if (bus_.deliver(send.message) || !send.message.is_level) continue;
    // Nobody took it, so no EOI will come: the entry may try again when its pin or mask changes next.
    const MutexLock lock(mutex_);
    entries_[send.pin] = RemoteIrr::set(entries_[send.pin], 0);
  }
}

/// From a local APIC's EOI broadcast or the EOI register: entries of that vector may send again (SDM Vol. 3 11.8.5).
void IoApic::end_of_interrupt(uint8_t vector) {
  Action action;
  {
    const MutexLock lock(mutex_);
    for (unsigned pin = 0; pin < kPinCount; ++pin) {
      uint64_t& entry = entries_[pin];
      if (Vector::get(entry) != vector || !RemoteIrr::test(entry)) continue;
      entry = RemoteIrr::set(entry, 0);
      evaluate_level(pin, action);
    }
  }
  perform(action);
}

bool IoApic::is_masked(unsigned pin) const {
  const MutexLock lock(mutex_);
  return pin >= kPinCount || Masked::test(entries_[pin]);
}

// Registers.

uint64_t IoApic::bus_read(uint64_t offset, unsigned size_bytes) {
  const MutexLock lock(mutex_);
  uint64_t value = 0;
  if (offset / 4 == kIoRegSel / 4) value = select_;
  if (offset / 4 == kIoWin / 4) value = read_indirect();
  value >>= 8 * (offset % 4);
  return size_bytes >= 4 ? value : value & ((uint64_t{1} << 8 * size_bytes) - 1);
}

void IoApic::bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) {
  if (offset == kIoRegSel) {
    const MutexLock lock(mutex_);
    select_ = static_cast<uint8_t>(value);
    return;
  }
  if (offset == kEoi) return end_of_interrupt(static_cast<uint8_t>(value));
  // 82093AA 3.1: IOWIN is accessed as 32 bits; anything else is ignored.
  if (offset != kIoWin || size_bytes < 4) return;
  Action action;
  {
    const MutexLock lock(mutex_);
    write_indirect(static_cast<uint32_t>(value), action);
  }
  perform(action);
  if (mask_listener_) mask_listener_();
}

uint32_t IoApic::read_indirect() const {
  if (select_ == kIoApicId || select_ == kIoApicArb) return static_cast<uint32_t>(IdField::make(id_));
  if (select_ == kIoApicVer) return kVersionValue;
  const unsigned index = select_ - kIoRedTbl;
  if (select_ < kIoRedTbl || index / 2 >= kPinCount) return 0xffffffff;  // reserved
  return static_cast<uint32_t>(entries_[index / 2] >> (index % 2 * 32));
}

void IoApic::write_indirect(uint32_t value, Action& action) {
  if (select_ == kIoApicId) id_ = static_cast<uint8_t>(IdField::get(value));
  const unsigned index = select_ - kIoRedTbl;
  if (select_ < kIoRedTbl || index / 2 >= kPinCount) return;
  write_entry(index / 2, index % 2 != 0, value, action);
}

void IoApic::write_entry(unsigned pin, bool is_high, uint32_t value, Action& action) {
  uint64_t& entry = entries_[pin];
  const unsigned shift = is_high ? 32 : 0;
  const uint64_t mask = kWritable & (uint64_t{0xffffffff} << shift);
  entry = (entry & ~mask) | (uint64_t{value} << shift & mask);
  // Remote IRR means nothing for an edge-triggered entry; drivers of controllers without EOI register clear it so.
  if (!is_level_triggered(entry)) entry = RemoteIrr::set(entry, 0);
  evaluate_level(pin, action);
}

// Reset and state.

void IoApic::reset() {
  const MutexLock lock(mutex_);
  entries_.fill(Masked::make(1));  // 82093AA 3.2.4: all masked
  select_ = 0;
  id_ = 0;
}

SavedState IoApic::save() const {
  const MutexLock lock(mutex_);
  IoApicV1 wire{};
  for (unsigned pin = 0; pin < kPinCount; ++pin) wire.entries[pin] = entries_[pin];
  wire.levels = levels_;
  wire.select = select_;
  wire.id = id_;
  return save_wire(std::string(kSchema), kVersion, wire);
}

Result<void> IoApic::restore(const SavedState& state) {
  const auto wire = TRY(load_wire_state<IoApicV1>(state, kSchema, kVersion));
  using Rule = SavedField::Rule;
  TRY(check_saved_fields(
      kSchema, {{"levels", wire.levels, (1u << kPinCount) - 1, Rule::kOnlyBits}, {"id", wire.id, IdField::kMax}}));
  for (const uint64_t entry : wire.entries) {
    const uint64_t allowed = kWritable | (is_level_triggered(entry) ? RemoteIrr::kMask : 0);
    TRY(check_saved_fields(kSchema, {{"redirection entry", entry, allowed, Rule::kOnlyBits}}));
  }
  const MutexLock lock(mutex_);
  for (unsigned pin = 0; pin < kPinCount; ++pin) entries_[pin] = wire.entries[pin];
  levels_ = wire.levels;
  select_ = wire.select;
  id_ = wire.id;
  return {};
}

}  // namespace tenon
