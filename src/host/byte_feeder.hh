// ByteFeeder: hands bytes to a device at the guest's pace.
//
// Refills run on the vCPU thread that made the room, not on the loop's thread: a 16-byte FIFO empties sixty-five
// thousand times in a mebibyte, and a thread switch each time would be most of the cost. Threads: any may push.
#pragma once

#include <functional>
#include <vector>

#include "base/mutex.hh"
#include "vm/byte_channel.hh"

namespace tenon {

class ByteFeeder {
 public:
  /// `receiver` outlives this object or is told to forget it: its on_room callback points here. Made before the VM
  /// starts.
  explicit ByteFeeder(ByteReceiver& receiver);
  ~ByteFeeder();
  ByteFeeder(const ByteFeeder&) = delete;
  ByteFeeder& operator=(const ByteFeeder&) = delete;

  /// Queues bytes without limit: callers bound what they push (credit, or has_room()).
  void push(std::span<const uint8_t> bytes);
  /// Drops what the guest has not taken yet.
  void clear();
  size_t waiting_bytes() const;
  /// `callback` runs (on a vCPU thread, no lock held) each time the last waiting byte is taken. Before the VM starts.
  void on_empty(std::function<void()> callback) { on_empty_ = std::move(callback); }

 private:
  void refill();
  /// Returns whether bytes were waiting and none are now.
  bool refill_locked() TENON_REQUIRES(mutex_);

  ByteReceiver& receiver_;
  std::function<void()> on_empty_;
  // Held while offering, so that refills from two threads cannot swap bytes. Order: this lock, then the device's; a
  // device calls back without its lock.
  mutable Mutex mutex_;
  std::vector<uint8_t> waiting_ TENON_GUARDED_BY(mutex_);
  size_t taken_ TENON_GUARDED_BY(mutex_) = 0;  // bytes at the front of waiting_ that the device has
};

}  // namespace tenon
