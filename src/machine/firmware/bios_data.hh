// The BIOS data area at 0x400 and the extended one: the few words that kernels still read where no firmware ever ran.
//
// Source: IBM PC/AT Technical Reference, "BIOS data area". Xen finds room for its trampoline by the words at 0x40E and
// 0x413; Linux reserves memory by them.
#pragma once

#include <vector>

#include "machine/firmware/acpi.hh"

namespace tenon {

/// Serial ports at 0x400, EBDA segment at 0x40E, equipment at 0x410, memory size at 0x413; and the EBDA itself.
std::vector<FirmwareTables> build_bios_data();

}  // namespace tenon
