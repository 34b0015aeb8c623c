// Reset control register at port 0xCF9.
//
// Source: Intel ICH9 data sheet (316972-004) 13.7.5 (RST_CNT).
// Port 0xCF9 lies inside the PCI configuration address register (0xCF8-0xCFB), which only reacts to 32-bit accesses:
// the PCI host bridge owns those ports and hands byte accesses at 0xCF9 to this handler. A board without PCI maps it
// directly.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include "vm/bus.hh"
#include "vm/device.hh"

namespace tenon {

class ResetControl final : public Device, public BusHandler {
 public:
  static constexpr uint16_t kPort = 0xcf9;
  static constexpr uint8_t kResetValue = 0x06;  // FADT RESET_VALUE: CPU and system reset

  /// `request_reset` runs on the vCPU thread that asked.
  explicit ResetControl(std::function<void()> request_reset) : request_reset_(std::move(request_reset)) {}

  /// Claims port 0xCF9 alone; only on a board whose PCI host bridge does not own it.
  Result<void> map(Bus& ports) {
    mapping_ = TRY(ports.map(kPort, 1, *this, "reset control"));
    return {};
  }

  uint64_t bus_read(uint64_t offset, unsigned size_bytes) override;
  void bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) override;

  std::string_view name() const override { return "reset_control"; }
  void reset() override { value_ = 0; }
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

 private:
  const std::function<void()> request_reset_;
  std::atomic<uint8_t> value_{0};  // any vCPU thread
  BusMapping mapping_;
};

}  // namespace tenon
