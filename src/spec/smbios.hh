// SMBIOS 3.0 entry point and the structures of a small machine.
//
// Source: DMTF DSP0134 version 3.4.0, sections 5.2.2 and 7.
#pragma once

#include <cstdint>

#include "base/byte_order.hh"

namespace tenon::smbios {

/// 64-bit entry point (5.2.2); lies on a 16-byte boundary in 0xF0000-0xFFFFF.
struct EntryPoint {
  char anchor[5];             // 0x00, "_SM3_"
  uint8_t checksum;           // 0x05
  uint8_t length;             // 0x06, 0x18
  uint8_t major_version;      // 0x07
  uint8_t minor_version;      // 0x08
  uint8_t document_revision;  // 0x09
  uint8_t revision;           // 0x0a, 1
  uint8_t reserved;           // 0x0b
  le32 table_size_max;        // 0x0c
  le64 table_address;         // 0x10
};
static_assert(sizeof(EntryPoint) == 0x18);

struct Header {
  uint8_t type;
  uint8_t length;  // of the formatted area
  le16 handle;
};
static_assert(sizeof(Header) == 4);

/// Fields named `..._string` are 1-based indexes of the strings after the structure, 0 for none.
struct Bios {  // type 0
  Header header;
  uint8_t vendor_string;
  uint8_t version_string;
  le16 start_segment;
  uint8_t release_date_string;
  uint8_t rom_size;
  le64 characteristics;
  uint8_t extension1;
  uint8_t extension2;  // bit 4: this is a virtual machine
  uint8_t major_release;
  uint8_t minor_release;
  uint8_t controller_major;
  uint8_t controller_minor;
};
static_assert(sizeof(Bios) == 24);
constexpr uint64_t kCharacteristicsUnsupported = 1u << 3;
constexpr uint8_t kVirtualMachine = 1u << 4;

struct System {  // type 1
  Header header;
  uint8_t manufacturer_string;
  uint8_t product_string;
  uint8_t version_string;
  uint8_t serial_string;
  uint8_t uuid[16];
  uint8_t wakeup_type;  // 6: power switch
  uint8_t sku_string;
  uint8_t family_string;
};
static_assert(sizeof(System) == 27);

struct Enclosure {  // type 3
  Header header;
  uint8_t manufacturer_string;
  uint8_t type;  // 1: other
  uint8_t version_string;
  uint8_t serial_string;
  uint8_t asset_string;
  uint8_t boot_up_state;  // 3: safe
  uint8_t power_supply_state;
  uint8_t thermal_state;
  uint8_t security_status;  // 2: unknown
  le32 oem_defined;
  uint8_t height;
  uint8_t power_cords;
  uint8_t contained_count;
  uint8_t contained_length;
  uint8_t sku_string;
};
static_assert(sizeof(Enclosure) == 22);

struct Processor {  // type 4
  Header header;
  uint8_t socket_string;
  uint8_t type;    // 3: central processor
  uint8_t family;  // 0xfe: see family2
  uint8_t manufacturer_string;
  le32 id_eax;  // CPUID 1
  le32 id_edx;
  uint8_t version_string;
  uint8_t voltage;
  le16 external_clock;
  le16 max_speed;  // MHz
  le16 current_speed;
  uint8_t status;        // 0x41: populated, enabled
  uint8_t upgrade;       // 1: other
  le16 l1_cache_handle;  // 0xffff: none
  le16 l2_cache_handle;
  le16 l3_cache_handle;
  uint8_t serial_string;
  uint8_t asset_string;
  uint8_t part_string;
  uint8_t core_count;  // 0xff: see core_count2
  uint8_t core_enabled;
  uint8_t thread_count;
  le16 characteristics;  // bit 2: 64-bit, bit 3: multi-core
  le16 family2;          // 1: other
  le16 core_count2;
  le16 core_enabled2;
  le16 thread_count2;
};
static_assert(sizeof(Processor) == 48);

struct MemoryArray {  // type 16
  Header header;
  uint8_t location;          // 1: other
  uint8_t use;               // 3: system memory
  uint8_t error_correction;  // 6: multi-bit ECC
  le32 capacity;             // KiB, 0x80000000: see extended_capacity
  le16 error_handle;         // 0xfffe: none
  le16 device_count;
  le64 extended_capacity;  // bytes
};
static_assert(sizeof(MemoryArray) == 23);

struct MemoryDevice {  // type 17
  Header header;
  le16 array_handle;
  le16 error_handle;
  le16 total_width;  // 0xffff: unknown
  le16 data_width;
  le16 size;            // MiB, 0x7fff: see extended_size
  uint8_t form_factor;  // 9: DIMM
  uint8_t device_set;
  uint8_t locator_string;
  uint8_t bank_string;
  uint8_t type;      // 7: RAM
  le16 type_detail;  // bit 1: other
  le16 speed;
  uint8_t manufacturer_string;
  uint8_t serial_string;
  uint8_t asset_string;
  uint8_t part_string;
  uint8_t attributes;
  le32 extended_size;  // MiB
  le16 configured_speed;
  le16 minimum_voltage;
  le16 maximum_voltage;
  le16 configured_voltage;
};
static_assert(sizeof(MemoryDevice) == 40);

struct MappedAddress {  // type 19
  Header header;
  le32 start;  // KiB, 0xffffffff: see extended_start
  le32 end;
  le16 array_handle;
  uint8_t partition_width;
  le64 extended_start;  // bytes
  le64 extended_end;
};
static_assert(sizeof(MappedAddress) == 31);

struct BootInformation {  // type 32
  Header header;
  uint8_t reserved[6];
  uint8_t status;  // 0: no errors
};
static_assert(sizeof(BootInformation) == 11);

struct EndOfTable {  // type 127
  Header header;
};
static_assert(sizeof(EndOfTable) == 4);

}  // namespace tenon::smbios
