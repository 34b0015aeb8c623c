// RunSession: one `tenon run` from start to exit status. It ties the machine's two serial ports to the person or the
// pipes outside: the first port is the guest's console, the second one the control link to our init
// (host/guest_session.hh).
//
// Threads: all of it on the main thread's event loop. vCPU threads only put bytes into mailboxes and post a note.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/event_loop.hh"
#include "cli/announcer.hh"
#include "cli/console_tail.hh"
#include "cli/run_options.hh"
#include "cli/run_plan.hh"
#include "host/byte_feeder.hh"
#include "host/byte_mailbox.hh"
#include "host/deadline.hh"
#include "host/fd_reader.hh"
#include "host/fd_writer.hh"
#include "host/guest_session.hh"
#include "host/terminal.hh"
#include "machine/machine.hh"

namespace tenon {

struct BootFiles {
  std::string kernel;
  std::string initrd;  // empty: none
};

class RunSession final : private GuestSession::Client {
 public:
  RunSession(const RunOptions& options, const RunPlan& plan, const StandardStreams& streams,
             const Announcer& announcer);
  ~RunSession() override;

  Result<int> run(const BootFiles& files);

 private:
  /// One of our output descriptors, fed by a stream of the command (or the console).
  struct Output {
    std::unique_ptr<FdWriter> writer;
    size_t unwritten_bytes = 0;  // given to the writer and not reported back
    bool is_closed = false;      // nobody reads it any more
  };

  // Building up, in this order.
  Result<void> create_loop();
  Result<void> create_machine(const std::string& engine);
  Result<void> start_machine();
  Result<void> attach_terminal();
  Result<void> create_outputs();
  void create_stdin();
  void announce_start();

  // Guest to host.
  void drain_console();
  void drain_control();
  void write_output(GuestSession::StreamId stream, std::span<const uint8_t> bytes);
  void output_written(GuestSession::StreamId stream, size_t size_bytes);
  void output_failed(GuestSession::StreamId stream, int error_number);
  Output& output(GuestSession::StreamId stream);

  // Host to guest.
  void read_more_stdin();
  void stdin_received(std::span<const uint8_t> bytes);
  void stdin_ended();
  void window_changed();

  // GuestSession::Client.
  void guest_ready() override;
  void guest_started() override;
  void guest_output(GuestSession::StreamId stream, std::span<const uint8_t> bytes) override;
  void guest_takes_input() override { read_more_stdin(); }
  void guest_closed_input() override;
  void guest_exited(GuestSession::ExitKind kind, uint32_t value) override;
  void guest_restarts() override { restart_expected_ = true; }
  void guest_incompatible(const std::string& reason) override { fail_run(reason); }

  // Ends.
  void signal_received(int number);
  void suspend();
  void leave();
  void machine_ended(const MachineEnd& end);
  bool is_reboot() const;
  void reboot();
  void stop_machine();
  void end_machine(int status);
  void fail_run(const std::string& message);
  void stop_loop_when_done();
  void take_stats();
  void report();
  void print_stats() const;
  double seconds_since_start() const;
  /// Whether a person at the console sees it from the first byte, or from where our init starts the shell.
  bool shows_boot() const { return options_.verbose || !options_.has_our_init(); }

  const RunOptions& options_;
  const RunPlan& plan_;
  const StandardStreams streams_;
  BootFiles files_;
  Announcer announcer_;
  const std::chrono::steady_clock::time_point started_at_ = std::chrono::steady_clock::now();

  // In order of construction; the machine goes before what its threads call.
  std::unique_ptr<EventLoop> loop_;
  std::optional<ByteMailbox> console_mailbox_;
  std::optional<ByteMailbox> control_mailbox_;
  Output stdout_;
  Output stderr_;
  std::unique_ptr<Machine> machine_;
  std::optional<ByteFeeder> console_feeder_;
  std::optional<ByteFeeder> control_feeder_;
  std::optional<GuestSession> guest_;
  std::optional<FdReader> stdin_;
  std::optional<Deadline> grace_;
  std::optional<Deadline> early_death_;
  std::unique_ptr<RawMode> raw_mode_;
  std::vector<uint8_t> drained_;
  ConsoleTail console_tail_;
  std::chrono::steady_clock::time_point machine_started_at_;
  MachineStats stats_;  // as of the machine's end
  double machine_seconds_ = 0;

  std::optional<int> status_;  // known: nothing that happens later changes it
  bool command_runs_ = false;  // between guest_started() and guest_exited()
  bool input_closed_ = false;  // the command reads no more of its stdin
  int ending_signal_ = 0;      // the first one that has come
  bool shows_console_ = true;
  bool machine_over_ = false;
  bool restart_expected_ = false;
};

}  // namespace tenon
