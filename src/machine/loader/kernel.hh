// load_kernel: recognises the format of a kernel file and calls its loader.
#pragma once

#include "machine/loader/boot_image.hh"

namespace tenon {

/// With BootProtocol::kAuto: bzImage; multiboot 1; ELF with a PVH note; other 64-bit or 32-bit ELF as a Linux vmlinux.
/// A compressed file (gzip, xz, lz4, zstd) is unpacked first. An unknown format is kUnsupported and names the known
/// ones; a raw image must be asked for.
Result<BootImage> load_kernel(const BootRequest& request);

}  // namespace tenon
