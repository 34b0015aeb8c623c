// EventLoop: one thread waits for file descriptors, signals and work posted by other threads, and calls back.
//
// Threads: watch(), watch_signals() and run() belong to the loop's thread; post() and stop() may be called from any
// thread, callbacks run on the loop's thread with no lock held and may add or remove watches, their own too.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/fd.hh"
#include "base/mutex.hh"
#include "base/result.hh"

namespace tenon {

class EventLoop;

/// Keeps a descriptor watched for as long as it lives. Move-only; destroy it before its loop and before closing the
/// descriptor.
class FdWatch {
 public:
  FdWatch() = default;
  FdWatch(FdWatch&& other) noexcept;
  FdWatch& operator=(FdWatch&& other) noexcept;
  ~FdWatch() { reset(); }
  void reset();
  bool is_active() const { return loop_ != nullptr; }

 private:
  friend class EventLoop;
  FdWatch(EventLoop* loop, uint64_t id) : loop_(loop), id_(id) {}
  EventLoop* loop_ = nullptr;
  uint64_t id_ = 0;
};

class EventLoop {
 public:
  enum Event : uint32_t {
    kReadable = 1u << 0,
    kWritable = 1u << 1,
    kClosed = 1u << 2,  // hang-up or error; always reported, need not be asked for
  };
  using FdCallback = std::function<void(uint32_t events)>;

  static Result<std::unique_ptr<EventLoop>> create();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  /// Calls `callback` with the events that hold, as long as they hold (level-triggered). A descriptor that the host
  /// cannot poll (a regular file, /dev/null) is always readable and writable, as poll(2) defines it.
  Result<FdWatch> watch(int fd, uint32_t events, FdCallback callback);

  /// Blocks `signals` in this thread (and so in all threads it creates later) and calls `callback` with each one that
  /// arrives. Once per loop. They stay blocked after the loop is gone.
  Result<void> watch_signals(std::span<const int> signals, std::function<void(int signal)> callback);

  /// Runs `work` on the loop's thread, after all that was posted before. Work posted after run() has returned waits for
  /// the next run().
  void post(std::function<void()> work);

  /// Waits and calls back until stop(). Work already posted when stop() is called is done first.
  Result<void> run();
  void stop();

 private:
  friend class FdWatch;
  struct Watch {
    int fd = -1;
    uint32_t events = 0;
    bool always_ready = false;
    FdCallback callback;
  };

  EventLoop(Fd epoll, Eventfd wakeup) : epoll_(std::move(epoll)), wakeup_(std::move(wakeup)) {}
  void unwatch(uint64_t id);
  void call(uint64_t id, uint32_t events);
  void call_always_ready();
  void run_posted();
  Result<void> wait_and_call();

  Fd epoll_;
  Eventfd wakeup_;
  FdWatch wakeup_watch_;
  Fd signals_;
  FdWatch signals_watch_;
  std::map<uint64_t, std::shared_ptr<Watch>> watches_;  // shared: a callback may remove its own watch while it runs
  size_t always_ready_count_ = 0;
  uint64_t next_id_ = 1;
  bool stopping_ = false;

  Mutex mutex_;
  std::vector<std::function<void()>> posted_ TENON_GUARDED_BY(mutex_);  // any thread appends, the loop's thread takes
};

}  // namespace tenon
