// Deadline: a one-shot timer of an event loop, in host time. For what a person waits for, never for guest time.
#pragma once

#include <functional>

#include "base/event_loop.hh"
#include "base/fd.hh"
#include "base/result.hh"

namespace tenon {

/// Threads: the loop's.
class Deadline {
 public:
  static Result<Deadline> create(EventLoop& loop, std::function<void()> expired);
  /// Calls `expired` once after `delay_ms`; replaces an earlier arm(). 0 disarms.
  void arm(unsigned delay_ms);
  /// Whether it is going to expire.
  bool is_armed() const;

 private:
  Deadline(Fd timer, FdWatch watch) : timer_(std::move(timer)), watch_(std::move(watch)) {}
  Fd timer_;
  FdWatch watch_;  // after timer_: goes first
};

}  // namespace tenon
