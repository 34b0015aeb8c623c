// Linux x86: the zero page, command line, initrd and entry state of the 32-bit and 64-bit boot protocols.
//
// bzImage and plain vmlinux both end here. The kernel proper is already placed in the image by the caller and runs
// where it was linked: there is no KASLR on this path, because the host enters the decompressed kernel directly.
#pragma once

#include <cstdint>

#include "machine/loader/boot_image.hh"
#include "spec/boot.hh"

namespace tenon {

struct LinuxEntry {
  uint64_t address = 0;                      // physical
  bool is_64 = false;                        // by the 64-bit protocol, else by the 32-bit one
  uint64_t initrd_address_max = 0x7fffffff;  // last byte the initrd may use
  uint64_t command_line_size_max = 2047;     // without the NUL
  uint64_t kernel_end = 0;                   // memory below this and above 1 MiB is the kernel's
};

/// Adds zero page, command line, initrd and setup_data to `image` and sets its CPU state. `header` is the kernel's own
/// setup header, or a default one for a vmlinux.
Result<void> prepare_linux(BootImage& image, const BootRequest& request, boot::SetupHeader header,
                           const LinuxEntry& entry);

/// A plain ELF vmlinux, entered at e_entry (64-bit startup_64, 32-bit startup_32) with RSI pointing to the zero page.
Result<BootImage> load_vmlinux(const BootRequest& request);

}  // namespace tenon
