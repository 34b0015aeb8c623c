#include "vm/fake_clock.hh"

#include <algorithm>

namespace tenon {

void FakeClock::advance_to_ns(uint64_t target_ns) {
  for (;;) {
    const uint64_t deadline = timers_.next_deadline_ns();
    if (deadline > target_ns || deadline == kNoDeadline) break;
    now_ns_.store(std::max(now_ns(), deadline), std::memory_order_release);
    timers_.run_due(now_ns());
  }
  now_ns_.store(std::max(now_ns(), target_ns), std::memory_order_release);
}

bool FakeClock::advance_to_next_timer() {
  const uint64_t deadline = timers_.next_deadline_ns();
  if (deadline == kNoDeadline) return false;
  advance_to_ns(std::max(now_ns(), deadline));
  return true;
}

}  // namespace tenon
