#include "init/control_link.hh"

#include <fcntl.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

namespace tenon::guest {

using namespace console_protocol;

bool ControlLink::open(const char* path) {
  // O_NONBLOCK also keeps open(2) from waiting for a carrier.
  fd_ = ::open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (fd_ < 0) return false;
  termios settings{};
  if (::tcgetattr(fd_, &settings) != 0) {  // the node exists, but there is no port behind it
    ::close(fd_);
    fd_ = -1;
    return false;
  }
  ::cfmakeraw(&settings);
  settings.c_cflag |= CLOCAL | CREAD;
  settings.c_cflag &= ~static_cast<tcflag_t>(CRTSCTS | HUPCL);
  ::cfsetspeed(&settings, B115200);
  ::tcsetattr(fd_, TCSANOW, &settings);
  return true;
}

void ControlLink::send(FrameType type, std::span<const uint8_t> payload) {
  const FrameHeader header = make_header(type, payload.size());
  uint8_t frame[sizeof header + kFramePayloadMax];
  std::memcpy(frame, &header, sizeof header);
  std::memcpy(frame + sizeof header, payload.data(), payload.size());
  const std::span<const uint8_t> bytes(frame, sizeof header + payload.size());
  while (!output_.push(bytes)) {  // a host that stopped reading in the middle of a burst of control frames
    pollfd port{fd_, POLLOUT, 0};
    ::poll(&port, 1, 100);
    flush();
  }
}

size_t ControlLink::room_for_data() const {
  const size_t needed = kControlReserve + sizeof(FrameHeader);
  if (output_.room() <= needed) return 0;
  const size_t room = output_.room() - needed;
  return room < kFramePayloadMax ? room : kFramePayloadMax;
}

void ControlLink::flush() {
  if (!output_.empty()) output_.drain_to(fd_);
}

void ControlLink::drain() {
  while (!output_.empty()) {
    pollfd port{fd_, POLLOUT, 0};
    ::poll(&port, 1, 100);
    flush();
  }
  ::tcdrain(fd_);
}

long ControlLink::read_port(std::span<uint8_t> out) { return ::read(fd_, out.data(), out.size()); }

}  // namespace tenon::guest
