#include "machine/loader/elf_image.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "machine/loader/linux_boot.hh"
#include "machine/loader/synthetic_kernel.hh"

namespace tenon {
namespace {

using synthetic::Buffer;
using ::testing::HasSubstr;

TEST(ElfImage, Segments) {
  for (const bool is_64 : {false, true}) {
    const Buffer file = synthetic::make_elf({.is_64 = is_64});
    const auto image = parse_elf(file);
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ(image->is_64, is_64);
    EXPECT_EQ(image->entry, 0x1000010u);
    ASSERT_EQ(image->segments.size(), 1u);
    EXPECT_EQ(image->segments[0].physical_address, 0x1000000u);
    EXPECT_EQ(image->segments[0].bytes.size(), 0x400u);
    EXPECT_EQ(image->segments[0].memory_size_bytes, 0x2000u);
    EXPECT_FALSE(image->pvh_entry);
  }
}

TEST(ElfImage, PvhNote) {
  for (const bool is_64 : {false, true}) {
    const Buffer file = synthetic::make_elf({.is_64 = is_64, .has_pvh_note = true});
    EXPECT_EQ(parse_elf(file)->pvh_entry, 0x1000020u);
  }
}

TEST(ElfImage, NoteWithHugeSizesIsIgnored) {
  Buffer file = synthetic::make_elf({.has_pvh_note = true});
  synthetic::put(file, synthetic::kElfNoteOffset, elf::NoteHeader{0xffffffffu, 0xffffffffu, elf::kXenPhys32Entry});
  const auto image = parse_elf(file);
  ASSERT_TRUE(image);
  EXPECT_FALSE(image->pvh_entry);
}

TEST(ElfImage, VirtualEntryIsTranslated) {
  Buffer file = synthetic::make_elf({.entry = 0xffffffff81000010});
  synthetic::put(file, sizeof(elf::Header64) + offsetof(elf::ProgramHeader64, vaddr), le64(0xffffffff81000000));
  EXPECT_EQ(parse_elf(file)->physical_entry(), 0x1000010u);
}

TEST(ElfImage, EveryTruncationIsAnError) {
  const Buffer file = synthetic::make_elf({.has_pvh_note = true});
  for (size_t size = 0; size < file.size(); ++size) EXPECT_FALSE(parse_elf(Bytes(file).first(size))) << size;
}

struct BadField {
  const char* name;
  size_t offset;
  uint8_t value;
  const char* message;
};

TEST(ElfImage, BadFieldsAreNamed) {
  constexpr size_t kProgram = sizeof(elf::Header64);
  // clang-format off
  const BadField fields[] = {
      {"class",     0x04, 3,    "file class 3 at offset 4"},
      {"encoding",  0x05, 2,    "data encoding 2"},
      {"type",      0x10, 1,    "e_type 1"},
      {"machine",   0x12, 40,   "e_machine 40"},
      {"phentsize", 0x36, 1,    "e_phentsize 1"},
      {"phoff",     0x27, 0xff, "program header table"},
      {"phnum",     0x39, 0xff, "program header table"},
      {"no load",   kProgram, 2, "no loadable segment"},
      {"paddr",     kProgram + offsetof(elf::ProgramHeader64, paddr) + 7, 0xff, ""},
      {"filesz",    kProgram + offsetof(elf::ProgramHeader64, filesz) + 7, 0x80, "p_filesz"},
      {"offset",    kProgram + offsetof(elf::ProgramHeader64, offset) + 7, 0x80, "its segment"},
      {"memsz",     kProgram + offsetof(elf::ProgramHeader64, memsz) + 7, 0xff, ""},
  };
  // clang-format on
  for (const BadField& field : fields) {
    Buffer file = synthetic::make_elf();
    file[field.offset] = static_cast<std::byte>(field.value);
    const BootRequest request = synthetic::make_request(file);
    const auto image = load_vmlinux(request);
    ASSERT_FALSE(image) << field.name;
    EXPECT_THAT(image.error().message(), HasSubstr(field.message)) << field.name;
  }
}

TEST(ElfImage, OverlappingSegmentsAreRefused) {
  Buffer file = synthetic::make_elf({.has_pvh_note = true});
  // The note becomes a second load segment inside the first one.
  const size_t second = sizeof(elf::Header64) + sizeof(elf::ProgramHeader64);
  synthetic::put(file, second, le32(elf::kLoad));
  synthetic::put(file, second + offsetof(elf::ProgramHeader64, paddr), le64(0x1000100));
  synthetic::put(file, second + offsetof(elf::ProgramHeader64, memsz), le64(0x100));
  const auto image = load_vmlinux(synthetic::make_request(file));
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message(), HasSubstr("overlaps kernel segment 0"));
}

TEST(ElfImage, SegmentOverBootTablesIsRefused) {
  const Buffer file = synthetic::make_elf({.address = 0x7000, .entry = 0x7000});
  const auto image = load_vmlinux(synthetic::make_request(file));
  ASSERT_FALSE(image);
  EXPECT_THAT(image.error().message(), HasSubstr("overlaps"));
}

}  // namespace
}  // namespace tenon
