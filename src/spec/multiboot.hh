// Multiboot 1: the header in the first 8 KiB of an image and the information structure it is started with.
//
// Source: Multiboot Specification version 0.6.96, chapter 3.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/byte_order.hh"

namespace tenon::multiboot {

constexpr uint32_t kHeaderMagic = 0x1badb002;
constexpr uint32_t kLoaderMagic = 0x2badb002;  // EAX at entry
constexpr uint64_t kSearchBytes = 8192;        // the header lies wholly in these, 4-byte aligned

enum HeaderFlags : uint32_t {
  kPageAlignModules = 1u << 0,
  kWantMemory = 1u << 1,
  kWantVideo = 1u << 2,
  kAddressFields = 1u << 16,  // "a.out kludge"
  kRequiredMask = 0xffff,     // bits we must understand or refuse
};

struct Header {
  le32 magic;             // 0x00
  le32 flags;             // 0x04
  le32 checksum;          // 0x08, magic + flags + checksum == 0
  le32 header_address;    // 0x0c, this and the next four with kAddressFields
  le32 load_address;      // 0x10
  le32 load_end_address;  // 0x14, 0: to the end of the file
  le32 bss_end_address;   // 0x18, 0: no bss
  le32 entry_address;     // 0x1c
};
static_assert(sizeof(Header) == 0x20);
constexpr size_t kShortHeaderSize = offsetof(Header, header_address);

enum InfoFlags : uint32_t {
  kInfoMemory = 1u << 0,
  kInfoCommandLine = 1u << 2,
  kInfoModules = 1u << 3,
  kInfoMemoryMap = 1u << 6,
  kInfoLoaderName = 1u << 9,
};

struct Info {
  le32 flags;              // 0x00
  le32 mem_lower;          // 0x04, KiB from 0, at most 640
  le32 mem_upper;          // 0x08, KiB from 1 MiB to the first hole
  le32 boot_device;        // 0x0c
  le32 command_line;       // 0x10
  le32 module_count;       // 0x14
  le32 modules;            // 0x18
  le32 symbols[4];         // 0x1c
  le32 memory_map_length;  // 0x2c, bytes
  le32 memory_map;         // 0x30
  le32 drives_length;      // 0x34
  le32 drives;             // 0x38
  le32 config_table;       // 0x3c
  le32 boot_loader_name;   // 0x40
  le32 apm_table;          // 0x44
  uint8_t video[40];       // 0x48
};
static_assert(sizeof(Info) == 0x70);

struct Module {
  le32 start;
  le32 end;  // first byte after the module
  le32 command_line;
  le32 reserved;
};
static_assert(sizeof(Module) == 16);

struct MemoryMapEntry {
  le32 size_bytes;  // of what follows: 20
  le64 address;
  le64 length;
  le32 type;  // 1 usable, else reserved (3 ACPI, 4 NVS as in E820)
};
static_assert(sizeof(MemoryMapEntry) == 24);

}  // namespace tenon::multiboot
