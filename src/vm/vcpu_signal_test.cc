#include "vm/vcpu_signal.hh"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include "vm/fake_clock.hh"

namespace tenon {
namespace {

TEST(VcpuSignal, IsACacheLineOfItsOwn) {
  EXPECT_EQ(alignof(VcpuSignal), 64u);
  EXPECT_EQ(sizeof(VcpuSignal), 64u);
}

TEST(VcpuSignal, RaiseAndTake) {
  VcpuSignal signal;
  EXPECT_EQ(signal.pending(), 0u);
  signal.raise(VcpuSignal::kNmi | VcpuSignal::kStop);
  EXPECT_EQ(signal.take(VcpuSignal::kNmi | VcpuSignal::kInit), uint32_t{VcpuSignal::kNmi});
  EXPECT_EQ(signal.pending(), uint32_t{VcpuSignal::kStop});
  EXPECT_EQ(signal.take(VcpuSignal::kNmi), 0u);
}

TEST(VcpuSignal, WaitReturnsAtOnceWhenPending) {
  VcpuSignal signal;
  const FakeClock clock;
  signal.raise(VcpuSignal::kInterrupt);
  signal.wait(VcpuSignal::kInterrupt, clock);
  EXPECT_EQ(signal.pending(), uint32_t{VcpuSignal::kInterrupt});
}

TEST(VcpuSignal, WaitReturnsWhenTheDeadlineHasPassed) {
  VcpuSignal signal;
  FakeClock clock;
  clock.advance_ns(1000);
  signal.set_deadline_ns(1000);
  signal.wait(VcpuSignal::kInterrupt, clock);
  EXPECT_EQ(signal.pending(), 0u);
}

/// Guest time that advances a little at each look, so that a sleep ends after a few rounds.
class SteppingClock final : public Clock {
 public:
  uint64_t now_ns() const override { return now_ns_.fetch_add(200'000); }
  uint64_t now_tsc() const override { return 0; }
  uint64_t tsc_hz() const override { return 1; }
  uint64_t wall_time_ns() const override { return 0; }
  std::unique_ptr<Timer> make_timer(std::function<void()>) override { return nullptr; }

 private:
  mutable std::atomic<uint64_t> now_ns_{0};
};

TEST(VcpuSignal, WaitSleepsUntilTheDeadline) {
  VcpuSignal signal;
  const SteppingClock clock;
  signal.set_deadline_ns(1'000'000);
  signal.wait(VcpuSignal::kInterrupt, clock);
  EXPECT_GE(clock.now_ns(), 1'000'000u);
}

TEST(VcpuSignal, WaitIgnoresBitsOutsideItsMask) {
  VcpuSignal signal;
  const FakeClock clock;
  std::atomic<bool> woken = false;
  std::thread vcpu([&] {
    signal.wait(VcpuSignal::kNmi, clock);
    woken = true;
  });
  signal.raise(VcpuSignal::kInterrupt);
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_FALSE(woken);
  signal.raise(VcpuSignal::kNmi);
  vcpu.join();
  EXPECT_TRUE(woken);
}

TEST(VcpuSignal, NoWakeUpIsLost) {
  VcpuSignal signal;
  const FakeClock clock;
  constexpr int kRounds = 5000;
  std::atomic<int> taken = 0;
  std::thread vcpu([&] {
    while (taken < kRounds) {
      signal.wait(VcpuSignal::kInterrupt, clock);
      if (signal.take(VcpuSignal::kInterrupt) != 0) ++taken;
    }
  });
  for (int round = 0; round < kRounds; ++round) {
    signal.raise(VcpuSignal::kInterrupt);
    while (taken <= round) std::this_thread::yield();
  }
  vcpu.join();
  EXPECT_EQ(taken, kRounds);
}

TEST(VcpuSignal, ManyProducers) {
  VcpuSignal signal;
  const FakeClock clock;
  constexpr uint32_t kAll = VcpuSignal::kInterrupt | VcpuSignal::kNmi | VcpuSignal::kInit | VcpuSignal::kStop;
  std::vector<std::thread> producers;
  for (const uint32_t bit : {VcpuSignal::kInterrupt, VcpuSignal::kNmi, VcpuSignal::kInit})
    producers.emplace_back([&signal, bit] {
      for (int i = 0; i < 2000; ++i) signal.raise(bit);
    });
  std::thread stopper([&] {
    for (std::thread& producer : producers) producer.join();
    signal.raise(VcpuSignal::kStop);
  });
  uint32_t seen = 0;
  while ((seen & VcpuSignal::kStop) == 0) {
    signal.wait(kAll, clock);
    seen |= signal.take(kAll);
  }
  stopper.join();
  EXPECT_EQ(seen, kAll);
}

TEST(VcpuSignal, PokesTheEnginesWord) {
  VcpuSignal signal;
  std::atomic<uint32_t> poke{0};
  signal.set_poke(&poke);
  EXPECT_EQ(poke.exchange(0), 1u);  // what was raised before is looked at
  signal.raise(VcpuSignal::kNmi);
  EXPECT_EQ(poke, 1u);
  signal.set_poke(nullptr);
  poke = 0;
  signal.raise(VcpuSignal::kStop);
  EXPECT_EQ(poke, 0u);
}

/// A vCPU that looks at nothing but its word, as translated code does.
TEST(VcpuSignal, NoBitIsOverlookedBehindThePoke) {
  VcpuSignal signal;
  constexpr int kRounds = 3000;
  std::atomic<int> taken{0};
  std::atomic<bool> listening{false};
  std::thread vcpu([&] {
    auto poke = std::make_unique<std::atomic<uint32_t>>(0);
    signal.set_poke(poke.get());
    listening = true;
    while (taken < kRounds) {
      if (poke->exchange(0) == 0) {
        std::this_thread::yield();
      } else if ((signal.take(~0u) & VcpuSignal::kInterrupt) != 0) {
        ++taken;
      }
    }
    signal.set_poke(nullptr);
  });
  std::thread other([&] {
    while (taken < kRounds) {
      signal.raise(VcpuSignal::kNmi);
      std::this_thread::yield();
    }
  });
  while (!listening) std::this_thread::yield();
  for (int round = 0; round < kRounds; ++round) {
    signal.raise(VcpuSignal::kInterrupt);
    while (taken <= round) std::this_thread::yield();
  }
  for (int i = 0; i < 1000; ++i) signal.raise(1u << (i % 6));  // also while the word goes away
  vcpu.join();
  other.join();
}

}  // namespace
}  // namespace tenon
