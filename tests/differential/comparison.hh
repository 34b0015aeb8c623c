// What of two outcomes of one instruction must be the same, and the words for what is not.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "tests/differential/generator.hh"
#include "tests/differential/machine_state.hh"

namespace tenon::differential {

/// What an engine or a case leaves undefined on purpose.
struct Leniency {
  bool arithmetic_flags = false;  // another instruction has overwritten them, or would have
  bool x87_pointers = false;      // the JIT keeps no FIP, FDP and FOP (engine/jit/stubs.cc)
};

/// Differences as indented lines; empty where there are none.
std::string compare(const Case& test, const Outcome& host_outcome, const MachineState& host,
                    const Outcome& guest_outcome, const MachineState& guest, Leniency leniency);
/// Differences of the data windows; the guest's is made like the host's again.
std::string compare_windows(std::span<std::byte> host, std::span<std::byte> guest);

/// The case on one line: operation, bytes, the registers that matter most.
std::string describe(const Case& test);

/// The list of results that are not compared because the manual leaves them undefined and the engine differs.
std::string describe_masks();

}  // namespace tenon::differential
