#include "base/mutex.hh"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tenon {
namespace {

TEST(Mutex, ExcludesOtherThreads) {
  Mutex mutex;
  int count = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 1000; ++n) {
        const MutexLock lock(mutex);
        ++count;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(count, 4000);
}

TEST(Mutex, TryLockFailsWhileHeld) {
  Mutex mutex;
  mutex.lock();
  bool taken = true;
  std::thread([&] { taken = mutex.try_lock(); }).join();
  EXPECT_FALSE(taken);
  mutex.unlock();
}

TEST(Condition, WaitsForAChange) {
  Mutex mutex;
  Condition changed;
  int state = 0;
  std::thread other([&] {
    const MutexLock lock(mutex);
    while (state != 1) changed.wait(mutex);
    state = 2;
    changed.notify_all();
  });
  mutex.lock();
  state = 1;
  changed.notify_all();
  while (state != 2) changed.wait(mutex);
  mutex.unlock();
  other.join();
  EXPECT_EQ(state, 2);
}

}  // namespace
}  // namespace tenon
