// PVH: a kernel ELF with the note XEN_ELFNOTE_PHYS32_ENTRY, started in 32-bit protected mode with EBX pointing to an
// hvm_start_info. Used by Linux vmlinux (CONFIG_PVH), FreeBSD, unikernels and Xen itself.
//
// Source: Xen docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h (version 1).
#pragma once

#include "machine/loader/boot_image.hh"

namespace tenon {

Result<BootImage> load_pvh(const BootRequest& request);

}  // namespace tenon
