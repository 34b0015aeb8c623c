#include "base/event_loop.hh"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>
#include <utility>

namespace tenon {

namespace {

uint32_t to_epoll(uint32_t events) {
  return ((events & EventLoop::kReadable) != 0 ? uint32_t{EPOLLIN} : 0u) |
         ((events & EventLoop::kWritable) != 0 ? uint32_t{EPOLLOUT} : 0u);
}

uint32_t from_epoll(uint32_t events) {
  return ((events & EPOLLIN) != 0 ? uint32_t{EventLoop::kReadable} : 0u) |
         ((events & EPOLLOUT) != 0 ? uint32_t{EventLoop::kWritable} : 0u) |
         ((events & (EPOLLHUP | EPOLLERR)) != 0 ? uint32_t{EventLoop::kClosed} : 0u);
}

}  // namespace

FdWatch::FdWatch(FdWatch&& other) noexcept
    : loop_(std::exchange(other.loop_, nullptr)), id_(std::exchange(other.id_, 0)) {}

FdWatch& FdWatch::operator=(FdWatch&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::exchange(other.loop_, nullptr);
    id_ = std::exchange(other.id_, 0);
  }
  return *this;
}

void FdWatch::reset() {
  if (EventLoop* loop = std::exchange(loop_, nullptr); loop != nullptr) loop->unwatch(id_);
}

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.is_open()) return fail_errno("epoll_create1");
  Eventfd wakeup = TRY(Eventfd::create());
  std::unique_ptr<EventLoop> loop(new EventLoop(std::move(epoll), std::move(wakeup)));
  // run_posted() drains the eventfd, in the round that this event starts.
  loop->wakeup_watch_ = TRY(loop->watch(loop->wakeup_.get(), kReadable, [](uint32_t) {}));
  return loop;
}

EventLoop::~EventLoop() {
  signals_watch_.reset();
  wakeup_watch_.reset();
  // A watch that outlives its loop would unwatch in freed memory.
  CHECK(watches_.empty());
}

Result<FdWatch> EventLoop::watch(int fd, uint32_t events, FdCallback callback) {
  auto watch = std::make_shared<Watch>(Watch{.fd = fd, .events = events, .callback = std::move(callback)});
  const uint64_t id = next_id_++;
  epoll_event event = {.events = to_epoll(events), .data = {.u64 = id}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    if (errno != EPERM) return fail_errno("epoll_ctl add fd " + std::to_string(fd));
    watch->always_ready = true;
    ++always_ready_count_;
  }
  watches_.emplace(id, std::move(watch));
  return FdWatch(this, id);
}

void EventLoop::unwatch(uint64_t id) {
  const auto entry = watches_.find(id);
  CHECK(entry != watches_.end());
  if (entry->second->always_ready) {
    --always_ready_count_;
  } else {
    // Fails only where the descriptor was closed first, which has removed it already.
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, entry->second->fd, nullptr);
  }
  watches_.erase(entry);
}

Result<void> EventLoop::watch_signals(std::span<const int> signals, std::function<void(int signal)> callback) {
  CHECK(!signals_watch_.is_active());
  sigset_t set;
  ::sigemptyset(&set);
  for (const int signal : signals) ::sigaddset(&set, signal);
  if (const int error = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); error != 0)
    return std::unexpected(Error::from_errno("block signals", error));
  signals_ = Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_.is_open()) return fail_errno("signalfd");
  signals_watch_ = TRY(watch(signals_.get(), kReadable, [this, callback = std::move(callback)](uint32_t) {
    signalfd_siginfo info;
    while (::read(signals_.get(), &info, sizeof info) == sizeof info) callback(static_cast<int>(info.ssi_signo));
  }));
  return {};
}

void EventLoop::post(std::function<void()> work) {
  {
    const MutexLock lock(mutex_);
    posted_.push_back(std::move(work));
  }
  wakeup_.signal();
}

void EventLoop::stop() {
  post([this] { stopping_ = true; });
}

Result<void> EventLoop::run() {
  stopping_ = false;
  while (!stopping_) {
    TRY(wait_and_call());
    run_posted();
  }
  return {};
}

Result<void> EventLoop::wait_and_call() {
  epoll_event events[32];
  const int timeout_ms = always_ready_count_ > 0 ? 0 : -1;
  const int count = ::epoll_wait(epoll_.get(), events, 32, timeout_ms);
  if (count < 0 && errno != EINTR) return fail_errno("epoll_wait");
  for (int i = 0; i < count; ++i) call(events[i].data.u64, from_epoll(events[i].events));
  if (always_ready_count_ > 0) call_always_ready();
  return {};
}

void EventLoop::call(uint64_t id, uint32_t events) {
  const auto entry = watches_.find(id);
  if (entry == watches_.end()) return;  // removed by an earlier callback of this round
  const std::shared_ptr<Watch> watch = entry->second;
  watch->callback(events);
}

void EventLoop::call_always_ready() {
  std::vector<std::pair<uint64_t, uint32_t>> ready;
  for (const auto& [id, watch] : watches_)
    if (watch->always_ready && watch->events != 0) ready.emplace_back(id, watch->events);
  for (const auto& [id, events] : ready) call(id, events);
}

void EventLoop::run_posted() {
  wakeup_.drain();
  std::vector<std::function<void()>> work;
  {
    const MutexLock lock(mutex_);
    work.swap(posted_);
  }
  for (const std::function<void()>& item : work) item();
}

}  // namespace tenon
