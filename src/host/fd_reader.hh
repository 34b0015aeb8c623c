// FdReader: reads a descriptor (stdin) from an event loop, no faster than its user takes the bytes.
//
// The descriptor is shared with other processes, so it is not made non-blocking: one read after each readiness event.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/event_loop.hh"
#include "base/result.hh"

namespace tenon {

/// Threads: the loop's.
class FdReader {
 public:
  struct Callbacks {
    std::function<void(std::span<const uint8_t> bytes)> received;
    /// End of file, hang-up or an error: nothing more will come. Once.
    std::function<void()> ended;
  };

  /// Starts with a limit of 0.
  FdReader(EventLoop& loop, int fd, Callbacks callbacks) : loop_(loop), fd_(fd), callbacks_(std::move(callbacks)) {}

  /// How many bytes received() may be called with from now on, in all; 0 stops reading.
  Result<void> set_limit(size_t size_bytes);
  bool has_ended() const { return ended_; }

 private:
  void read_once();

  EventLoop& loop_;
  const int fd_;
  const Callbacks callbacks_;
  size_t limit_ = 0;
  bool ended_ = false;
  FdWatch watch_;
};

}  // namespace tenon
