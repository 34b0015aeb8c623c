// The PC's pair of 8259A interrupt controllers: the slave on input 2 of the master, edge/level registers beside them.
//
// Source: Intel 8259A data sheet (231468-003), cited by heading; ELCR 0x4d0/0x4d1 from the Intel 82371SB data
// sheet 2.5.4. The idea: each chip is IRR, ISR, IMR and a rotating priority; after any change the pair recomputes the
// slave's output, then the master's, which is the INTR pin. The processor's acknowledge cycle is acknowledge().
//
// Not implemented: MCS-80/85 mode (ICW4 bit 0 is ignored), buffered mode, cascades other than the PC's (ICW3 is
// ignored). Deviation: an edge stays latched in IRR when its input falls before the acknowledge, so short pulses are
// not lost.
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "base/mutex.hh"
#include "devices/chip/port_window.hh"
#include "vm/device.hh"
#include "vm/output_pin.hh"

namespace tenon {

class I8259Pair final : public Device, private ByteRegisters {
 public:
  static constexpr unsigned kIrqCount = 16;

  I8259Pair();

  /// Claims ports 0x20-0x21, 0xa0-0xa1 and 0x4d0-0x4d1.
  Result<void> map(Bus& ports);
  /// Wires the INTR output; before start. The listener is called with no lock held.
  void connect_output(OutputPin::Listener listener) { output_.connect(std::move(listener)); }

  /// Sets an input; 2 (the cascade) and out-of-range numbers are ignored. Any thread.
  void set_irq(unsigned irq, bool level);
  /// The interrupt-acknowledge cycle: the vector to run. Without a request it is the spurious one (input 7).
  uint8_t acknowledge();
  bool is_masked(unsigned irq) const;
  /// `listener` runs (any vCPU thread, no lock held) after a guest write that may have changed a mask. Before start.
  void set_mask_listener(std::function<void()> listener) { mask_listener_ = std::move(listener); }

  uint8_t read(uint16_t port) { return read_byte(port); }
  void write(uint16_t port, uint8_t value) { write_byte(port, value); }

  std::string_view name() const override { return "i8259"; }
  void reset() override;
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

 private:
  enum class Expects : uint8_t { kNothing, kIcw2, kIcw3, kIcw4 };  // the initialisation sequence

  /// One 8259A.
  struct Chip {
    uint8_t irr = 0, isr = 0, imr = 0;
    uint8_t lines = 0;            // input levels
    uint8_t elcr = 0;             // bit n: input n is level-triggered
    uint8_t vector_base = 0;      // ICW2
    uint8_t lowest_priority = 7;  // input with the lowest priority; the next one has the highest
    Expects expects = Expects::kNothing;
    bool wants_icw4 = false, is_single = false;
    bool auto_eoi = false, rotates_on_auto_eoi = false;
    bool special_mask = false, special_fully_nested = false;
    bool polls = false, reads_isr = false;

    int request() const;
    void set_input(unsigned input, bool level);
    void accept(unsigned input);
    void end(unsigned input, bool rotates);
    void write_command(uint8_t value);
    void write_ocw2(uint8_t value);
    void write_data(uint8_t value);
    unsigned priority(unsigned input) const { return (input - lowest_priority - 1u) & 7; }
    int highest(uint8_t inputs) const;
  };

  uint8_t read_byte(uint16_t port) override;
  void write_byte(uint16_t port, uint8_t value) override;
  uint8_t read_locked(uint16_t port) TENON_REQUIRES(mutex_);
  void write_locked(uint16_t port, uint8_t value) TENON_REQUIRES(mutex_);
  uint8_t poll(Chip& chip) TENON_REQUIRES(mutex_);
  void update_outputs() TENON_REQUIRES(mutex_);

  // Guest-visible; device threads and vCPU threads under mutex_.
  mutable Mutex mutex_;
  Chip master_ TENON_GUARDED_BY(mutex_);
  Chip slave_ TENON_GUARDED_BY(mutex_);

  // Host glue.
  OutputPin output_;
  std::function<void()> mask_listener_;
  PortWindow master_window_{*this};
  PortWindow slave_window_{*this};
  PortWindow elcr_window_{*this};
};

}  // namespace tenon
