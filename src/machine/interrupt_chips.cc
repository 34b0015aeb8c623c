#include "machine/interrupt_chips.hh"

#include "base/check.hh"
#include "spec/apic.hh"

namespace tenon {

namespace {

constexpr Gsi kTimerGsi{2};
constexpr unsigned kTimerIrq = 0;

}  // namespace

InterruptChips::InterruptChips(Clock& clock, std::vector<VcpuSignal>& signals, unsigned physical_address_bits)
    : apic_bus_(static_cast<uint32_t>(signals.size())), io_apic_(apic_bus_), i8254_(clock, IrqLine(*this, kTimerGsi)) {
  for (uint32_t id = 0; id < signals.size(); ++id) {
    const LocalApic::Config config{
        .id = VcpuId{id}, .is_bootstrap = id == 0, .physical_address_bits = physical_address_bits};
    local_apics_.push_back(std::make_unique<LocalApic>(config, signals[id], clock, apic_bus_));
  }
  LocalApic& bootstrap = *local_apics_.front();
  i8259_.connect_output([&bootstrap](bool level) { bootstrap.set_lint(LocalApic::Lint::kLint0, level); });
  bootstrap.connect_external([this] { return i8259_.acknowledge(); });
  i8259_.set_mask_listener([this] { update_timer_listening(); });
  io_apic_.set_mask_listener([this] { update_timer_listening(); });
  update_timer_listening();
}

Result<void> InterruptChips::map(Bus& ports, Bus& mmio) {
  TRY(io_apic_.map(mmio));
  TRY(i8259_.map(ports));
  return i8254_.map(ports);
}

void InterruptChips::set_gsi(Gsi gsi, bool level) {
  const uint32_t pin = number(gsi);
  if (pin < IoApic::kPinCount) io_apic_.set_pin(pin, level);
  if (pin < I8259Pair::kIrqCount) i8259_.set_irq(gsi == kTimerGsi ? kTimerIrq : pin, level);
}

void InterruptChips::enable_pv_eoi(GuestMemory& memory) {
  for (const auto& apic : local_apics_) apic->enable_pv_eoi(memory);
}

void InterruptChips::set_firmware_defaults() {
  constexpr size_t kXapicCountMax = 255;
  local_apics_.front()->set_virtual_wire_mode();
  if (local_apics_.size() <= kXapicCountMax) return;
  for (const auto& apic : local_apics_) {
    uint64_t base = 0;
    // The MSR is there on every local APIC, and xAPIC to x2APIC is a legal transition (SDM Vol. 3 11.12.5).
    CHECK(apic->read_msr(apic::kMsrApicBase, base));
    CHECK(apic->write_msr(apic::kMsrApicBase, base | apic::BaseX2apic::kMask));
  }
}

std::vector<Device*> InterruptChips::devices() {
  std::vector<Device*> all = {&io_apic_, &i8259_, &i8254_};
  for (const auto& apic : local_apics_) all.push_back(apic.get());
  return all;
}

/// The 8254 arms host timers only while somebody can see its interrupt.
void InterruptChips::update_timer_listening() {
  i8254_.set_listening(!i8259_.is_masked(kTimerIrq) || !io_apic_.is_masked(number(kTimerGsi)));
}

}  // namespace tenon
