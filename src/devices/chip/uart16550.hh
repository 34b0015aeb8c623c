// 16550A UART: eight byte registers, two FIFOs, one interrupt.
//
// Source: National Semiconductor PC16550D data sheet (June 1995), sections cited as "PC16550D 8.x"; PC wiring (OUT2
// gates the interrupt) from the IBM PC/AT Technical Reference, "Serial/Parallel Adapter". The idea: transmission takes
// no guest time. A written byte goes into a large host-side buffer that is handed to the sink in one piece:
// kFlushDelayNs after its first byte, when it is full, or at pause() and halt(). The transmitter holding register reads
// as empty unless that buffer is full, so the guest is held back only by a sink that falls behind.
//
// Not implemented: break and parity errors (the line has none), DMA mode (FCR bit 3 is accepted), baud-rate timing,
// data bits (all 8 bits pass, whatever LCR says). Deviation: the receiver takes host bytes only while the guest asserts
// RTS or has enabled the receive interrupt, as a terminal with RTS/CTS handshake would; a driver that resets the FIFO
// while it probes then loses no input. Deviation: the character timeout (PC16550D 8.4 "FIFO interrupt mode") comes at
// once, since host bytes come in bursts.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/byte_order.hh"
#include "base/mutex.hh"
#include "devices/chip/port_window.hh"
#include "vm/byte_channel.hh"
#include "vm/clock.hh"
#include "vm/device.hh"
#include "vm/irq_line.hh"
#include "vm/output_pin.hh"

namespace tenon {

class Uart16550 final : public Device, public ByteReceiver, private ByteRegisters {
 public:
  static constexpr uint16_t kPortCount = 8;
  static constexpr uint16_t kCom1 = 0x3f8;  // IRQ 4
  static constexpr uint16_t kCom2 = 0x2f8;  // IRQ 3
  static constexpr uint64_t kFlushDelayNs = 250'000;
  static constexpr size_t kTransmitBufferSize = 4096;

  /// `clock` and `sink` outlive the device.
  Uart16550(std::string name, Clock& clock, IrqLine irq, ByteSink& sink);

  /// Puts the eight registers at `base` of the port bus.
  Result<void> map(Bus& ports, uint16_t base) { return window_.map(ports, base, kPortCount, name_); }
  /// The same registers for a caller that has its own address decoding: `offset` is 0-7.
  uint8_t read(unsigned offset);
  void write(unsigned offset, uint8_t value);

  std::string_view name() const override { return name_; }
  void pause() override;
  void resume() override;
  void halt() override { flush(); }
  void reset() override;
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

  size_t offer(std::span<const uint8_t> bytes) override;
  void on_room(std::function<void()> callback) override;

  /// Hands buffered output to the sink now. Any thread, no lock held.
  void flush();

 private:
  static constexpr size_t kFifoSize = 16;

  /// What an access left to do once the lock is released.
  struct Action {
    bool flush = false;
    bool arm_timer = false;
    bool tell_room = false;
  };

  uint8_t read_byte(uint16_t port) override { return read(port & 7u); }
  void write_byte(uint16_t port, uint8_t value) override { write(port & 7u, value); }

  uint8_t read_locked(unsigned offset, Action& action) TENON_REQUIRES(mutex_);
  void write_locked(unsigned offset, uint8_t value, Action& action) TENON_REQUIRES(mutex_);
  void perform(const Action& action);

  uint8_t read_rbr(Action& action) TENON_REQUIRES(mutex_);
  uint8_t read_iir() TENON_REQUIRES(mutex_);
  uint8_t read_lsr() TENON_REQUIRES(mutex_);
  uint8_t read_msr() TENON_REQUIRES(mutex_);
  void write_thr(uint8_t value, Action& action) TENON_REQUIRES(mutex_);
  void write_ier(uint8_t value, Action& action) TENON_REQUIRES(mutex_);
  void write_fcr(uint8_t value, Action& action) TENON_REQUIRES(mutex_);
  void write_mcr(uint8_t value, Action& action) TENON_REQUIRES(mutex_);
  void push_received(uint8_t value) TENON_REQUIRES(mutex_);
  void clear_received(Action& action) TENON_REQUIRES(mutex_);
  void check_room(Action& action) TENON_REQUIRES(mutex_);
  void set_modem_status(uint8_t lines) TENON_REQUIRES(mutex_);
  size_t room() const TENON_REQUIRES(mutex_);
  uint8_t interrupt_source() const TENON_REQUIRES(mutex_);
  void update_pin() TENON_REQUIRES(mutex_);
  void reset_registers() TENON_REQUIRES(mutex_);

  // Configuration.
  const std::string name_;
  const Clock& clock_;
  ByteSink& sink_;

  // Guest-visible; any vCPU thread and the host's reader thread under mutex_.
  mutable Mutex mutex_;
  uint16_t divisor_ TENON_GUARDED_BY(mutex_) = 1;
  uint8_t ier_ TENON_GUARDED_BY(mutex_) = 0;
  uint8_t fcr_ TENON_GUARDED_BY(mutex_) = 0;
  uint8_t lcr_ TENON_GUARDED_BY(mutex_) = 0;
  uint8_t mcr_ TENON_GUARDED_BY(mutex_) = 0;
  uint8_t lsr_errors_ TENON_GUARDED_BY(mutex_) = 0;  // only OE; the other LSR bits are computed
  uint8_t msr_ TENON_GUARDED_BY(mutex_) = 0;
  uint8_t scr_ TENON_GUARDED_BY(mutex_) = 0;
  bool thre_pending_ TENON_GUARDED_BY(mutex_) = false;  // the THRE interrupt; cleared by reading IIR or writing THR
  std::array<uint8_t, kFifoSize> fifo_ TENON_GUARDED_BY(mutex_){};
  uint8_t fifo_head_ TENON_GUARDED_BY(mutex_) = 0;
  uint8_t fifo_count_ TENON_GUARDED_BY(mutex_) = 0;

  // Host glue.
  OutputPin pin_;
  std::vector<uint8_t> transmit_ TENON_GUARDED_BY(mutex_);
  std::vector<uint8_t> outgoing_;  // owned by the thread that set is_flushing_; the two swap, so no flush allocates
  bool is_flushing_ TENON_GUARDED_BY(mutex_) = false;  // one thread is in sink_.write(); it takes what others add
  bool is_paused_ TENON_GUARDED_BY(mutex_) = false;
  bool has_refused_ TENON_GUARDED_BY(mutex_) = false;  // offer() took fewer than asked; on_room_ is due
  std::function<void()> on_room_;                      // set before start()
  PortWindow window_{*this};
  std::unique_ptr<Timer> flush_timer_;  // last: its callback uses all of the above
};

}  // namespace tenon
