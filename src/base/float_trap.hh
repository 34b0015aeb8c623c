// FloatTrapRange: code made at run time that may execute with floating-point exceptions unmasked.
//
// An unmasked SIMD exception of guest code run on the host CPU arrives as SIGFPE (the kernel's #XM and #MF), which
// host_fault.hh catches; the code then continues at the range's `resume` address, with all registers as at the fault.
//
// The code must not move RSP: `resume` returns to the caller of the code.
//
// Threads: add() and destruction on any thread; code of a range may run on any thread, and not after its destruction.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "base/host_fault.hh"
#include "base/result.hh"

namespace tenon {

class FloatTrapRange {
 public:
  /// kBusy when all slots are taken (a slot is one owner of generated code, not one piece of it).
  static Result<FloatTrapRange> add(std::span<const std::byte> code, const std::byte* resume);

 private:
  explicit FloatTrapRange(HostFaultRange range) : range_(std::move(range)) {}
  HostFaultRange range_;
};

}  // namespace tenon
