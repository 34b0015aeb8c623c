// Safepoint: how the vCPUs of one VM agree on moments at which none of them is inside an instruction.
//
// Two uses. A page that gets its first decoded code must lose its write-TLB entries in every vCPU before the bytes are
// read; and a split lock must run while everybody else stands. Both raise VcpuSignal::kFlush on the vCPUs that are in
// guest code and wait until each has answered; a vCPU that sleeps or has left run() is not woken, it looks at the epoch
// when it comes back. The hot path is the VcpuSignal poll that the run loop makes anyway.
//
// Lock order: one initiator at a time holds mutex_; whoever waits for it keeps answering, also in the middle of an
// instruction (no translation made before may be used after). Cost: one answer of every running vCPU for each page of
// code first seen; pages are seen once, so this fades out as a guest warms up.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "base/mutex.hh"
#include "vm/guest_memory.hh"
#include "vm/vcpu_signal.hh"

namespace tenon::interp {

class Cpu;

class Safepoint {
 public:
  /// One vCPU's part; its own cache line.
  struct alignas(64) Member {
    std::atomic<uint64_t> answered{0};  // the epoch up to which its write TLB is clean
    std::atomic<bool> in_guest{false};
    VcpuSignal* signal = nullptr;
  };

  void join(Member& member, VcpuSignal& signal);
  void leave(Member& member);

  /// Around everything that runs guest code: run() and each sleep.
  void enter_guest(Cpu& cpu);
  void leave_guest(Cpu& cpu);
  /// VcpuSignal::kFlush was taken at an instruction boundary: cleans the write TLB and waits while a split lock runs.
  void answer_at_boundary(Cpu& cpu);

  /// Sets CodeWatch granules; on return no write-TLB entry for the page is left anywhere. Between traces.
  void set_code_granules(Cpu& cpu, CodeWatch::Page& page, uint64_t mask);
  /// Behind Cpu::enter_exclusive().
  void enter_exclusive(Cpu& cpu) TENON_THREAD_ATTRIBUTE(acquire_capability(mutex_));
  void leave_exclusive() TENON_THREAD_ATTRIBUTE(release_capability(mutex_));

 private:
  void answer(Cpu& cpu);
  void lock_answering(Cpu& cpu) TENON_THREAD_ATTRIBUTE(acquire_capability(mutex_));
  void flush_others(Cpu& cpu) TENON_REQUIRES(mutex_);

  Mutex mutex_;                                            // the right to be the initiator
  std::vector<Member*> members_ TENON_GUARDED_BY(mutex_);  // create_vcpu(), ~Vcpu(), initiators
  std::atomic<uint64_t> epoch_{0};
  std::atomic<bool> flushing_{false};  // granules are set, but some write TLB may still have the page
  std::atomic<bool> exclusive_{false};
};

}  // namespace tenon::interp
