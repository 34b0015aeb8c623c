// Device: what the machine needs from every device model, whatever else it can do.
//
// Capabilities are separate and optional: a device with ports or MMIO implements BusHandler (one object a range) and
// holds BusMappings; one with pins holds IrqLines; one with timers holds Timers. Do not add them here: a device that
// has none must not pretend to.
//
// Lifecycle, called by the machine on its main thread:
//   start() -> [pause() -> save()* -> resume()]* -> halt()
//   reset() at any moment between start and halt, while every vCPU is stopped.
//   restore() before start(), or while paused.
// After pause() returns no worker of the device touches guest memory or raises an interrupt until resume().
#pragma once

#include <string_view>

#include "base/result.hh"
#include "vm/saved_state.hh"

namespace tenon {

class Device {
 public:
  virtual ~Device() = default;
  /// Unique in its machine, stable across versions: "uart0", "ioapic".
  virtual std::string_view name() const = 0;

  virtual void start() {}
  virtual void pause() {}
  virtual void resume() {}
  /// Back to the power-on state of the manual; configuration and back ends stay.
  virtual void reset() = 0;
  virtual void halt() {}

  virtual SavedState save() const = 0;
  virtual Result<void> restore(const SavedState& state) = 0;
};

}  // namespace tenon
