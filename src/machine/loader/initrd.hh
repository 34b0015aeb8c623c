// A check of an initrd before the guest sees it: the archives it consists of are walked where that is cheap.
#pragma once

#include "machine/loader/boot_image.hh"

namespace tenon {

/// An initrd is any number of archives one after another (Linux Documentation/driver-api/early-userspace/
/// buffer-format.rst), each a "newc" cpio or one compressed. What is recognised must be whole: cpio up to its trailer,
/// gzip by unpacking it (up to 64 MiB of input), xz by its index, lz4 and zstd by their block sizes. Bytes that no
/// format claims are passed on unchecked, because Linux takes whatever the root file system code understands. kCorrupt
/// says which archive at which offset ends early or breaks its format.
Result<void> check_initrd(Bytes initrd);

}  // namespace tenon
