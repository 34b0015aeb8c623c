// Backend interface between a serial-like device and whoever is at the other end (terminal, file, test).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace tenon {

/// The host end. The device calls write() from a vCPU thread; it must not block for long and must take every byte.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual void write(std::span<const uint8_t> bytes) = 0;
};

/// The device end: the host offers bytes to the guest. Any thread.
class ByteReceiver {
 public:
  virtual ~ByteReceiver() = default;
  /// Takes as many bytes as the device has room for and returns how many.
  virtual size_t offer(std::span<const uint8_t> bytes) = 0;
  /// `callback` runs (on a vCPU thread, no lock held) when there is room again after offer() took fewer than asked.
  virtual void on_room(std::function<void()> callback) = 0;
};

}  // namespace tenon
