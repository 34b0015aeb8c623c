#include "host/byte_mailbox.hh"

#include <chrono>

namespace tenon {

namespace {
constexpr std::chrono::milliseconds kThrottle{100};
}

void ByteMailbox::write(std::span<const uint8_t> bytes) {
  bool was_empty = false;
  {
    const MutexLock lock(mutex_);
    const auto deadline = std::chrono::steady_clock::now() + kThrottle;
    while (!closed_ && waiting_.size() > soft_limit_bytes_ && std::chrono::steady_clock::now() < deadline)
      taken_.wait_until(mutex_, deadline);
    if (closed_ || bytes.empty()) return;
    was_empty = waiting_.empty();
    waiting_.insert(waiting_.end(), bytes.begin(), bytes.end());
  }
  if (was_empty) arrived_();
}

void ByteMailbox::take(std::vector<uint8_t>& out) {
  out.clear();
  const MutexLock lock(mutex_);
  out.swap(waiting_);
  taken_.notify_all();
}

void ByteMailbox::close() {
  const MutexLock lock(mutex_);
  closed_ = true;
  waiting_.clear();
  taken_.notify_all();
}

}  // namespace tenon
