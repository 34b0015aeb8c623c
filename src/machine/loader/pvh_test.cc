#include "machine/loader/pvh.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "machine/loader/synthetic_kernel.hh"
#include "spec/pvh.hh"

namespace tenon {
namespace {

using synthetic::Buffer;
using synthetic::wire_at;

TEST(Pvh, StartInfo) {
  const Buffer file = synthetic::make_elf({.has_pvh_note = true});
  const Buffer module(5000, std::byte{0x11});
  BootRequest request = synthetic::make_request(file, 4 * kGiB);
  request.command_line = "console=hvc0";
  request.modules = {{"one", module, "first"}, {"two", module, "second"}};
  const auto image = load_pvh(request);
  ASSERT_TRUE(image) << image.error().message();
  const auto info = wire_at<pvh::StartInfo>(*image, Gpa(image->cpu.gpr[x86::kRbx]));
  EXPECT_EQ(info.magic, 0x336ec578u);
  EXPECT_EQ(info.version, 1u);
  EXPECT_EQ(info.rsdp, 0xe0000u);
  EXPECT_EQ(synthetic::string_at(*image, Gpa(info.command_line)), "console=hvc0");
  ASSERT_EQ(info.module_count, 2u);
  const auto second = wire_at<pvh::Module>(*image, Gpa(info.modules + sizeof(pvh::Module)));
  EXPECT_EQ(second.size_bytes, 5000u);
  EXPECT_EQ(synthetic::string_at(*image, Gpa(second.command_line)), "second");
  EXPECT_EQ(synthetic::bytes_at(*image, Gpa(second.address), 5000)[0], std::byte{0x11});
  ASSERT_EQ(info.memory_map_count, request.memory.size());
  const auto last = wire_at<pvh::MemoryMapEntry>(
      *image, Gpa(info.memory_map + (info.memory_map_count - 1) * sizeof(pvh::MemoryMapEntry)));
  EXPECT_EQ(last.address, 4 * kGiB);
  EXPECT_EQ(last.size_bytes, kGiB);
}

TEST(Pvh, EntryState) {
  const Buffer file = synthetic::make_elf({.has_pvh_note = true});
  const auto image = load_pvh(synthetic::make_request(file));
  ASSERT_TRUE(image);
  const x86::CpuState& cpu = image->cpu;
  EXPECT_EQ(cpu.rip, 0x1000020u);
  EXPECT_EQ(cpu.cr0, x86::kCr0Pe | x86::kCr0Et);
  EXPECT_EQ(cpu.cr4, 0u);
  EXPECT_EQ(cpu.efer, 0u);
  EXPECT_EQ(cpu.rflags & (x86::kIf | x86::kVm | x86::kTf), 0u);
  EXPECT_EQ(cpu.segments[x86::kCs].limit, 0xffffffffu);
  EXPECT_TRUE(cpu.segments[x86::kCs].is_big());
  EXPECT_FALSE(cpu.segments[x86::kCs].is_long());
  EXPECT_EQ(cpu.tr.limit, 0x67u);
  EXPECT_EQ(cpu.tr.type(), 11u);
}

TEST(Pvh, WithoutNote) {
  const Buffer file = synthetic::make_elf();
  EXPECT_EQ(load_pvh(synthetic::make_request(file)).error().code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace tenon
