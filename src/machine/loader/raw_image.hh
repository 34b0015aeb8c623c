// A raw image: bytes copied to an address and started there in 32-bit protected mode. Chosen by option only, because
// any file could be one.
#pragma once

#include "machine/loader/boot_image.hh"

namespace tenon {

Result<BootImage> load_raw_image(const BootRequest& request);

}  // namespace tenon
