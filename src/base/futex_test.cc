#include "base/futex.hh"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tenon {
namespace {

TEST(Futex, ReturnsAtOnceWhenTheWordHasChanged) {
  const std::atomic<uint32_t> word = 1;
  futex_wait(word, 0);
}

TEST(Futex, TimesOut) {
  const std::atomic<uint32_t> word = 1;
  futex_wait(word, 1, 1'000'000);
}

TEST(Futex, WakesOneAndAll) {
  std::atomic<uint32_t> word = 0;
  std::vector<std::thread> waiters;
  for (int i = 0; i < 3; ++i)
    waiters.emplace_back([&] {
      while (word == 0) futex_wait(word, 0);
    });
  futex_wake_one(word);  // for nothing: the waiter looks again
  word = 1;
  futex_wake_all(word);
  for (std::thread& waiter : waiters) waiter.join();
  EXPECT_EQ(word, 1u);
}

}  // namespace
}  // namespace tenon
