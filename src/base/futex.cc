#include "base/futex.hh"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <climits>

namespace tenon {

namespace {

static_assert(sizeof(std::atomic<uint32_t>) == 4 && std::atomic<uint32_t>::is_always_lock_free);

constexpr uint64_t kNanosecondsPerSecond = 1'000'000'000;

/// Results carry no news: waiters look at their word again, and a wake-up with nobody asleep is fine.
void call_futex(const std::atomic<uint32_t>& word, int operation, uint32_t value, const timespec* timeout) {
  ::syscall(SYS_futex, &word, operation | FUTEX_PRIVATE_FLAG, value, timeout, nullptr, 0);
}

}  // namespace

void futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, uint64_t timeout_ns) {
  if (timeout_ns == kNoTimeout) return call_futex(word, FUTEX_WAIT, expected, nullptr);
  const timespec timeout = {.tv_sec = static_cast<time_t>(timeout_ns / kNanosecondsPerSecond),
                            .tv_nsec = static_cast<long>(timeout_ns % kNanosecondsPerSecond)};
  call_futex(word, FUTEX_WAIT, expected, &timeout);
}

void futex_wake_one(const std::atomic<uint32_t>& word) { call_futex(word, FUTEX_WAKE, 1, nullptr); }
void futex_wake_all(const std::atomic<uint32_t>& word) { call_futex(word, FUTEX_WAKE, INT_MAX, nullptr); }

}  // namespace tenon
