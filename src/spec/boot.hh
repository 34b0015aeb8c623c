// The Linux x86 boot protocol: the setup header at file offset 0x1F1 of a bzImage and the "zero page" (struct
// boot_params).
//
// Source: Linux Documentation/arch/x86/boot.rst (protocol 2.00 to 2.15) and zero-page.rst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/byte_order.hh"

namespace tenon::boot {

constexpr uint64_t kSetupHeaderOffset = 0x1f1;
constexpr uint16_t kBootFlag = 0xaa55;
constexpr uint32_t kHeaderMagic = 0x53726448;  // "HdrS"
constexpr uint64_t kSectorSize = 512;
constexpr uint8_t kDefaultSetupSectors = 4;  // setup_sects 0 means 4, for old kernels

/// Protocol versions at which fields appear.
enum Version : uint16_t {
  kVersion200 = 0x200,          // "HdrS", initrd
  kVersionCommandLine = 0x202,  // cmd_line_ptr
  kVersionInitrdMax = 0x203,    // initrd_addr_max
  kVersionRelocatable = 0x205,  // kernel_alignment, relocatable_kernel
  kVersionCmdlineSize = 0x206,  // cmdline_size
  kVersionPayload = 0x208,      // payload_offset, payload_length
  kVersionSetupData = 0x209,    // setup_data
  kVersionPrefAddress = 0x20a,  // pref_address, init_size
  kVersionNewest = 0x20f,
};

enum LoadFlags : uint8_t { kLoadedHigh = 1u << 0, kKeepSegments = 1u << 6, kCanUseHeap = 1u << 7 };

constexpr uint8_t kUndefinedLoader = 0xff;
constexpr uint32_t kDefaultInitrdAddressMax = 0x37ffffff;  // before protocol 2.03
constexpr uint32_t kDefaultCmdlineSizeMax = 255;           // before protocol 2.06

/// setup_header; the comments are offsets from the start of the file and of the zero page.
struct SetupHeader {
  uint8_t setup_sects;         // 0x1f1
  le16 root_flags;             // 0x1f2
  le32 syssize;                // 0x1f4, in units of 16 bytes
  le16 ram_size;               // 0x1f8
  le16 vid_mode;               // 0x1fa
  le16 root_dev;               // 0x1fc
  le16 boot_flag;              // 0x1fe
  uint8_t jump[2];             // 0x200; jump[1] + 0x202 is the end of the header
  le32 header;                 // 0x202
  le16 version;                // 0x206
  le32 realmode_swtch;         // 0x208
  le16 start_sys_seg;          // 0x20c
  le16 kernel_version;         // 0x20e, pointer to the version string, less 0x200
  uint8_t type_of_loader;      // 0x210
  uint8_t loadflags;           // 0x211
  le16 setup_move_size;        // 0x212
  le32 code32_start;           // 0x214
  le32 ramdisk_image;          // 0x218
  le32 ramdisk_size;           // 0x21c
  le32 bootsect_kludge;        // 0x220
  le16 heap_end_ptr;           // 0x224
  uint8_t ext_loader_ver;      // 0x226
  uint8_t ext_loader_type;     // 0x227
  le32 cmd_line_ptr;           // 0x228
  le32 initrd_addr_max;        // 0x22c
  le32 kernel_alignment;       // 0x230
  uint8_t relocatable_kernel;  // 0x234
  uint8_t min_alignment;       // 0x235
  le16 xloadflags;             // 0x236
  le32 cmdline_size;           // 0x238
  le32 hardware_subarch;       // 0x23c
  le64 hardware_subarch_data;  // 0x240
  le32 payload_offset;         // 0x248
  le32 payload_length;         // 0x24c
  le64 setup_data;             // 0x250
  le64 pref_address;           // 0x258
  le32 init_size;              // 0x260
  le32 handover_offset;        // 0x264
  le32 kernel_info_offset;     // 0x268
};
static_assert(sizeof(SetupHeader) == 0x26c - 0x1f1 && std::is_standard_layout_v<SetupHeader>);
static_assert(offsetof(SetupHeader, payload_offset) + kSetupHeaderOffset == 0x248);

/// Memory types of E820 (ACPI 6.4 Table 15-374).
enum E820Type : uint32_t { kE820Ram = 1, kE820Reserved = 2, kE820Acpi = 3, kE820Nvs = 4 };

struct E820Entry {
  le64 address;
  le64 size_bytes;
  le32 type;
};
static_assert(sizeof(E820Entry) == 20);

constexpr size_t kE820EntriesMax = 128;

/// struct boot_params; what we do not name stays zero.
struct BootParams {
  uint8_t screen_info[0x40];              // 0x000
  uint8_t unused_040[0x70 - 0x40];        // 0x040
  le64 acpi_rsdp_addr;                    // 0x070
  uint8_t unused_078[0xc0 - 0x78];        // 0x078
  le32 ext_ramdisk_image;                 // 0x0c0
  le32 ext_ramdisk_size;                  // 0x0c4
  le32 ext_cmd_line_ptr;                  // 0x0c8
  uint8_t unused_0cc[0x1e0 - 0xcc];       // 0x0cc
  le32 alt_mem_k;                         // 0x1e0
  uint8_t unused_1e4[0x1e8 - 0x1e4];      // 0x1e4
  uint8_t e820_entries;                   // 0x1e8
  uint8_t unused_1e9[0x1ef - 0x1e9];      // 0x1e9
  uint8_t sentinel;                       // 0x1ef, zero: every field we do not set is zero too
  uint8_t unused_1f0;                     // 0x1f0
  SetupHeader header;                     // 0x1f1
  uint8_t unused_26c[0x2d0 - 0x26c];      // 0x26c
  E820Entry e820_table[kE820EntriesMax];  // 0x2d0
  uint8_t unused_cd0[0x1000 - 0xcd0];     // 0xcd0
};
static_assert(sizeof(BootParams) == 4096 && std::is_standard_layout_v<BootParams>);
static_assert(offsetof(BootParams, acpi_rsdp_addr) == 0x70 && offsetof(BootParams, header) == 0x1f1);
static_assert(offsetof(BootParams, e820_table) == 0x2d0);

/// Head of a setup_data list node; `length` bytes follow.
struct SetupData {
  le64 next;
  le32 type;
  le32 length;
};
static_assert(sizeof(SetupData) == 16);
constexpr uint32_t kSetupRngSeed = 9;

/// Selectors of the 32-bit and 64-bit entry points.
constexpr uint16_t kBootCs = 0x10;
constexpr uint16_t kBootDs = 0x18;

}  // namespace tenon::boot
