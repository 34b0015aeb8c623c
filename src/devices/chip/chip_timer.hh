// ChipTimer: a chip's one timer, armed in order without a lock around the call-out. The counterpart of OutputPin.
//
// A chip decides the deadline under its own lock with note(), releases the lock, then calls publish(). When several
// threads do so at once, the deadline noted last is the one that stays armed. The callback runs on the clock's timer
// thread with no lock held; it must look at the time itself, since it may come for a deadline that has been replaced.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "vm/clock.hh"

namespace tenon {

class ChipTimer {
 public:
  ChipTimer(Clock& clock, std::function<void()> callback) : timer_(clock.make_timer(std::move(callback))) {}

  /// With the chip's lock held; kNoDeadline for none.
  void note(uint64_t deadline_ns) {
    wanted_ns_.store(deadline_ns);
    is_due_.store(true);
  }

  /// With no lock held.
  void publish() {
    if (!is_due_.load() || !is_due_.exchange(false)) return;
    uint64_t armed_ns = 0;
    do {
      armed_ns = wanted_ns_.load();
      timer_->arm(armed_ns);
    } while (wanted_ns_.load() != armed_ns);  // somebody noted another one, and may have armed it before us
  }

 private:
  std::atomic<uint64_t> wanted_ns_{kNoDeadline};
  std::atomic<bool> is_due_{false};
  std::unique_ptr<Timer> timer_;
};

}  // namespace tenon
