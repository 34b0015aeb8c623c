#include "host/byte_feeder.hh"

namespace tenon {

ByteFeeder::ByteFeeder(ByteReceiver& receiver) : receiver_(receiver) {
  receiver_.on_room([this] { refill(); });
}

ByteFeeder::~ByteFeeder() { receiver_.on_room({}); }

void ByteFeeder::push(std::span<const uint8_t> bytes) {
  bool emptied = false;
  {
    const MutexLock lock(mutex_);
    waiting_.insert(waiting_.end(), bytes.begin(), bytes.end());
    emptied = refill_locked();
  }
  if (emptied && on_empty_) on_empty_();
}

void ByteFeeder::refill() {
  bool emptied = false;
  {
    const MutexLock lock(mutex_);
    emptied = refill_locked();
  }
  if (emptied && on_empty_) on_empty_();
}

bool ByteFeeder::refill_locked() {
  const size_t waiting = waiting_.size() - taken_;
  if (waiting == 0) return false;
  taken_ += receiver_.offer(std::span(waiting_).subspan(taken_));
  if (taken_ < waiting_.size()) return false;
  waiting_.clear();
  taken_ = 0;
  return true;
}

void ByteFeeder::clear() {
  const MutexLock lock(mutex_);
  waiting_.clear();
  taken_ = 0;
}

size_t ByteFeeder::waiting_bytes() const {
  const MutexLock lock(mutex_);
  return waiting_.size() - taken_;
}

}  // namespace tenon
