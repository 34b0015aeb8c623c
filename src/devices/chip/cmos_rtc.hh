// MC146818 real-time clock with 128 bytes of battery-backed memory, at ports 0x70 and 0x71.
//
// Source: Motorola MC146818A data sheet (ADI856R2), cited by heading; century at index 0x32 and shutdown status at 0x0f
// by PC/AT convention (IBM PC/AT Technical Reference, "Real-Time Clock/CMOS RAM Information"). The idea: the time
// registers are the host's wall clock plus an offset, computed when read, so nothing ticks. The flags of register C are
// brought up to date when someone looks, and a timer runs only for an interrupt that is enabled.
//
// Not implemented: square-wave output, daylight saving (bits are stored), the divider's test settings.
// Deviation: while SET or a stopped divider holds the clock, it stands; it goes on from there at the exact second.
#pragma once

#include <array>
#include <cstdint>

#include "base/mutex.hh"
#include "devices/chip/chip_timer.hh"
#include "devices/chip/port_window.hh"
#include "vm/clock.hh"
#include "vm/device.hh"
#include "vm/irq_line.hh"
#include "vm/output_pin.hh"

namespace tenon {

class CmosRtc final : public Device, private ByteRegisters {
 public:
  static constexpr uint8_t kShutdownIndex = 0x0f;
  static constexpr uint8_t kCenturyIndex = 0x32;  // FADT's CENTURY field
  static constexpr size_t kSize = 128;

  /// `clock` outlives the device. `irq` is ISA IRQ 8.
  CmosRtc(Clock& clock, IrqLine irq);

  /// Claims ports 0x70-0x71.
  Result<void> map(Bus& ports);
  /// What firmware would have stored, for example the memory size; indexes 14-127 without the century. Before start.
  void set_memory(uint8_t index, uint8_t value);

  uint8_t read(uint16_t port) { return read_byte(port); }
  void write(uint16_t port, uint8_t value) { write_byte(port, value); }

  std::string_view name() const override { return "cmos_rtc"; }
  void reset() override;
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

 private:
  /// A time as the registers hold it. While the clock is held the day may not exist in the month: software writes one
  /// field after the other.
  struct Moment {
    uint32_t year = 1970, month = 1, day = 1;
    uint64_t of_day_ns = 0;
    uint64_t to_ns() const;
    static Moment from_ns(uint64_t time_ns);
  };

  uint8_t read_byte(uint16_t port) override;
  void write_byte(uint16_t port, uint8_t value) override;
  uint8_t read_register(uint8_t index) TENON_REQUIRES(mutex_);
  void write_register(uint8_t index, uint8_t value) TENON_REQUIRES(mutex_);
  uint8_t read_time(uint8_t index) const TENON_REQUIRES(mutex_);
  void write_time(uint8_t index, uint8_t value) TENON_REQUIRES(mutex_);
  void write_register_a(uint8_t value) TENON_REQUIRES(mutex_);
  void write_register_b(uint8_t value) TENON_REQUIRES(mutex_);

  bool is_held() const TENON_REQUIRES(mutex_);
  Moment moment() const TENON_REQUIRES(mutex_);
  uint64_t time_ns() const TENON_REQUIRES(mutex_);
  void set_time_ns(uint64_t time_ns) TENON_REQUIRES(mutex_);
  void hold_or_release(bool was_held) TENON_REQUIRES(mutex_);
  uint8_t encode(unsigned value) const TENON_REQUIRES(mutex_);
  unsigned decode(uint8_t value) const TENON_REQUIRES(mutex_);
  uint8_t encode_hours(unsigned hours) const TENON_REQUIRES(mutex_);
  unsigned decode_hours(uint8_t value) const TENON_REQUIRES(mutex_);

  uint64_t period_ticks() const TENON_REQUIRES(mutex_);
  uint64_t next_alarm_second(uint64_t after_second) const TENON_REQUIRES(mutex_);
  void settle() TENON_REQUIRES(mutex_);
  uint64_t next_event_ns() const TENON_REQUIRES(mutex_);
  void update() TENON_REQUIRES(mutex_);
  void publish();
  void on_timer();

  const Clock& clock_;

  // Guest-visible; vCPU threads and the timer thread under mutex_.
  mutable Mutex mutex_;
  std::array<uint8_t, kSize> memory_ TENON_GUARDED_BY(mutex_){};  // registers A-D, alarms and NVRAM; not the time
  uint8_t index_ TENON_GUARDED_BY(mutex_) = 0;
  uint64_t offset_ns_ TENON_GUARDED_BY(mutex_) = 0;      // RTC time = wall time + offset, modulo 2^64
  Moment held_ TENON_GUARDED_BY(mutex_);                 // RTC time while is_held()
  uint64_t settled_ns_ TENON_GUARDED_BY(mutex_) = 0;     // RTC time up to which the flags of register C are known
  uint8_t weekday_offset_ TENON_GUARDED_BY(mutex_) = 0;  // what the guest added to the real day of week

  // Host glue.
  OutputPin irq_;
  PortWindow window_{*this};
  ChipTimer timer_;  // last: its callback uses all of the above
};

}  // namespace tenon
