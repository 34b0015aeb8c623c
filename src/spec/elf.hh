// ELF executables for i386 and x86-64: header, program headers, notes.
//
// Source: System V ABI (gABI) chapters 4 and 5; Xen public/elfnote.h for the note types.
#pragma once

#include <cstdint>

#include "base/byte_order.hh"

namespace tenon::elf {

constexpr uint8_t kMagic[4] = {0x7f, 'E', 'L', 'F'};
enum Class : uint8_t { kClass32 = 1, kClass64 = 2 };
constexpr uint8_t kLittleEndian = 1;
constexpr uint16_t kMachine386 = 3;
constexpr uint16_t kMachineX86_64 = 62;
enum Type : uint16_t { kExecutable = 2, kShared = 3 };
enum SegmentType : uint32_t { kLoad = 1, kNote = 4 };

struct Header32 {
  uint8_t magic[4];        // 0x00
  uint8_t file_class;      // 0x04
  uint8_t data_encoding;   // 0x05
  uint8_t ident_rest[10];  // 0x06
  le16 type;               // 0x10
  le16 machine;            // 0x12
  le32 version;            // 0x14
  le32 entry;              // 0x18
  le32 phoff;              // 0x1c
  le32 shoff;              // 0x20
  le32 flags;              // 0x24
  le16 ehsize;             // 0x28
  le16 phentsize;          // 0x2a
  le16 phnum;              // 0x2c
  le16 shentsize;          // 0x2e
  le16 shnum;              // 0x30
  le16 shstrndx;           // 0x32
};
static_assert(sizeof(Header32) == 0x34);

struct Header64 {
  uint8_t magic[4];        // 0x00
  uint8_t file_class;      // 0x04
  uint8_t data_encoding;   // 0x05
  uint8_t ident_rest[10];  // 0x06
  le16 type;               // 0x10
  le16 machine;            // 0x12
  le32 version;            // 0x14
  le64 entry;              // 0x18
  le64 phoff;              // 0x20
  le64 shoff;              // 0x28
  le32 flags;              // 0x30
  le16 ehsize;             // 0x34
  le16 phentsize;          // 0x36
  le16 phnum;              // 0x38
  le16 shentsize;          // 0x3a
  le16 shnum;              // 0x3c
  le16 shstrndx;           // 0x3e
};
static_assert(sizeof(Header64) == 0x40);

struct ProgramHeader32 {
  le32 type;    // 0x00
  le32 offset;  // 0x04
  le32 vaddr;   // 0x08
  le32 paddr;   // 0x0c
  le32 filesz;  // 0x10
  le32 memsz;   // 0x14
  le32 flags;   // 0x18
  le32 align;   // 0x1c
};
static_assert(sizeof(ProgramHeader32) == 0x20);

struct ProgramHeader64 {
  le32 type;    // 0x00
  le32 flags;   // 0x04
  le64 offset;  // 0x08
  le64 vaddr;   // 0x10
  le64 paddr;   // 0x18
  le64 filesz;  // 0x20
  le64 memsz;   // 0x28
  le64 align;   // 0x30
};
static_assert(sizeof(ProgramHeader64) == 0x38);

struct NoteHeader {
  le32 name_size;
  le32 descriptor_size;
  le32 type;
};
static_assert(sizeof(NoteHeader) == 12);

/// XEN_ELFNOTE_PHYS32_ENTRY, name "Xen": the 32-bit PVH entry point.
constexpr uint32_t kXenPhys32Entry = 18;

}  // namespace tenon::elf
