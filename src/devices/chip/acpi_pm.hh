// ACPI power management block: PM1 event and control registers, PM timer, one GPE block, and the SMI command port that
// switches ACPI mode on.
//
// Source: ACPI Specification 6.4 section 4.8 ("ACPI x" below); placement as the Intel ICH9 data sheet 13.8.3.
// The idea: a register table; the SCI line is recomputed after every change. The PM timer is guest time scaled to its
// frequency; a host timer runs only while the guest has enabled its carry interrupt.
//
// Not implemented: sleep states other than S5 (the request is ignored), SMIs, bus master and thermal events, RTC wake.
#pragma once

#include <cstdint>
#include <functional>

#include "base/mutex.hh"
#include "devices/chip/chip_timer.hh"
#include "vm/bus.hh"
#include "vm/clock.hh"
#include "vm/device.hh"
#include "vm/irq_line.hh"
#include "vm/output_pin.hh"
#include "vm/reg_file.hh"

namespace tenon {

class AcpiPm final : public Device, public BusHandler {
 public:
  // What the FADT publishes.
  static constexpr uint16_t kBase = 0x600;
  static constexpr uint16_t kPm1EventPort = kBase;        // 4 bytes: status, enable
  static constexpr uint16_t kPm1ControlPort = kBase + 4;  // 2 bytes
  static constexpr uint16_t kTimerPort = kBase + 8;       // 4 bytes
  static constexpr uint16_t kGpe0Port = kBase + 0x20;     // 4 bytes: status, enable of 16 events
  static constexpr uint16_t kGpe0SizeBytes = 4;
  static constexpr uint16_t kPortCount = 0x24;
  static constexpr uint16_t kSmiCommandPort = 0xb2;
  static constexpr uint8_t kAcpiEnable = 0x02;
  static constexpr uint8_t kAcpiDisable = 0x03;
  static constexpr uint8_t kSleepTypeS5 = 5;       // SLP_TYP of \_S5 in the DSDT
  static constexpr uint64_t kTimerHz = 3'579'545;  // ACPI 4.8.2.1
  static constexpr unsigned kTimerBits = 32;       // FADT flag TMR_VAL_EXT

  /// `clock` outlives the device. `sci` is level-triggered. `power_off` runs on the vCPU thread that asked, no lock
  /// held.
  AcpiPm(Clock& clock, IrqLine sci, std::function<void()> power_off);

  /// Claims kBase and the SMI command port.
  Result<void> map(Bus& ports);

  /// The power button was pressed: the guest sees PWRBTN_STS. Any thread.
  void press_power_button();
  /// General-purpose event `event` (0-15) happened, for hotplug notifications. Any thread.
  void raise_event(unsigned event);

  uint64_t bus_read(uint64_t offset, unsigned size_bytes) override;
  void bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) override;
  /// The SMI command port (offset 0) and the status byte beside it (offset 1).
  uint8_t read_smi(unsigned offset) const;
  void write_smi(unsigned offset, uint8_t value);

  std::string_view name() const override { return "acpi_pm"; }
  void reset() override;
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

 private:
  static uint64_t read_timer(AcpiPm& pm, uint64_t stored);
  static void write_control(AcpiPm& pm, const RegisterWrite& write);

  // clang-format off
  static constexpr auto kRegisters = register_table<AcpiPm>({
      // ACPI 4.8.3.1.1: TMR 0, BM 4, GBL 5, PWRBTN 8, SLPBTN 9, RTC 10, WAK 15
      {.name = "PM1_STS",  .offset = 0x00, .width_bytes = 2, .w1c = 0x8731},
      // ACPI 4.8.3.1.2: TMR 0, GBL 5, PWRBTN 8, SLPBTN 9, RTC 10
      {.name = "PM1_EN",   .offset = 0x02, .width_bytes = 2, .writable = 0x0721},
      // ACPI 4.8.3.2.1: SCI_EN 0 (only firmware changes it), BM_RLD 1, SLP_TYP 12:10; SLP_EN 13 reads 0
      {.name = "PM1_CNT",  .offset = 0x04, .width_bytes = 2, .writable = 0x1c02, .on_write = write_control},
      {.name = "PM_TMR",   .offset = 0x08, .width_bytes = 4, .on_read = read_timer},
      {.name = "GPE0_STS", .offset = 0x20, .width_bytes = 2, .w1c = 0xffff},
      {.name = "GPE0_EN",  .offset = 0x22, .width_bytes = 2, .writable = 0xffff},
  });
  // clang-format on

  /// The two ports of the SMI command, forwarded to the chip.
  class SmiPort final : public BusHandler {
   public:
    explicit SmiPort(AcpiPm& pm) : pm_(pm) {}
    uint64_t bus_read(uint64_t offset, unsigned size_bytes) override;
    void bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) override;

   private:
    AcpiPm& pm_;
  };

  uint64_t timer_ticks() const;
  void settle_timer() TENON_REQUIRES(mutex_);
  void update() TENON_REQUIRES(mutex_);
  void publish();
  void on_timer();

  const Clock& clock_;
  const std::function<void()> power_off_;

  // Guest-visible; vCPU threads, the timer thread and the main thread under mutex_.
  mutable Mutex mutex_;
  RegFile<AcpiPm, kRegisters> registers_ TENON_GUARDED_BY(mutex_);
  uint8_t smi_status_ TENON_GUARDED_BY(mutex_) = 0;
  uint64_t settled_ticks_ TENON_GUARDED_BY(mutex_) = 0;  // PM timer value up to which TMR_STS is known

  // Host glue.
  bool wants_power_off_ = false;  // set by a hook inside bus_write() and taken there, both under mutex_
  OutputPin sci_;
  SmiPort smi_port_{*this};
  BusMapping mapping_;
  BusMapping smi_mapping_;
  ChipTimer timer_;  // last: its callback uses all of the above
};

}  // namespace tenon
