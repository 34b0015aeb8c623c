// Command: the one process that the host asked for (or the login shell), and init's ends of its streams.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>

#include "init/byte_queue.hh"
#include "init/start_record.hh"
#include "spec/console_protocol.hh"

namespace tenon::guest {

/// One stream of output on its way from the command to the host.
struct OutputStream {
  console_protocol::StreamId id{};
  console_protocol::FrameType frame{};
  int fd = -1;          // init's end, -1 when there is none (any more)
  uint32_t credit = 0;  // bytes that the host still takes
};

class Command {
 public:
  /// Starts what the record asks for. Returns 0, or the errno that kept it from running.
  int start(StartRecord& record);
  /// A login shell on the console, without a host.
  int start_console_shell(console_protocol::WindowSize window);

  bool runs() const { return pid_ > 0; }
  bool on_console() const { return on_console_; }
  pid_t pid() const { return pid_; }
  void reaped() { pid_ = -1; }

  void set_window(console_protocol::WindowSize window) const;
  void signal_group(int number) const;

  // Input: bytes wait in `input` until the command takes them.
  int input_fd() const { return input_fd_; }
  void end_input_when_empty() { input_ends_ = true; }
  /// Writes waiting input. Returns the bytes that the command took; input_fd() is -1 afterwards where it takes no more.
  uint32_t feed_input();
  void close_input();
  bool input_waits() const { return input_fd_ >= 0 && (!input.empty() || input_ends_); }

  void close_output(OutputStream& stream);
  bool outputs_closed() const { return output.fd < 0 && error_output.fd < 0; }

  ByteQueue input;
  OutputStream output{console_protocol::StreamId::kStdout, console_protocol::FrameType::kOutput, -1,
                      console_protocol::kOutputWindow};
  OutputStream error_output{console_protocol::StreamId::kStderr, console_protocol::FrameType::kErrorOutput, -1,
                            console_protocol::kOutputWindow};

 private:
  struct ChildEnds {
    int standard[3] = {-1, -1, -1};
    bool controlling_terminal = false;
  };
  int open_pipes(ChildEnds& child);
  int open_terminal(ChildEnds& child, bool stderr_pipe);
  int open_console(ChildEnds& child);
  int spawn(const ChildEnds& child, StartRecord* record);
  int start_with(int error, const ChildEnds& child, StartRecord* record);

  pid_t pid_ = -1;
  int input_fd_ = -1;     // a pipe, or the same as terminal_fd_
  int terminal_fd_ = -1;  // pseudo-terminal master, or the console; for the window size
  bool input_is_terminal_ = false;
  bool input_ends_ = false;
  bool on_console_ = false;
};

}  // namespace tenon::guest
