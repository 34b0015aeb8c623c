// 8042 keyboard controller with nothing plugged in: it answers every probe at once, pulses reset, and keeps the A20
// bit.
//
// Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard/Auxiliary Device Controller" (cited by heading);
// fast A20 and reset at port 0x92 from the Intel ICH9 data sheet 13.7.4. The idea: bytes sent to the absent keyboard
// come back as a transmit time-out, so drivers need no time-out of their own.
//
// Not implemented: a keyboard or mouse (serial and virtual consoles take their place), the auxiliary port (the
// controller is an AT-style one without it), password and scan-code commands. Deviation: A20 is only a bit; addresses
// are never masked.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "base/mutex.hh"
#include "devices/chip/port_window.hh"
#include "vm/device.hh"
#include "vm/irq_line.hh"
#include "vm/output_pin.hh"

namespace tenon {

class I8042 final : public Device, private ByteRegisters {
 public:
  /// `irq` is ISA IRQ 1. `request_reset` runs on the vCPU thread that asked, no lock held.
  I8042(IrqLine irq, std::function<void()> request_reset);

  /// Claims ports 0x60, 0x64 and 0x92.
  Result<void> map(Bus& ports);

  uint8_t read(uint16_t port) { return read_byte(port); }
  void write(uint16_t port, uint8_t value) { write_byte(port, value); }

  std::string_view name() const override { return "i8042"; }
  void reset() override;
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

 private:
  uint8_t read_byte(uint16_t port) override;
  void write_byte(uint16_t port, uint8_t value) override;
  /// True where the write asks for a reset.
  bool write_locked(uint16_t port, uint8_t value) TENON_REQUIRES(mutex_);
  bool write_command(uint8_t command) TENON_REQUIRES(mutex_);
  bool write_data(uint8_t value) TENON_REQUIRES(mutex_);
  bool write_output_port(uint8_t value) TENON_REQUIRES(mutex_);
  uint8_t status() const TENON_REQUIRES(mutex_);
  void answer(uint8_t value) TENON_REQUIRES(mutex_);
  void answer_time_out() TENON_REQUIRES(mutex_);
  void update_pin() TENON_REQUIRES(mutex_);

  const std::function<void()> request_reset_;

  // Guest-visible; any vCPU thread under mutex_.
  mutable Mutex mutex_;
  std::array<uint8_t, 32> memory_ TENON_GUARDED_BY(mutex_){};  // controller RAM; byte 0 is the command byte
  uint8_t output_ TENON_GUARDED_BY(mutex_) = 0;                // output buffer
  bool is_output_full_ TENON_GUARDED_BY(mutex_) = false;
  bool is_time_out_ TENON_GUARDED_BY(mutex_) = false;
  bool was_command_ TENON_GUARDED_BY(mutex_) = false;     // status bit 3: the last write went to 0x64
  uint8_t pending_command_ TENON_GUARDED_BY(mutex_) = 0;  // waits for its data byte; 0 for none
  bool is_a20_enabled_ TENON_GUARDED_BY(mutex_) = true;

  // Host glue.
  OutputPin irq_;
  PortWindow data_window_{*this};
  PortWindow command_window_{*this};
  PortWindow fast_a20_window_{*this};
};

}  // namespace tenon
