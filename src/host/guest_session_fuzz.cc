// A hostile guest: arbitrary frames in arbitrary order, while the host side answers as the command line does.
#include "host/guest_session.hh"

#include <vector>

using namespace tenon;
using namespace tenon::console_protocol;

namespace {

class Host final : public GuestSession::Client {
 public:
  GuestSession session{*this, [this](std::span<const uint8_t> bytes) { sent_bytes += bytes.size(); }};
  uint64_t sent_bytes = 0;
  uint64_t unread[2] = {};

  void guest_ready() override {
    CHECK(session.start({.mode = StartMode::kPipes, .arguments = {std::string(20'000, 'a')}}).has_value());
  }
  void guest_started() override { session.send_signal(15); }
  void guest_output(StreamId stream, std::span<const uint8_t> bytes) override {
    uint64_t& held = unread[stream == StreamId::kStdout ? 0 : 1];
    held += bytes.size();
    CHECK(held <= kOutputWindow);
    if (bytes.size() % 2 == 0) session.output_passed_on(stream, std::exchange(held, 0));
  }
  void guest_takes_input() override {
    const std::vector<uint8_t> bytes(session.input_room());
    CHECK(bytes.size() <= kInputWindow);
    session.send_input(bytes);
  }
  void guest_closed_input() override { session.end_input(); }
  void guest_exited(ExitKind, uint32_t) override {}
  void guest_restarts() override { unread[0] = unread[1] = 0; }
  void guest_incompatible(const std::string&) override {}
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Host host;
  // Each input byte pair becomes a frame: a type near the known ones and a length; the payload is the bytes that
  // follow.
  for (size_t at = 0; at + 2 <= size;) {
    const FrameType type = static_cast<FrameType>((data[at] & 0x0F) | 0x80);
    const size_t length = std::min<size_t>(data[at + 1] < 16 ? data[at + 1] : data[at + 1] * 16u, size - at - 2);
    at += 2;
    const FrameHeader header = make_header(type, length);
    host.session.receive(std::span(reinterpret_cast<const uint8_t*>(&header), sizeof header));
    host.session.receive(std::span(data + at, length));
    const Ready ready{.version = kProtocolVersion};
    if (type == FrameType::kReady && length == 0) {
      const FrameHeader good = make_header(type, sizeof ready);
      host.unread[0] = host.unread[1] = 0;  // a fresh guest has fresh windows
      host.session.receive(std::span(reinterpret_cast<const uint8_t*>(&good), sizeof good));
      host.session.receive(std::span(reinterpret_cast<const uint8_t*>(&ready), sizeof ready));
    }
    at += length;
  }
  return 0;
}
