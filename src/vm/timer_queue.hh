// TimerQueue: the timers behind a Clock, in deadline order, without a thread or a time source of its own. The real
// clock (host/host_clock.hh) and the test clock (vm/fake_clock.hh) differ only in who calls run_due() and when.
//
// Threads: make_timer, arm and destruction of timers from any thread; run_due() from one thread at a time. Callbacks
// run with no lock held. Scaling: a VM has tens of device timers (a vCPU's own APIC timer is in its VcpuSignal), so the
// queue is a sorted array; arming allocates nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/mutex.hh"
#include "vm/clock.hh"

namespace tenon {

class TimerQueue {
 public:
  /// `on_earlier` runs (any thread, no lock held) when the earliest deadline may have moved closer; may be empty.
  explicit TimerQueue(std::function<void()> on_earlier);
  ~TimerQueue();
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  /// The timer must be destroyed before the queue.
  std::unique_ptr<Timer> make_timer(std::function<void()> callback);

  /// The earliest deadline, or kNoDeadline.
  uint64_t next_deadline_ns() const;

  /// Runs the callbacks of all timers whose deadline is at most `now_ns`, earliest first, each at most once: one that
  /// arms itself for the past runs again in the next call, so it cannot starve the others.
  void run_due(uint64_t now_ns);

 private:
  class QueuedTimer;
  struct Armed {
    uint64_t deadline_ns;
    uint64_t sequence;  // of arming; orders equal deadlines and marks what was armed during a run_due()
    QueuedTimer* timer;
  };

  void arm(QueuedTimer& timer, uint64_t deadline_ns);
  void forget(QueuedTimer& timer);
  void remove_locked(const QueuedTimer& timer) TENON_REQUIRES(mutex_);
  /// Takes the first timer that is due and was armed before `sequence_end` off the queue; nullptr for none.
  QueuedTimer* take_due_locked(uint64_t now_ns, uint64_t sequence_end) TENON_REQUIRES(mutex_);

  const std::function<void()> on_earlier_;
  mutable Mutex mutex_;
  Condition callback_done_;
  std::vector<Armed> armed_ TENON_GUARDED_BY(mutex_);  // sorted by deadline, then sequence
  uint64_t next_sequence_ TENON_GUARDED_BY(mutex_) = 0;
  size_t timer_count_ TENON_GUARDED_BY(mutex_) = 0;
  const QueuedTimer* running_ TENON_GUARDED_BY(mutex_) = nullptr;  // whose callback runs now
};

}  // namespace tenon
