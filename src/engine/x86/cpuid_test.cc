#include "engine/x86/cpuid.hh"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace tenon::x86 {
namespace {

std::vector<CpuidEntry> table() {
  auto result = software_engine_cpuid();
  CHECK(result.has_value());
  return *result;
}

TEST(Cpuid, Identification) {
  const auto rows = table();
  const CpuidResult vendor = look_up_cpuid(rows, 0, 0);
  EXPECT_EQ(vendor.ebx, 0x756e6547u);  // "Genu"
  EXPECT_EQ(vendor.edx, 0x49656e69u);  // "ineI"
  EXPECT_EQ(vendor.ecx, 0x6c65746eu);  // "ntel"
  EXPECT_EQ(look_up_cpuid(rows, 1, 0).eax, kProcessorSignature);
  std::string brand;
  for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; ++leaf) {
    const CpuidResult part = look_up_cpuid(rows, leaf, 0);
    for (const uint32_t word : {part.eax, part.ebx, part.ecx, part.edx}) {
      for (unsigned i = 0; i < 4; ++i) brand += static_cast<char>(word >> (8 * i));
    }
  }
  EXPECT_EQ(std::string(brand.c_str()), "Tenon virtual CPU");
}

TEST(Cpuid, LeavesOutOfRangeAnswerLikeTheHighestBasicLeaf) {
  std::vector<CpuidEntry> rows = {
      {.leaf = 0, .result = {.eax = 2}},
      {.leaf = 2, .result = {.eax = 0x1234}},
      {.leaf = 0x80000000, .result = {.eax = 0x80000001}},
      {.leaf = 0x40000000, .result = {.eax = 0x40000001}},
  };
  EXPECT_EQ(look_up_cpuid(rows, 77, 0).eax, 0x1234u);
  EXPECT_EQ(look_up_cpuid(rows, 0x80000002, 0).eax, 0x1234u);
  EXPECT_EQ(look_up_cpuid(rows, 0x80000001, 0).eax, 0u);
  EXPECT_EQ(look_up_cpuid(rows, 1, 0).eax, 0u);
  EXPECT_EQ(look_up_cpuid(rows, 0x40000000, 0).eax, 0x40000001u);
  EXPECT_EQ(look_up_cpuid(rows, 0x40000001, 0).eax, 0x1234u);
}

TEST(Cpuid, ForbiddenFeaturesAreAbsent) {
  const auto rows = table();
  const CpuidResult one = look_up_cpuid(rows, 1, 0), seven = look_up_cpuid(rows, 7, 0);
  EXPECT_EQ(one.ecx & (1u << 3 | 1u << 5 | 1u << 15), 0u);                 // MONITOR, VMX, PDCM
  EXPECT_EQ(seven.ebx & (1u << 4 | 1u << 11 | 1u << 14 | 1u << 16), 0u);   // HLE, RTM, MPX, AVX512F
  EXPECT_EQ(seven.ecx & (1u << 3 | 1u << 7 | 1u << 16), 0u);               // PKU, CET_SS, LA57
  EXPECT_EQ(seven.edx & (1u << 20 | 1u << 22 | 1u << 24 | 1u << 25), 0u);  // CET_IBT, AMX
  EXPECT_EQ(look_up_cpuid(rows, 0xa, 0).eax, 0u);                          // performance monitoring
}

TEST(Cpuid, CachesEndWithANullEntry) {
  const auto rows = table();
  EXPECT_EQ(look_up_cpuid(rows, 4, 0).eax & 0x1f, 1u);
  EXPECT_EQ(look_up_cpuid(rows, 4, 3).eax & 0x1f, 3u);
  EXPECT_EQ(look_up_cpuid(rows, 4, 4).eax, 0u);
  // 2 MiB L2: ways * partitions * line * sets (SDM Vol. 2, CPUID).
  const CpuidResult l2 = look_up_cpuid(rows, 4, 2);
  EXPECT_EQ(((l2.ebx >> 22) + 1) * (((l2.ebx >> 12) & 0x3ff) + 1) * ((l2.ebx & 0xfff) + 1) * (l2.ecx + 1), 2u << 20);
}

TEST(Cpuid, FeatureSetFollowsTheBits) {
  auto rows = table();
  EXPECT_TRUE(exposed_features(rows).test(static_cast<size_t>(Feature::kCmov)));
  EXPECT_FALSE(exposed_features(rows).test(static_cast<size_t>(Feature::kMonitor)));
  for (CpuidEntry& row : rows) {
    if (row.leaf == 1) row.result.edx &= ~(1u << 15);
  }
  EXPECT_FALSE(exposed_features(rows).test(static_cast<size_t>(Feature::kCmov)));
  EXPECT_TRUE(exposed_features({}).test(static_cast<size_t>(Feature::kBase)));
}

TEST(Cpuid, NamesAreUniqueAndRowsSelectable) {
  std::set<std::string_view> names;
  for (const CpuidFeature& row : cpuid_features()) EXPECT_TRUE(names.insert(row.name).second) << row.name;
  EXPECT_TRUE(names.contains("avx2"));
}

TEST(Cpuid, LimitsFollowFeatures) {
  auto rows = table();
  const CpuLimits limits = cpu_limits(rows);
  EXPECT_EQ(limits.physical_bits, kPhysicalBits);
  EXPECT_TRUE(limits.gigabyte_pages);
  EXPECT_EQ(limits.cr4_valid & (kCr4La57 | kCr4Vmxe | kCr4Smxe | kCr4Pke), 0u);
  EXPECT_EQ(limits.efer_valid, uint64_t{kEferSce | kEferLme | kEferLma | kEferNxe});
  for (CpuidEntry& row : rows) {
    if (row.leaf == 7) row.result.ebx &= ~(1u << 20);
    if (row.leaf == 0x80000001) row.result.edx &= ~(1u << 20);
  }
  EXPECT_EQ(cpu_limits(rows).cr4_valid & kCr4Smap, 0u);
  EXPECT_EQ(cpu_limits(rows).efer_valid & kEferNxe, 0u);
  EXPECT_EQ(limits.spec_ctrl_valid, 0x407u);  // IBRS, STIBP, SSBD, BHI_DIS_S
  EXPECT_EQ(cpu_limits({}).xcr0_valid, 1u);
}

}  // namespace
}  // namespace tenon::x86
