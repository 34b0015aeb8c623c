#include "host/terminal.hh"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

namespace tenon {

namespace {

// What the exit paths below need; static, because a signal handler has no other way to it.
std::atomic<bool> raw_mode_on{false};
int raw_fd = -1;
termios settings_before;

void restore() {
  // SAFETY: tcsetattr is async-signal-safe (POSIX.1-2017 2.4.3).
  if (raw_mode_on.exchange(false)) ::tcsetattr(raw_fd, TCSANOW, &settings_before);
}

void restore_and_die(int signal_number) {
  restore();
  // SA_RESETHAND has put the default action back: dying by the signal tells the parent why.
  ::raise(signal_number);
}

/// Handlers for the signals that end the process without running destructors. The engine may have its own for some of
/// them, which stay.
void install_exit_paths() {
  static bool installed = false;
  if (installed) return;
  installed = true;
  ::atexit(restore);
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGQUIT, SIGALRM, SIGXCPU}) {
    struct sigaction present;
    if (::sigaction(number, nullptr, &present) != 0 || present.sa_handler != SIG_DFL) continue;
    struct sigaction action = {};
    action.sa_handler = restore_and_die;
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER);
    ::sigaction(number, &action, nullptr);
  }
}

Result<void> make_raw(int fd, const termios& before) {
  termios raw = before;
  ::cfmakeraw(&raw);
  if (::tcsetattr(fd, TCSANOW, &raw) != 0) return fail_errno("set the terminal to raw mode");
  return {};
}

}  // namespace

void open_missing_standard_descriptors() {
  for (int fd = kStdin; fd <= kStderr; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    [[maybe_unused]] const int opened = ::open("/dev/null", O_RDWR);  // gets the lowest free number: this one
  }
}

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

TerminalSize terminal_size(int fd) {
  winsize size = {};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0) return {};
  return {.rows = size.ws_row, .columns = size.ws_col};
}

Result<std::unique_ptr<RawMode>> RawMode::enter(int fd) {
  termios before;
  if (::tcgetattr(fd, &before) != 0) return fail_errno("read the terminal's settings");
  install_exit_paths();
  raw_fd = fd;
  settings_before = before;
  raw_mode_on = true;  // before the change: an exit in between restores what is there anyway
  TRY(make_raw(fd, before));
  return std::unique_ptr<RawMode>(new RawMode(fd, before));
}

RawMode::~RawMode() { restore(); }

void RawMode::suspend() { restore(); }

void RawMode::resume() {
  raw_mode_on = true;
  // A terminal that went away meanwhile is noticed by whoever reads from it.
  (void)make_raw(fd_, before_);
}

std::optional<size_t> EscapeFilter::find(const uint8_t* bytes, size_t size_bytes) {
  const void* found = std::memchr(bytes, kEscape, size_bytes);
  if (found == nullptr) return std::nullopt;
  return static_cast<size_t>(static_cast<const uint8_t*>(found) - bytes);
}

}  // namespace tenon
