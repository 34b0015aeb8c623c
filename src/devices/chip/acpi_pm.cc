#include "devices/chip/acpi_pm.hh"

#include <iterator>
#include <tuple>
#include <utility>

#include "base/bits.hh"

namespace tenon {
namespace {

using TimerEvent = Bit<0>;        // TMR_STS and TMR_EN
using PowerButtonEvent = Bit<8>;  // PWRBTN_STS and PWRBTN_EN
constexpr uint64_t kPm1Events = 0x0721;
using SciEnable = Bit<0>;
using SleepType = Bits<12, 10>;
using SleepEnable = Bit<13>;

constexpr std::string_view kSchema = "acpi_pm";
constexpr uint32_t kVersion = 1;

struct AcpiPmV1 {
  le64 registers[6];   // 0, in the order of kRegisters
  le64 settled_ticks;  // 48
  uint8_t smi_status;  // 56
};
static_assert(sizeof(AcpiPmV1) == 57);

/// TMR_STS is set when the most significant bit changes (ACPI 4.8.2.1).
constexpr uint64_t kHalfPeriodTicks = uint64_t{1} << (AcpiPm::kTimerBits - 1);

}  // namespace

AcpiPm::AcpiPm(Clock& clock, IrqLine sci, std::function<void()> power_off)
    : clock_(clock), power_off_(std::move(power_off)), sci_(sci), timer_(clock, [this] { on_timer(); }) {}

Result<void> AcpiPm::map(Bus& ports) {
  mapping_ = TRY(ports.map(kBase, kPortCount, *this, "acpi pm"));
  smi_mapping_ = TRY(ports.map(kSmiCommandPort, 2, smi_port_, "acpi smi"));
  return {};
}

// Events.

void AcpiPm::press_power_button() {
  {
    const MutexLock lock(mutex_);
    registers_.set_bits<"PM1_STS">(PowerButtonEvent::kMask);
    update();
  }
  publish();
}

void AcpiPm::raise_event(unsigned event) {
  if (event >= 16) return;
  {
    const MutexLock lock(mutex_);
    registers_.set_bits<"GPE0_STS">(uint64_t{1} << event);
    update();
  }
  publish();
}

uint64_t AcpiPm::timer_ticks() const { return scale(clock_.now_ns(), kTimerHz, kNanosecondsPerSecond); }

void AcpiPm::settle_timer() {
  const uint64_t ticks = timer_ticks();
  const uint64_t before = std::exchange(settled_ticks_, ticks);
  if (ticks / kHalfPeriodTicks != before / kHalfPeriodTicks) registers_.set_bits<"PM1_STS">(TimerEvent::kMask);
}

/// The SCI after any change (ACPI 4.8.2.2: in ACPI mode, any event that is both set and enabled), and the carry timer.
void AcpiPm::update() {
  const uint64_t fixed = registers_.value<"PM1_STS">() & registers_.value<"PM1_EN">() & kPm1Events;
  const uint64_t general = registers_.value<"GPE0_STS">() & registers_.value<"GPE0_EN">();
  sci_.note(SciEnable::test(registers_.value<"PM1_CNT">()) && (fixed | general) != 0);

  const bool needs_timer =
      TimerEvent::test(registers_.value<"PM1_EN">()) && !TimerEvent::test(registers_.value<"PM1_STS">());
  const uint64_t carry_ticks = (settled_ticks_ / kHalfPeriodTicks + 1) * kHalfPeriodTicks;
  timer_.note(needs_timer ? scale(carry_ticks, kNanosecondsPerSecond, kTimerHz) + 1 : kNoDeadline);
}

void AcpiPm::publish() {
  sci_.publish();
  timer_.publish();
}

void AcpiPm::on_timer() {
  {
    const MutexLock lock(mutex_);
    settle_timer();
    update();
  }
  publish();
}

// Registers.

// Hooks run inside bus_read() and bus_write(), which hold the lock.
uint64_t AcpiPm::read_timer(AcpiPm& pm, uint64_t /*stored*/) {
  return pm.timer_ticks() & ((uint64_t{1} << kTimerBits) - 1);
}

/// ACPI 4.8.3.2.1: SLP_EN enters the state that SLP_TYP names.
void AcpiPm::write_control(AcpiPm& pm, const RegisterWrite& write) {
  if (SleepEnable::test(write.raw) && SleepType::get(write.after) == kSleepTypeS5) pm.wants_power_off_ = true;
}

uint64_t AcpiPm::bus_read(uint64_t offset, unsigned size_bytes) {
  const MutexLock lock(mutex_);
  settle_timer();
  return registers_.read(*this, offset, size_bytes);
}

void AcpiPm::bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) {
  bool powers_off = false;
  {
    const MutexLock lock(mutex_);
    settle_timer();
    registers_.write(*this, offset, size_bytes, value);
    powers_off = std::exchange(wants_power_off_, false);
    update();
  }
  publish();
  if (powers_off && power_off_) power_off_();
}

uint64_t AcpiPm::SmiPort::bus_read(uint64_t offset, unsigned size_bytes) {
  uint64_t value = 0;
  for (unsigned i = 0; i < size_bytes; ++i)
    value |= uint64_t{pm_.read_smi(static_cast<unsigned>(offset) + i)} << (8 * i);
  return value;
}

void AcpiPm::SmiPort::bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) {
  for (unsigned i = 0; i < size_bytes; ++i)
    pm_.write_smi(static_cast<unsigned>(offset) + i, static_cast<uint8_t>(value >> (8 * i)));
}

uint8_t AcpiPm::read_smi(unsigned offset) const {
  const MutexLock lock(mutex_);
  return offset == 0 ? 0 : smi_status_;
}

/// ACPI 4.8.2.5: what firmware's SMI handler would do with the FADT's ACPI_ENABLE and ACPI_DISABLE.
void AcpiPm::write_smi(unsigned offset, uint8_t value) {
  {
    const MutexLock lock(mutex_);
    if (offset != 0) {
      smi_status_ = value;
      return;
    }
    settle_timer();
    if (value == kAcpiEnable) registers_.set_bits<"PM1_CNT">(SciEnable::kMask);
    if (value == kAcpiDisable) registers_.clear_bits<"PM1_CNT">(SciEnable::kMask);
    update();
  }
  publish();
}

void AcpiPm::reset() {
  {
    const MutexLock lock(mutex_);
    registers_.reset();
    smi_status_ = 0;
    settled_ticks_ = timer_ticks();
    update();
  }
  publish();
}

SavedState AcpiPm::save() const {
  const MutexLock lock(mutex_);
  AcpiPmV1 wire{};
  const auto saved = registers_.save();
  static_assert(std::tuple_size_v<decltype(saved)> == std::size(wire.registers));
  for (size_t i = 0; i < saved.size(); ++i) wire.registers[i] = saved[i];
  wire.settled_ticks = settled_ticks_;
  wire.smi_status = smi_status_;
  return save_wire(std::string(kSchema), kVersion, wire);
}

Result<void> AcpiPm::restore(const SavedState& state) {
  const auto wire = TRY(load_wire_state<AcpiPmV1>(state, kSchema, kVersion));
  RegFile<AcpiPm, kRegisters>::Saved saved;
  for (size_t i = 0; i < saved.size(); ++i) saved[i] = wire.registers[i];
  // A register may hold the bits that the guest can write or clear, SCI_EN besides.
  for (size_t i = 0; i < saved.size(); ++i) {
    const uint64_t own = kRegisters[i].name == "PM1_CNT" ? SciEnable::kMask : 0;
    TRY(check_saved_fields(kSchema, {{kRegisters[i].name, saved[i], kRegisters[i].writable | kRegisters[i].w1c | own,
                                      SavedField::Rule::kOnlyBits}}));
  }
  TRY(check_saved_fields(kSchema, {{"settled_ticks", wire.settled_ticks, timer_ticks()}}));
  {
    const MutexLock lock(mutex_);
    TRY(registers_.restore(saved));
    settled_ticks_ = wire.settled_ticks;
    smi_status_ = wire.smi_status;
    update();
    sci_.assume(sci_.level());
  }
  publish();
  return {};
}

}  // namespace tenon
