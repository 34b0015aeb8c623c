// Raw mode against a pseudo-terminal; the ways out that end the process run in a child of the test.
#include "host/terminal.hh"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "base/check.hh"
#include "base/fd.hh"

namespace tenon {
namespace {

class TerminalTest : public testing::Test {
 protected:
  void SetUp() override {
    master_ = Fd(::posix_openpt(O_RDWR | O_NOCTTY));
    ASSERT_TRUE(master_.is_open());
    ASSERT_EQ(::grantpt(master_.get()), 0);
    ASSERT_EQ(::unlockpt(master_.get()), 0);
    slave_ = Fd(::open(::ptsname(master_.get()), O_RDWR | O_NOCTTY));
    ASSERT_TRUE(slave_.is_open());
  }
  bool is_raw() const {
    termios settings;
    EXPECT_EQ(::tcgetattr(slave_.get(), &settings), 0);
    return (settings.c_lflag & (ICANON | ECHO | ISIG)) == 0;
  }
  /// Runs `end` in a child that is in raw mode; returns the wait status.
  template <typename End>
  int end_child_in_raw_mode(End end) {
    const pid_t child = ::fork();
    if (child == 0) {
      const Result<std::unique_ptr<RawMode>> raw = RawMode::enter(slave_.get());
      if (raw && is_raw()) end();
      ::_exit(99);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status;
  }

  Fd master_;
  Fd slave_;
};

TEST_F(TerminalTest, RawModeEndsWithItsObject) {
  EXPECT_FALSE(is_raw());
  {
    Result<std::unique_ptr<RawMode>> raw = RawMode::enter(slave_.get());
    ASSERT_TRUE(raw);
    EXPECT_TRUE(is_raw());
    (*raw)->suspend();
    EXPECT_FALSE(is_raw());
    (*raw)->resume();
    EXPECT_TRUE(is_raw());
  }
  EXPECT_FALSE(is_raw());
}

TEST_F(TerminalTest, ExitRestores) {
  const int status = end_child_in_raw_mode([] { ::exit(3); });
  EXPECT_EQ(WEXITSTATUS(status), 3);
  EXPECT_FALSE(is_raw());
}

TEST_F(TerminalTest, FatalSignalsRestoreAndStillKill) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  const std::vector<int> signals = {SIGABRT};  // the sanitizer has its own handlers for the others
#else
  const std::vector<int> signals = {SIGSEGV, SIGBUS, SIGABRT};
#endif
  for (const int number : signals) {
    const int status = end_child_in_raw_mode([number] { ::raise(number); });
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(WTERMSIG(status), number);
    EXPECT_FALSE(is_raw());
  }
}

TEST_F(TerminalTest, FailedCheckRestores) {
  const int status = end_child_in_raw_mode([] {
    ::close(STDERR_FILENO);
    CHECK(false);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(is_raw());
}

TEST_F(TerminalTest, ClosedStandardDescriptorsAreFilled) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(kStdin);
    ::close(kStderr);
    open_missing_standard_descriptors();
    const bool filled = ::fcntl(kStdin, F_GETFD) >= 0 && ::fcntl(kStderr, F_GETFD) >= 0;
    ::_exit(filled && ::open("/dev/null", O_RDONLY) > kStderr ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(TerminalTest, WindowSize) {
  const winsize size = {.ws_row = 33, .ws_col = 101, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(::ioctl(master_.get(), TIOCSWINSZ, &size), 0);
  EXPECT_EQ(terminal_size(slave_.get()).rows, 33);
  EXPECT_EQ(terminal_size(slave_.get()).columns, 101);
}

TEST_F(TerminalTest, PipeIsNoTerminal) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_FALSE(is_terminal(ends[0]));
  EXPECT_EQ(terminal_size(ends[0]).rows, 0);
  EXPECT_FALSE(RawMode::enter(ends[0]));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(EscapeFilter, FindsTheFirstControlBracket) {
  const uint8_t text[] = {'a', 'b', 0x1D, 'c', 0x1D};
  EXPECT_EQ(EscapeFilter::find(text, sizeof text), 2u);
  EXPECT_FALSE(EscapeFilter::find(text, 2));
}

}  // namespace
}  // namespace tenon
