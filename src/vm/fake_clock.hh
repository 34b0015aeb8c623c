// FakeClock: guest time for tests and fuzzers. It moves only when told and runs due timers on the caller's thread, so a
// device test is exact and needs no sleeping.
//
// Deviation from a real clock: a timer armed for the past fires at the next advance (by 0 is enough), not at once,
// because the caller of arm() may hold its device's lock.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "vm/clock.hh"
#include "vm/timer_queue.hh"

namespace tenon {

class FakeClock final : public Clock {
 public:
  static constexpr uint64_t kTscHz = 1'000'000'000;  // one tick a nanosecond unless said otherwise

  explicit FakeClock(uint64_t tsc_hz = kTscHz) : tsc_hz_(tsc_hz), timers_(nullptr) {}

  uint64_t now_ns() const override { return now_ns_.load(std::memory_order_acquire); }
  uint64_t now_tsc() const override { return scale(now_ns(), tsc_hz_, kNanosecondsPerSecond); }
  uint64_t tsc_hz() const override { return tsc_hz_; }
  uint64_t wall_time_ns() const override { return wall_time_at_start_ns_ + now_ns(); }
  std::unique_ptr<Timer> make_timer(std::function<void()> callback) override {
    return timers_.make_timer(std::move(callback));
  }

  /// Moves time forward; each timer that falls due runs with now_ns() at its deadline. One thread only.
  void advance_ns(uint64_t duration_ns) { advance_to_ns(now_ns() + duration_ns); }
  void advance_to_ns(uint64_t target_ns);
  /// Moves time to the earliest armed timer and runs it. False, without moving, where none is armed.
  bool advance_to_next_timer();

  uint64_t next_deadline_ns() const { return timers_.next_deadline_ns(); }
  void set_wall_time_at_start_ns(uint64_t wall_time_ns) { wall_time_at_start_ns_ = wall_time_ns; }

 private:
  const uint64_t tsc_hz_;
  std::atomic<uint64_t> now_ns_{0};
  uint64_t wall_time_at_start_ns_ = 1'700'000'000 * kNanosecondsPerSecond;  // 2023-11-14 22:13:20 UTC
  TimerQueue timers_;
};

}  // namespace tenon
