#include "machine/loader/bzimage.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "machine/loader/kernel.hh"
#include "machine/loader/synthetic_streams.hh"

namespace tenon {
namespace {

using synthetic::Buffer;
using synthetic::make_request;
using synthetic::wire_at;
using ::testing::HasSubstr;

boot::BootParams zero_page(const BootImage& image) { return wire_at<boot::BootParams>(image, low_memory::kZeroPage); }

class BzImagePayload : public ::testing::TestWithParam<Compression> {};

TEST_P(BzImagePayload, EntersTheVmlinuxInside) {
  const Buffer file = synthetic::make_bzimage(synthetic::pack_payload(GetParam(), synthetic::make_elf()));
  const auto image = load_kernel(make_request(file));
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_THAT(image->description, HasSubstr("6.1.0-test"));
  EXPECT_THAT(image->description, HasSubstr("64-bit boot protocol"));
  EXPECT_EQ(image->cpu.rip, 0x1000010u);
  EXPECT_EQ(image->cpu.gpr[x86::kRsi], low_memory::kZeroPage.value());
  EXPECT_EQ(synthetic::bytes_at(*image, Gpa(0x1000000), 0x400).size(), 0x400u);
}

TEST(BzImage, CorruptPayloadNamesItsOffset) {
  Buffer payload = synthetic::pack_payload(Compression::kXz, synthetic::make_elf());
  for (size_t i = payload.size() / 2; i < payload.size() / 2 + 6; ++i) payload[i] ^= std::byte{0xff};
  const Buffer file = synthetic::make_bzimage(payload);
  const auto image = load_kernel(make_request(file));
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code(), ErrorCode::kCorrupt) << image.error().message();
  EXPECT_THAT(image.error().message(), HasSubstr("bzImage payload at offset 0x440"));
}

INSTANTIATE_TEST_SUITE_P(All, BzImagePayload,
                         ::testing::Values(Compression::kNone, Compression::kGzip, Compression::kXz, Compression::kLz4,
                                           Compression::kZstd),
                         [](const auto& test) { return std::string(name(test.param)); });

Buffer sample() { return synthetic::make_bzimage(synthetic::pack_payload(Compression::kXz, synthetic::make_elf())); }

TEST(BzImage, ZeroPage) {
  const Buffer file = sample();
  const Buffer initrd = synthetic::make_cpio({{"init", "#!/bin/sh\n"}});
  BootRequest request = make_request(file);
  request.command_line = "console=ttyS0 quiet";
  request.modules.push_back({"initrd.cpio", initrd, ""});
  request.rng_seed.assign(32, std::byte{7});
  const auto image = load_kernel(request);
  ASSERT_TRUE(image) << image.error().message();
  const boot::BootParams params = zero_page(*image);
  EXPECT_EQ(params.sentinel, 0);
  EXPECT_EQ(params.acpi_rsdp_addr, 0xe0000u);
  EXPECT_EQ(params.header.type_of_loader, 0xff);
  EXPECT_EQ(params.header.version, 0x20f);
  EXPECT_EQ(synthetic::string_at(*image, Gpa(params.header.cmd_line_ptr)), "console=ttyS0 quiet");
  // The initrd lies page-aligned at the top of RAM.
  EXPECT_EQ(params.header.ramdisk_size, initrd.size());
  EXPECT_EQ(params.header.ramdisk_image, 256 * kMiB - kPageSize);
  EXPECT_EQ(params.e820_entries, request.memory.size());
  EXPECT_EQ(params.e820_table[0].size_bytes, kLowMemoryEnd);
  EXPECT_EQ(params.e820_table[3].address, kHighMemoryStart);
  EXPECT_EQ(params.e820_table[3].type, boot::kE820Ram);
  const auto node = wire_at<boot::SetupData>(*image, Gpa(params.header.setup_data));
  EXPECT_EQ(node.type, boot::kSetupRngSeed);
  EXPECT_EQ(node.length, 32u);
}

TEST(BzImage, HeaderFieldsPastItsEndAreZero) {
  Buffer file = sample();
  file[0x201] = std::byte{0x5e};  // the header ends at 0x260: init_size and later are not its own
  file[0x264] = std::byte{0xaa};
  const auto image = load_kernel(make_request(file));
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ(zero_page(*image).header.handover_offset, 0u);
}

TEST(BzImage, CommandLineLimit) {
  const Buffer file = sample();
  BootRequest request = make_request(file);
  request.command_line.assign(2047, 'x');
  EXPECT_TRUE(load_kernel(request));
  request.command_line += 'x';
  const auto image = load_kernel(request);
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message(), HasSubstr("at most 2047"));
}

TEST(BzImage, InitrdThatDoesNotFit) {
  const Buffer file = sample();
  const Buffer initrd(20 << 20, std::byte{0x55});
  BootRequest request = make_request(file, 32 * kMiB);
  request.modules.push_back({"big", initrd, ""});
  const auto image = load_kernel(request);
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code(), ErrorCode::kOutOfRange);
  EXPECT_THAT(image.error().message(), HasSubstr("more memory"));
}

TEST(BzImage, InitrdStaysBelowInitrdAddrMax) {
  Buffer file = sample();
  synthetic::put(file, 0x22c, le32(0x5ffffff));
  const Buffer initrd(10'000, std::byte{0x55});
  BootRequest request = make_request(file);
  request.modules.push_back({"initrd", initrd, ""});
  const auto image = load_kernel(request);
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ(zero_page(*image).header.ramdisk_image, 0x6000000u - 3 * kPageSize);
}

TEST(BzImage, KernelThatDoesNotFitInMemory) {
  const Buffer file = sample();
  const auto image = load_kernel(make_request(file, 8 * kMiB));
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message(), HasSubstr("kernel segment 0 at 0x1000000"));
}

TEST(BzImage, EveryTruncationIsAnError) {
  const Buffer file = sample();
  for (size_t size = 0; size < file.size(); ++size) {
    const auto image = load_kernel(make_request(Bytes(file).first(size)));
    ASSERT_FALSE(image) << size;
    EXPECT_THAT(image.error().message(), HasSubstr("kernel test-kernel: "));
  }
}

TEST(BzImage, TruncatedPayloadNamesTheField) {
  const Buffer file = sample();
  const auto image = load_bzimage(make_request(Bytes(file).first(0x460)));
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message(), HasSubstr("syssize at offset 0x1f4"));
}

TEST(BzImage, PayloadOffsetOutsideTheFile) {
  Buffer file = sample();
  synthetic::put(file, 0x248, le32(0xffffff00));
  const auto image = load_bzimage(make_request(file));
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message(), HasSubstr("payload_offset at offset 0x248"));
}

TEST(BzImage, OldProtocolIsEnteredAt32BitEntry) {
  const Buffer file = synthetic::make_bzimage(Buffer(4096, std::byte{0x90}), 0x204);
  const auto image = load_kernel(make_request(file));
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ(image->cpu.rip, 0x100000u);
  EXPECT_EQ(image->cpu.cr0 & x86::kCr0Pg, 0u);
  EXPECT_EQ(image->cpu.gpr[x86::kRsi], low_memory::kZeroPage.value());
  EXPECT_EQ(zero_page(*image).header.code32_start, 0x100000u);
}

TEST(BzImage, ZImageIsRefused) {
  Buffer file = sample();
  file[0x211] = std::byte{0};
  const auto image = load_kernel(make_request(file));
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code(), ErrorCode::kUnsupported);
}

TEST(BzImage, DeclaredSizeMustMatch) {
  const Buffer vmlinux = synthetic::make_elf();
  for (const uint32_t declared : {uint32_t{100}, static_cast<uint32_t>(vmlinux.size() + 1)}) {
    Buffer payload = synthetic::pack_payload(Compression::kZstd, vmlinux);
    synthetic::put(payload, payload.size() - 4, le32(declared));
    const Buffer file = synthetic::make_bzimage(payload);
    EXPECT_FALSE(load_kernel(make_request(file)));
  }
}

TEST(BzImage, TwoInitrdsAreRefused) {
  const Buffer file = sample();
  const Buffer initrd(100, std::byte{0x55});
  BootRequest request = make_request(file);
  request.modules = {{"a", initrd, ""}, {"b", initrd, ""}};
  const auto image = load_kernel(request);
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message(), HasSubstr("concatenate"));
}

}  // namespace
}  // namespace tenon
