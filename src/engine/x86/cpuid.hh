// CPUID: the virtual CPU that software engines expose, and what a CPUID table allows in control registers.
//
// One constexpr table (leaf, register, bit, name, Feature, executed by the host?) drives everything: the leaves, the
// Feature set that decides #UD, and the names for feature selection. Instructions that an engine runs as the host's own
// are exposed only where the host has them. The model is a Sapphire Rapids server part: not in any kernel's list of
// models that need page-table isolation, and IA32_ARCH_CAPABILITIES (kArchCapabilities) says the rest.
//
// Source: Intel SDM Vol. 2, CPUID; Vol. 4 chapter 2 for the MSRs.
// Not exposed, on purpose: TSX, CET, AMX, LA57, protection keys, MONITOR, performance monitoring, AVX-512, VMX, SGX.
#pragma once

#include <bitset>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.hh"
#include "engine/engine.hh"
#include "engine/x86/insn.hh"

namespace tenon::x86 {

/// CPUID.01H:EAX, also EDX after reset: family 6, model 8FH, stepping 8.
constexpr uint32_t kProcessorSignature = 0x000806f8;
constexpr unsigned kPhysicalBits = 46;
constexpr unsigned kLinearBits = 48;
constexpr char kBrandString[48] = "Tenon virtual CPU";

/// IA32_ARCH_CAPABILITIES (SDM Vol. 4 Table 2-2, MSR 10AH): what a guest would do against these weaknesses costs it
/// much and does nothing for it on a software engine. What that leaves open inside a guest: docs/security.md.
constexpr uint64_t kArchCapabilities = 1ull << 0      // RDCL_NO
                                       | 1ull << 1    // IBRS_ALL
                                       | 1ull << 3    // SKIP_L1DFL_VMENTRY
                                       | 1ull << 4    // SSB_NO
                                       | 1ull << 5    // MDS_NO
                                       | 1ull << 6    // IF_PSCHANGE_MC_NO
                                       | 1ull << 8    // TAA_NO
                                       | 1ull << 13   // SBDR_SSDP_NO
                                       | 1ull << 14   // FBSDP_NO
                                       | 1ull << 15   // PSDP_NO
                                       | 1ull << 20   // BHI_NO
                                       | 1ull << 24   // PBRSB_NO
                                       | 1ull << 26   // GDS_NO
                                       | 1ull << 27   // RFDS_NO
                                       | 1ull << 62;  // ITS_NO

enum class CpuidRegister : uint8_t { kEax, kEbx, kEcx, kEdx };

struct CpuidFeature {
  uint32_t leaf;
  uint32_t subleaf;
  CpuidRegister where;
  uint8_t bit;
  std::string_view name;  // as Linux spells it in /proc/cpuinfo
  Feature feature;        // kBase: no instruction depends on it
  bool runs_on_host;      // exposed only where the host CPU and OS have it
};

std::span<const CpuidFeature> cpuid_features();

using FeatureSet = std::bitset<static_cast<size_t>(Feature::kCount)>;

/// The leaves a software engine can run on this host, without topology (0BH, 1FH, APIC IDs), TSC frequency and
/// personality.
Result<std::vector<CpuidEntry>> software_engine_cpuid();

/// The row for `leaf` and `subleaf`, or nullptr.
const CpuidEntry* find_cpuid(std::span<const CpuidEntry> table, uint32_t leaf, uint32_t subleaf);

/// What the CPUID instruction answers before the dynamic bits: a leaf above the maximum answers like the highest basic
/// leaf (SDM Vol. 2, CPUID, "INPUT EAX = ... Returned values"), a leaf or subleaf without a row all zeroes.
CpuidResult look_up_cpuid(std::span<const CpuidEntry> table, uint32_t leaf, uint32_t subleaf);

/// Features whose bit is set in `table`; kBase is always a member.
FeatureSet exposed_features(std::span<const CpuidEntry> table);

/// What the exposed features allow in registers; computed once for each vCPU.
struct CpuLimits {
  uint64_t cr4_valid = 0;  // bits that may be set
  uint64_t efer_valid = 0;
  uint64_t xcr0_valid = 1;
  uint64_t xss_valid = 0;
  uint64_t spec_ctrl_valid = 0;
  uint64_t arch_capabilities = 0;
  uint8_t physical_bits = 36;
  bool gigabyte_pages = false;
  bool has_xsaves = false;
};

CpuLimits cpu_limits(std::span<const CpuidEntry> table);

}  // namespace tenon::x86
