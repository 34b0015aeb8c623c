// Runs one instruction on the real CPU in this process and captures everything it did.
//
// The state is loaded into the host's own registers by host_cpu.S, which then jumps to the instruction. An absolute
// jump behind it comes back here; a fault comes back through a signal handler that takes vector, error code and CR2 out
// of the signal frame. FS base is the guest's meanwhile, so the handler's entry restores the C library's first. One
// instance a process, one thread: it owns fixed addresses and the process's signal handlers. Those that an engine has
// installed before get the signals that are not the host instruction's, once the first one has run.
#pragma once

#include <memory>
#include <span>

#include "base/fd.hh"
#include "base/result.hh"
#include "tests/differential/machine_state.hh"

namespace tenon::differential {

class HostCpu {
 public:
  static Result<std::unique_ptr<HostCpu>> create();
  ~HostCpu();

  /// The data window as the host sees it; the first kWindowReadable bytes, all writable through this view.
  std::span<std::byte> window() { return window_view_; }

  /// What stands behind the instruction: a jump back (fast), or INT3 like in the rest of the page (for branches, which
  /// may land there; a signal each time).
  enum class Ending : uint8_t { kJumpBack, kTrap };

  /// Puts `code` at `address` (inside the code page, with room for the jump back) and runs it from `before`. A branch
  /// ends with #BP at its target, RIP behind the INT3 there.
  Outcome run(std::span<const uint8_t> code, uint64_t address, Ending ending, const MachineState& before,
              MachineState& after);

 private:
  HostCpu() = default;
  void write_code(std::span<const uint8_t> code, uint64_t address, Ending ending);
  std::span<std::byte> window_view_;
  std::byte* code_view_ = nullptr;
  uint64_t last_code_ = 0;
};

}  // namespace tenon::differential
