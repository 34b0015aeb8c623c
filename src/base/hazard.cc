#include "base/hazard.hh"

namespace tenon {

namespace {

using hazard_detail::Slots;

/// All slots ever made. They are never freed: a writer may walk the list at any moment, and there are at most as many
/// as threads have been alive at once.
std::atomic<Slots*> all_slots{nullptr};

Slots* adopt_abandoned() {
  for (Slots* slots = all_slots.load(std::memory_order_acquire); slots != nullptr; slots = slots->next) {
    bool owned = false;
    if (slots->owned.compare_exchange_strong(owned, true, std::memory_order_acq_rel)) return slots;
  }
  return nullptr;
}

Slots* acquire() {
  if (Slots* slots = adopt_abandoned(); slots != nullptr) return slots;
  Slots* slots = new Slots;
  slots->next = all_slots.load(std::memory_order_relaxed);
  while (!all_slots.compare_exchange_weak(slots->next, slots, std::memory_order_seq_cst)) {
  }
  return slots;
}

/// Gives the thread's slots back when the thread ends.
class SlotsOwner {
 public:
  SlotsOwner() : slots_(acquire()) {}
  ~SlotsOwner() { slots_->owned.store(false, std::memory_order_release); }
  Slots& slots() { return *slots_; }

 private:
  Slots* slots_;
};

}  // namespace

Slots& hazard_detail::slots_of_this_thread() {
  thread_local SlotsOwner owner;
  return owner.slots();
}

bool held_by_any_thread(const void* object) {
  for (const Slots* slots = all_slots.load(std::memory_order_seq_cst); slots != nullptr; slots = slots->next)
    for (const std::atomic<const void*>& held : slots->held)
      if (held.load(std::memory_order_seq_cst) == object) return true;
  return false;
}

}  // namespace tenon
