// CpuState to and from KVM's register structures (KVM API 4.11-4.43, 4.66).
#pragma once

#include "base/fd.hh"
#include "base/result.hh"
#include "engine/x86/cpu_state.hh"

namespace tenon::kvm {

/// Reads the full architectural state of the stopped vCPU behind `vcpu`. `tsc_offset` of the result is not touched.
Result<x86::CpuState> get_cpu_state(const Fd& vcpu);
/// Writes it; an error names the group of registers KVM refused.
Result<void> set_cpu_state(const Fd& vcpu, const x86::CpuState& state);

}  // namespace tenon::kvm
