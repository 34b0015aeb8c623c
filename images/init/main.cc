// /init of Tenon's own guests: PID 1 of a busybox initramfs.
//
// It mounts the usual file systems, says kReady on the control link (spec/console_protocol.hh), runs the one thing that
// the host asks for - a command on pipes or a pseudo-terminal, or a login shell on the console -, reports how that
// ended, and powers off. With `tenon.standalone` on the kernel command line, or where there is no second serial port,
// it starts the login shell without asking, so that the same initramfs runs under any virtual machine monitor.
//
// One thread, one poll loop, no heap. busybox's halt, poweroff and reboot work: they send PID 1 the signals below.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "init/boot.hh"
#include "init/command.hh"
#include "init/control_link.hh"
#include "init/start_record.hh"

namespace tenon::guest {

using namespace console_protocol;

namespace {

constexpr const char* kControlPort = "/dev/ttyS1";

class Init {
 public:
  void run();

 private:
  void open_signals();
  void start_shell_without_host();
  void poll_once();
  void pass_output(OutputStream& stream, short events);
  void pass_input();
  void take_signals();
  void reap();
  void handle_frame(FrameType type, std::span<const uint8_t> payload);
  void start();
  void finish(ExitKind kind, uint32_t value);
  void finish_when_drained();
  void close_stream(uint8_t stream);
  OutputStream* output_stream(uint8_t id);
  [[noreturn]] void end(Ending ending);

  ControlLink link_;
  StartRecord record_;
  Command command_;
  int signal_fd_ = -1;
  bool linked_ = false;
  bool input_closed_told_ = false;
  bool exited_ = false;
  Exit exit_{};
};

void Init::run() {
  set_up_system();
  open_signals();
  linked_ = !command_line_has("tenon.standalone") && link_.open(kControlPort);
  if (linked_) {
    link_.send_struct(FrameType::kReady, Ready{.version = kProtocolVersion});
  } else {
    start_shell_without_host();
  }
  for (;;) {
    poll_once();
    finish_when_drained();
  }
}

void Init::open_signals() {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGCHLD, SIGUSR1, SIGUSR2, SIGTERM, SIGINT, SIGPWR}) ::sigaddset(&set, number);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  signal_fd_ = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void Init::start_shell_without_host() {
  set_host_name("tenon");
  if (command_.start_console_shell(WindowSize{}) != 0) end(Ending::kPowerOff);
}

/// One turn: waits until something can move, then moves it.
void Init::poll_once() {
  enum Slot { kSignals, kLink, kInput, kOutput, kErrorOutput, kSlots };
  pollfd polled[kSlots];
  const auto watch = [&polled](Slot slot, int fd, short events) { polled[slot] = pollfd{fd, events, 0}; };
  const auto readable = [this](const OutputStream& stream) {
    return stream.credit > 0 && link_.room_for_data() > 0 ? stream.fd : -1;
  };
  watch(kSignals, signal_fd_, POLLIN);
  watch(kLink, link_.fd(), static_cast<short>(POLLIN | (link_.has_output() ? POLLOUT : 0)));
  // Without events, poll still tells POLLERR: the command has closed its stdin. A hung-up terminal is seen by its
  // output.
  const bool watch_input =
      command_.input_fd() >= 0 && (command_.input_waits() || command_.input_fd() != command_.output.fd);
  watch(kInput, watch_input ? command_.input_fd() : -1, command_.input_waits() ? POLLOUT : short{0});
  watch(kOutput, readable(command_.output), POLLIN);
  watch(kErrorOutput, readable(command_.error_output), POLLIN);
  if (::poll(polled, kSlots, -1) < 0) return;

  // Output first: what a command wrote before it died must be under way before its death is.
  if (polled[kOutput].revents != 0) pass_output(command_.output, polled[kOutput].revents);
  if (polled[kErrorOutput].revents != 0) pass_output(command_.error_output, polled[kErrorOutput].revents);
  if (polled[kInput].revents & (POLLERR | POLLHUP)) command_.close_input();
  if (polled[kInput].revents & POLLOUT) pass_input();
  if (polled[kLink].revents & POLLIN)
    link_.receive([this](FrameType type, std::span<const uint8_t> payload) { handle_frame(type, payload); });
  if (polled[kSignals].revents != 0) take_signals();
  if (linked_ && command_.runs() && !command_.on_console() && command_.input_fd() < 0 && !input_closed_told_) {
    input_closed_told_ = true;
    link_.send(FrameType::kInputClosed);
  }
  if (linked_) link_.flush();
}

void Init::pass_output(OutputStream& stream, short events) {
  uint8_t bytes[kFramePayloadMax];
  size_t wanted = link_.room_for_data();
  if (wanted > stream.credit) wanted = stream.credit;
  if (wanted == 0 || stream.fd < 0) return;
  const ssize_t count = ::read(stream.fd, bytes, wanted);
  if (count > 0) {
    stream.credit -= static_cast<uint32_t>(count);
    link_.send(stream.frame, std::span(bytes, static_cast<size_t>(count)));
  } else if (count == 0 || (errno != EAGAIN && errno != EINTR) || (events & POLLIN) == 0) {
    command_.close_output(stream);  // the end; EIO is a terminal's way to say so
  }
}

void Init::pass_input() {
  const uint32_t taken = command_.feed_input();
  if (taken > 0)
    link_.send_struct(FrameType::kInputCredit,
                      Credit{.stream = static_cast<uint8_t>(StreamId::kStdin), .bytes = taken});
}

void Init::take_signals() {
  signalfd_siginfo info;
  while (::read(signal_fd_, &info, sizeof info) == sizeof info) {
    switch (info.ssi_signo) {
      case SIGCHLD: reap(); break;
      case SIGUSR1:  // halt
      case SIGUSR2:  // poweroff
      case SIGPWR:
        if (linked_)
          link_.send_struct(FrameType::kExit, Exit{.kind = static_cast<uint8_t>(ExitKind::kExited), .value = 0});
        end(Ending::kPowerOff);
      case SIGINT:   // Ctrl-Alt-Del
      case SIGTERM:  // reboot
        if (linked_) link_.send(FrameType::kRestart);
        end(Ending::kRestart);
      default: break;
    }
  }
}

void Init::reap() {
  int status = 0;
  for (pid_t pid; (pid = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid != command_.pid()) continue;
    command_.reaped();
    if (WIFSIGNALED(status)) {
      finish(ExitKind::kSignalled, static_cast<uint32_t>(WTERMSIG(status)));
    } else {
      finish(ExitKind::kExited, static_cast<uint32_t>(WEXITSTATUS(status)));
    }
  }
}

/// The command has ended. What it left running dies now, so that its output streams come to an end.
void Init::finish(ExitKind kind, uint32_t value) {
  exited_ = true;
  exit_ = Exit{.kind = static_cast<uint8_t>(kind), .value = value};
  command_.close_input();
  ::kill(-1, SIGKILL);
}

void Init::finish_when_drained() {
  if (!exited_ || !command_.outputs_closed()) return;
  if (linked_) link_.send_struct(FrameType::kExit, exit_);
  end(Ending::kPowerOff);
}

void Init::end(Ending ending) {
  ::kill(-1, SIGKILL);
  if (linked_) link_.drain();
  end_system(ending);
}

OutputStream* Init::output_stream(uint8_t id) {
  if (id == static_cast<uint8_t>(StreamId::kStdout)) return &command_.output;
  if (id == static_cast<uint8_t>(StreamId::kStderr)) return &command_.error_output;
  return nullptr;
}

void Init::close_stream(uint8_t id) {
  if (OutputStream* stream = output_stream(id); stream != nullptr) command_.close_output(*stream);
}

void Init::handle_frame(FrameType type, std::span<const uint8_t> payload) {
  Credit credit{};
  WindowSize window{};
  SignalNumber signal{};
  switch (type) {
    case FrameType::kStartData:
      if (!record_.append(payload)) finish(ExitKind::kNotRun, E2BIG);
      link_.send_struct(FrameType::kInputCredit, Credit{.stream = static_cast<uint8_t>(StreamId::kStdin),
                                                        .bytes = static_cast<uint32_t>(payload.size())});
      break;
    case FrameType::kStart: start(); break;
    case FrameType::kInput:
      // Input for a command that takes none any more is dropped; the host has been told.
      if (command_.input_fd() >= 0 && command_.input.push(payload)) pass_input();
      break;
    case FrameType::kInputEnd:
      command_.end_input_when_empty();
      pass_input();
      break;
    case FrameType::kOutputClosed:
      if (payload.size() == 1) close_stream(payload[0]);
      break;
    case FrameType::kOutputCredit:
      if (load_payload(payload, credit))
        if (OutputStream* stream = output_stream(credit.stream); stream != nullptr) stream->credit += credit.bytes;
      break;
    case FrameType::kWindowSize:
      if (load_payload(payload, window)) command_.set_window(window);
      break;
    case FrameType::kSignal:
      if (!load_payload(payload, signal)) break;
      // An interactive shell ignores SIGTERM, but whoever ends the VM means all of it.
      if (command_.on_console()) finish(ExitKind::kSignalled, signal.number);
      command_.signal_group(signal.number);
      break;
    default: break;  // from a newer host; it does without the answer
  }
}

void Init::start() {
  if (command_.runs() || exited_) return;
  int error = EINVAL;
  if (record_.parse()) {
    set_host_name(record_.hostname != nullptr ? record_.hostname : "tenon");
    error = command_.start(record_);
  }
  if (error != 0) {
    finish(ExitKind::kNotRun, static_cast<uint32_t>(error));
  } else {
    link_.send(FrameType::kStarted);
  }
}

}  // namespace

}  // namespace tenon::guest

int main() {
  static tenon::guest::Init init;  // static: its buffers are larger than a stack should hold
  init.run();
}
