// ACPI table layouts and AML encodings.
//
// Source: ACPI Specification 6.4, chapters 4 (hardware), 5 (tables), 6.4 (resource descriptors), 20 (AML); PCI
// Firmware 3.2 table 4-2 (MCFG); Windows ACPI Emulated Devices Table (WAET).
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/byte_order.hh"

namespace tenon::acpi {

/// Root System Description Pointer (5.2.5.3).
struct Rsdp {
  char signature[8];          // 0, "RSD PTR "
  uint8_t checksum;           // 8, of bytes 0-19
  char oem_id[6];             // 9
  uint8_t revision;           // 15, 2
  le32 rsdt_address;          // 16
  le32 length;                // 20
  le64 xsdt_address;          // 24
  uint8_t extended_checksum;  // 32, of all bytes
  uint8_t reserved[3];        // 33
};
static_assert(sizeof(Rsdp) == 36);

/// Head of every other table but the FACS (5.2.6).
struct TableHeader {
  char signature[4];      // 0
  le32 length;            // 4
  uint8_t revision;       // 8
  uint8_t checksum;       // 9, of the whole table
  char oem_id[6];         // 10
  char oem_table_id[8];   // 16
  le32 oem_revision;      // 24
  char creator_id[4];     // 28
  le32 creator_revision;  // 32
};
static_assert(sizeof(TableHeader) == 36);

/// Generic Address Structure (5.2.3.2).
struct GenericAddress {
  uint8_t space;
  uint8_t bit_width;
  uint8_t bit_offset;
  uint8_t access_size;  // 1 byte, 2 word, 3 dword, 4 qword
  le64 address;
};
static_assert(sizeof(GenericAddress) == 12);
constexpr uint8_t kSystemIo = 1;

/// Fixed ACPI Description Table (5.2.9).
struct Fadt {
  TableHeader header;                   // 0
  le32 firmware_ctrl;                   // 36, FACS
  le32 dsdt;                            // 40
  uint8_t reserved_44;                  // 44
  uint8_t preferred_pm_profile;         // 45
  le16 sci_interrupt;                   // 46
  le32 smi_command;                     // 48, 0: always in ACPI mode
  uint8_t acpi_enable;                  // 52
  uint8_t acpi_disable;                 // 53
  uint8_t s4bios_request;               // 54
  uint8_t pstate_control;               // 55
  le32 pm1a_event_block;                // 56
  le32 pm1b_event_block;                // 60
  le32 pm1a_control_block;              // 64
  le32 pm1b_control_block;              // 68
  le32 pm2_control_block;               // 72
  le32 pm_timer_block;                  // 76
  le32 gpe0_block;                      // 80
  le32 gpe1_block;                      // 84
  uint8_t pm1_event_length;             // 88
  uint8_t pm1_control_length;           // 89
  uint8_t pm2_control_length;           // 90
  uint8_t pm_timer_length;              // 91
  uint8_t gpe0_block_length;            // 92
  uint8_t gpe1_block_length;            // 93
  uint8_t gpe1_base;                    // 94
  uint8_t cstate_control;               // 95
  le16 c2_latency;                      // 96, over 100: no C2
  le16 c3_latency;                      // 98, over 1000: no C3
  le16 flush_size;                      // 100
  le16 flush_stride;                    // 102
  uint8_t duty_offset;                  // 104
  uint8_t duty_width;                   // 105
  uint8_t day_alarm;                    // 106
  uint8_t month_alarm;                  // 107
  uint8_t century;                      // 108, CMOS index
  le16 boot_architecture;               // 109
  uint8_t reserved_111;                 // 111
  le32 flags;                           // 112
  GenericAddress reset_register;        // 116
  uint8_t reset_value;                  // 128
  le16 arm_boot_architecture;           // 129
  uint8_t minor_version;                // 131
  le64 x_firmware_ctrl;                 // 132
  le64 x_dsdt;                          // 140
  GenericAddress x_pm1a_event_block;    // 148
  GenericAddress x_pm1b_event_block;    // 160
  GenericAddress x_pm1a_control_block;  // 172
  GenericAddress x_pm1b_control_block;  // 184
  GenericAddress x_pm2_control_block;   // 196
  GenericAddress x_pm_timer_block;      // 208
  GenericAddress x_gpe0_block;          // 220
  GenericAddress x_gpe1_block;          // 232
  GenericAddress sleep_control;         // 244
  GenericAddress sleep_status;          // 256
  le64 hypervisor_id;                   // 268
};
static_assert(sizeof(Fadt) == 276 && std::is_standard_layout_v<Fadt>);

/// FADT flags (table 5-10).
enum FadtFlags : uint32_t {
  kWbinvd = 1u << 0,
  kProcC1 = 1u << 2,
  kNoPowerButton = 1u << 4,   // PWR_BUTTON: the power button is not fixed hardware
  kNoSleepButton = 1u << 5,   // SLP_BUTTON
  kTimer32 = 1u << 8,         // TMR_VAL_EXT
  kResetRegister = 1u << 10,  // RESET_REG_SUP
};

/// IA-PC boot architecture flags (table 5-11).
enum BootArchitecture : uint16_t {
  kLegacyDevices = 1u << 0,
  kHas8042 = 1u << 1,
  kNoVga = 1u << 2,
};

/// Firmware ACPI Control Structure (5.2.10); has no checksum.
struct Facs {
  char signature[4];
  le32 length;
  le32 hardware_signature;
  le32 waking_vector;
  le32 global_lock;
  le32 flags;
  le64 x_waking_vector;
  uint8_t version;
  uint8_t reserved_33[3];
  le32 ospm_flags;
  uint8_t reserved_40[24];
};
static_assert(sizeof(Facs) == 64);

/// Multiple APIC Description Table (5.2.12); entries follow.
struct Madt {
  TableHeader header;
  le32 local_apic_address;
  le32 flags;  // bit 0: two 8259s are there too
};
static_assert(sizeof(Madt) == 44);
constexpr uint32_t kPcatCompatible = 1;

/// MADT entries (table 5-21).
struct MadtLocalApic {
  uint8_t type;  // 0
  uint8_t length;
  uint8_t processor_uid;
  uint8_t apic_id;
  le32 flags;  // bit 0: enabled
};
static_assert(sizeof(MadtLocalApic) == 8);

struct MadtIoApic {
  uint8_t type;  // 1
  uint8_t length;
  uint8_t io_apic_id;
  uint8_t reserved;
  le32 address;
  le32 gsi_base;
};
static_assert(sizeof(MadtIoApic) == 12);

struct MadtInterruptOverride {
  uint8_t type;  // 2
  uint8_t length;
  uint8_t bus;  // 0: ISA
  uint8_t source;
  le32 gsi;
  le16 flags;  // MPS INTI flags, table 5-26
};
static_assert(sizeof(MadtInterruptOverride) == 10);

struct MadtLocalApicNmi {
  uint8_t type;  // 4
  uint8_t length;
  uint8_t processor_uid;  // 0xff: all
  le16 flags;
  uint8_t lint;
};
static_assert(sizeof(MadtLocalApicNmi) == 6);

struct MadtLocalX2Apic {
  uint8_t type;  // 9
  uint8_t length;
  le16 reserved;
  le32 x2apic_id;
  le32 flags;
  le32 processor_uid;
};
static_assert(sizeof(MadtLocalX2Apic) == 16);

struct MadtLocalX2ApicNmi {
  uint8_t type;  // 10
  uint8_t length;
  le16 flags;
  le32 processor_uid;  // 0xffffffff: all
  uint8_t lint;
  uint8_t reserved[3];
};
static_assert(sizeof(MadtLocalX2ApicNmi) == 12);

constexpr uint16_t kConforms = 0;
constexpr uint16_t kActiveHighLevel = 0x000d;

/// Memory-mapped configuration space (PCI Firmware 3.2 table 4-2), one allocation.
struct Mcfg {
  TableHeader header;
  uint8_t reserved[8];
  le64 base_address;
  le16 segment;
  uint8_t start_bus;
  uint8_t end_bus;
  le32 reserved_12;
};
static_assert(sizeof(Mcfg) == 60);

/// Windows ACPI Emulated Devices Table.
struct Waet {
  TableHeader header;
  le32 flags;
};
static_assert(sizeof(Waet) == 40);
enum WaetFlags : uint32_t { kRtcGood = 1u << 0, kPmTimerGood = 1u << 1 };

/// Fixed hardware of our board: SLP_TYP of S5 as the DSDT's \_S5 gives it.
constexpr uint8_t kSleepTypeS5 = 5;

// AML opcodes (table 20-1 and following).
namespace aml {
enum Opcode : uint8_t {
  kZero = 0x00,
  kOne = 0x01,
  kName = 0x08,
  kBytePrefix = 0x0a,
  kWordPrefix = 0x0b,
  kDwordPrefix = 0x0c,
  kString = 0x0d,
  kQwordPrefix = 0x0e,
  kScope = 0x10,
  kBuffer = 0x11,
  kPackage = 0x12,
  kMethod = 0x14,
  kDualName = 0x2e,
  kMultiName = 0x2f,
  kExtended = 0x5b,
  kRoot = 0x5c,
  kParent = 0x5e,
  kArg0 = 0x68,
  kAnd = 0x7b,
  kOr = 0x7d,
  kCreateDwordField = 0x8a,
  kEqual = 0x93,
  kIf = 0xa0,
  kElse = 0xa1,
  kReturn = 0xa4,
  kOnes = 0xff,
};
enum ExtendedOpcode : uint8_t { kDevice = 0x82 };
}  // namespace aml

}  // namespace tenon::acpi
