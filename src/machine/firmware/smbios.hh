// SMBIOS 3 tables: who made the machine, its processors and memory. Guests read them for inventory and quirks (DMI).
//
// Source: DMTF DSP0134 3.4.0. Types 0, 1, 3, 4, 16, 17, 19, 32 and 127.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "machine/firmware/acpi.hh"
#include "machine/firmware/memory_map.hh"

namespace tenon {

struct SmbiosConfig {
  uint32_t vcpus = 1;
  RamLayout ram;
  std::string manufacturer = "Tenon";  // a personality may have its own
  std::string product = "Tenon virtual machine";
  std::string serial;
  std::array<uint8_t, 16> uuid{};  // in the byte order of SMBIOS
  uint32_t cpuid_eax = 0;          // CPUID leaf 1
  uint32_t cpuid_edx = 0;
};

/// The entry point at `base` (16-byte aligned, in 0xF0000-0xFFFFF) and the structures after it.
FirmwareTables build_smbios(const SmbiosConfig& config, Gpa base);

}  // namespace tenon
