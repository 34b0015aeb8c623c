#include "host/host_clock.hh"

#include <gtest/gtest.h>
#include <x86intrin.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace tenon {
namespace {

using namespace std::chrono_literals;

/// Waits without a bound of its own: the test framework's time limit is the only one, so a busy host cannot fail a
/// test.
void wait_for(const std::atomic<int>& counter, int target) {
  while (counter.load() < target) std::this_thread::sleep_for(100us);
}

TEST(HostClock, FrequencyIsPlausibleAndStable) {
  const HostClock clock;
  EXPECT_GE(clock.tsc_hz(), 100'000'000u);
  EXPECT_LE(clock.tsc_hz(), 20'000'000'000u);
  EXPECT_EQ(clock.tsc_hz(), host_tsc_hz());
}

TEST(HostClock, NanosecondsFollowTheTsc) {
  HostClock clock;
  std::this_thread::sleep_for(2ms);
  clock.pause();
  const uint64_t exact = scale(clock.now_tsc(), kNanosecondsPerSecond, clock.tsc_hz());
  EXPECT_NEAR(static_cast<double>(clock.now_ns()), static_cast<double>(exact), 1.0);
  EXPECT_GE(clock.now_ns(), 1'000'000u);
}

TEST(HostClock, NeverRunsBackwardAcrossThreads) {
  HostClock clock;
  std::atomic<uint64_t> latest = 0;
  std::atomic<bool> backward = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 5000; ++n) {
        const uint64_t seen = latest.load();
        const uint64_t now = clock.now_ns();
        if (now < seen) backward = true;
        uint64_t old = seen;
        while (old < now && !latest.compare_exchange_weak(old, now)) {
        }
      }
    });
  for (int n = 0; n < 50; ++n) {
    clock.pause();
    clock.resume();
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(backward);
}

TEST(HostClock, StandsStillWhilePaused) {
  HostClock clock;
  clock.pause();
  clock.pause();
  const uint64_t at_pause = clock.now_ns();
  std::this_thread::sleep_for(3ms);
  EXPECT_EQ(clock.now_ns(), at_pause);
  clock.resume();
  clock.resume();
  EXPECT_GE(clock.now_ns(), at_pause);
}

TEST(HostClock, GivesTheOffsetOfTheHostsCounterWhileItRuns) {
  HostClock clock;
  const auto between = [&] {
    const uint64_t before = clock.now_tsc();
    const uint64_t now = __rdtsc() + clock.host_tsc_offset().value();
    return before <= now && now <= clock.now_tsc();
  };
  EXPECT_TRUE(between());
  clock.pause();
  EXPECT_FALSE(clock.host_tsc_offset().has_value());
  std::this_thread::sleep_for(1ms);
  clock.resume();
  EXPECT_TRUE(between());
}

TEST(HostClock, TimersFireNeverEarlyAndInOrder) {
  HostClock clock;
  std::atomic<int> fired = 0;
  std::atomic<bool> early = false;
  const uint64_t start = clock.now_ns();
  std::vector<std::unique_ptr<Timer>> timers;
  for (int i = 0; i < 5; ++i) {
    const uint64_t deadline = start + static_cast<uint64_t>(5 - i) * 1'000'000;
    timers.push_back(clock.make_timer([&, deadline] {
      if (clock.now_ns() < deadline) early = true;
      ++fired;
    }));
    timers.back()->arm(deadline);
  }
  wait_for(fired, 5);
  EXPECT_FALSE(early);
}

TEST(HostClock, TimerInThePastFires) {
  HostClock clock;
  std::atomic<int> fired = 0;
  const auto timer = clock.make_timer([&] { ++fired; });
  timer->arm(0);
  wait_for(fired, 1);
}

TEST(HostClock, TimerWaitsWhilePausedAndFiresAfterResume) {
  HostClock clock;
  std::atomic<int> fired = 0;
  const auto timer = clock.make_timer([&] { ++fired; });
  clock.pause();
  timer->arm(clock.now_ns() + 1'000'000);
  std::this_thread::sleep_for(5ms);
  EXPECT_EQ(fired, 0);
  clock.resume();
  wait_for(fired, 1);
}

TEST(HostClock, PeriodicTimerRearmsFromItsCallback) {
  HostClock clock;
  std::atomic<int> fired = 0;
  std::unique_ptr<Timer> timer;
  timer = clock.make_timer([&] {
    if (++fired < 20) timer->arm(clock.now_ns() + 100'000);
  });
  timer->arm(clock.now_ns());
  wait_for(fired, 20);
}

TEST(HostClock, WallTimeIsAfterThisWasWritten) {
  const HostClock clock;
  EXPECT_GT(clock.wall_time_ns(), 1'700'000'000 * kNanosecondsPerSecond);
}

}  // namespace
}  // namespace tenon
