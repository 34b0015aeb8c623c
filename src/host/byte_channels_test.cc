// ByteMailbox, ByteFeeder and FdWriter: what they have in common is that no byte may be lost, doubled or swapped.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <numeric>
#include <thread>
#include <vector>

#include "host/byte_feeder.hh"
#include "host/byte_mailbox.hh"
#include "host/child_process.hh"
#include "host/fd_writer.hh"

namespace tenon {
namespace {

/// A device with a FIFO of 16 bytes that its guest thread empties.
class FifoDevice final : public ByteReceiver {
 public:
  size_t offer(std::span<const uint8_t> bytes) override {
    const MutexLock lock(mutex_);
    const size_t count = std::min(bytes.size(), 16 - fifo_.size());
    fifo_.insert(fifo_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(count));
    if (count < bytes.size()) refused_ = true;
    return count;
  }
  void on_room(std::function<void()> callback) override { on_room_ = std::move(callback); }

  /// What the guest does in its interrupt handler.
  void guest_reads(std::vector<uint8_t>& received) {
    bool tell = false;
    {
      const MutexLock lock(mutex_);
      received.insert(received.end(), fifo_.begin(), fifo_.end());
      fifo_.clear();
      tell = std::exchange(refused_, false);
    }
    if (tell && on_room_) on_room_();
  }

 private:
  Mutex mutex_;
  std::vector<uint8_t> fifo_;
  bool refused_ = false;
  std::function<void()> on_room_;
};

std::vector<uint8_t> numbered_bytes(size_t count) {
  std::vector<uint8_t> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 256);
  return bytes;
}

TEST(ByteFeeder, GuestAndHostThreadsLoseNothing) {
  FifoDevice device;
  ByteFeeder feeder(device);
  std::atomic<int> emptied{0};
  feeder.on_empty([&] { ++emptied; });
  const std::vector<uint8_t> sent = numbered_bytes(200'000);
  std::vector<uint8_t> received;
  std::thread guest([&] {
    while (received.size() < sent.size()) device.guest_reads(received);
  });
  for (size_t at = 0; at < sent.size(); at += 1000) feeder.push(std::span(sent).subspan(at, 1000));
  guest.join();
  EXPECT_EQ(received, sent);
  EXPECT_EQ(feeder.waiting_bytes(), 0u);
  EXPECT_GE(emptied, 1);
}

TEST(ByteFeeder, ClearDropsWhatTheGuestHasNotTaken) {
  FifoDevice device;
  ByteFeeder feeder(device);
  feeder.push(numbered_bytes(100));
  EXPECT_EQ(feeder.waiting_bytes(), 84u);
  feeder.clear();
  std::vector<uint8_t> received;
  device.guest_reads(received);
  device.guest_reads(received);
  EXPECT_EQ(received.size(), 16u);
}

TEST(ByteMailbox, TellsOnceUntilTaken) {
  int told = 0;
  ByteMailbox mailbox([&] { ++told; });
  mailbox.write(numbered_bytes(10));
  mailbox.write(numbered_bytes(10));
  EXPECT_EQ(told, 1);
  std::vector<uint8_t> taken;
  mailbox.take(taken);
  EXPECT_EQ(taken.size(), 20u);
  mailbox.write(numbered_bytes(1));
  EXPECT_EQ(told, 2);
}

TEST(ByteMailbox, FullMailboxSlowsTheWriterButLosesNothing) {
  ByteMailbox mailbox([] {}, 100);
  mailbox.write(numbered_bytes(200));
  mailbox.write(numbered_bytes(50));  // sleeps, then goes on
  std::vector<uint8_t> taken;
  mailbox.take(taken);
  EXPECT_EQ(taken.size(), 250u);
}

TEST(ByteMailbox, ClosedMailboxDropsAndDoesNotBlock) {
  ByteMailbox mailbox([] {}, 10);
  mailbox.close();
  for (int i = 0; i < 1000; ++i) mailbox.write(numbered_bytes(100));
  std::vector<uint8_t> taken;
  mailbox.take(taken);
  EXPECT_TRUE(taken.empty());
}

std::unique_ptr<FdWriter> make_writer(const Pipe& pipe, FdWriter::Callbacks callbacks) {
  return MUST(FdWriter::create(pipe.write_end.get(), "test", std::move(callbacks)));  // only fails without descriptors
}

TEST(FdWriter, EverythingArrivesInOrderAndIsCounted) {
  Pipe pipe = MUST(Pipe::create());  // a test host without pipes is none
  std::vector<uint8_t> received;
  std::thread reader([&] {
    uint8_t bytes[700];
    for (ssize_t count; (count = ::read(pipe.read_end.get(), bytes, sizeof bytes)) > 0;)
      received.insert(received.end(), bytes, bytes + count);
  });
  const std::vector<uint8_t> sent = numbered_bytes(300'000);
  std::atomic<size_t> written{0};
  {
    const std::unique_ptr<FdWriter> writer =
        make_writer(pipe, {.written = [&](size_t n) { written += n; }, .failed = {}});
    for (size_t at = 0; at < sent.size(); at += 500) writer->write(std::span(sent).subspan(at, 500));
    EXPECT_TRUE(writer->drain(10'000));
    EXPECT_EQ(written, sent.size());
  }
  pipe.write_end.reset();
  reader.join();
  EXPECT_EQ(received, sent);
}

TEST(FdWriter, ClosedReaderIsToldOnce) {
  ::signal(SIGPIPE, SIG_IGN);
  Pipe pipe = MUST(Pipe::create());  // as above
  pipe.read_end.reset();
  std::atomic<int> failures{0};
  const std::unique_ptr<FdWriter> writer = make_writer(pipe, {.written = {}, .failed = [&](int number) {
                                                                EXPECT_EQ(number, EPIPE);
                                                                ++failures;
                                                              }});
  writer->write("lost");
  EXPECT_TRUE(writer->drain(10'000));
  writer->write("lost too");
  EXPECT_TRUE(writer->drain(10'000));
  EXPECT_EQ(failures, 1);
}

TEST(FdWriter, StuckReaderDoesNotHoldUpTheEnd) {
  Pipe pipe = MUST(Pipe::create());  // as above
  {
    const std::unique_ptr<FdWriter> writer = make_writer(pipe, {});
    writer->write(numbered_bytes(200'000));  // more than the pipe holds
    EXPECT_FALSE(writer->drain(50));
  }
  pipe.read_end.reset();  // lets the left-behind thread go
}

}  // namespace
}  // namespace tenon
