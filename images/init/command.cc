#include "init/command.hh"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cstring>

#include "init/boot.hh"

namespace tenon::guest {

using namespace console_protocol;

namespace {

constexpr const char* kDefaultEnvironment[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "USER=root",
    "LOGNAME=root",
    "SHELL=/bin/sh",
    "TERM=linux",
};

void close_fd(int& fd) {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

void set_non_blocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }

/// In the child, between fork and exec: nothing here may fail silently, the errno goes to the parent through
/// `report_fd`.
[[noreturn]] void become(const int (&standard)[3], bool controlling_terminal, StartRecord* record, int report_fd) {
  ::setsid();
  if (controlling_terminal) ::ioctl(standard[0], TIOCSCTTY, 1);
  for (int i = 0; i < 3; ++i) ::dup2(standard[i], i);  // all of standard[] are above 2: init keeps 0-2 open

  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);

  for (const char* entry : kDefaultEnvironment) ::putenv(const_cast<char*>(entry));
  int error = 0;
  if (record != nullptr) {
    for (char* const* entry = record->environment(); *entry != nullptr; ++entry) ::putenv(*entry);
    if (record->directory != nullptr && ::chdir(record->directory) != 0) error = errno;
  } else if (::chdir("/root") != 0) {
    error = errno;
  }
  const bool shell = record == nullptr || record->arguments()[0] == nullptr;
  if (error == 0 && shell) ::execl("/bin/sh", "-sh", nullptr);
  if (error == 0 && !shell) ::execvp(record->arguments()[0], record->arguments());
  if (error == 0) error = errno;
  [[maybe_unused]] const ssize_t written = ::write(report_fd, &error, sizeof error);
  ::_exit(127);
}

}  // namespace

int Command::start(StartRecord& record) {
  ChildEnds child;
  switch (static_cast<StartMode>(record.header.mode)) {
    case StartMode::kConsoleShell: return start_console_shell(record.header.window);
    case StartMode::kPipes: return start_with(open_pipes(child), child, &record);
    case StartMode::kTerminal: {
      const int error = open_terminal(child, record.header.stderr_pipe != 0);
      if (error == 0) set_window(record.header.window);
      return start_with(error, child, &record);
    }
  }
  return EINVAL;
}

int Command::start_console_shell(WindowSize window) {
  ChildEnds child;
  const int error = open_console(child);
  if (error == 0) set_window(window);
  on_console_ = true;
  return start_with(error, child, nullptr);
}

/// Closes the child's ends and, where the command does not run, init's too.
int Command::start_with(int error, const ChildEnds& child, StartRecord* record) {
  if (error == 0) error = spawn(child, record);
  for (int i = 0; i < 3; ++i) {
    const bool shared = i > 0 && child.standard[i] == child.standard[i - 1];
    if (child.standard[i] >= 0 && !shared && child.standard[i] != terminal_fd_) ::close(child.standard[i]);
  }
  if (error != 0) {
    close_input();
    close_output(output);
    close_output(error_output);
  }
  return error;
}

int Command::open_pipes(ChildEnds& child) {
  int ends[3][2];
  for (auto& pair : ends)
    if (::pipe2(pair, O_CLOEXEC) != 0) return errno;
  child.standard[0] = ends[0][0];
  child.standard[1] = ends[1][1];
  child.standard[2] = ends[2][1];
  input_fd_ = ends[0][1];
  output.fd = ends[1][0];
  error_output.fd = ends[2][0];
  for (const int fd : {input_fd_, output.fd, error_output.fd}) set_non_blocking(fd);
  return 0;
}

int Command::open_terminal(ChildEnds& child, bool stderr_pipe) {
  terminal_fd_ = ::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  if (terminal_fd_ < 0) return errno;
  char name[64];
  if (::unlockpt(terminal_fd_) != 0 || ::ptsname_r(terminal_fd_, name, sizeof name) != 0) return errno;
  const int slave = ::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (slave < 0) return errno;
  for (int& fd : child.standard) fd = slave;
  child.controlling_terminal = true;
  input_fd_ = output.fd = terminal_fd_;
  input_is_terminal_ = true;
  if (stderr_pipe) {
    int pair[2];
    if (::pipe2(pair, O_CLOEXEC) != 0) return errno;
    child.standard[2] = pair[1];
    error_output.fd = pair[0];
    set_non_blocking(error_output.fd);
  }
  return 0;
}

int Command::open_console(ChildEnds& child) {
  terminal_fd_ = ::open(console_path(), O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (terminal_fd_ < 0) return errno;
  for (int& fd : child.standard) fd = terminal_fd_;
  child.controlling_terminal = true;
  return 0;
}

int Command::spawn(const ChildEnds& child, StartRecord* record) {
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) return errno;
  const pid_t pid = ::fork();
  if (pid == 0) become(child.standard, child.controlling_terminal, record, report[1]);
  int error = pid < 0 ? errno : 0;
  ::close(report[1]);
  // The pipe closes by itself when execve succeeds.
  if (pid > 0 && ::read(report[0], &error, sizeof error) == sizeof error) ::waitpid(pid, nullptr, 0);
  ::close(report[0]);
  if (error == 0) pid_ = pid;
  return error;
}

void Command::set_window(WindowSize window) const {
  if (terminal_fd_ < 0 || window.rows == 0 || window.columns == 0) return;
  winsize size{};
  size.ws_row = window.rows;
  size.ws_col = window.columns;
  ::ioctl(terminal_fd_, TIOCSWINSZ, &size);
}

void Command::signal_group(int number) const {
  if (pid_ > 0) ::kill(-pid_, number);
}

uint32_t Command::feed_input() {
  if (input_fd_ < 0) return 0;
  uint32_t taken = 0;
  if (!input.empty()) {
    const long count = input.drain_to(input_fd_);
    if (count > 0) taken = static_cast<uint32_t>(count);
    if (count < 0 && errno != EAGAIN && errno != EINTR) close_input();
  }
  if (input.empty() && input_ends_) {
    // A terminal has no end of input, only the character that makes a reader see one.
    const char end_of_file = 4;
    input_ends_ = false;
    if (!input_is_terminal_) {
      close_input();
    } else if (::write(input_fd_, &end_of_file, 1) < 0) {
      input_ends_ = true;  // the terminal is full; again when it has room
    }
  }
  return taken;
}

void Command::close_input() {
  if (!input_is_terminal_) close_fd(input_fd_);
  input_fd_ = -1;
  input.clear();
}

void Command::close_output(OutputStream& stream) {
  if (stream.fd >= 0 && stream.fd == terminal_fd_) {
    input_fd_ = -1;
    terminal_fd_ = -1;
  }
  close_fd(stream.fd);
}

}  // namespace tenon::guest
