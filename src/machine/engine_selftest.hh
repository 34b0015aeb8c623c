// The engine self-test: a small guest that does what a stock kernel does early and a software KVM gets wrong.
//
// `--engine auto` runs it on KVM before it trusts it, and once on the interpreter for the speed to compare with. It
// needs no devices: the guest reports each step on one port. It takes a few milliseconds on hardware, and is cut off
// after two seconds.
#pragma once

#include <string>

#include "base/result.hh"
#include "engine/engine.hh"

namespace tenon {

/// The steps of engine_selftest_guest.S in order, by the number it reports.
enum class SelfTestStep : uint8_t {
  kNone,
  kRing0,
  kCmpxchg16b,
  kXsave,
  kBreakpoint,
  kRing3,
  kLoopStart,
  kLoopEnd,
};

struct SelfTestReport {
  SelfTestStep last_step = SelfTestStep::kNone;
  std::string failure;                       // empty where every step passed; else one clause for a person
  double ring0_instructions_per_second = 0;  // of the timed loop, where it was reached

  bool passed() const { return failure.empty(); }
};

/// Runs the guest on `engine`, which must be fresh (nothing attached) and is used up by it. An Error means that the
/// host refused memory or the engine refused the VM; a guest that went wrong is a report with `failure`.
Result<SelfTestReport> run_engine_self_test(Engine& engine);

/// "LOCK CMPXCHG16B", "XSAVE/XRSTOR"... for messages.
const char* self_test_step_name(SelfTestStep step);

}  // namespace tenon
