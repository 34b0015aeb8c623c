#include "base/event_loop.hh"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <string>
#include <thread>

namespace tenon {
namespace {

struct Pair {
  Fd a, b;
};

Pair socket_pair() {
  int fds[2] = {-1, -1};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  return {Fd(fds[0]), Fd(fds[1])};
}

TEST(EventLoop, PostedWorkRunsInOrderAndStopComesLast) {
  const std::unique_ptr<EventLoop> loop = MUST(EventLoop::create());
  std::string order;
  loop->post([&] { order += 'a'; });
  loop->post([&] { order += 'b'; });
  loop->stop();
  loop->post([&] { order += 'c'; });
  ASSERT_TRUE(loop->run().has_value());
  EXPECT_EQ(order, "abc");
}

TEST(EventLoop, PostFromAnotherThreadWakesTheLoop) {
  const std::unique_ptr<EventLoop> loop = MUST(EventLoop::create());
  std::thread::id ran_on;
  std::thread other([&] {
    loop->post([&] { ran_on = std::this_thread::get_id(); });
    loop->stop();
  });
  ASSERT_TRUE(loop->run().has_value());
  other.join();
  EXPECT_EQ(ran_on, std::this_thread::get_id());
}

TEST(EventLoop, WatchSeesReadableAndClosed) {
  const std::unique_ptr<EventLoop> loop = MUST(EventLoop::create());
  Pair pair = socket_pair();
  std::string text;
  const FdWatch watch = MUST(loop->watch(pair.a.get(), EventLoop::kReadable, [&](uint32_t events) {
    char buffer[16];
    const ssize_t count = ::read(pair.a.get(), buffer, sizeof buffer);
    if (count > 0) text.append(buffer, static_cast<size_t>(count));
    if (count == 0) {
      EXPECT_NE(events & EventLoop::kClosed, 0u);
      loop->stop();
    }
  }));
  ASSERT_EQ(::write(pair.b.get(), "hello", 5), 5);
  pair.b.reset();
  ASSERT_TRUE(loop->run().has_value());
  EXPECT_EQ(text, "hello");
}

TEST(EventLoop, CallbackMayRemoveItsOwnWatchAndOthers) {
  const std::unique_ptr<EventLoop> loop = MUST(EventLoop::create());
  std::array<Pair, 2> pairs = {socket_pair(), socket_pair()};
  std::array<FdWatch, 2> watches;
  int calls = 0;
  for (size_t i = 0; i < 2; ++i)
    watches[i] = MUST(loop->watch(pairs[i].a.get(), EventLoop::kReadable, [&](uint32_t) {
      ++calls;
      watches[0].reset();
      watches[1].reset();
      loop->stop();
    }));
  for (const Pair& pair : pairs) ASSERT_EQ(::write(pair.b.get(), "x", 1), 1);
  ASSERT_TRUE(loop->run().has_value());
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, UnpollableFileIsAlwaysReady) {
  const std::unique_ptr<EventLoop> loop = MUST(EventLoop::create());
  const Fd null = MUST(Fd::open("/dev/null", O_RDONLY));
  const Fd exe = MUST(Fd::open("/proc/self/exe", O_RDONLY));
  int null_calls = 0;
  int file_calls = 0;
  FdWatch null_watch = MUST(loop->watch(null.get(), EventLoop::kReadable, [&](uint32_t events) {
    EXPECT_NE(events & EventLoop::kReadable, 0u);
    if (++null_calls == 3) null_watch.reset();
  }));
  FdWatch file_watch = MUST(loop->watch(exe.get(), EventLoop::kReadable, [&](uint32_t) {
    if (++file_calls == 5) loop->stop();
  }));
  ASSERT_TRUE(loop->run().has_value());
  EXPECT_EQ(null_calls, 3);
  EXPECT_EQ(file_calls, 5);
}

TEST(EventLoop, BadDescriptorIsAnError) {
  const std::unique_ptr<EventLoop> loop = MUST(EventLoop::create());
  EXPECT_FALSE(loop->watch(-1, EventLoop::kReadable, [](uint32_t) {}).has_value());
}

TEST(EventLoop, SignalsArriveAsCallbacks) {
  const std::unique_ptr<EventLoop> loop = MUST(EventLoop::create());
  std::vector<int> seen;
  const int signals[] = {SIGUSR1, SIGUSR2};
  ASSERT_TRUE(loop->watch_signals(signals,
                                  [&](int signal) {
                                    seen.push_back(signal);
                                    if (seen.size() == 2) loop->stop();
                                  })
                  .has_value());
  ::kill(::getpid(), SIGUSR1);
  ::kill(::getpid(), SIGUSR2);
  ASSERT_TRUE(loop->run().has_value());
  EXPECT_EQ(seen, (std::vector<int>{SIGUSR1, SIGUSR2}));
}

TEST(EventLoop, CanRunAgainAfterStop) {
  const std::unique_ptr<EventLoop> loop = MUST(EventLoop::create());
  for (int round = 0; round < 3; ++round) {
    loop->stop();
    ASSERT_TRUE(loop->run().has_value());
  }
}

}  // namespace
}  // namespace tenon
