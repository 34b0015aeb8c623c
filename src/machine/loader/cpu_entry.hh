// The CPU states in which boot protocols start a kernel, and the tables in guest memory that those states refer to.
#pragma once

#include <cstdint>

#include "engine/x86/cpu_state.hh"
#include "machine/loader/boot_image.hh"

namespace tenon {

/// 32-bit protected mode, paging and interrupts off, flat segments CS 0x10 and DS 0x18, TR a 32-bit TSS at 0. Linux's
/// 32-bit boot protocol, PVH and multiboot all start like this; they differ in general registers only.
void enter_protected_mode(BootImage& image, uint32_t entry);

/// 64-bit mode with the first 4 GiB identity-mapped by 2 MiB pages, interrupts off, flat segments CS 0x10 and DS 0x18
/// (Linux boot.rst, "64-bit Boot Protocol").
void enter_long_mode(BootImage& image, uint64_t entry);

}  // namespace tenon
