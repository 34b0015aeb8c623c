#include "host/fd_reader.hh"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "host/child_process.hh"
#include "host/deadline.hh"

namespace tenon {
namespace {

class FdReaderTest : public testing::Test {
 protected:
  void take(std::span<const uint8_t> bytes) { received_.append(bytes.begin(), bytes.end()); }
  void SetUp() override {
    loop_ = MUST(EventLoop::create());  // a test host has epoll
    pipe_ = MUST(Pipe::create());       // and pipes
  }
  std::unique_ptr<EventLoop> loop_;
  Pipe pipe_;
  std::string received_;
};

TEST_F(FdReaderTest, ReadsNoMoreThanTheLimitAllows) {
  FdReader reader(*loop_, pipe_.read_end.get(),
                  {.received = [&](std::span<const uint8_t> bytes) { take(bytes), loop_->stop(); },
                   .ended = [] { FAIL() << "not ended"; }});
  ASSERT_EQ(::write(pipe_.write_end.get(), "abcdef", 6), 6);
  ASSERT_TRUE(reader.set_limit(4));
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(received_, "abcd");
  ASSERT_TRUE(reader.set_limit(100));
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(received_, "abcdef");
}

TEST_F(FdReaderTest, EndIsToldOnceAfterTheLastByte) {
  int ended = 0;
  FdReader reader(
      *loop_, pipe_.read_end.get(),
      {.received = [&](std::span<const uint8_t> bytes) { take(bytes); }, .ended = [&] { ++ended, loop_->stop(); }});
  ASSERT_EQ(::write(pipe_.write_end.get(), "xyz", 3), 3);
  pipe_.write_end.reset();
  ASSERT_TRUE(reader.set_limit(100));
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(received_, "xyz");
  EXPECT_EQ(ended, 1);
  EXPECT_TRUE(reader.has_ended());
  EXPECT_TRUE(reader.set_limit(100));
}

TEST_F(FdReaderTest, RegularFileIsReadToItsEnd) {
  const Fd file = MUST(Fd::open("/proc/self/status", O_RDONLY));  // procfs is mounted wherever tests run
  FdReader reader(*loop_, file.get(),
                  {.received = [&](std::span<const uint8_t> bytes) { take(bytes); }, .ended = [&] { loop_->stop(); }});
  ASSERT_TRUE(reader.set_limit(1 << 20));
  ASSERT_TRUE(loop_->run());
  EXPECT_TRUE(received_.starts_with("Name:"));
}

TEST_F(FdReaderTest, DeadlineFiresOnceAndCanBeDisarmed) {
  int fired = 0;
  Result<Deadline> never = Deadline::create(*loop_, [] { FAIL() << "was disarmed"; });
  Result<Deadline> soon = Deadline::create(*loop_, [&] { ++fired, loop_->stop(); });
  ASSERT_TRUE(never && soon);
  never->arm(1);
  never->arm(0);
  soon->arm(5);
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(fired, 1);
}

}  // namespace
}  // namespace tenon
