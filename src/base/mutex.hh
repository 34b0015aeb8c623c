// Mutex with clang's thread-safety annotations (std::mutex of libstdc++ carries none). The fuzz preset
// builds with clang and -Wthread-safety as error. Say beside each TENON_GUARDED_BY member which threads touch it.
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define TENON_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define TENON_THREAD_ATTRIBUTE(x)
#endif
#define TENON_GUARDED_BY(m) TENON_THREAD_ATTRIBUTE(guarded_by(m))
#define TENON_REQUIRES(...) TENON_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define TENON_EXCLUDES(...) TENON_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))

namespace tenon {

class TENON_THREAD_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  void lock() TENON_THREAD_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void unlock() TENON_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  bool try_lock() TENON_THREAD_ATTRIBUTE(try_acquire_capability(true)) { return mutex_.try_lock(); }

 private:
  friend class Condition;
  std::mutex mutex_;
};

class TENON_THREAD_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) TENON_THREAD_ATTRIBUTE(acquire_capability(mutex)) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() TENON_THREAD_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

/// Condition variable over Mutex; wait() is called with the mutex held and returns with it held. Re-check the
/// condition in a loop: wake-ups may be spurious.
class Condition {
 public:
  void wait(Mutex& mutex) TENON_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  template <typename TimePoint>
  void wait_until(Mutex& mutex, const TimePoint& deadline) TENON_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait_until(lock, deadline);
    lock.release();
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable condition_;
};

}  // namespace tenon
