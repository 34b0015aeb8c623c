#include "engine/jit/mode.hh"

namespace tenon::jit {

Mode mode_at_level(Mode mode, unsigned cpl) {
  const unsigned common = mode & ~unsigned{kModeTlb | kModeUser | kModeSystem};
  const unsigned level =
      cpl == 3 ? unsigned{interp::kTlbUser} | kModeUser : unsigned{interp::kTlbSupervisorUser} | kModeSystem;
  return static_cast<Mode>(common | level);
}

Mode current_mode(const interp::Cpu& cpu) {
  if (!cpu.in_long_mode || cpu.tlb_mode == interp::kTlbNever) return kModeInvalid;
  constexpr uint64_t kAvxComponents = 6;  // XCR0: SSE and AVX state
  const x86::CpuState& state = cpu.state;
  unsigned mode = cpu.tlb_mode;
  if (cpu.cpl == 3) mode |= kModeUser;
  if (cpu.cpl == 0) mode |= kModeSystem;
  const bool running = (state.cr0 & (x86::kCr0Em | x86::kCr0Ts)) == 0;
  if (running) mode |= kModeX87;
  if (running && (state.cr4 & x86::kCr4Osfxsr) != 0) mode |= kModeVector;
  const bool avx = (state.cr4 & x86::kCr4Osxsave) != 0 && (state.xcr0 & kAvxComponents) == kAvxComponents;
  if (avx && (state.cr0 & x86::kCr0Ts) == 0) mode |= kModeAvx;
  return static_cast<Mode>(mode);
}

}  // namespace tenon::jit
