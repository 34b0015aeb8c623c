// Multiboot 1: a kernel with the header 0x1BADB002 in its first 8 KiB, loaded as ELF or by the header's own addresses
// ("a.out kludge"), started in 32-bit protected mode with EAX 0x2BADB002 and EBX pointing to the information structure.
//
// Source: Multiboot Specification 0.6.96.
// Not implemented: video modes (bit 2 of the flags is refused), drives, APM and configuration tables, ELF section
// headers.
#pragma once

#include <optional>

#include "machine/loader/boot_image.hh"

namespace tenon {

/// Offset of a header with a right checksum, or nothing.
std::optional<uint64_t> find_multiboot_header(Bytes file);

Result<BootImage> load_multiboot(const BootRequest& request);

}  // namespace tenon
