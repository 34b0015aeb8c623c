#include "vm/timer_queue.hh"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "vm/fake_clock.hh"

namespace tenon {
namespace {

TEST(TimerQueue, RunsInDeadlineOrderAndEachOnce) {
  FakeClock clock;
  std::string order;
  const auto a = clock.make_timer([&] { order += 'a'; });
  const auto b = clock.make_timer([&] { order += 'b'; });
  const auto c = clock.make_timer([&] { order += 'c'; });
  a->arm(30);
  b->arm(10);
  c->arm(20);
  clock.advance_to_ns(9);
  EXPECT_EQ(order, "");
  clock.advance_to_ns(10);
  EXPECT_EQ(order, "b");
  clock.advance_to_ns(1000);
  EXPECT_EQ(order, "bca");
  EXPECT_EQ(clock.next_deadline_ns(), kNoDeadline);
}

TEST(TimerQueue, EqualDeadlinesRunInTheOrderOfArming) {
  FakeClock clock;
  std::string order;
  const auto a = clock.make_timer([&] { order += 'a'; });
  const auto b = clock.make_timer([&] { order += 'b'; });
  b->arm(5);
  a->arm(5);
  clock.advance_ns(5);
  EXPECT_EQ(order, "ba");
}

TEST(TimerQueue, ArmReplacesAndDisarmForgets) {
  FakeClock clock;
  int fired = 0;
  const auto timer = clock.make_timer([&] { ++fired; });
  timer->arm(10);
  timer->arm(50);
  clock.advance_to_ns(49);
  EXPECT_EQ(fired, 0);
  timer->disarm();
  clock.advance_to_ns(100);
  EXPECT_EQ(fired, 0);
  timer->arm(100);
  clock.advance_ns(0);
  EXPECT_EQ(fired, 1);
}

TEST(TimerQueue, PeriodicTimerSeesItsOwnDeadlineAsNow) {
  FakeClock clock;
  std::vector<uint64_t> times;
  std::unique_ptr<Timer> timer;
  timer = clock.make_timer([&] {
    times.push_back(clock.now_ns());
    timer->arm(clock.now_ns() + 7);
  });
  timer->arm(7);
  clock.advance_ns(30);
  EXPECT_EQ(times, (std::vector<uint64_t>{7, 14, 21, 28}));
  EXPECT_EQ(clock.now_ns(), 30u);
}

TEST(TimerQueue, TimerThatArmsItselfForThePastDoesNotStarveOthers) {
  TimerQueue queue(nullptr);
  int hostile = 0;
  int other = 0;
  std::unique_ptr<Timer> a;
  a = queue.make_timer([&] {
    ++hostile;
    a->arm(0);
  });
  const auto b = queue.make_timer([&] { ++other; });
  a->arm(0);
  b->arm(5);
  queue.run_due(10);
  EXPECT_EQ(hostile, 1);
  EXPECT_EQ(other, 1);
  queue.run_due(10);
  EXPECT_EQ(hostile, 2);
}

TEST(TimerQueue, TellsOnlyWhenTheEarliestDeadlineMovesCloser) {
  int told = 0;
  TimerQueue queue([&] { ++told; });
  const auto a = queue.make_timer([] {});
  const auto b = queue.make_timer([] {});
  a->arm(10);
  EXPECT_EQ(told, 1);
  b->arm(20);
  EXPECT_EQ(told, 1);
  b->arm(5);
  EXPECT_EQ(told, 2);
  EXPECT_EQ(queue.next_deadline_ns(), 5u);
  b->disarm();
  EXPECT_EQ(queue.next_deadline_ns(), 10u);
}

TEST(TimerQueue, CallbackMayDestroyAnotherTimer) {
  FakeClock clock;
  int fired = 0;
  auto victim = clock.make_timer([&] { ++fired; });
  const auto killer = clock.make_timer([&] { victim.reset(); });
  killer->arm(1);
  victim->arm(1);
  clock.advance_ns(5);
  EXPECT_EQ(fired, 0);
}

TEST(TimerQueue, DestructionWaitsForARunningCallback) {
  TimerQueue queue(nullptr);
  std::atomic<bool> entered = false;
  std::atomic<bool> release = false;
  std::atomic<bool> finished = false;
  auto timer = queue.make_timer([&] {
    entered = true;
    while (!release) std::this_thread::yield();
    finished = true;
  });
  timer->arm(0);
  std::thread runner([&] { queue.run_due(0); });
  while (!entered) std::this_thread::yield();
  std::thread releaser([&] { release = true; });
  timer.reset();
  EXPECT_TRUE(finished);
  runner.join();
  releaser.join();
}

TEST(TimerQueue, ArmingFromManyThreadsWhileRunning) {
  TimerQueue queue(nullptr);
  std::atomic<int> fired = 0;
  std::atomic<bool> done = false;
  std::thread runner([&] {
    while (!done) queue.run_due(1);
  });
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i)
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        const auto timer = queue.make_timer([&] { ++fired; });
        const int before = fired;
        timer->arm(1);
        if (round % 3 == 0) timer->disarm();
        if (round % 2 == 1) {
          timer->arm(0);
          while (fired == before) std::this_thread::yield();
        }
      }
    });
  for (std::thread& thread : threads) thread.join();
  done = true;
  runner.join();
  EXPECT_GT(fired, 0);
  EXPECT_EQ(queue.next_deadline_ns(), kNoDeadline);
}

TEST(FakeClock, TscFollowsTimeAtItsFrequency) {
  FakeClock clock(2'400'000'000);
  clock.advance_ns(kNanosecondsPerSecond);
  EXPECT_EQ(clock.now_tsc(), 2'400'000'000u);
  EXPECT_EQ(clock.tsc_hz(), 2'400'000'000u);
  clock.set_wall_time_at_start_ns(5);
  EXPECT_EQ(clock.wall_time_ns(), kNanosecondsPerSecond + 5);
}

TEST(FakeClock, AdvanceToNextTimer) {
  FakeClock clock;
  int fired = 0;
  const auto timer = clock.make_timer([&] { ++fired; });
  EXPECT_FALSE(clock.advance_to_next_timer());
  timer->arm(123);
  EXPECT_TRUE(clock.advance_to_next_timer());
  EXPECT_EQ(clock.now_ns(), 123u);
  EXPECT_EQ(fired, 1);
}

}  // namespace
}  // namespace tenon
