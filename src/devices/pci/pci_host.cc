#include "devices/pci/pci_host.hh"

#include "base/bits.hh"
#include "base/byte_order.hh"

namespace tenon {
namespace {

// CONFIG_ADDRESS, PCI 3.2.2.3.2.
using AddressEnable = Bit<31>;
using AddressBus = Bits<23, 16>;
using AddressDeviceFunction = Bits<15, 8>;
using AddressRegister = Bits<7, 2>;
constexpr uint32_t kAddressWritable = 0x80fffffc;

// ECAM offset, PCI Express 7.2.2.
using EcamBus = Bits<27, 20>;
using EcamDeviceFunction = Bits<19, 12>;
using EcamRegister = Bits<11, 0>;

// PCIEXBAR, Q35 MCH 5.1.16: base 35:28 and below as the length shrinks, length 2:1, enable 0.
constexpr unsigned kPciexbar = 0x60;
using PciexbarEnable = Bit<0>;
using PciexbarLength = Bits<2, 1>;
constexpr uint64_t kPciexbarWritable = 0x0000'000f'fc00'0007;

constexpr PciIdentity kIdentity = {.vendor_id = 0x8086,
                                   .device_id = 0x29c0,  // Q35 MCH
                                   .class_code = 0x060000,
                                   .revision = 2};

constexpr std::string_view kSchema = "pci_host";
constexpr uint32_t kVersion = 1;

}  // namespace

PciHost::PciHost(Bus& ports, Bus& mmio, InterruptSink& interrupts)
    : PciFunction(kIdentity), ports_(ports), mmio_(mmio), bus_(ports, mmio, interrupts) {
  config().set(kPciexbar, 8, pci::kEcamBase | PciexbarEnable::kMask);
  config().set_writable(kPciexbar, 8, kPciexbarWritable);
}

Result<void> PciHost::map() {
  TRY(bus_.add(kSlot, *this));
  ports_mapping_ = TRY(ports_.map(pci::kConfigAddressPort, 8, config_ports_, "pci config"));
  update_ecam();
  return {};
}

void PciHost::on_config_written(unsigned offset, unsigned size_bytes) {
  if (offset < kPciexbar + 8 && offset + size_bytes > kPciexbar) update_ecam();
}

/// Moves the ECAM window to where PCIEXBAR says; where something else is mapped already, it does not answer.
void PciHost::update_ecam() {
  const uint64_t value = config_value(kPciexbar, 8);
  const MutexLock lock(ecam_mutex_);
  if (value == ecam_register_) return;
  ecam_register_ = value;
  ecam_mapping_.reset();
  const auto length = static_cast<unsigned>(PciexbarLength::get(value));
  if (!PciexbarEnable::test(value) || length > 2) return;
  const uint64_t size_bytes = pci::kEcamSize >> length;
  const uint64_t base = value & kPciexbarWritable & ~(size_bytes - 1);
  if (auto mapping = mmio_.map(base, size_bytes, ecam_, "pci ecam")) ecam_mapping_ = std::move(*mapping);
}

// Configuration space.

uint64_t PciHost::read_config(uint32_t bus, uint32_t device_function, unsigned offset, unsigned size_bytes) const {
  const pci::Slot slot{.device = static_cast<uint8_t>(device_function >> 3),
                       .function = static_cast<uint8_t>(device_function & 7)};
  PciFunction* function = bus == 0 ? bus_.find(slot) : nullptr;
  if (function == nullptr) return ~uint64_t{0};  // PCI 6.1: master abort reads as all ones
  return function->config_read(offset, size_bytes);
}

void PciHost::write_config(uint32_t bus, uint32_t device_function, unsigned offset, unsigned size_bytes,
                           uint64_t value) {
  const pci::Slot slot{.device = static_cast<uint8_t>(device_function >> 3),
                       .function = static_cast<uint8_t>(device_function & 7)};
  PciFunction* function = bus == 0 ? bus_.find(slot) : nullptr;
  if (function != nullptr) function->config_write(offset, size_bytes, value);
}

uint64_t PciHost::ConfigPorts::bus_read(uint64_t offset, unsigned size_bytes) {
  const uint32_t address = host_.config_address_.load(std::memory_order_relaxed);
  if (offset < 4) {
    // PCI 3.2.2.3.2: only a full DWORD access is CONFIG_ADDRESS; others pass on to the ports behind it.
    if (offset == 0 && size_bytes == 4) return address;
    if (offset == 1 && size_bytes == 1 && host_.reset_control_ != nullptr) return host_.reset_control_->bus_read(0, 1);
    return ~uint64_t{0};
  }
  if (!AddressEnable::test(address)) return ~uint64_t{0};
  const auto reg = static_cast<unsigned>(AddressRegister::get(address) * 4 + (offset - 4));
  return host_.read_config(static_cast<uint32_t>(AddressBus::get(address)),
                           static_cast<uint32_t>(AddressDeviceFunction::get(address)), reg, size_bytes);
}

void PciHost::ConfigPorts::bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) {
  if (offset < 4) {
    if (offset == 0 && size_bytes == 4)
      host_.config_address_.store(static_cast<uint32_t>(value) & kAddressWritable, std::memory_order_relaxed);
    if (offset == 1 && size_bytes == 1 && host_.reset_control_ != nullptr) host_.reset_control_->bus_write(0, 1, value);
    return;
  }
  const uint32_t address = host_.config_address_.load(std::memory_order_relaxed);
  if (!AddressEnable::test(address)) return;
  const auto reg = static_cast<unsigned>(AddressRegister::get(address) * 4 + (offset - 4));
  host_.write_config(static_cast<uint32_t>(AddressBus::get(address)),
                     static_cast<uint32_t>(AddressDeviceFunction::get(address)), reg, size_bytes, value);
}

uint64_t PciHost::Ecam::bus_read(uint64_t offset, unsigned size_bytes) {
  return host_.read_config(static_cast<uint32_t>(EcamBus::get(offset)),
                           static_cast<uint32_t>(EcamDeviceFunction::get(offset)),
                           static_cast<unsigned>(EcamRegister::get(offset)), size_bytes);
}

void PciHost::Ecam::bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) {
  host_.write_config(static_cast<uint32_t>(EcamBus::get(offset)),
                     static_cast<uint32_t>(EcamDeviceFunction::get(offset)),
                     static_cast<unsigned>(EcamRegister::get(offset)), size_bytes, value);
}

// Reset and state: CONFIG_ADDRESS, then the function.

void PciHost::reset() {
  config_address_ = 0;
  reset_config();
  update_ecam();
}

SavedState PciHost::save() const {
  const le32 address = config_address_.load();
  SavedState state{
      .schema = std::string(kSchema), .version = kVersion, .bytes = std::vector<std::byte>(sizeof address)};
  std::memcpy(state.bytes.data(), &address, sizeof address);
  const std::vector<std::byte> config = save_config();
  state.bytes.insert(state.bytes.end(), config.begin(), config.end());
  return state;
}

Result<void> PciHost::restore(const SavedState& state) {
  if (state.schema != kSchema || state.version != kVersion || state.bytes.size() < sizeof(le32))
    return fail(ErrorCode::kCorrupt, "saved state of pci_host version 1: found " + state.schema + " version " +
                                         std::to_string(state.version));
  const uint32_t address = load_wire<le32>(state.bytes.data());
  TRY(check_saved_fields(kSchema, {{"config_address", address, kAddressWritable, SavedField::Rule::kOnlyBits}}));
  TRY(restore_config(std::span(state.bytes).subspan(sizeof(le32))));
  config_address_ = address;
  update_ecam();
  return {};
}

}  // namespace tenon
