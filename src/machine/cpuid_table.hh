// The CPUID table of one vCPU: what the engine can run, plus topology, clock frequencies and the personality's leaves.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.hh"

namespace tenon {

struct CpuidConfig {
  uint32_t vcpus = 1;  // one package, one thread a core
  uint64_t tsc_hz = 0;
  uint64_t apic_timer_hz = 0;  // the core crystal clock
};

/// `engine` is Engine::supported_cpuid(); `hypervisor` the personality's leaves.
std::vector<CpuidEntry> make_cpuid_table(std::span<const CpuidEntry> engine, std::span<const CpuidEntry> hypervisor,
                                         const CpuidConfig& config, VcpuId vcpu);

/// Physical address bits of a table (leaf 0x80000008), 36 where it does not say.
unsigned physical_address_bits(std::span<const CpuidEntry> table);

}  // namespace tenon
