// The JIT engine: guest code re-encoded for the host, without hardware virtualisation. See README.md.
#pragma once

#include <cstddef>
#include <memory>

#include "engine/engine.hh"

namespace tenon {

struct JitOptions {
  /// Address space for translated code of one vCPU; host memory is used as code is made.
  size_t cache_bytes = size_t{64} << 20;
  /// Arithmetic flags are exact at every fault and exit, also where no later instruction of the guest reads them.
  bool strict_flags = false;
  /// VcpuStats::instructions counts translated code, too (a few per cent slower).
  bool count_instructions = false;
};

/// kUnsupported names what the host CPU or kernel lacks (BMI2, FSGSBASE, AVX).
Result<std::unique_ptr<Engine>> make_jit_engine(const JitOptions& options = {});

}  // namespace tenon
