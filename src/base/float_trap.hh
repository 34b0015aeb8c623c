// FloatTrapRange: code made at run time that may execute with floating-point exceptions unmasked.
//
// An unmasked SIMD exception of guest code run on the host CPU arrives as SIGFPE (the kernel's #XM and #MF). One
// process-wide handler, installed at the first use, continues a fault inside a registered range at that range's
// `resume` address, with all registers as at the fault. A fault anywhere else takes the action that was installed
// before.
//
// The code must not move RSP: `resume` returns to the caller of the code. The handler runs on the alternate signal
// stack of the thread where it has one. Such a thread must not block SIGFPE: the kernel would end the process.
//
// Threads: add() and destruction on any thread; code of a range may run on any thread, and not after its destruction.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "base/result.hh"

namespace tenon {

class FloatTrapRange {
 public:
  /// kBusy when all slots are taken (a slot is one owner of generated code, not one piece of it).
  static Result<FloatTrapRange> add(std::span<const std::byte> code, const std::byte* resume);

  FloatTrapRange(FloatTrapRange&& other) noexcept : slot_(std::exchange(other.slot_, -1)) {}
  FloatTrapRange& operator=(FloatTrapRange&& other) noexcept {
    std::swap(slot_, other.slot_);
    return *this;
  }
  ~FloatTrapRange();

 private:
  explicit FloatTrapRange(int slot) : slot_(slot) {}
  int slot_ = -1;
};

}  // namespace tenon
