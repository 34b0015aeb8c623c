#include "machine/loader/linux_boot.hh"

#include <gtest/gtest.h>

#include "machine/loader/synthetic_kernel.hh"

namespace tenon {
namespace {

using synthetic::Buffer;
using synthetic::wire_at;

TEST(LinuxBoot, LongModeEntryState) {
  const Buffer file = synthetic::make_elf();
  const auto image = load_vmlinux(synthetic::make_request(file));
  ASSERT_TRUE(image) << image.error().message();
  const x86::CpuState& cpu = image->cpu;
  EXPECT_EQ(cpu.cr0 & (x86::kCr0Pe | x86::kCr0Pg), x86::kCr0Pe | x86::kCr0Pg);
  EXPECT_EQ(cpu.cr4 & x86::kCr4Pae, x86::kCr4Pae);
  EXPECT_EQ(cpu.efer, x86::kEferLme | x86::kEferLma);
  EXPECT_TRUE(cpu.segments[x86::kCs].is_long());
  EXPECT_EQ(cpu.segments[x86::kCs].selector, 0x10);
  EXPECT_EQ(cpu.segments[x86::kDs].selector, 0x18);
  EXPECT_EQ(cpu.rflags & x86::kIf, 0u);
}

TEST(LinuxBoot, PageTablesMapFourGigabytesOneToOne) {
  const Buffer file = synthetic::make_elf();
  const auto image = load_vmlinux(synthetic::make_request(file));
  ASSERT_TRUE(image);
  const auto entry = [&](uint64_t table, uint64_t index) {
    return uint64_t{wire_at<le64>(*image, Gpa((table & ~uint64_t{0xfff}) + index * 8))};
  };
  for (uint64_t address = 0; address < 4 * kGiB; address += 2 * kMiB) {
    const uint64_t pml4e = entry(image->cpu.cr3, address >> 39);
    const uint64_t pdpte = entry(pml4e, (address >> 30) & 511);
    const uint64_t pde = entry(pdpte, (address >> 21) & 511);
    ASSERT_EQ(pml4e & 0xfff, 0x003u);
    ASSERT_EQ(pdpte & 0xfff, 0x003u);
    ASSERT_EQ(pde, address | 0x083);
  }
}

TEST(LinuxBoot, DescriptorsMatchTheSegmentCaches) {
  const Buffer file = synthetic::make_elf();
  const auto image = load_vmlinux(synthetic::make_request(file));
  ASSERT_TRUE(image);
  const uint64_t code = wire_at<le64>(*image, Gpa(image->cpu.gdtr.base + 0x10));
  const uint64_t data = wire_at<le64>(*image, Gpa(image->cpu.gdtr.base + 0x18));
  EXPECT_EQ((code >> 40) & 0xf0ff, image->cpu.segments[x86::kCs].attributes);
  EXPECT_EQ((data >> 40) & 0xf0ff, image->cpu.segments[x86::kSs].attributes);
  EXPECT_EQ(image->cpu.segments[x86::kSs].limit, 0xffffffffu);
}

TEST(LinuxBoot, VmlinuxGetsAHeader) {
  const Buffer file = synthetic::make_elf({.is_64 = false});
  const auto image = load_vmlinux(synthetic::make_request(file));
  ASSERT_TRUE(image) << image.error().message();
  const auto params = wire_at<boot::BootParams>(*image, low_memory::kZeroPage);
  EXPECT_EQ(params.header.header, boot::kHeaderMagic);
  EXPECT_NE(params.header.version, 0);  // Linux takes version 0 as "not copied yet"
  EXPECT_EQ(image->cpu.cr0 & x86::kCr0Pg, 0u);
}

TEST(LinuxBoot, NulInCommandLineIsRefused) {
  const Buffer file = synthetic::make_elf();
  BootRequest request = synthetic::make_request(file);
  request.command_line = std::string("a\0b", 3);
  EXPECT_EQ(load_vmlinux(request).error().code(), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace tenon
