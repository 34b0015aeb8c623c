// VcpuSignal: how the rest of the machine gets a vCPU's attention on the software engines.
//
// Producers (its local APIC, other vCPUs' IPIs, the machine) raise() bits from any thread. The vCPU thread polls
// `pending()` at block boundaries (one load of its own cache line), takes bits, and sleeps in wait() when halted.
// The APIC timer is a deadline here: a running vCPU compares it every few hundred blocks, a halted one sleeps until it.
// Scaling: one line and one futex a vCPU, nothing shared between vCPUs; a halted vCPU with no deadline costs nothing.
#pragma once

#include <atomic>
#include <cstdint>

#include "vm/clock.hh"

namespace tenon {

class alignas(64) VcpuSignal {
 public:
  enum Bits : uint32_t {
    kInterrupt = 1u << 0,  // the local APIC may have a vector to deliver
    kNmi = 1u << 1,
    kInit = 1u << 2,
    kStartup = 1u << 3,  // SIPI; its vector is in the local APIC
    kSmi = 1u << 4,      // not implemented by any engine; ignored
    kStop = 1u << 5,     // leave Vcpu::run() at the next instruction boundary
    kFlush = 1u << 6,    // another vCPU asks this one to drop cached writable translations (engine-internal)
  };

  uint32_t pending() const { return bits_.load(std::memory_order_acquire); }

  /// Sets bits and wakes the vCPU if it sleeps. Any thread.
  void raise(uint32_t bits);
  /// Clears `bits` and returns those of them that were set. The vCPU thread.
  uint32_t take(uint32_t bits) { return bits_.fetch_and(~bits, std::memory_order_acq_rel) & bits; }

  /// Guest time (Clock::now_ns) at which the APIC timer fires, kNoDeadline for none. Written by the vCPU's own thread
  /// (its APIC registers are only written there) or while the vCPU is stopped.
  uint64_t deadline_ns() const { return deadline_ns_.load(std::memory_order_relaxed); }
  void set_deadline_ns(uint64_t deadline_ns) { deadline_ns_.store(deadline_ns, std::memory_order_relaxed); }

  /// A word of the engine's own that raise() sets to 1 beside the bits, for translated code, which looks at one word
  /// only. nullptr: none; on return nobody touches the earlier one any more. The vCPU thread, at its creation and end.
  ///
  /// No bit is overlooked: raise() sets bits first and the word second; the vCPU clears the word (sequentially
  /// consistent exchange) before it takes bits. So where it has cleared a 1, it takes the bits behind that 1, and a 1
  /// that comes later makes it look again.
  void set_poke(std::atomic<uint32_t>* poke);

  /// Sleeps until a bit of `mask` is pending or the deadline has passed. The vCPU thread only.
  void wait(uint32_t mask, const Clock& clock);

 private:
  std::atomic<uint32_t> bits_{0};
  std::atomic<uint32_t> sleeping_{0};
  std::atomic<uint64_t> deadline_ns_{kNoDeadline};
  std::atomic<std::atomic<uint32_t>*> poke_{nullptr};
  std::atomic<uint32_t> poking_{0};  // threads that may hold poke_
};

}  // namespace tenon
