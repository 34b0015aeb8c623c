#include "init/byte_queue.hh"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace tenon::guest {

bool ByteQueue::push(std::span<const uint8_t> bytes) {
  if (bytes.size() > room()) return false;
  const size_t tail = (head_ + size_) % kCapacity;
  const size_t first = std::min(bytes.size(), kCapacity - tail);
  std::memcpy(bytes_ + tail, bytes.data(), first);
  std::memcpy(bytes_, bytes.data() + first, bytes.size() - first);
  size_ += bytes.size();
  return true;
}

long ByteQueue::fill_from(int fd, size_t size_bytes_max) {
  const size_t tail = (head_ + size_) % kCapacity;
  const size_t contiguous = std::min(room(), kCapacity - tail);
  const ssize_t count = ::read(fd, bytes_ + tail, std::min(contiguous, size_bytes_max));
  if (count > 0) size_ += static_cast<size_t>(count);
  return count;
}

long ByteQueue::drain_to(int fd) {
  const size_t first = std::min(size_, kCapacity - head_);
  const iovec parts[2] = {{bytes_ + head_, first}, {bytes_, size_ - first}};
  const ssize_t count = ::writev(fd, parts, parts[1].iov_len > 0 ? 2 : 1);
  if (count > 0) {
    head_ = (head_ + static_cast<size_t>(count)) % kCapacity;
    size_ -= static_cast<size_t>(count);
  }
  return count;
}

}  // namespace tenon::guest
