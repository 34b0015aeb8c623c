// MemoryMap: the guest physical address space of the board, and what every boot protocol tells the guest about it.
//
// The board has RAM from 0 to at most 3 GiB, a hole for devices up to 4 GiB, and the rest of the RAM above it. The
// memory map is in E820 terms (ACPI 6.4 chapter 15); each loader writes it in its own protocol's form.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.hh"
#include "spec/apic.hh"
#include "spec/boot.hh"
#include "spec/pci.hh"
#include "vm/address.hh"

namespace tenon {

struct MemoryRegion {
  GpaRange range;
  boot::E820Type type = boot::kE820Ram;
};

/// Sorted by address, without overlaps.
using MemoryMap = std::vector<MemoryRegion>;

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kMiB = 1024 * kKiB;
constexpr uint64_t kGiB = 1024 * kMiB;

/// Fixed places of the board.
constexpr uint64_t kLowMemoryEnd = 0x9fc00;               // conventional memory; the last KiB is the EBDA of a PC
constexpr GpaRange kFirmwareArea{Gpa(0xe0000), 0x20000};  // RSDP, ACPI tables and SMBIOS are written here
constexpr uint64_t kHighMemoryStart = 1 * kMiB;
constexpr uint64_t kPciHoleStart = 3 * kGiB;
constexpr uint64_t kPciHoleEnd = 4 * kGiB;
constexpr GpaRange kEcam{Gpa(pci::kEcamBase), pci::kEcamSize};
constexpr GpaRange kIoApicRange{Gpa(apic::kIoApicDefaultBase), kPageSize};
constexpr GpaRange kLocalApicRange{Gpa(apic::kDefaultBase), apic::kWindowSize};
/// Windows for 32-bit PCI BARs: what the hole leaves around the configuration space and below the IOAPIC.
constexpr GpaRange kPciWindowsBelow4G[] = {
    {Gpa(kPciHoleStart), pci::kEcamBase - kPciHoleStart},
    {Gpa(pci::kEcamBase + pci::kEcamSize), apic::kIoApicDefaultBase - (pci::kEcamBase + pci::kEcamSize)},
};

/// Where the RAM of a board with `size_bytes` lies: one range, or two where it does not fit below the hole.
struct RamLayout {
  GpaRange low;
  GpaRange high;  // size 0 where all RAM is low
};

/// kInvalidArgument where `size_bytes` is not a multiple of the page size, is below 2 MiB, or is more than
/// `address_bits` of physical address can hold beside the device windows.
Result<RamLayout> ram_layout(uint64_t size_bytes, unsigned address_bits);

/// The window for 64-bit PCI BARs: above all RAM, aligned to its size.
GpaRange pci_window_64(const RamLayout& ram, unsigned address_bits);

/// The E820 map of a board with this RAM.
MemoryMap memory_map(const RamLayout& ram);

/// Whether [range) lies in one usable region.
bool is_usable(const MemoryMap& map, GpaRange range);

/// The highest `alignment`-aligned place for `size_bytes` of usable memory in [floor, ceiling), or nothing.
std::optional<Gpa> highest_place(const MemoryMap& map, uint64_t size_bytes, uint64_t alignment, Gpa floor, Gpa ceiling);

}  // namespace tenon
