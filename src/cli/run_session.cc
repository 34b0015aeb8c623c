#include "cli/run_session.hh"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <system_error>

#include "cli/exit_status.hh"
#include "cli/run_statistics.hh"
#include "host/signals.hh"

namespace tenon {

namespace {

using StreamId = GuestSession::StreamId;
using ExitKind = GuestSession::ExitKind;
using console_protocol::StartMode;

constexpr unsigned kGraceMs = 3000;        // a command that was signalled, or a guest that powers off
constexpr unsigned kEarlyDeathMs = 500;    // for the rest of what a dying kernel says
constexpr size_t kConsoleInputMax = 4096;  // typed or pasted ahead of the guest
constexpr size_t kConsoleLinesShown = 12;

// What of the host's environment means something in the guest.
constexpr const char* kForwardedVariables[] = {"TERM", "COLORTERM", "LANG", "LC_ALL", "LC_CTYPE", "NO_COLOR", "TZ"};

std::vector<std::string> forwarded_environment() {
  std::vector<std::string> entries;
  for (const char* name : kForwardedVariables)
    if (const char* value = std::getenv(name)) entries.push_back(fmt::format("{}={}", name, value));
  return entries;
}

StartMode start_mode(RunPlan::Kind kind) {
  switch (kind) {
    case RunPlan::Kind::kConsole: return StartMode::kConsoleShell;
    case RunPlan::Kind::kTerminalCommand: return StartMode::kTerminal;
    case RunPlan::Kind::kPipes:
    case RunPlan::Kind::kTranscript: return StartMode::kPipes;
  }
  return StartMode::kPipes;
}

}  // namespace

RunSession::RunSession(const RunOptions& options, const RunPlan& plan, const StandardStreams& streams,
                       const Announcer& announcer)
    : options_(options), plan_(plan), streams_(streams), announcer_(announcer) {}

RunSession::~RunSession() {
  if (console_mailbox_) console_mailbox_->close();
  if (control_mailbox_) control_mailbox_->close();
  if (machine_ != nullptr) machine_->stop();
}

Result<int> RunSession::run(const BootFiles& files) {
  files_ = files;
  shows_console_ = shows_boot();
  TRY(create_loop());
  TRY(create_outputs());
  TRY(create_machine(options_.engine));
  create_stdin();
  announce_start();
  TRY(attach_terminal());
  TRY(start_machine());
  read_more_stdin();
  TRY(loop_->run());
  raw_mode_.reset();
  announcer_.set_raw_terminal(false);
  if (options_.stats) print_stats();
  announcer_.exited(status_.value_or(exit_status::kTenonError), seconds_since_start());
  return status_.value_or(exit_status::kTenonError);
}

Result<void> RunSession::create_loop() {
  loop_ = TRY(EventLoop::create());
  constexpr std::array kSignals = {signals::kInterrupt,     signals::kTerminate,        signals::kHangUp,
                                   signals::kWindowChanged, signals::kStopFromTerminal, signals::kReport};
  TRY(loop_->watch_signals(kSignals, [this](int number) { signal_received(number); }));
  early_death_ = TRY(Deadline::create(*loop_, [this] { fail_run("the guest's kernel died early"); }));
  grace_ = TRY(Deadline::create(*loop_, [this] { end_machine(exit_status::kSignalBase + ending_signal_); }));
  console_mailbox_.emplace([this] { loop_->post([this] { drain_console(); }); });
  control_mailbox_.emplace([this] { loop_->post([this] { drain_control(); }); });
  return {};
}

Result<void> RunSession::create_outputs() {
  const auto create = [this](StreamId stream, int fd, const char* thread_name) {
    return FdWriter::create(
        fd, thread_name,
        {.written = [this, stream](size_t count) { loop_->post([=, this] { output_written(stream, count); }); },
         .failed = [this, stream](int error) { loop_->post([=, this] { output_failed(stream, error); }); }});
  };
  stdout_.writer = TRY(create(StreamId::kStdout, kStdout, "io:stdout"));
  stderr_.writer = TRY(create(StreamId::kStderr, kStderr, "io:stderr"));
  return {};
}

Result<void> RunSession::create_machine(const std::string& engine) {
  MachineConfig config;
  config.name = options_.name;
  config.engine = {.name = engine, .options = options_.engine_options, .count_instructions = options_.stats};
  config.cpus = options_.cpus;
  config.memory_bytes = options_.memory_bytes;
  config.host_pages = options_.huge_pages ? HostPages::kHuge : HostPages::kBase;
  config.kernel = files_.kernel;
  config.initrd = files_.initrd;
  config.command_line = kernel_command_line(options_);
  config.personality = options_.personality;
  config.serial = {&*console_mailbox_, &*control_mailbox_};
  config.ends_on_reset = true;  // machine_ended() decides whether it was a reboot or a crash
  config.on_end = [this](MachineEnd end) { loop_->post([this, end] { machine_ended(end); }); };
  machine_ = TRY(Machine::create(std::move(config)));
  console_feeder_.emplace(machine_->serial(0));
  console_feeder_->on_empty([this] { loop_->post([this] { read_more_stdin(); }); });
  control_feeder_.emplace(machine_->serial(1));
  GuestSession::Client& client = *this;  // a private base, which optional could not convert to
  guest_.emplace(client, [this](std::span<const uint8_t> bytes) { control_feeder_->push(bytes); });
  return {};
}

Result<void> RunSession::start_machine() {
  machine_started_at_ = std::chrono::steady_clock::now();
  return machine_->start();
}

Result<void> RunSession::attach_terminal() {
  if (!plan_.wants_raw_terminal(streams_)) return {};
  raw_mode_ = TRY(RawMode::enter(kStdin));
  announcer_.set_raw_terminal(true);
  return {};
}

void RunSession::create_stdin() {
  stdin_.emplace(*loop_, kStdin,
                 FdReader::Callbacks{.received = [this](std::span<const uint8_t> bytes) { stdin_received(bytes); },
                                     .ended = [this] { stdin_ended(); }});
}

void RunSession::announce_start() {
  announcer_.started({.name = options_.name,
                      .engine = std::string(machine_->engine_name()),
                      .engine_reason = machine_->engine_reason(),
                      .kernel = machine_->kernel_description(),
                      .memory_bytes = options_.memory_bytes,
                      .cpus = options_.cpus});
  if (plan_.wants_raw_terminal(streams_)) announcer_.hint("Ctrl-] leaves and ends the virtual machine");
}

// ---- guest to host -------------------------------------------------------------------------------------------------

void RunSession::drain_console() {
  console_mailbox_->take(drained_);
  console_tail_.append(drained_);
  if (console_tail_.has_early_exception() && !early_death_->is_armed()) early_death_->arm(kEarlyDeathMs);
  if (plan_.kind == RunPlan::Kind::kConsole) {
    if (shows_console_) write_output(StreamId::kStdout, drained_);
  } else if (options_.verbose) {
    write_output(StreamId::kStderr, drained_);
  }
}

void RunSession::drain_control() {
  control_mailbox_->take(drained_);
  const std::vector<uint8_t> bytes = std::move(drained_);
  guest_->receive(bytes);
}

void RunSession::guest_output(StreamId stream, std::span<const uint8_t> bytes) {
  if (output(stream).is_closed) return;
  write_output(stream, bytes);
}

RunSession::Output& RunSession::output(StreamId stream) { return stream == StreamId::kStdout ? stdout_ : stderr_; }

void RunSession::write_output(StreamId stream, std::span<const uint8_t> bytes) {
  Output& to = output(stream);
  if (to.is_closed || bytes.empty()) return;
  to.unwritten_bytes += bytes.size();
  to.writer->write(bytes);
}

void RunSession::output_written(StreamId stream, size_t size_bytes) {
  Output& to = output(stream);
  if (to.is_closed) return;
  to.unwritten_bytes -= size_bytes;
  // Console output is no business of the session's windows, but then nothing of it is expected back either.
  if (plan_.has_command()) guest_->output_passed_on(stream, size_bytes);
  stop_loop_when_done();
}

void RunSession::output_failed(StreamId stream, int error_number) {
  Output& to = output(stream);
  if (to.is_closed) return;
  to.is_closed = true;
  to.unwritten_bytes = 0;
  const std::error_code error(error_number, std::generic_category());
  // A closed pipe is how "| head" ends things: the command gets it as SIGPIPE and decides.
  if (error != std::errc::broken_pipe)
    announcer_.error(fmt::format("writing {}: {}", stream == StreamId::kStdout ? "stdout" : "stderr", error.message()));
  guest_->close_output(stream);
  if (plan_.kind == RunPlan::Kind::kConsole) return end_machine(exit_status::kSignalBase + signals::kHangUp);
  stop_loop_when_done();
}

// ---- host to guest -------------------------------------------------------------------------------------------------

/// Lets as much be read as the guest has room for.
void RunSession::read_more_stdin() {
  if (!plan_.forwards_stdin() || input_closed_ || status_) return;
  size_t room = guest_->input_room();
  if (plan_.kind == RunPlan::Kind::kConsole)
    room =
        console_feeder_->waiting_bytes() < kConsoleInputMax ? kConsoleInputMax - console_feeder_->waiting_bytes() : 0;
  if (Result<void> set = stdin_->set_limit(room); !set) fail_run(set.error().message());
}

void RunSession::stdin_received(std::span<const uint8_t> bytes) {
  if (raw_mode_ != nullptr) {
    if (const std::optional<size_t> escape = EscapeFilter::find(bytes.data(), bytes.size())) {
      return leave();
    }
  }
  if (plan_.kind == RunPlan::Kind::kConsole) {
    console_feeder_->push(bytes);
  } else {
    guest_->send_input(bytes);
  }
  read_more_stdin();
}

void RunSession::stdin_ended() {
  // A terminal that ends has been closed; a file or pipe that ends is the end of the command's input.
  if (streams_.stdin_is_terminal && raw_mode_ != nullptr) return signal_received(signals::kHangUp);
  if (plan_.has_command()) guest_->end_input();
}

void RunSession::window_changed() {
  const TerminalSize size = terminal_size(kStdin);
  guest_->set_window(size.rows, size.columns);
}

// ---- the guest's init ----------------------------------------------------------------------------------------------

void RunSession::guest_ready() {
  if (command_runs_ && plan_.has_command()) return fail_run("the guest restarted before the command ended");
  restart_expected_ = false;
  drain_console();  // what the kernel said so far is not the shell's
  shows_console_ = true;
  const TerminalSize size = terminal_size(kStdin);
  const Result<void> started = guest_->start({.mode = start_mode(plan_.kind),
                                              .stderr_pipe = !streams_.stderr_is_terminal,
                                              .rows = size.rows,
                                              .columns = size.columns,
                                              .hostname = options_.name,
                                              .environment = forwarded_environment(),
                                              .arguments = plan_.command});
  if (!started) fail_run(started.error().message());
}

void RunSession::guest_started() {
  command_runs_ = true;
  announcer_.ready(plan_.has_command() && plan_.kind != RunPlan::Kind::kTranscript ? "command started" : "shell",
                   seconds_since_start());
  if (!plan_.forwards_stdin()) return guest_->end_input();
  read_more_stdin();
}

void RunSession::guest_closed_input() {
  input_closed_ = true;
  if (Result<void> set = stdin_->set_limit(0); !set) fail_run(set.error().message());
}

void RunSession::guest_exited(ExitKind kind, uint32_t value) {
  command_runs_ = false;
  if (kind == ExitKind::kNotRun) {
    const std::error_code error(static_cast<int>(value), std::generic_category());
    const bool missing = error == std::errc::no_such_file_or_directory;
    const std::string what = plan_.command.empty() ? "the shell" : "'" + plan_.command[0] + "'";
    announcer_.error(fmt::format("cannot run {} in the guest: {}", what, error.message()));
    status_ = missing ? exit_status::kNotFound : exit_status::kNotRunnable;
  } else if (plan_.kind == RunPlan::Kind::kConsole) {
    // How a person's last command ended is no failure of the run.
    status_ = kind == ExitKind::kSignalled ? exit_status::kSignalBase + static_cast<int>(value) : exit_status::kSuccess;
  } else {
    const int number = static_cast<int>(value & 0xFF);
    status_ = kind == ExitKind::kSignalled ? exit_status::kSignalBase + number : number;
  }
  grace_->arm(kGraceMs);  // for a guest that does not power off
}

// ---- ends ----------------------------------------------------------------------------------------------------------

void RunSession::signal_received(int number) {
  if (number == signals::kWindowChanged) return window_changed();
  if (number == signals::kStopFromTerminal) return suspend();
  if (number == signals::kReport) return report();
  if (machine_over_) return loop_->stop();  // somebody does not read our output, and the user does not want to wait
  if (ending_signal_ != 0 || !command_runs_) return end_machine(exit_status::kSignalBase + number);
  ending_signal_ = number;
  guest_->send_signal(number);
  grace_->arm(kGraceMs);
}

void RunSession::suspend() {
  if (raw_mode_ != nullptr) raw_mode_->suspend();
  signals::stop_this_process();
  if (raw_mode_ != nullptr) raw_mode_->resume();
  window_changed();
}

void RunSession::leave() {
  announcer_.hint_on_new_line("left; the virtual machine has ended");
  end_machine(plan_.kind == RunPlan::Kind::kConsole ? exit_status::kSuccess
                                                    : exit_status::kSignalBase + signals::kHangUp);
}

void RunSession::machine_ended(const MachineEnd& end) {
  if (machine_over_) return;
  drain_console();
  drain_control();
  if (end.kind == MachineEnd::Kind::kReset && !status_ && ending_signal_ == 0 && is_reboot()) return reboot();
  stop_machine();
  if (end.kind == MachineEnd::Kind::kPowerOff && !status_ && !plan_.has_command()) status_ = exit_status::kSuccess;
  if (!status_) {
    fail_run(console_tail_.has_panic() ? "the guest's kernel panicked"
                                       : fmt::format("{} before the command ended", end.description));
  }
  stop_loop_when_done();
}

/// A reset that somebody in the guest wanted, as far as one can tell.
bool RunSession::is_reboot() const {
  if (plan_.has_command()) return false;
  return restart_expected_ || (!options_.has_our_init() && !console_tail_.has_panic());
}

/// The same machine once more, from its files. Its engine has been chosen.
void RunSession::reboot() {
  const std::string engine(machine_->engine_name());
  stop_machine();
  guest_.reset();
  control_feeder_.reset();
  console_feeder_.reset();
  machine_.reset();
  machine_over_ = false;
  restart_expected_ = false;
  shows_console_ = shows_boot();
  command_runs_ = false;
  Result<void> started = create_machine(engine);
  if (started) started = start_machine();
  if (!started) fail_run(started.error().message());
}

void RunSession::take_stats() {
  stats_ = machine_->stats();
  machine_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - machine_started_at_).count();
}

/// SIGUSR1: the counters as they are.
void RunSession::report() {
  if (!machine_over_ && machine_ != nullptr) take_stats();
  print_stats();
}

/// Ends all threads of the machine, and keeps what is to be told about them.
void RunSession::stop_machine() {
  machine_over_ = true;
  grace_->arm(0);
  if (machine_ == nullptr) return;
  take_stats();
  machine_->stop();
}

void RunSession::end_machine(int status) {
  if (!status_) status_ = status;
  stop_machine();
  stop_loop_when_done();
}

void RunSession::fail_run(const std::string& message) {
  if (!status_) announcer_.error(message, console_tail_.death_lines(kConsoleLinesShown));
  end_machine(exit_status::kTenonError);
}

/// The run is over when the machine is and everything it said has been written.
void RunSession::stop_loop_when_done() {
  if (!machine_over_ || !status_) return;
  if (stdout_.unwritten_bytes == 0 && stderr_.unwritten_bytes == 0) loop_->stop();
}

double RunSession::seconds_since_start() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_at_).count();
}

void RunSession::print_stats() const {
  for (const StatisticsLine& line : statistics_lines(stats_, machine_seconds_))
    announcer_.stats(line.subject, line.counters);
}

}  // namespace tenon
