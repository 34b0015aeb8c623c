#include "engine/x86/cpuid.hh"

#include <cpuid.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace tenon::x86 {
namespace {

constexpr CpuidRegister kA = CpuidRegister::kEax;
constexpr CpuidRegister kB = CpuidRegister::kEbx;
constexpr CpuidRegister kC = CpuidRegister::kEcx;
constexpr CpuidRegister kD = CpuidRegister::kEdx;

// clang-format off
constexpr CpuidFeature kFeatures[] = {
  // leaf, subleaf, register, bit, name, Feature, runs_on_host
  {1, 0, kC, 0, "pni", Feature::kSse3, true},
  {1, 0, kC, 1, "pclmulqdq", Feature::kPclmul, true},
  {1, 0, kC, 9, "ssse3", Feature::kSsse3, true},
  {1, 0, kC, 12, "fma", Feature::kFma, true},
  {1, 0, kC, 13, "cx16", Feature::kCx16, true},
  {1, 0, kC, 17, "pcid", Feature::kBase, false},
  {1, 0, kC, 19, "sse4_1", Feature::kSse41, true},
  {1, 0, kC, 20, "sse4_2", Feature::kSse42, true},
  {1, 0, kC, 21, "x2apic", Feature::kBase, false},
  {1, 0, kC, 22, "movbe", Feature::kMovbe, false},
  {1, 0, kC, 23, "popcnt", Feature::kPopcnt, true},
  {1, 0, kC, 24, "tsc_deadline_timer", Feature::kBase, false},
  {1, 0, kC, 25, "aes", Feature::kAes, true},
  {1, 0, kC, 26, "xsave", Feature::kXsave, false},
  {1, 0, kC, 28, "avx", Feature::kAvx, true},
  {1, 0, kC, 29, "f16c", Feature::kF16c, true},
  {1, 0, kC, 30, "rdrand", Feature::kRdrand, true},
  {1, 0, kD, 0, "fpu", Feature::kFpu, false},
  {1, 0, kD, 1, "vme", Feature::kBase, false},
  {1, 0, kD, 2, "de", Feature::kBase, false},
  {1, 0, kD, 3, "pse", Feature::kBase, false},
  {1, 0, kD, 4, "tsc", Feature::kBase, false},
  {1, 0, kD, 5, "msr", Feature::kBase, false},
  {1, 0, kD, 6, "pae", Feature::kBase, false},
  {1, 0, kD, 7, "mce", Feature::kBase, false},
  {1, 0, kD, 8, "cx8", Feature::kCx8, false},
  {1, 0, kD, 9, "apic", Feature::kBase, false},
  {1, 0, kD, 11, "sep", Feature::kSep, false},
  {1, 0, kD, 12, "mtrr", Feature::kBase, false},
  {1, 0, kD, 13, "pge", Feature::kBase, false},
  {1, 0, kD, 14, "mca", Feature::kBase, false},
  {1, 0, kD, 15, "cmov", Feature::kCmov, false},
  {1, 0, kD, 16, "pat", Feature::kBase, false},
  {1, 0, kD, 17, "pse36", Feature::kBase, false},
  {1, 0, kD, 19, "clflush", Feature::kClflush, false},
  {1, 0, kD, 23, "mmx", Feature::kMmx, false},
  {1, 0, kD, 24, "fxsr", Feature::kFxsr, false},
  {1, 0, kD, 25, "sse", Feature::kSse, false},
  {1, 0, kD, 26, "sse2", Feature::kSse2, false},
  {1, 0, kD, 27, "ss", Feature::kBase, false},
  {7, 0, kB, 0, "fsgsbase", Feature::kFsgsbase, false},
  {7, 0, kB, 1, "tsc_adjust", Feature::kBase, false},
  {7, 0, kB, 3, "bmi1", Feature::kBmi1, true},
  {7, 0, kB, 5, "avx2", Feature::kAvx2, true},
  {7, 0, kB, 6, "fdp_excptn_only", Feature::kBase, true},   // how the host's x87 behaves
  {7, 0, kB, 7, "smep", Feature::kBase, false},
  {7, 0, kB, 8, "bmi2", Feature::kBmi2, true},
  {7, 0, kB, 9, "erms", Feature::kBase, false},
  {7, 0, kB, 10, "invpcid", Feature::kInvpcid, false},
  {7, 0, kB, 13, "zero_fcs_fds", Feature::kBase, true},     // how the host's x87 behaves
  {7, 0, kB, 18, "rdseed", Feature::kRdseed, true},
  {7, 0, kB, 19, "adx", Feature::kAdx, true},
  {7, 0, kB, 20, "smap", Feature::kSmap, false},
  {7, 0, kB, 23, "clflushopt", Feature::kClflushopt, false},
  {7, 0, kB, 24, "clwb", Feature::kClwb, false},
  {7, 0, kB, 29, "sha_ni", Feature::kSha, true},
  {7, 0, kC, 2, "umip", Feature::kBase, false},
  {7, 0, kC, 8, "gfni", Feature::kGfni, true},
  {7, 0, kC, 9, "vaes", Feature::kVaes, true},
  {7, 0, kC, 10, "vpclmulqdq", Feature::kVpclmul, true},
  {7, 0, kC, 22, "rdpid", Feature::kRdpid, false},
  {7, 0, kD, 4, "fsrm", Feature::kBase, false},
  {7, 0, kD, 14, "serialize", Feature::kSerialize, false},
  {7, 0, kD, 26, "spec_ctrl", Feature::kBase, false},
  {7, 0, kD, 27, "intel_stibp", Feature::kBase, false},
  {7, 0, kD, 29, "arch_capabilities", Feature::kBase, false},
  {7, 0, kD, 31, "spec_ctrl_ssbd", Feature::kBase, false},
  {7, 2, kD, 4, "bhi_ctrl", Feature::kBase, false},
  {0xd, 1, kA, 0, "xsaveopt", Feature::kXsaveopt, false},
  {0xd, 1, kA, 1, "xsavec", Feature::kXsavec, false},
  {0xd, 1, kA, 2, "xgetbv1", Feature::kBase, false},
  {0xd, 1, kA, 3, "xsaves", Feature::kXsaves, false},
  {0x80000001, 0, kC, 0, "lahf_lm", Feature::kLahf64, false},
  {0x80000001, 0, kC, 5, "abm", Feature::kLzcnt, true},
  {0x80000001, 0, kC, 8, "3dnowprefetch", Feature::kPrefetchw, false},
  {0x80000001, 0, kD, 11, "syscall", Feature::kSyscall, false},
  {0x80000001, 0, kD, 20, "nx", Feature::kBase, false},
  {0x80000001, 0, kD, 26, "pdpe1gb", Feature::kBase, false},
  {0x80000001, 0, kD, 27, "rdtscp", Feature::kRdtscp, false},
  {0x80000001, 0, kD, 29, "lm", Feature::kBase, false},
  {0x80000007, 0, kD, 8, "constant_tsc", Feature::kBase, false},
};
// clang-format on

/// No bit may have two rows, and no row may name a bit outside a register.
consteval bool table_is_sound() {
  for (size_t i = 0; i < std::size(kFeatures); ++i) {
    if (kFeatures[i].bit > 31) return false;
    for (size_t j = i + 1; j < std::size(kFeatures); ++j) {
      const CpuidFeature &a = kFeatures[i], &b = kFeatures[j];
      if (a.name == b.name) return false;
      if (a.leaf == b.leaf && a.subleaf == b.subleaf && a.where == b.where && a.bit == b.bit) return false;
    }
  }
  return true;
}
static_assert(table_is_sound());

uint32_t& select(CpuidResult& result, CpuidRegister where) {
  switch (where) {
    case CpuidRegister::kEax: return result.eax;
    case CpuidRegister::kEbx: return result.ebx;
    case CpuidRegister::kEcx: return result.ecx;
    case CpuidRegister::kEdx: break;
  }
  return result.edx;
}

CpuidResult host_cpuid(uint32_t leaf, uint32_t subleaf) {
  CpuidResult result;
  if (__get_cpuid_count(leaf, subleaf, &result.eax, &result.ebx, &result.ecx, &result.edx) == 0) return {};
  return result;
}

/// Whether the operating system saves YMM registers, without which the host faults on VEX instructions (SDM Vol.
/// 1 14.3).
bool host_saves_ymm() {
  if ((host_cpuid(1, 0).ecx & bit_OSXSAVE) == 0) return false;
  uint32_t low = 0, high = 0;
  // SAFETY: XGETBV exists, OSXSAVE says so.
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & 6) == 6;
}

bool needs_ymm(Feature feature) {
  switch (feature) {
    case Feature::kAvx:
    case Feature::kAvx2:
    case Feature::kFma:
    case Feature::kF16c:
    case Feature::kVaes:
    case Feature::kVpclmul:
    case Feature::kBmi1:  // VEX-encoded too
    case Feature::kBmi2: return true;
    default: return false;
  }
}

bool host_has(const CpuidFeature& row, bool host_ymm) {
  if (!row.runs_on_host) return true;
  if (needs_ymm(row.feature) && !host_ymm) return false;
  CpuidResult result = host_cpuid(row.leaf, row.subleaf);
  return ((select(result, row.where) >> row.bit) & 1) != 0;
}

CpuidEntry& entry_of(std::vector<CpuidEntry>& table, uint32_t leaf, uint32_t subleaf) {
  for (CpuidEntry& entry : table) {
    if (entry.leaf == leaf && (!entry.subleaf_matters || entry.subleaf == subleaf)) return entry;
  }
  const bool indexed = leaf == 4 || leaf == 7 || leaf == 0xd;
  table.push_back(CpuidEntry{.leaf = leaf, .subleaf = subleaf, .subleaf_matters = indexed, .result = {}});
  return table.back();
}

struct Cache {
  uint32_t type;  // 1 data, 2 instruction, 3 unified
  uint32_t level;
  uint32_t ways;
  uint32_t sets;
};

// 48 KiB L1d, 32 KiB L1i, 2 MiB L2, 32 MiB L3, all with 64-byte lines.
constexpr Cache kCaches[] = {{1, 1, 12, 64}, {2, 1, 8, 64}, {3, 2, 16, 2048}, {3, 3, 16, 32768}};

/// Leaf 4 (SDM Vol. 2, CPUID, "INPUT EAX = 04H"). How many threads share a level is the machine's to fill in.
void add_caches(std::vector<CpuidEntry>& table) {
  for (uint32_t i = 0; i < std::size(kCaches); ++i) {
    const Cache& cache = kCaches[i];
    CpuidResult& result = entry_of(table, 4, i).result;
    result.eax = cache.type | cache.level << 5 | 1u << 8;  // self-initialising
    result.ebx = 63u | (cache.ways - 1) << 22;
    result.ecx = cache.sets - 1;
  }
  entry_of(table, 4, static_cast<uint32_t>(std::size(kCaches)));  // type 0: no more caches
}

/// Leaf 0DH (SDM Vol. 1 13.2). EBX of subleaves 0 and 1 depends on XCR0 and is computed when the instruction executes.
void add_xsave(std::vector<CpuidEntry>& table, bool avx) {
  entry_of(table, 0xd, 0).result = {.eax = avx ? 7u : 3u, .ebx = 576, .ecx = avx ? 832u : 576u, .edx = 0};
  entry_of(table, 0xd, 1).result.ebx = 576;
  if (avx) entry_of(table, 0xd, 2).result = {.eax = 256, .ebx = XsaveArea::kYmmHighOffset, .ecx = 0, .edx = 0};
}

void add_identification(std::vector<CpuidEntry>& table) {
  entry_of(table, 0, 0).result = {
      .eax = 0x1f, .ebx = signature_INTEL_ebx, .ecx = signature_INTEL_ecx, .edx = signature_INTEL_edx};
  CpuidResult& version = entry_of(table, 1, 0).result;
  version.eax = kProcessorSignature;
  version.ebx = 8u << 8;  // CLFLUSH line: 8 quadwords
  // Leaf 2: "see leaf 4 for caches", 64-byte prefetch (SDM Vol. 2 Table 3-12).
  entry_of(table, 2, 0).result = {.eax = 0x00feff01, .ebx = 0x000000f0, .ecx = 0, .edx = 0};
  entry_of(table, 6, 0).result.eax = 1u << 2;  // ARAT: the APIC timer never stops
  entry_of(table, 7, 0).result.eax = 2;        // highest subleaf
  entry_of(table, 0x15, 0);
  entry_of(table, 0x16, 0);

  entry_of(table, 0x80000000, 0).result.eax = 0x80000008;
  for (uint32_t i = 0; i < 3; ++i) {
    CpuidResult& brand = entry_of(table, 0x80000002 + i, 0).result;
    std::memcpy(&brand.eax, kBrandString + 16 * i, 4);
    std::memcpy(&brand.ebx, kBrandString + 16 * i + 4, 4);
    std::memcpy(&brand.ecx, kBrandString + 16 * i + 8, 4);
    std::memcpy(&brand.edx, kBrandString + 16 * i + 12, 4);
  }
  entry_of(table, 0x80000005, 0);
  entry_of(table, 0x80000006, 0).result.ecx = 2048u << 16 | 8u << 12 | 64;  // L2: 2 MiB, 16-way, 64-byte line
  entry_of(table, 0x80000008, 0).result.eax = kLinearBits << 8 | kPhysicalBits;
}

}  // namespace

std::span<const CpuidFeature> cpuid_features() { return kFeatures; }

Result<std::vector<CpuidEntry>> software_engine_cpuid() {
  std::vector<CpuidEntry> table;
  table.reserve(40);
  const bool host_ymm = host_saves_ymm();
  bool avx = false;
  add_identification(table);
  for (const CpuidFeature& row : kFeatures) {
    CpuidResult& result = entry_of(table, row.leaf, row.subleaf).result;
    if (!host_has(row, host_ymm)) continue;
    select(result, row.where) |= 1u << row.bit;
    avx = avx || row.feature == Feature::kAvx;
  }
  add_caches(table);
  add_xsave(table, avx);
  std::ranges::sort(table, [](const CpuidEntry& a, const CpuidEntry& b) {
    return a.leaf != b.leaf ? a.leaf < b.leaf : a.subleaf < b.subleaf;
  });
  return table;
}

const CpuidEntry* find_cpuid(std::span<const CpuidEntry> table, uint32_t leaf, uint32_t subleaf) {
  for (const CpuidEntry& entry : table) {
    if (entry.leaf == leaf && (!entry.subleaf_matters || entry.subleaf == subleaf)) return &entry;
  }
  return nullptr;
}

CpuidResult look_up_cpuid(std::span<const CpuidEntry> table, uint32_t leaf, uint32_t subleaf) {
  const CpuidEntry* basic = find_cpuid(table, 0, 0);
  const CpuidEntry* extended = find_cpuid(table, 0x80000000, 0);
  const uint32_t basic_max = basic != nullptr ? basic->result.eax : 0;
  const uint32_t extended_max = extended != nullptr ? extended->result.eax : 0;
  // 40000000H-4FFFFFFFH belongs to hypervisors: whatever the machine put into the table.
  const bool hypervisor = leaf >= 0x40000000 && leaf < 0x50000000;
  const CpuidEntry* entry = find_cpuid(table, leaf, subleaf);
  if (hypervisor && entry != nullptr) return entry->result;
  const bool in_range = leaf >= 0x80000000 ? leaf <= extended_max : leaf <= basic_max;
  if (!in_range) entry = find_cpuid(table, basic_max, subleaf);
  return entry != nullptr ? entry->result : CpuidResult{};
}

FeatureSet exposed_features(std::span<const CpuidEntry> table) {
  FeatureSet set;
  set.set(static_cast<size_t>(Feature::kBase));
  for (const CpuidFeature& row : kFeatures) {
    const CpuidEntry* entry = find_cpuid(table, row.leaf, row.subleaf);
    if (entry == nullptr) continue;
    CpuidResult result = entry->result;
    if (((select(result, row.where) >> row.bit) & 1) != 0) set.set(static_cast<size_t>(row.feature));
  }
  return set;
}

namespace {

/// A register bit that is valid only with a CPUID feature.
struct BitRule {
  uint64_t bits;
  uint32_t leaf;
  CpuidRegister where;
  uint8_t bit;
  uint32_t subleaf = 0;
};

// SDM Vol. 3 2.5: CR4 bits of features that CPUID does not show are reserved.
constexpr BitRule kCr4Rules[] = {
    {kCr4Vme | kCr4Pvi, 1, kD, 1}, {kCr4Tsd, 1, kD, 4},  {kCr4De, 1, kD, 2},       {kCr4Pse, 1, kD, 3},
    {kCr4Pae, 1, kD, 6},           {kCr4Mce, 1, kD, 7},  {kCr4Pge, 1, kD, 13},     {kCr4Osfxsr, 1, kD, 24},
    {kCr4Osxmmexcpt, 1, kD, 25},   {kCr4Umip, 7, kC, 2}, {kCr4Fsgsbase, 7, kB, 0}, {kCr4Pcide, 1, kC, 17},
    {kCr4Osxsave, 1, kC, 26},      {kCr4Smep, 7, kB, 7}, {kCr4Smap, 7, kB, 20},
};
// SDM Vol. 3 2.2.1.
constexpr BitRule kEferRules[] = {
    {kEferSce, 0x80000001, kD, 11},
    {kEferLme | kEferLma, 0x80000001, kD, 29},
    {kEferNxe, 0x80000001, kD, 20},
};
// SDM Vol. 4 Table 2-2, MSR 48H: IBRS, STIBP, SSBD, BHI_DIS_S. The last spares kernels that distrust BHI_NO a loop of
// branches at every system call.
constexpr BitRule kSpecCtrlRules[] = {
    {1u << 0, 7, kD, 26}, {1u << 1, 7, kD, 27}, {1u << 2, 7, kD, 31}, {1u << 10, 7, kD, 4, 2}};

bool bit_set(std::span<const CpuidEntry> table, uint32_t leaf, uint32_t subleaf, CpuidRegister where, unsigned bit) {
  const CpuidEntry* entry = find_cpuid(table, leaf, subleaf);
  if (entry == nullptr) return false;
  CpuidResult result = entry->result;
  return ((select(result, where) >> bit) & 1) != 0;
}

uint64_t valid_bits(std::span<const CpuidEntry> table, std::span<const BitRule> rules) {
  uint64_t valid = 0;
  for (const BitRule& rule : rules) {
    if (bit_set(table, rule.leaf, rule.subleaf, rule.where, rule.bit)) valid |= rule.bits;
  }
  return valid;
}

}  // namespace

CpuLimits cpu_limits(std::span<const CpuidEntry> table) {
  CpuLimits limits;
  // PCE has no CPUID bit of its own (SDM Vol. 3 2.5).
  limits.cr4_valid = valid_bits(table, kCr4Rules) | kCr4Pce;
  limits.efer_valid = valid_bits(table, kEferRules);
  limits.spec_ctrl_valid = valid_bits(table, kSpecCtrlRules);
  if (bit_set(table, 7, 0, kD, 29)) limits.arch_capabilities = kArchCapabilities;
  const CpuidEntry* sizes = find_cpuid(table, 0x80000008, 0);
  if (sizes != nullptr) limits.physical_bits = static_cast<uint8_t>(std::clamp(sizes->result.eax & 0xff, 32u, 52u));
  limits.gigabyte_pages = bit_set(table, 0x80000001, 0, kD, 26);
  const CpuidEntry* xsave = find_cpuid(table, 0xd, 0);
  if (xsave != nullptr && bit_set(table, 1, 0, kC, 26)) limits.xcr0_valid = (xsave->result.eax & 7) | 1;
  limits.has_xsaves = bit_set(table, 0xd, 1, kA, 3);
  return limits;
}

}  // namespace tenon::x86
