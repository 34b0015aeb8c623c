#include "host/guest_session.hh"

#include <fmt/format.h>

#include <algorithm>

namespace tenon {

using namespace console_protocol;

namespace {

std::string start_record(const GuestCommand& command) {
  const StartHeader header = {.mode = static_cast<uint8_t>(command.mode),
                              .stderr_pipe = static_cast<uint8_t>(command.stderr_pipe ? 1 : 0),
                              .window = {.rows = command.rows, .columns = command.columns}};
  std::string record(reinterpret_cast<const char*>(&header), sizeof header);
  const auto append = [&record](char tag, const std::string& text) {
    // Arguments come from execve and hold no NUL; a NUL from elsewhere would only cut the string short.
    record.append(1, tag).append(text.c_str()).push_back('\0');
  };
  if (!command.hostname.empty()) append(kTagHostname, command.hostname);
  if (!command.directory.empty()) append(kTagDirectory, command.directory);
  for (const std::string& entry : command.environment) append(kTagEnvironment, entry);
  for (const std::string& argument : command.arguments) append(kTagArgument, argument);
  return record;
}

std::span<const uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

void GuestSession::receive(std::span<const uint8_t> bytes) {
  parser_.feed(bytes, [this](FrameType type, std::span<const uint8_t> payload) { handle(type, payload); });
}

void GuestSession::handle(FrameType type, std::span<const uint8_t> payload) {
  if (phase_ == Phase::kIncompatible) return;
  if (type == FrameType::kReady) return handle_ready(payload);
  if (phase_ != Phase::kRunning) return;  // nothing else makes sense before start() or after the end
  Credit credit{};
  switch (type) {
    case FrameType::kStarted: return client_.guest_started();
    case FrameType::kOutput: return handle_output(StreamId::kStdout, payload);
    case FrameType::kErrorOutput: return handle_output(StreamId::kStderr, payload);
    case FrameType::kInputClosed: return client_.guest_closed_input();
    case FrameType::kInputCredit:
      if (!load_payload(payload, credit)) return;
      // A guest that gives more than it was sent lies, and may have at most the window all the same.
      input_credit_ += std::min<uint32_t>(credit.bytes, kInputWindow - input_credit_);
      send_record_within_credit();
      if (!starting_) client_.guest_takes_input();
      return;
    case FrameType::kExit: return handle_exit(payload);
    case FrameType::kRestart: phase_ = Phase::kBooting; return client_.guest_restarts();
    default: return;  // from a newer guest; it does without the answer
  }
}

void GuestSession::handle_ready(std::span<const uint8_t> payload) {
  Ready ready{};
  if (!load_payload(payload, ready) || ready.version != kProtocolVersion) {
    phase_ = Phase::kIncompatible;
    return client_.guest_incompatible(
        fmt::format("the guest's init speaks version {} of the control protocol, this tenon speaks {}",
                    payload.size() == sizeof ready ? uint32_t{ready.version} : 0u, kProtocolVersion));
  }
  phase_ = Phase::kReady;
  input_credit_ = kInputWindow;
  std::ranges::fill(output_credit_, kOutputWindow);
  client_.guest_ready();
}

void GuestSession::handle_output(StreamId stream, std::span<const uint8_t> payload) {
  uint32_t& credit = output_credit(stream);
  if (payload.size() > credit) {
    dropped_bytes_ += payload.size();
    return;
  }
  credit -= static_cast<uint32_t>(payload.size());
  client_.guest_output(stream, payload);
}

void GuestSession::handle_exit(std::span<const uint8_t> payload) {
  Exit exit{};
  if (!load_payload(payload, exit) || exit.kind > static_cast<uint8_t>(ExitKind::kNotRun)) return;
  phase_ = Phase::kExited;
  client_.guest_exited(static_cast<ExitKind>(exit.kind), exit.value);
}

Result<void> GuestSession::start(const GuestCommand& command) {
  CHECK(phase_ == Phase::kReady);
  record_ = start_record(command);
  if (record_.size() > kStartRecordMax)
    return fail(
        ErrorCode::kOutOfRange,
        fmt::format("the command line has {} bytes, the guest takes {}; put it in a script and send that on stdin",
                    record_.size(), kStartRecordMax));
  phase_ = Phase::kRunning;
  starting_ = true;
  send_record_within_credit();
  return {};
}

void GuestSession::send_record_within_credit() {
  if (!starting_) return;
  size_t sent = 0;
  while (sent < record_.size() && input_credit_ > 0) {
    const size_t piece = std::min({record_.size() - sent, size_t{input_credit_}, size_t{kFramePayloadMax}});
    send_frame(FrameType::kStartData, bytes_of(record_).subspan(sent, piece));
    input_credit_ -= static_cast<uint32_t>(piece);
    sent += piece;
  }
  record_.erase(0, sent);
  if (!record_.empty()) return;
  starting_ = false;
  send_frame(FrameType::kStart);
}

size_t GuestSession::input_room() const { return phase_ == Phase::kRunning && !starting_ ? input_credit_ : 0; }

void GuestSession::send_input(std::span<const uint8_t> bytes) {
  CHECK(bytes.size() <= input_room());
  input_credit_ -= static_cast<uint32_t>(bytes.size());
  while (!bytes.empty()) {
    const size_t piece = std::min<size_t>(bytes.size(), kFramePayloadMax);
    send_frame(FrameType::kInput, bytes.first(piece));
    bytes = bytes.subspan(piece);
  }
}

void GuestSession::end_input() {
  if (phase_ == Phase::kRunning) send_frame(FrameType::kInputEnd);
}

void GuestSession::output_passed_on(StreamId stream, size_t size_bytes) {
  if (phase_ != Phase::kRunning || size_bytes == 0) return;
  output_credit(stream) += static_cast<uint32_t>(size_bytes);
  send_struct(FrameType::kOutputCredit,
              Credit{.stream = static_cast<uint8_t>(stream), .bytes = static_cast<uint32_t>(size_bytes)});
}

void GuestSession::close_output(StreamId stream) {
  const uint8_t id = static_cast<uint8_t>(stream);
  if (phase_ == Phase::kRunning) send_frame(FrameType::kOutputClosed, std::span(&id, 1));
}

void GuestSession::set_window(uint16_t rows, uint16_t columns) {
  if (phase_ == Phase::kRunning) send_struct(FrameType::kWindowSize, WindowSize{.rows = rows, .columns = columns});
}

void GuestSession::send_signal(int number) {
  if (phase_ == Phase::kRunning) send_struct(FrameType::kSignal, SignalNumber{.number = static_cast<uint8_t>(number)});
}

void GuestSession::send_frame(FrameType type, std::span<const uint8_t> payload) {
  const FrameHeader header = make_header(type, payload.size());
  std::vector<uint8_t> frame(sizeof header + payload.size());
  std::memcpy(frame.data(), &header, sizeof header);
  std::ranges::copy(payload, frame.begin() + sizeof header);
  send_(frame);
}

}  // namespace tenon
