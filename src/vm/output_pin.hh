// OutputPin: the level a chip drives on one pin, published in order without a lock around the call-out.
//
// A chip computes its level under its own lock with note(), releases the lock, then calls publish(). When several
// threads do so at once, one of them publishes for all: levels reach the listener one after another, in the order they
// were noted, and the last one always arrives. A pulse that nobody saw yet still becomes one edge, so edge-triggered
// inputs lose none.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <utility>

#include "base/mutex.hh"
#include "vm/irq_line.hh"

namespace tenon {

class OutputPin {
 public:
  using Listener = std::function<void(bool level)>;

  OutputPin() = default;
  explicit OutputPin(Listener listener) : listener_(std::move(listener)) {}
  explicit OutputPin(IrqLine line) : listener_([line](bool level) { line.set(level); }) {}

  /// Wires the pin; before the VM starts.
  void connect(Listener listener) { listener_ = std::move(listener); }

  /// The chip's level now. Call with the chip's lock held, so that levels are noted in the order they came about.
  void note(bool level) {
    const MutexLock lock(mutex_);
    if (level == noted_) return;
    noted_ = level;
    // Levels alternate, so pending changes are only counted; past one unseen pulse more of them say nothing new.
    changes_ = changes_ >= 3 ? changes_ - 1 : changes_ + 1;
    has_changes_.store(changes_ != 0, std::memory_order_release);
  }

  /// Calls the listener for every change that is due. No lock may be held.
  void publish() {
    if (!has_changes_.load(std::memory_order_acquire)) return;
    mutex_.lock();
    while (!is_publishing_ && changes_ > 0) {
      is_publishing_ = true;
      --changes_;
      has_changes_.store(changes_ != 0, std::memory_order_release);
      driven_ = !driven_;
      const bool level = driven_;
      mutex_.unlock();
      if (listener_) listener_(level);
      mutex_.lock();
      is_publishing_ = false;
    }
    mutex_.unlock();
  }

  /// The level after restore(): the other end has been restored too, so nothing is published. No vCPU runs.
  void assume(bool level) {
    const MutexLock lock(mutex_);
    noted_ = driven_ = level;
    changes_ = 0;
    has_changes_.store(false, std::memory_order_release);
  }

  bool level() const {
    const MutexLock lock(mutex_);
    return noted_;
  }

 private:
  Listener listener_;
  mutable Mutex mutex_;
  bool noted_ TENON_GUARDED_BY(mutex_) = false;   // what the chip wants
  bool driven_ TENON_GUARDED_BY(mutex_) = false;  // what the listener was told last
  bool is_publishing_ TENON_GUARDED_BY(mutex_) = false;
  uint32_t changes_ TENON_GUARDED_BY(mutex_) = 0;  // from driven_ to noted_
  std::atomic<bool> has_changes_{false};
};

}  // namespace tenon
