// Which host register holds which guest register (runtime.hh has the whole convention).
#pragma once

#include "engine/jit/assembler.hh"
#include "engine/x86/cpu_state.hh"

namespace tenon::jit {

/// Kept in Cpu::gpr.
constexpr bool is_homed(unsigned guest) { return guest >= 9 && guest <= 11; }
/// Host register of a pinned guest register.
constexpr HostRegister host_of(unsigned guest) {
  return guest == x86::kRsp ? HostRegister{kHostR9} : static_cast<HostRegister>(guest);
}

}  // namespace tenon::jit
