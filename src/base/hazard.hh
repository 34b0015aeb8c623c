// Hazard pointers: lock-free readers of an object that writers replace, with a bound on what is not yet freed.
//
// A reader publishes the pointer it is about to use in a slot of its own thread (Hazard); a writer that has replaced
// the object frees an old one only when no slot holds it (held_by_any_thread). So at most one retired object a thread
// and nesting level stays alive, however often a hostile guest makes us replace it, which neither a grace period that
// never comes nor a list that only grows can promise.
// Threads: any. A thread's slots are found once, kept for its life, and reused by a later thread.
// Scaling: publishing is one locked store to a cache line of the reader's own; only writers look at all slots.
#pragma once

#include <atomic>
#include <cstddef>

#include "base/check.hh"

namespace tenon {

namespace hazard_detail {

constexpr size_t kNestingMax = 4;  // Hazards alive at once in one thread

/// The slots of one thread.
struct alignas(64) Slots {
  std::atomic<const void*> held[kNestingMax] = {};
  size_t depth = 0;               // used entries of `held`; the owning thread only
  std::atomic<bool> owned{true};  // false once the thread has ended
  Slots* next = nullptr;          // fixed once published
};

Slots& slots_of_this_thread();

}  // namespace hazard_detail

/// Keeps the object that `source` pointed to at construction alive until destruction. Short-lived, on the stack;
/// several may nest. The writer must replace `source` with sequentially consistent order before it asks
/// held_by_any_thread().
template <typename T>
class Hazard {
 public:
  explicit Hazard(const std::atomic<T*>& source) : slots_(hazard_detail::slots_of_this_thread()) {
    std::atomic<const void*>& slot = enter();
    T* seen = source.load(std::memory_order_relaxed);
    for (;;) {
      slot.store(seen, std::memory_order_seq_cst);
      // Still current after we have published it: a writer that replaces it from now on sees our slot.
      T* again = source.load(std::memory_order_seq_cst);
      if (again == seen) break;
      seen = again;
    }
    object_ = seen;
  }
  ~Hazard() { slots_.held[--slots_.depth].store(nullptr, std::memory_order_release); }
  Hazard(const Hazard&) = delete;
  Hazard& operator=(const Hazard&) = delete;

  T& operator*() const { return *object_; }
  T* operator->() const { return object_; }

 private:
  std::atomic<const void*>& enter() {
    CHECK(slots_.depth < hazard_detail::kNestingMax);
    return slots_.held[slots_.depth++];
  }

  hazard_detail::Slots& slots_;
  T* object_ = nullptr;
};

/// Whether a live Hazard of any thread holds `object`. Called by writers after they have replaced it.
bool held_by_any_thread(const void* object);

}  // namespace tenon
