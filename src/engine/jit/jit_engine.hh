// The JIT engine: guest code re-encoded for the host, without hardware virtualisation. See README.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "engine/engine.hh"

namespace tenon {

struct JitOptions {
  /// Address space for translated code of one vCPU; host memory is used as code is made.
  size_t cache_bytes = size_t{256} << 20;
  /// Arithmetic flags are exact at every fault and exit, also where no later instruction of the guest reads them.
  bool strict_flags = false;
  /// VcpuStats::instructions counts translated code, too (a few per cent slower).
  bool count_instructions = false;
  /// For tests, with the seed of its random numbers: caches and tables are emptied, misses and slow ways are forced now
  /// and then. See fault_injection.hh.
  std::optional<uint64_t> fault_injection;
  /// Every block runs on the interpreter first, and the vCPU stops with an error where translated code does anything
  /// else. For one vCPU; some 50 times slower. See lockstep.hh.
  bool lockstep = false;
};

/// Options as text, for a command line: some of lockstep, strict-flags, cache=MEBIBYTES and fault-injection=SEED, with
/// commas between them. Empty: the defaults.
Result<JitOptions> parse_jit_options(std::string_view text);

/// kUnsupported names what the host CPU or kernel lacks (BMI2, FSGSBASE, AVX).
Result<std::unique_ptr<Engine>> make_jit_engine(const JitOptions& options = {});

}  // namespace tenon
