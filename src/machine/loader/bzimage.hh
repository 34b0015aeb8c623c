// bzImage: a Linux kernel with its setup header. The payload (protocol 2.08 and newer) is decompressed on the host and
// the ELF vmlinux inside is entered directly, which saves the guest the decompression. Older kernels are entered at
// their own 32-bit entry point and unpack themselves.
//
// Source: Linux Documentation/arch/x86/boot.rst.
// Not implemented: zImage (kernels that load below 1 MiB), KASLR, the EFI stub.
#pragma once

#include "machine/loader/boot_image.hh"

namespace tenon {

/// Whether boot flag and "HdrS" are there.
bool is_bzimage(Bytes file);

Result<BootImage> load_bzimage(const BootRequest& request);

}  // namespace tenon
