#include "machine/loader/kernel.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "machine/loader/synthetic_streams.hh"

namespace tenon {
namespace {

using synthetic::Buffer;
using synthetic::make_request;
using ::testing::HasSubstr;

TEST(Kernel, UnknownFormatNamesTheKnownOnes) {
  const Buffer file = synthetic::to_buffer("#!/bin/sh\nexit 0\n");
  const auto image = load_kernel(make_request(file));
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code(), ErrorCode::kUnsupported);
  for (const char* word : {"bzImage", "ELF", "multiboot", "raw", "23 21 2f 62"})
    EXPECT_THAT(image.error().message(), HasSubstr(word));
}

TEST(Kernel, EmptyFile) {
  const auto image = load_kernel(make_request({}));
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message(), HasSubstr("0 bytes"));
}

TEST(Kernel, CompressedElfIsUnpacked) {
  const Buffer file = synthetic::gzip(synthetic::make_elf());
  const auto image = load_kernel(make_request(file));
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ(image->cpu.rip, 0x1000010u);
}

TEST(Kernel, RawImageStartsAtItsAddress) {
  const Buffer file = synthetic::to_buffer("\xf4");
  BootRequest request = make_request(file);
  request.protocol = BootProtocol::kRaw;
  request.raw_address = Gpa(0x200000);
  request.command_line = "hello";
  const auto image = load_kernel(request);
  ASSERT_TRUE(image) << image.error().message();
  EXPECT_EQ(image->cpu.rip, 0x200000u);
  EXPECT_EQ(synthetic::bytes_at(*image, Gpa(0x200000), 1)[0], std::byte{0xf4});
  EXPECT_EQ(synthetic::string_at(*image, Gpa(image->cpu.gpr[x86::kRsi])), "hello");
  request.raw_address = Gpa(0xb0000);
  EXPECT_EQ(load_kernel(request).error().code(), ErrorCode::kOutOfRange);
}

TEST(Kernel, ProtocolCanBeForced) {
  const Buffer file = synthetic::make_elf({.has_pvh_note = true});
  BootRequest request = make_request(file);
  EXPECT_THAT(load_kernel(request)->description, HasSubstr("PVH"));
  request.protocol = BootProtocol::kLinux;
  EXPECT_THAT(load_kernel(request)->description, HasSubstr("64-bit boot protocol"));
  request.protocol = BootProtocol::kMultiboot;
  EXPECT_EQ(load_kernel(request).error().code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace tenon
