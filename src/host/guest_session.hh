// GuestSession: the host's end of the control link to the init of our own guests (spec/console_protocol.hh).
//
// A pure state machine: bytes from the guest's serial port go in through receive(), what happened comes out on Client,
// and frames leave through the ByteSink-like `send` given at creation. No descriptor, thread or lock of its own, so a
// test can play the guest. The guest is hostile: it may send anything in any order; it gets at most its output windows
// of memory here, and data beyond them is dropped and counted. Threads: one (the event loop's).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.hh"
#include "spec/console_protocol.hh"

namespace tenon {

struct GuestCommand {
  console_protocol::StartMode mode = console_protocol::StartMode::kConsoleShell;
  bool stderr_pipe = false;  // with kTerminal
  uint16_t rows = 0, columns = 0;
  std::string hostname = {};
  std::string directory = {};                 // empty: the guest's default
  std::vector<std::string> environment = {};  // NAME=VALUE
  std::vector<std::string> arguments = {};
};

class GuestSession {
 public:
  using StreamId = console_protocol::StreamId;
  using ExitKind = console_protocol::ExitKind;

  class Client {
   public:
    virtual ~Client() = default;
    /// The guest's init waits for start(). Again after each restart of the guest.
    virtual void guest_ready() = 0;
    virtual void guest_started() = 0;
    virtual void guest_output(StreamId stream, std::span<const uint8_t> bytes) = 0;
    /// input_room() has grown.
    virtual void guest_takes_input() = 0;
    virtual void guest_closed_input() = 0;
    /// `value`: see ExitKind. All output has been given before.
    virtual void guest_exited(ExitKind kind, uint32_t value) = 0;
    /// Its user asked for a reboot.
    virtual void guest_restarts() = 0;
    /// The other end does not speak our protocol; nothing more will come.
    virtual void guest_incompatible(const std::string& reason) = 0;
  };
  using Send = std::function<void(std::span<const uint8_t>)>;

  GuestSession(Client& client, Send send) : client_(client), send_(std::move(send)) {}

  void receive(std::span<const uint8_t> bytes);

  /// In or after guest_ready(). kOutOfRange where the arguments do not fit in a start record.
  Result<void> start(const GuestCommand& command);
  /// Bytes that send_input() takes now.
  size_t input_room() const;
  /// `bytes` is at most input_room().
  void send_input(std::span<const uint8_t> bytes);
  void end_input();
  /// `size_bytes` of what guest_output() gave have been passed on.
  void output_passed_on(StreamId stream, size_t size_bytes);
  void close_output(StreamId stream);
  void set_window(uint16_t rows, uint16_t columns);
  void send_signal(int number);

  uint64_t dropped_bytes() const { return dropped_bytes_ + parser_.skipped_bytes(); }

 private:
  enum class Phase : uint8_t { kBooting, kReady, kRunning, kExited, kIncompatible };

  void handle(console_protocol::FrameType type, std::span<const uint8_t> payload);
  void handle_ready(std::span<const uint8_t> payload);
  void handle_output(StreamId stream, std::span<const uint8_t> payload);
  void handle_exit(std::span<const uint8_t> payload);
  void send_frame(console_protocol::FrameType type, std::span<const uint8_t> payload = {});
  void send_record_within_credit();
  template <typename Wire>
  void send_struct(console_protocol::FrameType type, const Wire& wire) {
    send_frame(type, std::span(reinterpret_cast<const uint8_t*>(&wire), sizeof wire));
  }
  uint32_t& output_credit(StreamId stream) { return output_credit_[stream == StreamId::kStdout ? 0 : 1]; }

  Client& client_;
  const Send send_;
  console_protocol::FrameParser parser_;
  Phase phase_ = Phase::kBooting;
  uint32_t input_credit_ = 0;       // bytes we may send
  uint32_t output_credit_[2] = {};  // bytes the guest may send
  std::string record_;              // what of the start record is not sent yet
  bool starting_ = false;           // kStart has not been sent
  uint64_t dropped_bytes_ = 0;
};

}  // namespace tenon
