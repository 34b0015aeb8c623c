#include "host/deadline.hh"

#include <sys/timerfd.h>
#include <unistd.h>

#include <cstdint>

namespace tenon {

Result<Deadline> Deadline::create(EventLoop& loop, std::function<void()> expired) {
  Fd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer.is_open()) return fail_errno("timerfd_create");
  const int fd = timer.get();
  FdWatch watch = TRY(loop.watch(fd, EventLoop::kReadable, [fd, callback = std::move(expired)](uint32_t) {
    uint64_t expirations = 0;
    // Nothing to read where arm() came between the event and this call.
    if (::read(fd, &expirations, sizeof expirations) == sizeof expirations) callback();
  }));
  return Deadline(std::move(timer), std::move(watch));
}

void Deadline::arm(unsigned delay_ms) {
  const itimerspec setting = {.it_interval = {},
                              .it_value = {.tv_sec = static_cast<time_t>(delay_ms / 1000),
                                           .tv_nsec = static_cast<long>(delay_ms % 1000) * 1'000'000}};
  ::timerfd_settime(timer_.get(), 0, &setting, nullptr);
}

bool Deadline::is_armed() const {
  itimerspec remaining = {};
  return ::timerfd_gettime(timer_.get(), &remaining) == 0 &&
         (remaining.it_value.tv_sec != 0 || remaining.it_value.tv_nsec != 0);
}

}  // namespace tenon
