// PortWindow: puts a chip with byte-wide registers on the port bus, whatever width the guest uses.
//
// An ISA bus splits a 16- or 32-bit access to an 8-bit device into byte cycles at consecutive ports, low byte first
// (ISA bus specification, "8-bit slave, 16-bit access"). Every byte-wide chip gets that here, once.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/result.hh"
#include "vm/bus.hh"

namespace tenon {

/// A chip whose registers are bytes at absolute port numbers. Any vCPU thread calls.
class ByteRegisters {
 public:
  virtual ~ByteRegisters() = default;
  virtual uint8_t read_byte(uint16_t port) = 0;
  virtual void write_byte(uint16_t port, uint8_t value) = 0;
};

/// One run of ports of such a chip; a member of the chip. Neither copied nor moved, since the bus points at it.
class PortWindow final : public BusHandler {
 public:
  explicit PortWindow(ByteRegisters& chip) : chip_(chip) {}
  PortWindow(const PortWindow&) = delete;
  PortWindow& operator=(const PortWindow&) = delete;

  Result<void> map(Bus& ports, uint16_t base, uint16_t count, std::string name) {
    base_ = base;
    mapping_ = TRY(ports.map(base, count, *this, std::move(name)));
    return {};
  }

  uint64_t bus_read(uint64_t offset, unsigned size_bytes) override {
    uint64_t value = 0;
    for (unsigned i = 0; i < size_bytes; ++i) value |= uint64_t{chip_.read_byte(port(offset + i))} << (8 * i);
    return value;
  }
  void bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) override {
    for (unsigned i = 0; i < size_bytes; ++i)
      chip_.write_byte(port(offset + i), static_cast<uint8_t>(value >> (8 * i)));
  }

 private:
  uint16_t port(uint64_t offset) const { return static_cast<uint16_t>(base_ + offset); }

  ByteRegisters& chip_;
  uint16_t base_ = 0;
  BusMapping mapping_;
};

}  // namespace tenon
