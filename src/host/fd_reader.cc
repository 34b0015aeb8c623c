#include "host/fd_reader.hh"

#include <errno.h>
#include <unistd.h>

#include <algorithm>

namespace tenon {

Result<void> FdReader::set_limit(size_t size_bytes) {
  limit_ = ended_ ? 0 : size_bytes;
  if (limit_ == 0) {
    watch_.reset();
  } else if (!watch_.is_active()) {
    watch_ = TRY(loop_.watch(fd_, EventLoop::kReadable, [this](uint32_t) { read_once(); }));
  }
  return {};
}

void FdReader::read_once() {
  uint8_t bytes[16 * 1024];
  const ssize_t count = ::read(fd_, bytes, std::min(limit_, sizeof bytes));
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count > 0) {
    limit_ -= static_cast<size_t>(count);
    if (limit_ == 0) watch_.reset();
    callbacks_.received(std::span(bytes, static_cast<size_t>(count)));
    return;
  }
  ended_ = true;
  limit_ = 0;
  watch_.reset();
  callbacks_.ended();
}

}  // namespace tenon
