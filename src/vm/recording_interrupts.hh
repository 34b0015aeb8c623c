// RecordingInterrupts: an InterruptSink for tests and fuzzers that keeps what it was told.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "vm/irq_line.hh"

namespace tenon {

class RecordingInterrupts final : public InterruptSink {
 public:
  void set_gsi(Gsi gsi, bool level) override {
    Pin& pin = pins_[number(gsi)];
    if (level && !pin.level) ++pin.rises;
    pin.level = level;
  }
  void send_msi(const MsiMessage& message) override { messages.push_back(message); }

  bool level(uint32_t gsi) { return pins_[gsi].level; }
  /// How often the pin went from low to high.
  unsigned rises(uint32_t gsi) { return pins_[gsi].rises; }

  std::vector<MsiMessage> messages;

 private:
  struct Pin {
    bool level = false;
    unsigned rises = 0;
  };
  std::map<uint32_t, Pin> pins_;
};

}  // namespace tenon
