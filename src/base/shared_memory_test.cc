#include "base/shared_memory.hh"

#include <gtest/gtest.h>

#include <array>
#include <thread>

namespace tenon {
namespace {

TEST(SharedMemory, CopiesEverySizeAndAlignmentExactly) {
  alignas(8) std::array<std::byte, 48> shared;
  std::array<std::byte, 40> source;
  for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::byte>(i + 1);
  for (size_t offset = 0; offset < 8; ++offset)
    for (size_t size = 0; size <= source.size(); ++size) {
      shared.fill(std::byte{0xee});
      copy_to_shared(shared.data() + offset, source.data(), size);
      std::array<std::byte, 40> back;
      back.fill(std::byte{0xdd});
      copy_from_shared(back.data(), shared.data() + offset, size);
      for (size_t i = 0; i < back.size(); ++i) ASSERT_EQ(back[i], i < size ? source[i] : std::byte{0xdd});
      for (size_t i = 0; i < shared.size(); ++i)
        if (i < offset || i >= offset + size) {
          ASSERT_EQ(shared[i], std::byte{0xee});
        }
    }
}

TEST(SharedMemory, FullFenceOrdersStoreBeforeLoad) {
  // The store-buffering litmus test: without the fence both threads may read zero.
  for (int round = 0; round < 200; ++round) {
    alignas(64) std::atomic<int> x = 0;
    alignas(64) std::atomic<int> y = 0;
    std::atomic<int> arrived = 0;
    int seen_y = 0;
    std::thread other([&] {
      ++arrived;
      while (arrived < 2) std::this_thread::yield();
      x.store(1, std::memory_order_relaxed);
      full_fence();
      seen_y = y.load(std::memory_order_relaxed);
    });
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
    y.store(1, std::memory_order_relaxed);
    full_fence();
    const int seen_x = x.load(std::memory_order_relaxed);
    other.join();
    ASSERT_TRUE(seen_x == 1 || seen_y == 1);
  }
}

}  // namespace
}  // namespace tenon
