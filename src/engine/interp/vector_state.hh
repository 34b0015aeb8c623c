// VectorState and its XSAVE image (SDM Vol. 1 13.4): conversions for get_state/set_state and the XSAVE instructions.
#pragma once

#include <cstdint>

#include "engine/interp/cpu.hh"
#include "engine/x86/cpu_state.hh"

namespace tenon::interp {

/// XSAVE state components (SDM Vol. 1 13.1).
enum XComponents : uint64_t { kXcX87 = 1u << 0, kXcSse = 1u << 1, kXcAvx = 1u << 2, kXcAll = kXcX87 | kXcSse | kXcAvx };
constexpr uint32_t kInitialMxcsr = 0x1f80;
constexpr uint32_t kMxcsrMask = 0xffff;  // bits that are not reserved (MXCSR_MASK; SDM Vol. 1 11.6.6)

/// XINUSE: components that are not in their initial configuration (SDM Vol. 1 13.6). As on Intel CPUs, an MXCSR other
/// than 1F80H counts as SSE state. XGETBV with ECX = 1 gives this ANDed with XCR0.
uint64_t components_in_use(const VectorState& state);

/// Puts every component of `state` into the standard form, with XSTATE_BV = XINUSE.
void to_xsave_area(const VectorState& state, x86::XsaveArea& area);
/// Components whose XSTATE_BV bit is clear are initialised; MXCSR comes from the area in any case.
void from_xsave_area(const x86::XsaveArea& area, VectorState& state);

}  // namespace tenon::interp
