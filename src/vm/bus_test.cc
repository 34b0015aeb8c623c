#include "vm/bus.hh"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace tenon {
namespace {

class Recorder : public BusHandler {
 public:
  uint64_t bus_read(uint64_t offset, unsigned size_bytes) override {
    last_offset = offset;
    last_size = size_bytes;
    if (on_access) on_access();
    return answer;
  }
  void bus_write(uint64_t offset, unsigned size_bytes, uint64_t value) override {
    last_offset = offset;
    last_size = size_bytes;
    last_value = value;
    if (on_access) on_access();
  }
  uint64_t answer = 0;
  uint64_t last_offset = ~uint64_t{0};
  unsigned last_size = 0;
  uint64_t last_value = 0;
  std::function<void()> on_access;
};

BusMapping map_or_fail(Bus& bus, uint64_t base, uint64_t size_bytes, BusHandler& handler, const char* name) {
  Result<BusMapping> mapping = bus.map(base, size_bytes, handler, name);
  EXPECT_TRUE(mapping.has_value());
  return mapping ? std::move(*mapping) : BusMapping();
}

TEST(Bus, HandlerSeesOffsetSizeAndValue) {
  Bus bus("ports");
  Recorder uart;
  const BusMapping mapping = map_or_fail(bus, 0x3f8, 8, uart, "uart0");
  bus.write(0x3fb, 1, 0x1283);
  EXPECT_EQ(uart.last_offset, 3u);
  EXPECT_EQ(uart.last_size, 1u);
  EXPECT_EQ(uart.last_value, 0x83u);
  uart.answer = 0xffff'ff60;
  EXPECT_EQ(bus.read(0x3fd, 1), 0x60u);
  EXPECT_EQ(bus.read(0x3f8, 8), 0xffff'ff60u);
}

TEST(Bus, UnclaimedReadsAnswerAllOnesAndAreCounted) {
  Bus bus("ports");
  Recorder device;
  const BusMapping mapping = map_or_fail(bus, 0x100, 4, device, "device");
  EXPECT_EQ(bus.read(0xff, 1), 0xffu);
  EXPECT_EQ(bus.read(0x104, 2), 0xffffu);
  EXPECT_EQ(bus.read(0x103, 2), 0xffffu);  // crosses the end of the range
  EXPECT_EQ(bus.read(0, 4), 0xffff'ffffu);
  EXPECT_EQ(bus.read(~uint64_t{0}, 8), ~uint64_t{0});
  bus.write(0x104, 1, 1);
  EXPECT_EQ(bus.unclaimed_count(), 6u);
  EXPECT_EQ(device.last_size, 0u);
}

TEST(Bus, OverlapIsRefusedAndNamesBoth) {
  Bus bus("mmio");
  Recorder device;
  const BusMapping first = map_or_fail(bus, 0x1000, 0x1000, device, "ioapic");
  for (const auto& [base, size_bytes] :
       {std::pair<uint64_t, uint64_t>{0x1fff, 1}, {0x1000, 0x1000}, {0x0, 0x1001}, {0x0, 0x10000}, {0x1100, 4}}) {
    const Result<BusMapping> second = bus.map(base, size_bytes, device, "intruder");
    ASSERT_FALSE(second.has_value());
    EXPECT_EQ(second.error().code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(second.error().message().find("ioapic"), std::string::npos);
    EXPECT_NE(second.error().message().find("intruder"), std::string::npos);
  }
  const BusMapping before = map_or_fail(bus, 0x0, 0x1000, device, "before");
  const BusMapping behind = map_or_fail(bus, 0x2000, 1, device, "behind");
  EXPECT_EQ(bus.describe(),
            (std::vector<std::string>{"0x0-0xfff before", "0x1000-0x1fff ioapic", "0x2000-0x2000 behind"}));
}

TEST(Bus, EmptyAndWrappingRangesAreRefused) {
  Bus bus("mmio");
  Recorder device;
  EXPECT_FALSE(bus.map(0x1000, 0, device, "empty").has_value());
  EXPECT_FALSE(bus.map(~uint64_t{0}, 2, device, "wraps").has_value());
  const BusMapping last = map_or_fail(bus, ~uint64_t{0} - 7, 8, device, "last");
  device.answer = 5;
  EXPECT_EQ(bus.read(~uint64_t{0} - 7, 8), 5u);
  EXPECT_EQ(bus.read(~uint64_t{0} - 3, 8), ~uint64_t{0});
}

TEST(Bus, MappingEndsWithItsObject) {
  Bus bus("mmio");
  Recorder device;
  {
    BusMapping mapping = map_or_fail(bus, 0, 16, device, "device");
    BusMapping moved = std::move(mapping);
    EXPECT_EQ(bus.read(0, 4), 0u);
  }
  EXPECT_EQ(bus.read(0, 4), 0xffff'ffffu);
  BusMapping again = map_or_fail(bus, 0, 16, device, "device");
  again = map_or_fail(bus, 32, 16, device, "device");
  EXPECT_EQ(bus.describe().size(), 1u);
  again.reset();
  again.reset();
  EXPECT_TRUE(bus.describe().empty());
}

TEST(Bus, HandlerMayUnmapItselfAndAccessTheBus) {
  Bus bus("mmio");
  Recorder inner;
  Recorder outer;
  inner.answer = 7;
  const BusMapping inner_mapping = map_or_fail(bus, 0x100, 4, inner, "inner");
  BusMapping outer_mapping = map_or_fail(bus, 0x200, 4, outer, "outer");
  uint64_t nested = 0;
  outer.on_access = [&] {
    outer_mapping.reset();
    nested = bus.read(0x100, 4);
  };
  outer.answer = 9;
  EXPECT_EQ(bus.read(0x200, 4), 9u);
  EXPECT_EQ(nested, 7u);
  EXPECT_EQ(bus.read(0x200, 4), 0xffff'ffffu);
}

TEST(Bus, RemappingForEverKeepsNoSnapshots) {
  Bus bus("mmio");
  Recorder device;
  BusMapping bar;
  for (uint64_t i = 0; i < 1000; ++i) {
    bar.reset();
    bar = map_or_fail(bus, i * 0x1000, 0x1000, device, "bar");
    EXPECT_EQ(bus.retired_count(), 0u);  // nobody looks anything up meanwhile
  }
}

/// Always at the same offset answers the value of its base, so that a reader can tell a wrong hit.
class Echo : public BusHandler {
 public:
  uint64_t bus_read(uint64_t offset, unsigned) override { return 0x4000 + offset; }
  void bus_write(uint64_t, unsigned, uint64_t) override { ++writes; }
  std::atomic<uint64_t> writes = 0;
};

TEST(Bus, ManyReadersWhileRangesMove) {
  Bus bus("mmio");
  Echo fixed;
  Echo moving;
  const BusMapping mapping = map_or_fail(bus, 0x1000'0000, 0x1000, fixed, "fixed");
  std::atomic<bool> done = false;
  std::atomic<uint64_t> wrong = 0;
  std::vector<std::thread> readers;
  constexpr size_t kReaders = 4;
  for (size_t r = 0; r < kReaders; ++r)
    readers.emplace_back([&, r] {
      uint64_t n = r;
      while (!done) {
        if (bus.read(0x1000'0010, 4) != 0x4010) ++wrong;
        const uint64_t seen = bus.read(0x2000'0000 + n++ % 64 * 0x1000, 4);
        if (seen != 0xffff'ffff && seen != 0x4000) ++wrong;
      }
    });
  size_t retired_max = 0;
  BusMapping bar;
  for (uint64_t i = 0; i < 3000; ++i) {
    bar.reset();
    bar = map_or_fail(bus, 0x2000'0000 + i % 64 * 0x1000, 0x1000, moving, "bar");
    retired_max = std::max(retired_max, bus.retired_count());
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_LE(retired_max, kReaders);
}

TEST(BusDeathTest, MappingMustNotOutliveItsBus) {
  Recorder device;
  EXPECT_DEATH(
      {
        auto bus = std::make_unique<Bus>("mmio");
        const BusMapping mapping = map_or_fail(*bus, 0, 16, device, "device");
        bus.reset();
      },
      "check failed");
}

}  // namespace
}  // namespace tenon
