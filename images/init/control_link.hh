// ControlLink: init's end of the control link (spec/console_protocol.hh) on the second serial port.
#pragma once

#include <cstdint>
#include <span>

#include "init/byte_queue.hh"
#include "spec/console_protocol.hh"

namespace tenon::guest {

class ControlLink {
 public:
  /// Opens and sets up the port; false where there is none (the guest then runs without a host).
  bool open(const char* path);
  int fd() const { return fd_; }

  /// Queues a frame. Data frames are only sent after room_for_data(); control frames always find room, because data
  /// leaves kControlReserve bytes free.
  void send(console_protocol::FrameType type, std::span<const uint8_t> payload = {});
  template <typename Wire>
  void send_struct(console_protocol::FrameType type, const Wire& wire) {
    send(type, std::span(reinterpret_cast<const uint8_t*>(&wire), sizeof wire));
  }
  /// Payload bytes that a data frame may have now.
  size_t room_for_data() const;

  bool has_output() const { return !output_.empty(); }
  /// Moves queued frames to the port as far as it takes them.
  void flush();
  /// Blocks until every queued byte has left the port.
  void drain();

  /// Reads what has arrived and calls `handle(type, payload)` for each frame.
  template <typename Handler>
  void receive(Handler&& handle) {
    uint8_t bytes[4096];
    const long count = read_port(bytes);
    if (count > 0) parser_.feed(std::span(bytes, static_cast<size_t>(count)), handle);
  }

 private:
  static constexpr size_t kControlReserve = 8192;
  long read_port(std::span<uint8_t> out);

  int fd_ = -1;
  console_protocol::FrameParser parser_;
  ByteQueue output_;
};

}  // namespace tenon::guest
