// 8254 programmable interval timer, and port 0x61 that gates its channel 2 to the speaker.
//
// Source: Intel 8254 data sheet (231164-005), cited by heading; port 0x61 from the Intel ICH9 data sheet 13.7.1
// (NMI_SC). The idea: a counter is a start time; counts and outputs are computed from guest time when someone looks.
// Only channel 0 has a listener (IRQ 0), so only it arms a timer, once for each rising edge, and only while
// set_listening(true).
//
// Not implemented: the sound of the speaker. Channel 1 (memory refresh) counts but drives nothing.
// Deviation: a new count in modes 2 and 3 takes effect at once, not at the end of the current period. IRQ 0 shows only
// rising edges in modes 2 and 3: the line falls just before it rises. Two edges are at least kEdgeSpacingNsMin apart,
// so that a guest cannot make the host's timer thread spin.
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

class I8254 final : public Device, private ByteRegisters {
 public:
  static constexpr uint64_t kFrequencyHz = 1'193'182;
  static constexpr uint64_t kEdgeSpacingNsMin = 20'000;

  /// `clock` outlives the device. `irq` is ISA IRQ 0.
  I8254(Clock& clock, IrqLine irq);

  /// Claims ports 0x40-0x43 and 0x61.
  Result<void> map(Bus& ports);
  /// Whether anybody can see IRQ 0. The board says false while both the 8259 and the I/O APIC mask it.
  void set_listening(bool is_listening);

  uint8_t read(uint16_t port) { return read_byte(port); }
  void write(uint16_t port, uint8_t value) { write_byte(port, value); }

  std::string_view name() const override { return "i8254"; }
  void reset() override;
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

 private:
  enum class Bytes : uint8_t { kLow = 1, kHigh = 2, kBoth = 3 };  // "Control Word Format", RW

  struct Channel {
    uint8_t mode = 3;  // 0-5
    Bytes bytes = Bytes::kBoth;
    bool is_bcd = false;
    bool gate = true;
    bool is_null = true;       // a count was written but not loaded, or none since the control word
    bool is_counting = false;  // ticks run from start_ns; else they stand at frozen_ticks
    bool is_started = false;   // the count was loaded (modes 1 and 5: triggered)
    bool writes_high_next = false, reads_high_next = false;
    bool has_count_latch = false, has_status_latch = false;
    uint8_t low_written = 0;  // first byte of a two-byte count
    uint8_t status_latch = 0;
    uint16_t count_latch = 0;
    uint32_t reload = 0;  // count register in ticks, 1 to 65536; 0 before the first
    uint32_t period = 0;  // count in effect
    uint64_t start_ns = 0;
    uint64_t frozen_ticks = 0;

    uint64_t ticks(uint64_t now_ns) const;
    bool output(uint64_t now_ns) const;
    uint16_t count(uint64_t now_ns) const;
    uint8_t status(uint64_t now_ns) const;
    void write_control(uint8_t value);
    void write_count(uint8_t value, uint64_t now_ns);
    void load(uint16_t count, uint64_t now_ns);
    uint8_t read(uint64_t now_ns);
    void latch_count(uint64_t now_ns);
    void set_gate(bool level, uint64_t now_ns);
    void start(uint64_t now_ns);
    uint64_t next_edge_ns(uint64_t now_ns) const;
  };

  uint8_t read_byte(uint16_t port) override;
  void write_byte(uint16_t port, uint8_t value) override;
  void write_control(uint8_t value, uint64_t now_ns) TENON_REQUIRES(mutex_);
  uint8_t read_port_61(uint64_t now_ns) const TENON_REQUIRES(mutex_);
  void on_timer();
  /// After any change of channel 0: notes its line and when its timer is due.
  void update_irq(uint64_t now_ns) TENON_REQUIRES(mutex_);
  void publish();

  const Clock& clock_;

  // Guest-visible; vCPU threads and the timer thread under mutex_.
  mutable Mutex mutex_;
  std::array<Channel, 3> channels_ TENON_GUARDED_BY(mutex_);
  uint8_t port_61_ TENON_GUARDED_BY(mutex_) = 0;

  // Host glue.
  bool is_listening_ TENON_GUARDED_BY(mutex_) = true;
  uint64_t edge_ns_ TENON_GUARDED_BY(mutex_) = kNoDeadline;  // the edge that the timer waits for
  OutputPin irq_;
  PortWindow window_{*this};
  PortWindow port_61_window_{*this};
  ChipTimer timer_;  // last: its callback uses all of the above
};

}  // namespace tenon
