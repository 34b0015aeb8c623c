// Guest time: the only source of time a device may use. It stands still while the VM is paused.
//
// Guest TSC and guest nanoseconds advance together at a declared frequency, which every personality publishes.
// Timers: a device owns Timer objects; their callbacks run on the clock's one timer thread with no lock held. A vCPU's
// own APIC timer is not here: it is a deadline in its VcpuSignal, polled or slept on by its own thread (see engine.hh),
// so timer load does not meet in one thread as vCPUs grow.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

namespace tenon {

constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;
constexpr uint64_t kNoDeadline = ~uint64_t{0};

/// One-shot timer. arm() replaces an earlier deadline. Destroying it waits for a callback that is running, so never
/// destroy it from its own callback or under a lock that the callback takes.
class Timer {
 public:
  virtual ~Timer() = default;
  /// Fires once when guest time reaches `deadline_ns`; at once where that has passed. kNoDeadline disarms.
  virtual void arm(uint64_t deadline_ns) = 0;
  void disarm() { arm(kNoDeadline); }
};

class Clock {
 public:
  virtual ~Clock() = default;
  /// Guest nanoseconds since the VM was created, monotonic, without paused time. Any thread.
  virtual uint64_t now_ns() const = 0;
  /// Guest TSC before any per-vCPU offset: advances with now_ns() at tsc_hz(), stands still while paused. Any thread.
  virtual uint64_t now_tsc() const = 0;
  /// What RDTSC on the host is to be added to give now_tsc(), for code that reads time without a call. Good until the
  /// clock is paused or resumed, which is done while no vCPU runs. nullopt: only now_tsc() knows. Any thread.
  virtual std::optional<uint64_t> host_tsc_offset() const { return std::nullopt; }
  virtual uint64_t tsc_hz() const = 0;
  /// Wall-clock time in nanoseconds since 1970-01-01 UTC, for RTC and kvmclock.
  virtual uint64_t wall_time_ns() const = 0;
  virtual std::unique_ptr<Timer> make_timer(std::function<void()> callback) = 0;
};

/// value * numerator / denominator without overflow in between (denominator > 0).
constexpr uint64_t scale(uint64_t value, uint64_t numerator, uint64_t denominator) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(static_cast<Wide>(value) * numerator / denominator);
}

}  // namespace tenon
