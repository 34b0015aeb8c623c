// Faults of host instructions in code made at run time: SIGSEGV, SIGBUS and SIGFPE as calls.
//
// One process-wide handler for each of these signals, installed at the first use, looks where the faulting instruction
// lies: in the range of code that this thread watches, or in one that all threads may run. The range's owner then says
// where to go on. A fault anywhere else, or one that the owner does not take, takes the action that was installed
// before; where that was the default one the process dies of it as ever.
//
// The handler runs on the alternate signal stack of the thread where it has one; code that moves RSP to memory that is
// no stack must see to that. A thread that runs such code must not block these signals: the kernel would end the
// process.
//
// Threads: any. Slots for ranges of all threads are few (64): one owner of generated code, not one piece of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/result.hh"

namespace tenon {

/// A fault, and the registers that its owner may change before the code goes on.
struct HostFault {
  int signal = 0;             // SIGSEGV, SIGBUS or SIGFPE
  uintptr_t address = 0;      // of the access, where it is known (SIGSEGV of a page, SIGBUS); else 0
  uintptr_t instruction = 0;  // RIP
  uintptr_t stack = 0;        // RSP
};

/// Called in the signal handler: only what is async-signal-safe. False: not taken.
using HostFaultHandler = bool (*)(void* context, HostFault& fault);

/// Code that any thread may run.
class HostFaultRange {
 public:
  /// kBusy when all slots are taken.
  static Result<HostFaultRange> add(std::span<const std::byte> code, HostFaultHandler handler, void* context);

  HostFaultRange(HostFaultRange&& other) noexcept : slot_(std::exchange(other.slot_, -1)) {}
  HostFaultRange& operator=(HostFaultRange&& other) noexcept {
    std::swap(slot_, other.slot_);
    return *this;
  }
  ~HostFaultRange();

 private:
  explicit HostFaultRange(int slot) : slot_(slot) {}
  int slot_ = -1;
};

/// Code that only the calling thread runs: its one range, in place of an earlier one.
Result<void> watch_faults_on_this_thread(std::span<const std::byte> code, HostFaultHandler handler, void* context);
void forget_faults_on_this_thread();

}  // namespace tenon
