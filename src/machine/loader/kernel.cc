#include "machine/loader/kernel.hh"

#include <fmt/format.h>

#include "machine/loader/bzimage.hh"
#include "machine/loader/decompress.hh"
#include "machine/loader/elf_image.hh"
#include "machine/loader/linux_boot.hh"
#include "machine/loader/multiboot.hh"
#include "machine/loader/pvh.hh"
#include "machine/loader/raw_image.hh"

namespace tenon {

namespace {

constexpr uint64_t kUnpackedSizeMax = 1 * kGiB;

Result<BootImage> unknown_format(const BootRequest& request) {
  std::string first;
  for (const std::byte byte : request.kernel.first(std::min<size_t>(request.kernel.size(), 4)))
    first += fmt::format(" {:02x}", static_cast<uint8_t>(byte));
  return fail(
      ErrorCode::kUnsupported,
      fmt::format("unknown kernel format ({} bytes, starting{}): known are Linux bzImage, ELF (vmlinux, PVH) and "
                  "multiboot 1; a raw image needs its load address as an option",
                  request.kernel.size(), first.empty() ? " with nothing" : first));
}

Result<BootImage> load_linux(const BootRequest& request) {
  if (is_bzimage(request.kernel)) return load_bzimage(request);
  if (is_elf(request.kernel)) return load_vmlinux(request);
  return unknown_format(request);
}

Result<BootImage> load_by_format(const BootRequest& request) {
  if (is_bzimage(request.kernel)) return load_bzimage(request);
  // Before PVH, because a multiboot header is there on purpose while Xen's own ELF carries both.
  if (find_multiboot_header(request.kernel)) return load_multiboot(request);
  if (!is_elf(request.kernel)) return unknown_format(request);
  const ElfImage kernel = TRY(parse_elf(request.kernel));
  return kernel.pvh_entry ? load_pvh(request) : load_vmlinux(request);
}

Result<BootImage> dispatch(const BootRequest& request) {
  switch (request.protocol) {
    case BootProtocol::kAuto: return load_by_format(request);
    case BootProtocol::kLinux: return load_linux(request);
    case BootProtocol::kPvh: return load_pvh(request);
    case BootProtocol::kMultiboot: return load_multiboot(request);
    case BootProtocol::kRaw: return load_raw_image(request);
  }
  return unknown_format(request);
}

Result<BootImage> unpack_and_load(const BootRequest& request) {
  const Compression compression = detect_compression(request.kernel);
  if (compression == Compression::kNone || request.protocol == BootProtocol::kRaw) return dispatch(request);
  BootRequest inner = request;
  std::vector<std::byte> unpacked = TRY(decompress(compression, request.kernel, kUnpackedSizeMax));
  inner.kernel = unpacked;
  BootImage image = TRY(dispatch(inner));
  image.keep(std::move(unpacked));
  return image;
}

}  // namespace

Result<BootImage> load_kernel(const BootRequest& request) {
  auto image = unpack_and_load(request);
  if (!image) return std::unexpected(std::move(image).error().with_context("kernel " + request.kernel_name));
  return image;
}

}  // namespace tenon
