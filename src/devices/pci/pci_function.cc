#include "devices/pci/pci_function.hh"

#include <algorithm>

#include "base/bits.hh"
#include "base/byte_order.hh"
#include "base/check.hh"

namespace tenon {
namespace {

using namespace pci;  // the specification's register names

constexpr unsigned bar_offset(unsigned index) { return kBar0 + 4 * index; }
bool is_64_bit(BarKind kind) { return kind == BarKind::kMemory64 || kind == BarKind::kMemory64Prefetchable; }

uint32_t bar_type_bits(BarKind kind) {
  switch (kind) {
    case BarKind::kIo: return kBarIo;
    case BarKind::kMemory32: return 0;
    case BarKind::kMemory64: return kBarMemory64;
    case BarKind::kMemory64Prefetchable: return kBarMemory64 | kBarPrefetchable;
  }
  return 0;
}

/// Saved form: configuration space, then a record for each MSI-X vector.
struct SavedMsixVector {
  le64 address;        // 0
  le64 data_control;   // 8
  uint8_t is_pending;  // 16
};
static_assert(sizeof(SavedMsixVector) == 17);

}  // namespace

// Declaration.

PciFunction::PciFunction(const PciIdentity& identity) : identity_(identity) {
  config_.set(kVendorId, 2, identity.vendor_id);
  config_.set(kDeviceId, 2, identity.device_id);
  config_.set(kRevision, 1, identity.revision);
  config_.set(kClassCode, 3, identity.class_code);
  config_.set(kHeaderType, 1, identity.is_multi_function ? kHeaderMultiFunction : 0);
  config_.set(kSubsystemVendorId, 2, identity.subsystem_vendor_id);
  config_.set(kSubsystemId, 2, identity.subsystem_id);
  config_.set(kInterruptPin, 1, static_cast<uint8_t>(identity.intx));
  config_.set_writable(kCommand, 2, kCommandWritable);
  config_.set_write_one_to_clear(kStatus, 2, 0xf900);  // PCI 6.2.3: the error bits; we never set one
  config_.set_writable(kCacheLineSize, 1, 0xff);
  config_.set_writable(kInterruptLine, 1, 0xff);
}

void PciFunction::add_bar(unsigned index, uint64_t size_bytes, BarKind kind, BusHandler& handler) {
  CHECK(is_power_of_two(size_bytes));
  CHECK(size_bytes >= (kind == BarKind::kIo ? 4u : 16u));
  CHECK(index + (is_64_bit(kind) ? 2 : 1) <= kBarCount);
  CHECK(bars_[index].size_bytes == 0);
  Bar& bar = bars_[index];
  bar.size_bytes = size_bytes;
  bar.kind = kind;
  bar.handler = &handler;
  // PCI 6.2.5.1: the bits below the size are read-only zero, which is how software finds the size.
  const uint64_t writable = ~(size_bytes - 1);
  config_.set(bar_offset(index), 4, bar_type_bits(kind));
  config_.set_writable(bar_offset(index), 4, writable & 0xffffffff);
  if (is_64_bit(kind)) config_.set_writable(bar_offset(index + 1), 4, writable >> 32);
}

unsigned PciFunction::add_capability(uint8_t id, unsigned size_bytes) {
  const unsigned offset = next_capability_;
  CHECK(offset + size_bytes <= kLegacyConfigSize);
  next_capability_ = static_cast<unsigned>(align_up(offset + size_bytes, 4));
  config_.set(offset, 1, id);
  // PCI 6.7: the list starts at the Capabilities Pointer; each entry points to the next.
  config_.set(last_capability_ == 0 ? kCapabilities : last_capability_ + 1, 1, offset);
  config_.set(kStatus, 2, config_.get(kStatus, 2) | StatusCapabilities::kMask);
  last_capability_ = offset;
  return offset;
}

void PciFunction::add_msix(unsigned bar, unsigned vector_count) {
  msix_ = std::make_unique<MsixTable>(vector_count);
  add_bar(bar, msix_->size_bytes(), BarKind::kMemory64, *msix_);
  msix_offset_ = add_capability(kCapabilityMsix, msix::kSize);
  config_.set(msix_offset_ + msix::kControl, 2, msix::ControlTableSize::make(vector_count - 1));
  config_.set_writable(msix_offset_ + msix::kControl, 2, msix::ControlEnable::kMask | msix::ControlFunctionMask::kMask);
  config_.set(msix_offset_ + msix::kTable, 4, bar);
  config_.set(msix_offset_ + msix::kPendingArray, 4, msix_->pending_offset() | bar);
}

void PciFunction::add_msi(unsigned vector_count) {
  CHECK(is_power_of_two(vector_count));
  CHECK(vector_count <= 32);
  msi_vectors_ = vector_count;
  msi_offset_ = add_capability(kCapabilityMsi, msi::kSize);
  const auto log2 = static_cast<uint64_t>(__builtin_ctz(vector_count));
  config_.set(msi_offset_ + msi::kControl, 2,
              msi::ControlCapable::make(log2) | msi::Control64Bit::kMask | msi::ControlMasks::kMask);
  config_.set_writable(msi_offset_ + msi::kControl, 2, msi::ControlEnable::kMask | msi::ControlEnabled::kMask);
  config_.set_writable(msi_offset_ + msi::kAddressLow, 4, 0xfffffffc);
  config_.set_writable(msi_offset_ + msi::kAddressHigh, 4, 0xffffffff);
  config_.set_writable(msi_offset_ + msi::kData, 2, 0xffff);
  const uint64_t vectors = vector_count == 32 ? 0xffffffff : (uint64_t{1} << vector_count) - 1;
  config_.set_writable(msi_offset_ + msi::kMask, 4, vectors);
}

void PciFunction::connect(const Connection& connection) {
  connection_ = connection;
  if (msix_ != nullptr && connection.interrupts != nullptr) msix_->connect(*connection.interrupts);
  intx_pin_.connect([this](bool level) {
    if (connection_.wire != nullptr) connection_.wire->set_intx(connection_.slot, identity_.intx, level);
  });
  const MutexLock lock(mutex_);
  std::ranges::copy(config_.bytes(), initial_config_.begin());
}

void PciFunction::disconnect() {
  {
    const MutexLock lock(mutex_);
    for (Bar& bar : bars_) {
      bar.mapping.reset();
      bar.is_mapped = false;
    }
    intx_pin_.note(false);
  }
  intx_pin_.publish();
}

// Configuration accesses.

uint16_t PciFunction::command() const { return static_cast<uint16_t>(config_.get(kCommand, 2)); }

uint64_t PciFunction::config_value(unsigned offset, unsigned size_bytes) const {
  const MutexLock lock(mutex_);
  return config_.get(offset, size_bytes);
}

uint64_t PciFunction::config_read(unsigned offset, unsigned size_bytes) {
  const MutexLock lock(mutex_);
  return config_.read(offset, size_bytes);
}

void PciFunction::config_write(unsigned offset, unsigned size_bytes, uint64_t value) {
  {
    const MutexLock lock(mutex_);
    config_.write(offset, size_bytes, value);
  }
  apply();
  on_config_written(offset, size_bytes);
}

void PciFunction::apply() {
  std::vector<MsiMessage> messages;
  bool is_msix_enabled = false;
  bool is_msix_masked = false;
  {
    const MutexLock lock(mutex_);
    update_bars();
    // PCI 6.2.2: a function that is not bus master sends no messages; they stay pending.
    const bool is_master = CommandBusMaster::test(command());
    is_bus_master_.store(is_master);
    if (msix_offset_ != 0) {
      const uint64_t control = config_.get(msix_offset_ + msix::kControl, 2);
      is_msix_enabled = msix::ControlEnable::test(control);
      is_msix_masked = msix::ControlFunctionMask::test(control) || !is_master;
    }
    update_intx();
    messages = take_unmasked_msi();
  }
  intx_pin_.publish();
  if (msix_ != nullptr) msix_->set_state(is_msix_enabled, is_msix_masked);
  for (const MsiMessage& message : messages) connection_.interrupts->send_msi(message);
}

// BARs (PCI 6.2.5.1).

uint64_t PciFunction::bar_base(unsigned index) const {
  const uint64_t low = config_.get(bar_offset(index), 4);
  const uint64_t high = is_64_bit(bars_[index].kind) ? config_.get(bar_offset(index + 1), 4) : 0;
  return (high << 32 | low) & ~(bars_[index].size_bytes - 1);
}

void PciFunction::update_bars() {
  for (unsigned i = 0; i < kBarCount; ++i)
    if (bars_[i].size_bytes != 0) update_bar(i);
}

void PciFunction::update_bar(unsigned index) {
  Bar& bar = bars_[index];
  const bool is_io = bar.kind == BarKind::kIo;
  const bool decodes = is_io ? CommandIo::test(command()) : CommandMemory::test(command());
  const uint64_t base = bar_base(index);
  const uint64_t limit = is_io ? 0x10000 : ~uint64_t{0};
  // Base 0 is "not assigned"; a range that wraps or leaves the space is what sizing leaves behind.
  const bool is_wanted = decodes && base != 0 && base <= limit - bar.size_bytes;
  if (is_wanted && bar.is_mapped && bar.base == base) return;
  bar.mapping.reset();
  bar.is_mapped = false;
  Bus* bus = is_io ? connection_.ports : connection_.mmio;
  if (!is_wanted || bus == nullptr) return;
  auto mapping = bus->map(base, bar.size_bytes, *bar.handler, "pci bar " + std::to_string(index));
  if (!mapping) return;  // something else is there: the guest's doing, so this BAR does not answer
  bar.mapping = std::move(*mapping);
  bar.is_mapped = true;
  bar.base = base;
}

// Interrupts.

bool PciFunction::is_msi_enabled() const {
  return msi_offset_ != 0 && msi::ControlEnable::test(config_.get(msi_offset_ + msi::kControl, 2));
}

/// The message of MSI vector `vector`, or nothing where it is masked and now pending (PCI 6.8.1.7, 6.8.1.8).
std::optional<MsiMessage> PciFunction::take_msi(unsigned vector) {
  const uint64_t control = config_.get(msi_offset_ + msi::kControl, 2);
  const auto enabled_log2 = std::min(static_cast<unsigned>(msi::ControlEnabled::get(control)),
                                     static_cast<unsigned>(__builtin_ctz(msi_vectors_)));
  const uint32_t enabled = 1u << enabled_log2;
  vector &= enabled - 1;  // 6.8.1.3: with fewer vectors granted than asked for, several events share one
  const uint64_t bit = uint64_t{1} << vector;
  const uint64_t pending = config_.get(msi_offset_ + msi::kPending, 4);
  const bool is_masked = (config_.get(msi_offset_ + msi::kMask, 4) & bit) != 0 || !CommandBusMaster::test(command());
  if (is_masked) {
    config_.set(msi_offset_ + msi::kPending, 4, pending | bit);
    return std::nullopt;
  }
  config_.set(msi_offset_ + msi::kPending, 4, pending & ~bit);
  const uint64_t data = config_.get(msi_offset_ + msi::kData, 2);
  return MsiMessage{.address = config_.get(msi_offset_ + msi::kAddressLow, 8),
                    .data = static_cast<uint32_t>((data & ~uint64_t{enabled - 1}) | vector)};
}

std::vector<MsiMessage> PciFunction::take_unmasked_msi() {
  std::vector<MsiMessage> messages;
  if (!is_msi_enabled() || connection_.interrupts == nullptr) return messages;
  const uint64_t pending = config_.get(msi_offset_ + msi::kPending, 4);
  for (unsigned vector = 0; vector < msi_vectors_; ++vector) {
    if ((pending >> vector & 1) == 0) continue;
    if (const auto message = take_msi(vector)) messages.push_back(*message);
  }
  return messages;
}

bool PciFunction::notify(unsigned vector) {
  if (msix_ != nullptr && msix_->is_enabled()) {
    msix_->notify(vector);
    return true;
  }
  std::optional<MsiMessage> message;
  {
    const MutexLock lock(mutex_);
    if (!is_msi_enabled()) return false;
    message = take_msi(vector);
  }
  if (message && connection_.interrupts != nullptr) connection_.interrupts->send_msi(*message);
  return true;
}

void PciFunction::set_intx(bool level) {
  {
    const MutexLock lock(mutex_);
    intx_level_ = level;
    update_intx();
  }
  intx_pin_.publish();
}

void PciFunction::update_intx() {
  // PCI 6.2.3: Interrupt Status shows the wish, 6.2.2 Interrupt Disable and 6.8.1 MSI keep it from the wire.
  const uint64_t status = config_.get(kStatus, 2);
  config_.set(kStatus, 2, StatusInterrupt::set(static_cast<uint16_t>(status), intx_level_ ? 1 : 0));
  const bool is_msix_enabled =
      msix_offset_ != 0 && msix::ControlEnable::test(config_.get(msix_offset_ + msix::kControl, 2));
  const bool is_blocked = CommandIntxDisable::test(command()) || is_msi_enabled() || is_msix_enabled;
  intx_pin_.note(intx_level_ && !is_blocked && identity_.intx != IntxPin::kNone);
}

// Reset and state.

void PciFunction::reset_config() {
  {
    const MutexLock lock(mutex_);
    config_.assign(initial_config_);
    intx_level_ = false;
  }
  if (msix_ != nullptr) msix_->reset();
  apply();
}

std::vector<std::byte> PciFunction::save_config() const {
  const MutexLock lock(mutex_);
  std::vector<std::byte> saved(kConfigSize);
  std::ranges::transform(config_.bytes(), saved.begin(), [](uint8_t byte) { return std::byte{byte}; });
  for (unsigned vector = 0; msix_ != nullptr && vector < msix_->vector_count(); ++vector) {
    const MsixTable::SavedVector entry = msix_->save(vector);
    const SavedMsixVector wire{
        .address = entry.address, .data_control = entry.data_control, .is_pending = entry.is_pending};
    const auto* bytes = reinterpret_cast<const std::byte*>(&wire);
    saved.insert(saved.end(), bytes, bytes + sizeof wire);
  }
  return saved;
}

Result<void> PciFunction::restore_config(std::span<const std::byte> saved) {
  const size_t vector_count = msix_ != nullptr ? msix_->vector_count() : 0;
  if (saved.size() != kConfigSize + vector_count * sizeof(SavedMsixVector))
    return fail(ErrorCode::kCorrupt, "saved PCI function has " + std::to_string(saved.size()) + " bytes, wanted " +
                                         std::to_string(kConfigSize + vector_count * sizeof(SavedMsixVector)));
  {
    const MutexLock lock(mutex_);
    // Interrupt status and MSI pending bits change without software; they are not declared writable.
    std::array<std::byte, kConfigSize> bytes;
    std::ranges::copy(saved.first(kConfigSize), bytes.begin());
    const auto interrupt_bit = std::byte{static_cast<uint8_t>(StatusInterrupt::kMask)};
    intx_level_ = (bytes[kStatus] & interrupt_bit) != std::byte{0};
    bytes[kStatus] &= ~interrupt_bit;
    config_.set(kStatus, 2, StatusInterrupt::set(static_cast<uint16_t>(config_.get(kStatus, 2)), 0));
    if (msi_offset_ != 0) {
      const unsigned pending = msi_offset_ + msi::kPending;
      for (unsigned i = 0; i < 4; ++i) config_.set(pending + i, 1, static_cast<uint8_t>(bytes[pending + i]));
    }
    TRY(config_.restore(std::span<const std::byte, kConfigSize>(bytes)));
  }
  for (unsigned vector = 0; vector < vector_count; ++vector) {
    const auto wire = load_wire<SavedMsixVector>(saved.subspan(kConfigSize + vector * sizeof(SavedMsixVector)).data());
    TRY(msix_->restore(
        vector, {.address = wire.address, .data_control = wire.data_control, .is_pending = wire.is_pending != 0}));
  }
  apply();
  return {};
}

}  // namespace tenon
