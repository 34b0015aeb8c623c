// HostClock: guest time on a Linux host. Guest TSC is the host's TSC less an offset, so that hardware virtualisation
// and the software engines agree; guest nanoseconds are derived from it by one multiplication.
//
// Threads: everything may be called from any thread. pause() and resume() are for the machine, which has stopped its
// vCPUs. One thread named `timer` a VM sleeps exactly until the earliest deadline; with no timer armed it costs
// nothing. Scaling: reading the clock writes nothing shared, so any number of vCPUs may poll it. Not implemented: hosts
// whose TSC stops or differs between CPUs (no invariant TSC, SDM Vol. 3 18.17.1). On those, guest time jumps with it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#include "base/mutex.hh"
#include "vm/clock.hh"
#include "vm/timer_queue.hh"

namespace tenon {

/// The host's TSC frequency: declared by CPUID (leaf 0x15 with 0x16, or the hypervisor's 0x40000010), else measured
/// once against the host's monotonic clock for about 10 ms and rounded to 1 kHz. Later calls return the first result.
uint64_t host_tsc_hz();

class HostClock final : public Clock {
 public:
  /// Starts running at guest time 0.
  HostClock();
  ~HostClock() override;
  HostClock(const HostClock&) = delete;
  HostClock& operator=(const HostClock&) = delete;

  uint64_t now_ns() const override;
  uint64_t now_tsc() const override;
  std::optional<uint64_t> host_tsc_offset() const override;
  uint64_t tsc_hz() const override { return tsc_hz_; }
  uint64_t wall_time_ns() const override;
  std::unique_ptr<Timer> make_timer(std::function<void()> callback) override;

  /// Guest time stands still; timers do not fire. Pausing a paused clock changes nothing.
  void pause();
  void resume();

 private:
  void run_timers();
  void wake_timer_thread();

  const uint64_t tsc_hz_;
  const uint64_t ns_per_tick_;  // fixed point, kFractionBits after the point

  // A sequence lock over the next two: odd while pause() or resume() changes them, under pause_mutex_.
  std::atomic<uint32_t> sequence_{0};
  std::atomic<bool> paused_{false};
  std::atomic<uint64_t> tsc_base_;  // running: host TSC at guest TSC 0; paused: the guest TSC itself
  Mutex pause_mutex_;

  alignas(64) TimerQueue timers_;        // off the lines above, which every vCPU reads
  std::atomic<uint32_t> timer_news_{0};  // futex word of the timer thread; changes when it must look again
  std::atomic<bool> stopping_{false};
  std::thread timer_thread_;
};

}  // namespace tenon
