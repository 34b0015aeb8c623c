#include "devices/chip/uart16550.hh"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "vm/fake_clock.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

constexpr unsigned kRbrThr = 0, kIer = 1, kIirFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6, kScr = 7;
constexpr uint8_t kReady = 0x0b;  // DTR, RTS, OUT2

struct Sink final : ByteSink {
  void write(std::span<const uint8_t> bytes) override {
    text.insert(text.end(), bytes.begin(), bytes.end());
    ++writes;
    if (on_write) on_write();
  }
  std::vector<uint8_t> text;
  unsigned writes = 0;
  std::function<void()> on_write;
};

struct UartTest : testing::Test {
  FakeClock clock;
  Bus ports{"port"};
  RecordingInterrupts interrupts;
  Sink sink;
  Uart16550 uart{"uart0", clock, IrqLine(interrupts, Gsi{4}), sink};

  size_t offer(const std::string& text) {
    return uart.offer({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }
  std::string drain() {
    std::string text;
    while ((uart.read(kLsr) & 1) != 0) text.push_back(static_cast<char>(uart.read(kRbrThr)));
    return text;
  }
};

TEST_F(UartTest, ResetValuesAreTheDataSheets) {
  EXPECT_EQ(uart.read(kIer), 0);
  EXPECT_EQ(uart.read(kIirFcr), 0x01);
  EXPECT_EQ(uart.read(kLcr), 0);
  EXPECT_EQ(uart.read(kMcr), 0);
  EXPECT_EQ(uart.read(kLsr), 0x60);
  EXPECT_EQ(uart.read(kMsr), 0xb0);
}

TEST_F(UartTest, ABurstCostsOneHostWriteAndIsEightBitClean) {
  std::vector<uint8_t> all(256);
  std::iota(all.begin(), all.end(), uint8_t{0});
  for (const uint8_t byte : all) {
    ASSERT_NE(uart.read(kLsr) & 0x20, 0);
    uart.write(kRbrThr, byte);
  }
  EXPECT_EQ(sink.writes, 0u);
  clock.advance_ns(Uart16550::kFlushDelayNs);
  EXPECT_EQ(sink.writes, 1u);
  EXPECT_EQ(sink.text, all);
}

TEST_F(UartTest, AFullBufferIsWrittenAtOnce) {
  for (size_t i = 0; i < Uart16550::kTransmitBufferSize; ++i) uart.write(kRbrThr, static_cast<uint8_t>(i));
  EXPECT_EQ(sink.text.size(), Uart16550::kTransmitBufferSize);
  EXPECT_NE(uart.read(kLsr) & 0x20, 0);
}

TEST_F(UartTest, BytesWrittenWhileTheSinkWorksFollowInOrder) {
  bool once = true;
  sink.on_write = [&] {
    if (std::exchange(once, false)) uart.write(kRbrThr, 'b');
  };
  uart.write(kRbrThr, 'a');
  uart.flush();
  EXPECT_EQ(sink.text, (std::vector<uint8_t>{'a', 'b'}));
}

TEST_F(UartTest, DriverThatFillsTheFifoAfterOneLookAtThreLosesNothing) {
  // The buffer fills up in bursts of 16 while the sink has not returned, from a start that leaves an odd rest.
  bool once = true;
  size_t written = 5;
  sink.on_write = [&] {
    if (!std::exchange(once, false)) return;
    uart.write(kRbrThr, 0);
    ++written;
    while ((uart.read(kLsr) & 0x20) != 0)
      for (int i = 0; i < 16; ++i) uart.write(kRbrThr, static_cast<uint8_t>(written++));
  };
  for (int i = 0; i < 5; ++i) uart.write(kRbrThr, 0);
  uart.flush();
  EXPECT_GT(written, Uart16550::kTransmitBufferSize);
  EXPECT_EQ(sink.text.size(), written);
  EXPECT_EQ(sink.text.back(), static_cast<uint8_t>(written - 1));
  EXPECT_NE(uart.read(kLsr) & 0x20, 0);
}

TEST_F(UartTest, ThreadsThatWriteAndFlushLoseNothing) {
  constexpr unsigned kThreads = 3, kBytes = 5000;
  constexpr uint8_t kThre = 0x20;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      for (unsigned i = 0; i < kBytes; ++i) {
        // As a driver: a byte only after THRE. Between the two the other threads write fewer than a FIFO's worth.
        while ((uart.read(kLsr) & kThre) == 0) uart.flush();
        uart.write(kRbrThr, static_cast<uint8_t>(t));
        if (i % 64 == 0) uart.flush();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  uart.flush();
  EXPECT_EQ(sink.text.size(), size_t{kThreads} * kBytes);
}

TEST_F(UartTest, PauseAndHaltFlush) {
  uart.write(kRbrThr, 'x');
  uart.pause();
  EXPECT_EQ(sink.text.size(), 1u);
  uart.resume();
  uart.write(kRbrThr, 'y');
  uart.halt();
  EXPECT_EQ(sink.text.size(), 2u);
}

TEST_F(UartTest, ThreInterruptComesWithItsEnableAndGoesWithIir) {
  uart.write(kMcr, kReady);
  uart.write(kIer, 0x02);
  EXPECT_TRUE(interrupts.level(4));
  EXPECT_EQ(uart.read(kIirFcr), 0x02);
  EXPECT_FALSE(interrupts.level(4));
  EXPECT_EQ(uart.read(kIirFcr), 0x01);
  uart.write(kRbrThr, 'a');  // the byte is gone at once, so THR is empty again: a new edge
  EXPECT_TRUE(interrupts.level(4));
  EXPECT_EQ(interrupts.rises(4), 2u);
}

TEST_F(UartTest, Out2GatesTheInterrupt) {
  uart.write(kIer, 0x02);
  EXPECT_FALSE(interrupts.level(4));
  uart.write(kMcr, 0x08);
  EXPECT_TRUE(interrupts.level(4));
}

TEST_F(UartTest, ReceiverTakesNothingUntilTheGuestListens) {
  EXPECT_EQ(offer("lost?"), 0u);
  bool has_room = false;
  uart.on_room([&] { has_room = true; });
  uart.write(kMcr, kReady);
  EXPECT_TRUE(has_room);
  EXPECT_EQ(offer("kept"), 1u);  // no FIFO yet: one byte
}

TEST_F(UartTest, FifoTakesSixteenAndAsksForMoreWhenEmpty) {
  unsigned rooms = 0;
  uart.on_room([&] { ++rooms; });
  uart.write(kMcr, kReady);
  uart.write(kIirFcr, 0x01);
  EXPECT_EQ(offer("0123456789abcdefgh"), 16u);
  EXPECT_EQ(rooms, 0u);
  EXPECT_EQ(drain(), "0123456789abcdef");
  EXPECT_EQ(rooms, 1u);
  EXPECT_EQ(offer("gh"), 2u);
  EXPECT_EQ(drain(), "gh");
  EXPECT_EQ(rooms, 1u);  // nothing was refused the second time
}

TEST_F(UartTest, TriggerLevelChoosesBetweenDataAndTimeOut) {
  uart.write(kMcr, kReady);
  uart.write(kIirFcr, 0x81);  // FIFO on, trigger 8
  uart.write(kIer, 0x01);
  offer("1234567");
  EXPECT_EQ(uart.read(kIirFcr), 0xcc);
  offer("8");
  EXPECT_EQ(uart.read(kIirFcr), 0xc4);
  EXPECT_TRUE(interrupts.level(4));
  drain();
  EXPECT_FALSE(interrupts.level(4));
}

TEST_F(UartTest, LoopbackFeedsTheReceiverAndTheModemLines) {
  uart.write(kMcr, 0x1a);  // loop, RTS, OUT2: the probe of PC drivers
  EXPECT_EQ(uart.read(kMsr) & 0xf0, 0x90);
  uart.write(kRbrThr, 0xa5);
  EXPECT_EQ(uart.read(kLsr) & 0x01, 0x01);
  uart.write(kRbrThr, 0x5a);  // overrun: without FIFO the new byte replaces the old one
  EXPECT_EQ(uart.read(kLsr) & 0x02, 0x02);
  EXPECT_EQ(uart.read(kLsr) & 0x02, 0x00);
  EXPECT_EQ(uart.read(kRbrThr), 0x5a);
  EXPECT_TRUE(sink.text.empty());
}

TEST_F(UartTest, ModemStatusDeltasInterruptAndClear) {
  uart.write(kMcr, kReady);
  uart.write(kIer, 0x08);
  uart.write(kMcr, 0x18);  // loop with OUT2: CTS and DSR fall
  EXPECT_TRUE(interrupts.level(4));
  EXPECT_EQ(uart.read(kIirFcr), 0x00);
  EXPECT_EQ(uart.read(kMsr) & 0x0f, 0x03);
  EXPECT_FALSE(interrupts.level(4));
}

TEST_F(UartTest, DivisorLatchHidesThrAndIer) {
  uart.write(kLcr, 0x83);
  uart.write(kRbrThr, 0x0c);
  uart.write(kIer, 0x01);
  EXPECT_EQ(uart.read(kRbrThr), 0x0c);
  EXPECT_EQ(uart.read(kIer), 0x01);
  uart.write(kLcr, 0x03);
  EXPECT_EQ(uart.read(kIer), 0x00);
  uart.flush();
  EXPECT_TRUE(sink.text.empty());
}

TEST_F(UartTest, ScratchAndIdentificationAreA16550A) {
  uart.write(kScr, 0x5a);
  EXPECT_EQ(uart.read(kScr), 0x5a);
  uart.write(kIirFcr, 0x01);
  EXPECT_EQ(uart.read(kIirFcr) & 0xc0, 0xc0);
  uart.write(kIer, 0xff);
  EXPECT_EQ(uart.read(kIer), 0x0f);
}

TEST_F(UartTest, BusSplitsWideAccesses) {
  ASSERT_TRUE(uart.map(ports, Uart16550::kCom1));
  ports.write(0x3fa, 2, 0x8301);  // FCR, LCR
  EXPECT_EQ(ports.read(0x3fb, 1), 0x83u);
  EXPECT_EQ(ports.read(0x3fc, 4) & 0xff, 0u);
}

TEST_F(UartTest, StateSurvivesSaveAndRestore) {
  uart.write(kMcr, kReady);
  uart.write(kIirFcr, 0x01);
  uart.write(kIer, 0x01);
  offer("abc");
  const SavedState state = uart.save();
  Uart16550 other("uart0", clock, IrqLine(interrupts, Gsi{5}), sink);
  ASSERT_TRUE(other.restore(state));
  EXPECT_EQ(other.read(kRbrThr), 'a');
  EXPECT_EQ(other.read(kIer), 0x01);
  EXPECT_EQ(interrupts.rises(5), 0u);  // the other end has been restored too
}

TEST_F(UartTest, HostileSavedStateIsRefusedByField) {
  SavedState state = uart.save();
  state.bytes[10] = std::byte{2};  // fifo_count, with the FIFO off
  const auto result = uart.restore(state);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message().find("fifo_count"), std::string::npos);
  state.version = 2;
  EXPECT_FALSE(uart.restore(state));
}

}  // namespace
}  // namespace tenon
