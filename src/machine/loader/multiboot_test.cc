#include "machine/loader/multiboot.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "machine/loader/synthetic_kernel.hh"

namespace tenon {
namespace {

using synthetic::Buffer;
using synthetic::make_request;
using synthetic::wire_at;
using ::testing::HasSubstr;

constexpr uint64_t kHeaderOffset = 0x40;

/// A flat image of 4 KiB with address fields: loaded at 1 MiB less nothing, 4 KiB of bss.
multiboot::Header flat_header() {
  multiboot::Header header{};
  header.magic = multiboot::kHeaderMagic;
  header.flags = multiboot::kAddressFields | multiboot::kPageAlignModules | multiboot::kWantMemory;
  header.checksum = 0 - (header.magic + header.flags);
  header.header_address = 0x100040u;
  header.load_address = 0x100000u;
  header.load_end_address = 0x101000u;
  header.bss_end_address = 0x102000u;
  header.entry_address = 0x100060u;
  return header;
}

Buffer flat_image(const multiboot::Header& header) {
  Buffer file(4096, std::byte{0x90});
  synthetic::put(file, kHeaderOffset, header);
  return file;
}

TEST(Multiboot, AddressFields) {
  const Buffer file = flat_image(flat_header());
  BootRequest request = make_request(file);
  request.command_line = "root=x";
  const auto image = load_multiboot(request);
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ(image->cpu.rip, 0x100060u);
  EXPECT_EQ(image->cpu.gpr[x86::kRax], 0x2badb002u);
  const auto info = wire_at<multiboot::Info>(*image, Gpa(image->cpu.gpr[x86::kRbx]));
  EXPECT_EQ(info.flags, 0x24du);
  EXPECT_EQ(synthetic::string_at(*image, Gpa(info.command_line)), "test-kernel root=x");
  EXPECT_EQ(synthetic::string_at(*image, Gpa(info.boot_loader_name)), "Tenon");
  EXPECT_EQ(info.mem_lower, kLowMemoryEnd / 1024);
  EXPECT_EQ(info.mem_upper, 255u * 1024);
  EXPECT_EQ(info.memory_map_length % 24, 0u);
  EXPECT_EQ(wire_at<multiboot::MemoryMapEntry>(*image, Gpa(info.memory_map)).size_bytes, 20u);
  const auto kernel = image->segments.front();
  EXPECT_EQ(kernel.base, Gpa(0x100000));
  EXPECT_EQ(kernel.bytes.size(), 4096u);
  EXPECT_EQ(kernel.zero_size_bytes, 4096u);
}

TEST(Multiboot, Modules) {
  const Buffer file = flat_image(flat_header());
  const Buffer module(100, std::byte{0x33});
  BootRequest request = make_request(file);
  request.modules = {{"a", module, "a one"}, {"b", module, "b two"}};
  const auto image = load_multiboot(request);
  ASSERT_TRUE(image) << image.error().message();
  const auto info = wire_at<multiboot::Info>(*image, Gpa(image->cpu.gpr[x86::kRbx]));
  ASSERT_EQ(info.module_count, 2u);
  for (unsigned i = 0; i < 2; ++i) {
    const auto entry = wire_at<multiboot::Module>(*image, Gpa(info.modules + i * sizeof(multiboot::Module)));
    EXPECT_EQ(entry.start % kPageSize, 0u);
    EXPECT_EQ(entry.end - entry.start, 100u);
    EXPECT_EQ(synthetic::string_at(*image, Gpa(entry.command_line)), i == 0 ? "a one" : "b two");
  }
}

TEST(Multiboot, ElfKernel) {
  Buffer file = synthetic::make_elf({.is_64 = false});
  const multiboot::Header header{multiboot::kHeaderMagic, 0u, 0 - multiboot::kHeaderMagic, 0u, 0u, 0u, 0u, 0u};
  synthetic::put(file, synthetic::kElfCodeOffset, header);
  EXPECT_EQ(find_multiboot_header(file), synthetic::kElfCodeOffset);
  const auto image = load_multiboot(make_request(file));
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ(image->cpu.rip, 0x1000010u);
}

TEST(Multiboot, HeaderMustHaveItsChecksumAndAlignment) {
  multiboot::Header header = flat_header();
  header.checksum = header.checksum + 1;
  EXPECT_FALSE(find_multiboot_header(flat_image(header)));
  Buffer file(16384);
  synthetic::put(file, 8192, flat_header());
  EXPECT_FALSE(find_multiboot_header(file));
  synthetic::put(file, 42, flat_header());
  EXPECT_FALSE(find_multiboot_header(file));
}

TEST(Multiboot, UnknownRequiredFlagIsRefused) {
  multiboot::Header header = flat_header();
  header.flags = header.flags | multiboot::kWantVideo;
  header.checksum = 0 - (header.magic + header.flags);
  const auto image = load_multiboot(make_request(flat_image(header)));
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message(), HasSubstr("video"));
}

TEST(Multiboot, BadAddressFields) {
  struct Case {
    le32 multiboot::Header::*field;
    uint32_t value;
    const char* message;
  };
  // clang-format off
  const Case cases[] = {
      {&multiboot::Header::load_address,     0x100041,   "load_addr"},
      {&multiboot::Header::load_address,     0x0fff00,   "load_addr"},
      {&multiboot::Header::load_end_address, 0x0fffff,   "load_end_addr"},
      {&multiboot::Header::load_end_address, 0x101001,   "load range"},
      {&multiboot::Header::bss_end_address,  0x100fff,   "bss_end_addr"},
      {&multiboot::Header::bss_end_address,  0xffffffff, "usable memory"},
  };
  // clang-format on
  for (const Case& test : cases) {
    multiboot::Header header = flat_header();
    header.*test.field = test.value;
    const Buffer file = flat_image(header);
    const auto image = load_multiboot(make_request(file));
    ASSERT_FALSE(image) << test.message;
    EXPECT_THAT(image.error().message(), HasSubstr(test.message));
  }
}

}  // namespace
}  // namespace tenon
