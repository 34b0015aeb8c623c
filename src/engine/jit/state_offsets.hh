// Offsets in Cpu of architectural state that templates of system instructions read and write.
#pragma once

#include <cstddef>

#include "engine/interp/cpu.hh"

/// Of a member of x86::CpuState.
#define CPU_STATE(field) (offsetof(interp::Cpu, state) + offsetof(x86::CpuState, field))

namespace tenon::jit {

/// Of x86::Segment's members, from segment_offset().
constexpr size_t kSegmentSelector = offsetof(x86::Segment, selector);
constexpr size_t kSegmentBase = offsetof(x86::Segment, base);
constexpr size_t kSegmentLimit = offsetof(x86::Segment, limit);
constexpr size_t kSegmentAttributes = offsetof(x86::Segment, attributes);

constexpr size_t segment_offset(unsigned segment) { return CPU_STATE(segments) + segment * sizeof(x86::Segment); }

}  // namespace tenon::jit
