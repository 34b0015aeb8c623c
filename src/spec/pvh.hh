// PVH direct boot: hvm_start_info and its lists.
//
// Source: Xen public/arch-x86/hvm/start_info.h and docs/misc/pvh.pandoc.
#pragma once

#include <cstdint>

#include "base/byte_order.hh"

namespace tenon::pvh {

constexpr uint32_t kStartMagic = 0x336ec578;
constexpr uint32_t kStartVersion = 1;  // version 1 adds the memory map

struct StartInfo {
  le32 magic;             // 0x00
  le32 version;           // 0x04
  le32 flags;             // 0x08
  le32 module_count;      // 0x0c
  le64 modules;           // 0x10, of Module
  le64 command_line;      // 0x18, NUL-terminated
  le64 rsdp;              // 0x20
  le64 memory_map;        // 0x28, of MemoryMapEntry
  le32 memory_map_count;  // 0x30
  le32 reserved;          // 0x34
};
static_assert(sizeof(StartInfo) == 0x38);

struct Module {
  le64 address;
  le64 size_bytes;
  le64 command_line;
  le64 reserved;
};
static_assert(sizeof(Module) == 32);

/// Types are those of E820.
struct MemoryMapEntry {
  le64 address;
  le64 size_bytes;
  le32 type;
  le32 reserved;
};
static_assert(sizeof(MemoryMapEntry) == 24);

}  // namespace tenon::pvh
