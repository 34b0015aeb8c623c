#include "base/hazard.hh"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tenon {
namespace {

TEST(Hazard, HoldsWhatTheSourcePointedTo) {
  int first = 1;
  int second = 2;
  std::atomic<int*> source = &first;
  {
    const Hazard<int> hazard(source);
    source = &second;
    EXPECT_EQ(*hazard, 1);
    EXPECT_TRUE(held_by_any_thread(&first));
    EXPECT_FALSE(held_by_any_thread(&second));
    {
      const Hazard<int> nested(source);
      EXPECT_EQ(*nested, 2);
      EXPECT_TRUE(held_by_any_thread(&first));
      EXPECT_TRUE(held_by_any_thread(&second));
    }
    EXPECT_FALSE(held_by_any_thread(&second));
  }
  EXPECT_FALSE(held_by_any_thread(&first));
}

TEST(Hazard, IsSeenFromAnotherThreadAndForgottenAtItsEnd) {
  int value = 1;
  std::atomic<int*> source = &value;
  std::atomic<int> phase = 0;
  std::thread reader([&] {
    const Hazard<int> hazard(source);
    phase = 1;
    while (phase != 2) std::this_thread::yield();
  });
  while (phase != 1) std::this_thread::yield();
  EXPECT_TRUE(held_by_any_thread(&value));
  phase = 2;
  reader.join();
  EXPECT_FALSE(held_by_any_thread(&value));
}

TEST(Hazard, ReadersNeverSeeAFreedObject) {
  struct Object {
    explicit Object(uint64_t n) : a(n), b(~n) {}
    ~Object() { a = b = 0; }
    uint64_t a, b;
  };
  std::atomic<Object*> source = new Object(0);
  std::atomic<bool> done = false;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i)
    readers.emplace_back([&] {
      while (!done) {
        const Hazard<Object> object(source);
        if (object->a != ~object->b) ++wrong;
      }
    });
  std::vector<Object*> retired;
  size_t retired_max = 0;
  for (uint64_t n = 1; n < 20'000; ++n) {
    retired.push_back(source.exchange(new Object(n)));
    std::erase_if(retired, [](Object* object) {
      if (held_by_any_thread(object)) return false;
      delete object;
      return true;
    });
    retired_max = std::max(retired_max, retired.size());
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  for (const Object* object : retired) delete object;
  delete source.load();
  EXPECT_EQ(wrong, 0);
  EXPECT_LE(retired_max, 3u);
}

TEST(HazardDeathTest, TooDeepNestingStops) {
  int value = 1;
  std::atomic<int*> source = &value;
  EXPECT_DEATH(
      {
        const Hazard<int> a(source);
        const Hazard<int> b(source);
        const Hazard<int> c(source);
        const Hazard<int> d(source);
        const Hazard<int> e(source);
      },
      "check failed");
}

}  // namespace
}  // namespace tenon
