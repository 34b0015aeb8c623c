#include "vm/vcpu_signal.hh"

#include <thread>

#include "base/futex.hh"

namespace tenon {

void VcpuSignal::raise(uint32_t bits) {
  const uint32_t before = bits_.fetch_or(bits, std::memory_order_seq_cst);
  // Bits that were all set before changed nothing: the vCPU is either awake or does not wait for them.
  if ((before & bits) == bits) return;
  if (poke_.load(std::memory_order_relaxed) != nullptr) {
    // Counted before the pointer is read, and set_poke() looks at the count after it has replaced the pointer (both
    // sequentially consistent): either it waits for us, or we see its new value.
    poking_.fetch_add(1, std::memory_order_seq_cst);
    if (std::atomic<uint32_t>* poke = poke_.load(std::memory_order_seq_cst)) poke->store(1, std::memory_order_seq_cst);
    poking_.fetch_sub(1, std::memory_order_release);
  }
  if (sleeping_.load(std::memory_order_seq_cst) != 0) futex_wake_one(bits_);
}

void VcpuSignal::set_poke(std::atomic<uint32_t>* poke) {
  poke_.store(poke, std::memory_order_seq_cst);
  while (poking_.load(std::memory_order_seq_cst) != 0) std::this_thread::yield();
  // Whoever raised bits before it could see the new word: the vCPU shall look.
  if (poke != nullptr) poke->store(1, std::memory_order_seq_cst);
}

void VcpuSignal::wait(uint32_t mask, const Clock& clock) {
  sleeping_.store(1, std::memory_order_seq_cst);
  for (;;) {
    // Sleeping is announced before the bits are read: a producer either sees it and wakes us, or we see its bits; a
    // change between here and the sleep makes the kernel return at once.
    const uint32_t bits = bits_.load(std::memory_order_seq_cst);
    if ((bits & mask) != 0) break;
    uint64_t timeout_ns = kNoTimeout;
    if (const uint64_t deadline = deadline_ns(); deadline != kNoDeadline) {
      const uint64_t now = clock.now_ns();
      if (now >= deadline) break;
      timeout_ns = deadline - now;
    }
    futex_wait(bits_, bits, timeout_ns);
  }
  sleeping_.store(0, std::memory_order_relaxed);
}

}  // namespace tenon
