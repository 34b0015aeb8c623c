// Runs one instruction as a CPL 3 guest on an engine and captures everything it did, through the engine contract only,
// so that every engine is tested by the same code.
//
// The guest has the host's view of memory: window and code page at the same linear addresses with the same rights.
// Behind the instruction stands INT3, and every exception enters a supervisor stub whose one OUT to port = vector ends
// the run; the frame on its stack then says RIP, RFLAGS, RSP and error code. All of IDT delivery is thereby part of
// what is compared.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/result.hh"
#include "engine/engine.hh"
#include "host/host_clock.hh"
#include "tests/differential/machine_state.hh"

namespace tenon::differential {

class GuestCpu {
 public:
  /// `engine` is fresh; it is owned from here on.
  static Result<std::unique_ptr<GuestCpu>> create(std::unique_ptr<Engine> engine);
  ~GuestCpu();

  /// The guest's copy of the data window.
  std::span<std::byte> window() { return window_; }
  /// What stands between the instruction and INT3: nothing, or CMP EAX, EAX, so that an engine which looks ahead finds
  /// that nobody reads the instruction's flags (RFLAGS is then CMP's). Not behind branches, which may land there.
  enum class Ending : uint8_t { kTrap, kCompare };
  Outcome run(std::span<const uint8_t> code, uint64_t address, Ending ending, const MachineState& before,
              MachineState& after);
  /// Text of an engine failure (Halt::kError) of the last run, empty otherwise.
  const std::string& failure() const { return failure_; }

 private:
  class StubIo;
  GuestCpu();
  Result<void> build();
  void write_tables();
  void write_code(std::span<const uint8_t> code, uint64_t address, Ending ending);

  GuestMemory memory_;
  std::unique_ptr<HostClock> clock_;
  std::unique_ptr<Engine> engine_;
  std::vector<CpuidEntry> cpuid_;
  VcpuSignal signal_;
  std::unique_ptr<Vcpu> vcpu_;
  std::unique_ptr<StubIo> io_;
  x86::CpuState base_state_;
  std::span<std::byte> window_;
  std::string failure_;
  uint64_t last_code_ = 0;
};

}  // namespace tenon::differential
