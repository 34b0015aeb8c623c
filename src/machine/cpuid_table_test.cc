#include "machine/cpuid_table.hh"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/x86/cpuid.hh"

namespace tenon {
namespace {

std::vector<CpuidEntry> table_of(uint32_t vcpus, uint32_t id, uint64_t tsc_hz = 2'000'000'000,
                                 std::vector<CpuidEntry> hypervisor = {}) {
  return make_cpuid_table(MUST(x86::software_engine_cpuid()), hypervisor,
                          {.vcpus = vcpus, .tsc_hz = tsc_hz, .apic_timer_hz = 1'000'000'000}, VcpuId{id});
}

CpuidResult at(const std::vector<CpuidEntry>& table, uint32_t leaf, uint32_t subleaf = 0) {
  return x86::look_up_cpuid(table, leaf, subleaf);
}

TEST(CpuidTable, ApicIdsInAllLeaves) {
  for (const uint32_t id : {0u, 3u, 254u, 300u}) {
    const auto table = table_of(400, id);
    EXPECT_EQ(at(table, 1).ebx >> 24, id & 0xff);
    for (const uint32_t leaf : {0xbu, 0x1fu}) {
      for (uint32_t subleaf = 0; subleaf < 3; ++subleaf) EXPECT_EQ(at(table, leaf, subleaf).edx, id);
      EXPECT_EQ(at(table, leaf, 1).ebx, 400u);
      EXPECT_EQ(at(table, leaf, 1).eax, 9u);
      EXPECT_EQ(at(table, leaf, 1).ecx, 0x201u);
    }
  }
}

TEST(CpuidTable, OneCpuHasNoTopology) {
  const auto table = table_of(1, 0);
  EXPECT_EQ(at(table, 1).edx & (1u << 28), 0u);
  EXPECT_EQ((at(table, 1).ebx >> 16) & 0xff, 1u);
  EXPECT_EQ(at(table, 0xb, 1).eax, 0u);
}

TEST(CpuidTable, CachesAreSharedByLevel) {
  const auto table = table_of(4, 0);
  for (uint32_t subleaf = 0; subleaf < 4; ++subleaf) {
    const CpuidResult cache = at(table, 4, subleaf);
    if ((cache.eax & 0x1f) == 0) break;
    const uint32_t level = (cache.eax >> 5) & 7;
    EXPECT_EQ((cache.eax >> 14) & 0xfff, level == 3 ? 3u : 0u);
    EXPECT_EQ(cache.eax >> 26, 3u);
  }
}

TEST(CpuidTable, FrequencyLeafIsRightAndDoesNotOverflow32Bits) {
  for (const uint64_t hz : {uint64_t{1'000'000'000}, uint64_t{2'095'078'000}, uint64_t{2'899'999'000},
                            uint64_t{3'792'881'000}, uint64_t{800'000'000}}) {
    const CpuidResult leaf = at(table_of(1, 0, hz), 0x15);
    ASSERT_NE(leaf.eax, 0u);
    const uint64_t product = uint64_t{leaf.ecx} / 1000 * leaf.ebx;
    EXPECT_LE(product, UINT32_MAX);
    const double khz = static_cast<double>(product) / leaf.eax;
    EXPECT_LT(std::abs(khz * 1000 / static_cast<double>(hz) - 1), 2e-6) << hz;
  }
}

TEST(CpuidTable, HypervisorBitAndLeaves) {
  EXPECT_EQ(at(table_of(1, 0), 1).ecx >> 31, 0u);
  const auto table = table_of(1, 0, 1'000'000'000, {{.leaf = 0x40000000, .result = {.eax = 0x40000001, .ebx = 7}}});
  EXPECT_EQ(at(table, 1).ecx >> 31, 1u);
  EXPECT_EQ(at(table, 0x40000000).ebx, 7u);
}

TEST(CpuidTable, PhysicalAddressBits) {
  EXPECT_EQ(physical_address_bits(table_of(1, 0)), x86::kPhysicalBits);
  EXPECT_EQ(physical_address_bits({}), 36u);
}

}  // namespace
}  // namespace tenon
