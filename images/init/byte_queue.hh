// ByteQueue: a first-in first-out buffer of fixed capacity between two non-blocking descriptors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace tenon::guest {

class ByteQueue {
 public:
  static constexpr size_t kCapacity = 64 * 1024;

  size_t size() const { return size_; }
  size_t room() const { return kCapacity - size_; }
  bool empty() const { return size_ == 0; }

  /// Appends all of `bytes`, or nothing (false) where there is no room for all.
  bool push(std::span<const uint8_t> bytes);
  /// Appends what read(2) gives, at most `size_bytes_max`. Returns read's result: 0 at the end, -1 with errno.
  long fill_from(int fd, size_t size_bytes_max);
  /// Writes to `fd` what it takes now. Returns the bytes written, or -1 with errno.
  long drain_to(int fd);
  void clear() { head_ = size_ = 0; }

 private:
  uint8_t bytes_[kCapacity];
  size_t head_ = 0;  // index of the oldest byte
  size_t size_ = 0;
};

}  // namespace tenon::guest
