#include "machine/loader/bzimage.hh"

#include <fmt/format.h>

#include <algorithm>

#include "machine/loader/decompress.hh"
#include "machine/loader/elf_image.hh"
#include "machine/loader/linux_boot.hh"
#include "spec/boot.hh"

namespace tenon {

namespace {

constexpr uint64_t kVmlinuxSizeMax = 1 * kGiB;
constexpr uint32_t kCode32Start = 0x100000;

struct KernelFile {
  Bytes file;
  boot::SetupHeader header{};
  uint64_t protected_offset = 0;  // of the protected-mode code in the file
};

/// Copies the setup header, zero where the kernel's own header ends early (boot.rst: the byte at 0x201 gives its end).
Result<KernelFile> read_header(Bytes file) {
  KernelFile kernel{.file = file};
  kernel.header = TRY(read_wire<boot::SetupHeader>(file, boot::kSetupHeaderOffset, "bzImage setup header"));
  boot::SetupHeader& header = kernel.header;
  if (header.version < boot::kVersion200)
    return fail(ErrorCode::kUnsupported,
                fmt::format("bzImage: boot protocol version {:#x} at offset 0x206 is older than 2.00",
                            uint16_t{header.version}));
  if ((header.loadflags & boot::kLoadedHigh) == 0)
    return fail(ErrorCode::kUnsupported,
                fmt::format("bzImage: loadflags {:#x} at offset 0x211 say this is a zImage, which "
                            "loads below 1 MiB: only bzImage is supported",
                            header.loadflags));
  const uint64_t header_end = 0x202 + uint64_t{header.jump[1]};
  const uint64_t known = std::min<uint64_t>(header_end - boot::kSetupHeaderOffset, sizeof header);
  std::fill(reinterpret_cast<uint8_t*>(&header) + known, reinterpret_cast<uint8_t*>(&header + 1), uint8_t{0});
  const unsigned sectors = header.setup_sects != 0 ? header.setup_sects : boot::kDefaultSetupSectors;
  kernel.protected_offset = (uint64_t{sectors} + 1) * boot::kSectorSize;
  TRY(check_inside(file, kernel.protected_offset, uint64_t{header.syssize} * 16,
                   "bzImage protected-mode code (syssize at "
                   "offset 0x1f4)"));
  return kernel;
}

/// The kernel's version string, for the start-up line; empty where the pointer at 0x20E leads nowhere.
std::string version_text(const KernelFile& kernel) {
  constexpr size_t kSizeMax = 64;
  if (kernel.header.kernel_version == 0) return {};
  std::string text;
  for (uint64_t at = uint64_t{kernel.header.kernel_version} + 0x200; at < kernel.file.size() && text.size() < kSizeMax;
       ++at) {
    const char c = static_cast<char>(kernel.file[at]);
    if (c <= ' ' || c > '~') break;
    text += c;
  }
  return text.empty() ? text : text + " ";
}

LinuxEntry limits_of(const boot::SetupHeader& header) {
  LinuxEntry entry;
  entry.initrd_address_max =
      header.version >= boot::kVersionInitrdMax ? uint32_t{header.initrd_addr_max} : boot::kDefaultInitrdAddressMax;
  const bool has_size = header.version >= boot::kVersionCmdlineSize && header.cmdline_size != 0;
  entry.command_line_size_max = has_size ? uint32_t{header.cmdline_size} : boot::kDefaultCmdlineSizeMax;
  return entry;
}

/// The uncompressed ELF file inside the payload.
Result<std::vector<std::byte>> unpack_payload(const KernelFile& kernel, Compression& compression) {
  const uint64_t offset = kernel.protected_offset + uint64_t{kernel.header.payload_offset};
  const uint64_t length = kernel.header.payload_length;
  TRY(check_inside(kernel.file, offset, length,
                   "bzImage payload (payload_offset at offset 0x248, payload_length at 0x24c)"));
  Bytes payload = kernel.file.subspan(offset, length);
  compression = detect_compression(payload);
  if (compression == Compression::kNone) {
    if (is_elf(payload)) return std::vector<std::byte>(payload.begin(), payload.end());
    return fail(
        ErrorCode::kCorrupt,
        fmt::format("bzImage payload at offset {:#x} starts with neither a compression magic nor ELF: the file is "
                    "corrupt",
                    offset));
  }
  // Linux scripts/Makefile.lib, size_append: the unpacked size follows the stream, and a gzip stream ends with it
  // anyway.
  const uint64_t size_at = payload.size() - sizeof(le32);
  const uint32_t declared_size = TRY(read_wire<le32>(payload, size_at, "bzImage payload's unpacked size"));
  if (compression != Compression::kGzip) payload = payload.first(size_at);
  auto unpacked = decompress(compression, payload, std::min<uint64_t>(declared_size, kVmlinuxSizeMax));
  if (!unpacked)
    return std::unexpected(
        std::move(unpacked).error().with_context(fmt::format("bzImage payload at offset {:#x}", offset)));
  if (unpacked->size() != declared_size)
    return fail(ErrorCode::kCorrupt,
                fmt::format("bzImage payload at offset {:#x} unpacks to {} bytes instead of the {} that "
                            "it declares: the file is corrupt",
                            offset, unpacked->size(), declared_size));
  return unpacked;
}

Result<BootImage> load_payload(const BootRequest& request, const KernelFile& kernel) {
  BootImage image;
  Compression compression = Compression::kNone;
  const Bytes vmlinux = image.keep(TRY(unpack_payload(kernel, compression)));
  auto elf = parse_elf(vmlinux);
  if (!elf) return std::unexpected(std::move(elf).error().with_context("kernel inside the bzImage payload"));
  elf->add_to(image);
  LinuxEntry entry = limits_of(kernel.header);
  entry.address = elf->physical_entry();
  entry.is_64 = elf->is_64;
  entry.kernel_end = image.end_of_high_segments().value();
  image.description = fmt::format("bzImage {}({}), {}-bit boot protocol", version_text(kernel), name(compression),
                                  elf->is_64 ? 64 : 32);
  TRY(prepare_linux(image, request, kernel.header, entry));
  return image;
}

/// Before 2.08 nothing says where the payload is: the kernel is started at its 32-bit entry and unpacks itself.
Result<BootImage> load_self_extracting(const BootRequest& request, const KernelFile& kernel) {
  constexpr uint64_t kUnpackedRatio = 8;  // room kept free of the initrd where there is no init_size
  BootImage image;
  const Bytes code = kernel.file.subspan(kernel.protected_offset);
  image.add(Gpa(kCode32Start), code, "kernel");
  LinuxEntry entry = limits_of(kernel.header);
  entry.address = kCode32Start;
  entry.is_64 = false;
  entry.kernel_end = kCode32Start + code.size() * kUnpackedRatio;
  image.description = fmt::format("bzImage {}(unpacks itself), 32-bit boot protocol", version_text(kernel));
  boot::SetupHeader header = kernel.header;
  header.code32_start = kCode32Start;
  TRY(prepare_linux(image, request, header, entry));
  return image;
}

}  // namespace

bool is_bzimage(Bytes file) {
  if (file.size() < 0x206) return false;
  const auto boot_flag = load_wire<le16>(file.data() + 0x1fe);
  const auto magic = load_wire<le32>(file.data() + 0x202);
  return boot_flag == boot::kBootFlag && magic == boot::kHeaderMagic;
}

Result<BootImage> load_bzimage(const BootRequest& request) {
  const KernelFile kernel = TRY(read_header(request.kernel));
  const bool has_payload = kernel.header.version >= boot::kVersionPayload && kernel.header.payload_length != 0;
  return has_payload ? load_payload(request, kernel) : load_self_extracting(request, kernel);
}

}  // namespace tenon
