// Ports 0x80-0x8f: the POST code display and the DMA page registers around it, as plain bytes.
//
// Source: Intel ICH9 data sheet (316972-004) 13.2 (DMA page registers; 0x80, 0x84-0x86, 0x88, 0x8c-0x8e are scratch).
// Kernels write port 0x80 as an I/O delay and firmware leaves progress codes there. The DMA controllers themselves are
// not modelled; their page registers keep what is written, which is all that probing software looks at.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "devices/chip/port_window.hh"
#include "vm/device.hh"

namespace tenon {

class PostCode final : public Device, private ByteRegisters {
 public:
  static constexpr uint16_t kBase = 0x80;
  static constexpr uint16_t kPortCount = 16;

  Result<void> map(Bus& ports) { return window_.map(ports, kBase, kPortCount, "post code"); }

  /// The last byte written to port 0x80, for diagnostics.
  uint8_t code() const { return bytes_[0].load(std::memory_order_relaxed); }

  uint8_t read(uint16_t port) { return read_byte(port); }
  void write(uint16_t port, uint8_t value) { write_byte(port, value); }

  std::string_view name() const override { return "post_code"; }
  void reset() override;
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

 private:
  uint8_t read_byte(uint16_t port) override { return bytes_[port % kPortCount].load(std::memory_order_relaxed); }
  void write_byte(uint16_t port, uint8_t value) override {
    bytes_[port % kPortCount].store(value, std::memory_order_relaxed);
  }

  std::array<std::atomic<uint8_t>, kPortCount> bytes_{};  // any vCPU thread
  PortWindow window_{*this};
};

}  // namespace tenon
