#include "engine/interp/safepoint.hh"

#include <algorithm>
#include <thread>

#include "engine/interp/cpu_inline.hh"

namespace tenon::interp {

void Safepoint::join(Member& member, VcpuSignal& signal) {
  MutexLock lock(mutex_);
  member.signal = &signal;
  member.answered.store(epoch_.load());
  members_.push_back(&member);
}

void Safepoint::leave(Member& member) {
  MutexLock lock(mutex_);
  std::erase(members_, &member);
}

// in_guest is stored before epoch_ is read, an initiator raises epoch_ before it reads in_guest (both sequentially
// consistent): either it waits for this vCPU, or this vCPU sees the new epoch here.
void Safepoint::enter_guest(Cpu& cpu) {
  for (;;) {
    cpu.member.in_guest.store(true, std::memory_order_seq_cst);
    if (cpu.member.answered.load(std::memory_order_relaxed) != epoch_.load(std::memory_order_seq_cst)) answer(cpu);
    // Last: the answer may have been to a split lock that raised the epoch since, and which now takes this vCPU to
    // stand.
    if (!exclusive_.load(std::memory_order_seq_cst)) return;
    cpu.member.in_guest.store(false, std::memory_order_seq_cst);
    std::this_thread::yield();
  }
}

void Safepoint::leave_guest(Cpu& cpu) { cpu.member.in_guest.store(false, std::memory_order_seq_cst); }

void Safepoint::answer(Cpu& cpu) {
  const uint64_t epoch = epoch_.load(std::memory_order_seq_cst);
  cpu.flush_write_tlb();
  cpu.member.answered.store(epoch, std::memory_order_seq_cst);
}

void Safepoint::answer_at_boundary(Cpu& cpu) {
  answer(cpu);
  if (!exclusive_.load(std::memory_order_seq_cst)) return;
  leave_guest(cpu);
  enter_guest(cpu);
}

void Safepoint::lock_answering(Cpu& cpu) {
  while (!mutex_.try_lock()) {
    if (cpu.signal->take(VcpuSignal::kFlush) != 0) answer(cpu);
    std::this_thread::yield();
  }
}

void Safepoint::flush_others(Cpu& cpu) {
  const uint64_t epoch = epoch_.fetch_add(1, std::memory_order_seq_cst) + 1;
  for (Member* member : members_) {
    if (member != &cpu.member && member->in_guest.load(std::memory_order_seq_cst))
      member->signal->raise(VcpuSignal::kFlush);
  }
  for (Member* member : members_) {
    if (member == &cpu.member) continue;
    while (member->in_guest.load(std::memory_order_seq_cst) &&
           member->answered.load(std::memory_order_seq_cst) < epoch) {
      std::this_thread::yield();
    }
  }
}

void Safepoint::set_code_granules(Cpu& cpu, CodeWatch::Page& page, uint64_t mask) {
  uint64_t present = page.granules.load(std::memory_order_seq_cst);
  while ((present & mask) != mask) {
    if (present == 0) {
      lock_answering(cpu);
      flushing_.store(true, std::memory_order_seq_cst);
      page.granules.fetch_or(mask, std::memory_order_seq_cst);
      flush_others(cpu);
      cpu.flush_write_tlb();
      flushing_.store(false, std::memory_order_seq_cst);
      mutex_.unlock();
      return;
    }
    // Not onto 0: the page may have been given up for data since, and write TLBs filled.
    if (page.granules.compare_exchange_weak(present, present | mask, std::memory_order_seq_cst)) break;
  }
  // Somebody else may have set the page's first granule a moment ago and still wait for write TLBs. The request taken
  // here may be the next one's, for a split lock: that takes whoever has answered to stand.
  while (flushing_.load(std::memory_order_seq_cst)) {
    if (cpu.signal->take(VcpuSignal::kFlush) != 0) answer_at_boundary(cpu);
    std::this_thread::yield();
  }
}

void Safepoint::enter_exclusive(Cpu& cpu) {
  lock_answering(cpu);
  exclusive_.store(true, std::memory_order_seq_cst);
  flush_others(cpu);
}

void Safepoint::leave_exclusive() {
  exclusive_.store(false, std::memory_order_seq_cst);
  mutex_.unlock();
}

// The right is held from one call to the other: the analysis sees one function at a time.
TENON_THREAD_ATTRIBUTE(no_thread_safety_analysis) void Cpu::enter_exclusive() { safepoint->enter_exclusive(*this); }
TENON_THREAD_ATTRIBUTE(no_thread_safety_analysis) void Cpu::leave_exclusive() { safepoint->leave_exclusive(); }

}  // namespace tenon::interp
