#include "machine/loader/raw_image.hh"

#include <fmt/format.h>

#include "machine/loader/cpu_entry.hh"
#include "machine/loader/modules.hh"

namespace tenon {

Result<BootImage> load_raw_image(const BootRequest& request) {
  const uint64_t address = request.raw_address.value();
  if (request.kernel.empty()) return fail(ErrorCode::kCorrupt, "raw image is empty");
  if (address > 0xffffffff)
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("raw image address {:#x}: it starts in 32-bit mode, so give one below 4 GiB", address));
  if (!request.modules.empty())
    return fail(ErrorCode::kInvalidArgument, "a raw image takes no initrd: no protocol says where to find it");
  BootImage image;
  image.add(request.raw_address, request.kernel, "raw image");
  image.description = fmt::format("raw image at {:#x}, 32-bit entry", address);
  TRY(add_command_line(image, request.command_line));
  enter_protected_mode(image, static_cast<uint32_t>(address));
  // Our own convention: ESI points to the command line.
  image.cpu.gpr[x86::kRsi] = low_memory::kCommandLine.value();
  TRY(check_placement(image, request.memory));
  return image;
}

}  // namespace tenon
