// check_state: whether a CpuState is one that a CPU could be in. Used by Vcpu::set_state() of the software engines, so
// that a snapshot or an API client cannot put an engine where no instruction could have.
//
// Source: Intel SDM Vol. 3 2.5, 2.2.1, 4.4.1, 26.3.1 (the checks VM entry makes on guest state are the same idea).
#pragma once

#include "base/result.hh"
#include "engine/x86/cpu_state.hh"

namespace tenon::x86 {

/// kInvalidArgument names the first register whose value is impossible, the value and the rule.
Result<void> check_state(const CpuState& state);

}  // namespace tenon::x86
