#include <thread>

#include "vm/code_changes.hh"

namespace tenon {

void CodeChanges::add(Listener& listener, std::atomic<uint32_t>& poke) {
  const MutexLock lock(changing_);
  listener.poke_ = &poke;
  // Whoever does not see the listener in the list may have left no line: the versions of code that is translated from
  // now on include its write.
  listener.cursor_ = head_.load(std::memory_order_seq_cst);
  listener.next_.store(first_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  first_.store(&listener, std::memory_order_seq_cst);
}

void CodeChanges::remove(Listener& listener) {
  const MutexLock lock(changing_);
  std::atomic<Listener*>* link = &first_;
  while (link->load(std::memory_order_relaxed) != &listener) link = &link->load(std::memory_order_relaxed)->next_;
  link->store(listener.next_.load(std::memory_order_relaxed), std::memory_order_seq_cst);
  while (notifying_.load(std::memory_order_seq_cst) != 0) std::this_thread::yield();
}

}  // namespace tenon
