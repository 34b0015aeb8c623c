#include "machine/cpuid_table.hh"

#include <algorithm>
#include <bit>

#include "base/bits.hh"

namespace tenon {

namespace {

using Table = std::vector<CpuidEntry>;

// SDM Vol. 2, CPUID; all of these are this file's, whatever the engine says.
constexpr uint32_t kFrequencyLeaves[] = {0x15, 0x16};
constexpr uint32_t kTopologyLeaves[] = {0x0b, 0x1f};
constexpr uint32_t kHypervisorBit = 1u << 31;  // leaf 1 ECX
constexpr uint32_t kHttBit = 1u << 28;         // leaf 1 EDX: EBX[23:16] is valid
constexpr uint32_t kCacheLevelShared = 3;      // leaf 4: this level is shared by the package, lower ones are not

CpuidResult* find(Table& table, uint32_t leaf) {
  const auto entry = std::ranges::find(table, leaf, &CpuidEntry::leaf);
  return entry == table.end() ? nullptr : &entry->result;
}

/// APIC ID bits that number the cores of the package.
uint32_t core_bits(uint32_t vcpus) { return static_cast<uint32_t>(std::bit_width(vcpus - 1)); }

void set_identity(Table& table, const CpuidConfig& config, uint32_t id, bool has_hypervisor) {
  CpuidResult* version = find(table, 1);
  if (version == nullptr) return;
  const uint32_t logical = std::min(1u << core_bits(config.vcpus), 255u);
  version->ebx = (version->ebx & 0xffff) | logical << 16 | (id & 0xff) << 24;
  version->edx = config.vcpus > 1 ? version->edx | kHttBit : version->edx & ~kHttBit;
  version->ecx = has_hypervisor ? version->ecx | kHypervisorBit : version->ecx & ~kHypervisorBit;
}

/// Leaf 4: EAX[25:14] threads that share the cache less one, EAX[31:26] cores less one.
void set_cache_sharing(Table& table, uint32_t vcpus) {
  const uint32_t cores = (1u << core_bits(vcpus)) - 1;
  for (CpuidEntry& entry : table) {
    if (entry.leaf != 4 || (entry.result.eax & 0x1f) == 0) continue;
    const uint32_t level = (entry.result.eax >> 5) & 7;
    const uint32_t sharing = level >= kCacheLevelShared ? std::min(cores, 0xfffu) : 0;
    entry.result.eax = (entry.result.eax & 0x3fff) | sharing << 14 | std::min(cores, 63u) << 26;
  }
}

/// Leaves 0xb and 0x1f: level SMT with one thread, level core with all vCPUs.
void add_topology(Table& table, uint32_t vcpus, uint32_t id) {
  const uint32_t leaf_max = find(table, 0) != nullptr ? find(table, 0)->eax : 0;
  for (const uint32_t leaf : kTopologyLeaves) {
    if (leaf > leaf_max) continue;
    table.push_back({leaf, 0, true, {.eax = 0, .ebx = 1, .ecx = 0 | 1 << 8, .edx = id}});
    table.push_back({leaf, 1, true, {.eax = core_bits(vcpus), .ebx = vcpus, .ecx = 1 | 2 << 8, .edx = id}});
    table.push_back({leaf, 2, true, {.eax = 0, .ebx = 0, .ecx = 2, .edx = id}});
  }
}

/// The closest fraction to `numerator` / `denominator` with a numerator of at most `numerator_max` (continued
/// fraction).
struct Fraction {
  uint64_t numerator = 0;
  uint64_t denominator = 1;
};
Fraction closest_fraction(uint64_t numerator, uint64_t denominator, uint64_t numerator_max) {
  Fraction previous{1, 0};
  Fraction current{numerator / denominator, 1};
  uint64_t rest = numerator % denominator;
  uint64_t divisor = denominator;
  while (rest != 0) {
    const uint64_t quotient = divisor / rest;
    const Fraction next{quotient * current.numerator + previous.numerator,
                        quotient * current.denominator + previous.denominator};
    if (next.numerator > numerator_max) break;
    previous = current;
    current = next;
    const uint64_t remainder = divisor % rest;
    divisor = rest;
    rest = remainder;
  }
  return current;
}

/// Leaf 15H: TSC = crystal * EBX / EAX. Linux computes crystal_khz * EBX in 32 bits (arch/x86/kernel/tsc.c,
/// native_calibrate_tsc), so EBX is kept small: the closest such fraction is off by less than one part in a million.
void set_frequencies(Table& table, const CpuidConfig& config) {
  const uint32_t leaf_max = find(table, 0) != nullptr ? find(table, 0)->eax : 0;
  if (config.tsc_hz == 0 || config.apic_timer_hz == 0 || leaf_max < 0x15) return;
  const uint64_t crystal_khz = config.apic_timer_hz / 1000;
  const Fraction ratio = closest_fraction(config.tsc_hz, config.apic_timer_hz, UINT32_MAX / crystal_khz);
  table.push_back({0x15,
                   0,
                   false,
                   {.eax = static_cast<uint32_t>(ratio.denominator),
                    .ebx = static_cast<uint32_t>(ratio.numerator),
                    .ecx = static_cast<uint32_t>(config.apic_timer_hz)}});
  const auto mhz = static_cast<uint32_t>(config.tsc_hz / 1'000'000);
  if (leaf_max >= 0x16) table.push_back({0x16, 0, false, {.eax = mhz, .ebx = mhz, .ecx = 100}});
}

bool is_ours(uint32_t leaf) {
  return std::ranges::count(kFrequencyLeaves, leaf) != 0 || std::ranges::count(kTopologyLeaves, leaf) != 0 ||
         (leaf >= 0x40000000 && leaf < 0x50000000);
}

}  // namespace

std::vector<CpuidEntry> make_cpuid_table(std::span<const CpuidEntry> engine, std::span<const CpuidEntry> hypervisor,
                                         const CpuidConfig& config, VcpuId vcpu) {
  Table table;
  std::ranges::copy_if(engine, std::back_inserter(table), [](const CpuidEntry& entry) { return !is_ours(entry.leaf); });
  set_identity(table, config, number(vcpu), !hypervisor.empty());
  set_cache_sharing(table, config.vcpus);
  add_topology(table, config.vcpus, number(vcpu));
  set_frequencies(table, config);
  std::ranges::copy(hypervisor, std::back_inserter(table));
  std::ranges::sort(table, {}, [](const CpuidEntry& entry) { return uint64_t{entry.leaf} << 32 | entry.subleaf; });
  return table;
}

unsigned physical_address_bits(std::span<const CpuidEntry> table) {
  const auto entry = std::ranges::find(table, 0x80000008u, &CpuidEntry::leaf);
  const unsigned bits = entry == table.end() ? 0 : entry->result.eax & 0xff;
  return bits == 0 ? 36 : bits;
}

}  // namespace tenon
