#include "vm/timer_queue.hh"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/check.hh"

namespace tenon {

class TimerQueue::QueuedTimer final : public Timer {
 public:
  QueuedTimer(TimerQueue& queue, std::function<void()> callback) : queue_(queue), callback_(std::move(callback)) {}
  ~QueuedTimer() override { queue_.forget(*this); }
  void arm(uint64_t deadline_ns) override { queue_.arm(*this, deadline_ns); }
  void run_callback() const { callback_(); }

 private:
  TimerQueue& queue_;
  const std::function<void()> callback_;
};

TimerQueue::TimerQueue(std::function<void()> on_earlier) : on_earlier_(std::move(on_earlier)) {}

TimerQueue::~TimerQueue() {
  const MutexLock lock(mutex_);
  CHECK(timer_count_ == 0);
}

std::unique_ptr<Timer> TimerQueue::make_timer(std::function<void()> callback) {
  CHECK(callback != nullptr);
  auto timer = std::make_unique<QueuedTimer>(*this, std::move(callback));
  const MutexLock lock(mutex_);
  ++timer_count_;
  armed_.reserve(timer_count_);  // each timer is in the queue at most once, so arming never allocates
  return timer;
}

uint64_t TimerQueue::next_deadline_ns() const {
  const MutexLock lock(mutex_);
  return armed_.empty() ? kNoDeadline : armed_.front().deadline_ns;
}

void TimerQueue::arm(QueuedTimer& timer, uint64_t deadline_ns) {
  bool earlier = false;
  {
    const MutexLock lock(mutex_);
    remove_locked(timer);
    if (deadline_ns != kNoDeadline) {
      const Armed entry = {.deadline_ns = deadline_ns, .sequence = next_sequence_++, .timer = &timer};
      const auto place = std::upper_bound(armed_.begin(), armed_.end(), entry, [](const Armed& a, const Armed& b) {
        return std::tie(a.deadline_ns, a.sequence) < std::tie(b.deadline_ns, b.sequence);
      });
      earlier = place == armed_.begin();
      armed_.insert(place, entry);
    }
  }
  if (earlier && on_earlier_) on_earlier_();
}

void TimerQueue::forget(QueuedTimer& timer) {
  const MutexLock lock(mutex_);
  remove_locked(timer);
  while (running_ == &timer) callback_done_.wait(mutex_);
  remove_locked(timer);  // the callback that we waited for may have armed it again
  --timer_count_;
}

void TimerQueue::remove_locked(const QueuedTimer& timer) {
  std::erase_if(armed_, [&timer](const Armed& entry) { return entry.timer == &timer; });
}

TimerQueue::QueuedTimer* TimerQueue::take_due_locked(uint64_t now_ns, uint64_t sequence_end) {
  for (auto entry = armed_.begin(); entry != armed_.end() && entry->deadline_ns <= now_ns; ++entry) {
    if (entry->sequence >= sequence_end) continue;
    QueuedTimer* timer = entry->timer;
    armed_.erase(entry);
    return timer;
  }
  return nullptr;
}

void TimerQueue::run_due(uint64_t now_ns) {
  mutex_.lock();
  CHECK(running_ == nullptr);
  const uint64_t sequence_end = next_sequence_;
  while (QueuedTimer* timer = take_due_locked(now_ns, sequence_end)) {
    running_ = timer;
    mutex_.unlock();
    timer->run_callback();
    mutex_.lock();
    running_ = nullptr;
    callback_done_.notify_all();
  }
  mutex_.unlock();
}

}  // namespace tenon
