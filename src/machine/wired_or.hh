// WiredOr: several devices on one interrupt line, as COM1 and COM3 on IRQ 4. The line is asserted while any of them
// asserts.
#pragma once

#include <cstdint>

#include "base/mutex.hh"
#include "vm/irq_line.hh"
#include "vm/output_pin.hh"

namespace tenon {

class WiredOr final : public InterruptSink {
 public:
  static constexpr unsigned kInputsMax = 32;

  /// `line` is what the inputs share.
  explicit WiredOr(IrqLine line) : output_(line) {}

  /// The line of input `n`; this object outlives it.
  IrqLine input(unsigned n) { return IrqLine(*this, Gsi{n}); }

  /// Here a Gsi is the number of an input.
  void set_gsi(Gsi input, bool level) override {
    if (number(input) >= kInputsMax) return;
    {
      const MutexLock lock(mutex_);
      const uint32_t bit = 1u << number(input);
      asserted_ = level ? asserted_ | bit : asserted_ & ~bit;
      output_.note(asserted_ != 0);
    }
    output_.publish();
  }
  void send_msi(const MsiMessage&) override {}

 private:
  Mutex mutex_;
  uint32_t asserted_ TENON_GUARDED_BY(mutex_) = 0;  // any device thread
  OutputPin output_;
};

}  // namespace tenon
