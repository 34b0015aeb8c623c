// ByteMailbox: the sink of a device whose bytes another thread takes.
//
// write() runs on vCPU threads and must take every byte, so a taker that falls behind cannot be answered with "no".
// Instead a write that finds more than `soft_limit_bytes` waiting sleeps up to kThrottle first: the guest slows to a
// trickle, other vCPUs go on, and memory stays bounded in practice (one UART buffer each 100 ms). Threads: any may
// write; one takes.
#pragma once

#include <functional>
#include <vector>

#include "base/mutex.hh"
#include "vm/byte_channel.hh"

namespace tenon {

class ByteMailbox final : public ByteSink {
 public:
  static constexpr size_t kDefaultLimit = 1 << 20;

  /// `arrived` runs on the writing thread, no lock held, when the mailbox was empty before.
  explicit ByteMailbox(std::function<void()> arrived, size_t soft_limit_bytes = kDefaultLimit)
      : arrived_(std::move(arrived)), soft_limit_bytes_(soft_limit_bytes) {}

  void write(std::span<const uint8_t> bytes) override;
  /// Replaces the contents of `out` by everything that waits.
  void take(std::vector<uint8_t>& out);
  /// Drops what waits and everything that comes from now on: nobody will take it.
  void close();

 private:
  const std::function<void()> arrived_;
  const size_t soft_limit_bytes_;
  Mutex mutex_;
  Condition taken_;
  std::vector<uint8_t> waiting_ TENON_GUARDED_BY(mutex_);  // writers append, the taker swaps
  bool closed_ TENON_GUARDED_BY(mutex_) = false;
};

}  // namespace tenon
