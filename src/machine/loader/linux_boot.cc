#include "machine/loader/linux_boot.hh"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "machine/loader/cpu_entry.hh"
#include "machine/loader/elf_image.hh"
#include "machine/loader/initrd.hh"

namespace tenon {

namespace {

constexpr size_t kRngSeedSizeMax = 512;

Result<void> add_command_line(BootImage& image, const BootRequest& request, uint64_t size_max,
                              boot::SetupHeader& header) {
  const std::string& text = request.command_line;
  size_max = std::min(size_max, low_memory::kCommandLineSizeMax - 1);
  if (text.size() > size_max)
    return fail(ErrorCode::kOutOfRange,
                fmt::format("kernel command line of {} bytes: this kernel takes at most {}; make "
                            "--append shorter",
                            text.size(), size_max));
  if (text.find('\0') != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "kernel command line contains a NUL byte");
  image.add_string(low_memory::kCommandLine, text, "kernel command line");
  header.cmd_line_ptr = static_cast<uint32_t>(low_memory::kCommandLine.value());
  return {};
}

Result<void> add_initrd(BootImage& image, const BootRequest& request, const LinuxEntry& entry,
                        boot::SetupHeader& header) {
  header.ramdisk_image = 0u;
  header.ramdisk_size = 0u;
  if (request.modules.empty()) return {};
  if (request.modules.size() > 1)
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{} initrds given: Linux takes one; concatenate the archives", request.modules.size()));
  const BootModule& initrd = request.modules.front();
  if (auto checked = check_initrd(initrd.bytes); !checked)
    return std::unexpected(std::move(checked).error().with_context("initrd " + initrd.name));
  if (initrd.bytes.empty()) return fail(ErrorCode::kCorrupt, "initrd " + initrd.name + " is empty");
  const uint64_t ceiling = std::min(entry.initrd_address_max + 1, kPciHoleStart);
  const auto place = highest_place(request.memory, initrd.bytes.size(), kPageSize, Gpa(entry.kernel_end), Gpa(ceiling));
  if (!place)
    return fail(ErrorCode::kOutOfRange,
                fmt::format("initrd {} of {} MiB does not fit between the kernel's end at {:#x} and {:#x}: give the "
                            "machine more memory",
                            initrd.name, initrd.bytes.size() / kMiB + 1, entry.kernel_end, ceiling));
  image.add(*place, initrd.bytes, "initrd " + initrd.name);
  header.ramdisk_image = static_cast<uint32_t>(place->value());
  header.ramdisk_size = static_cast<uint32_t>(initrd.bytes.size());
  return {};
}

/// A SETUP_RNG_SEED node, so that the guest's random number generator is ready at once (Linux 6.0 and newer; older
/// kernels skip the unknown type).
void add_rng_seed(BootImage& image, const BootRequest& request, boot::SetupHeader& header) {
  header.setup_data = 0u;
  const size_t size = std::min(request.rng_seed.size(), kRngSeedSizeMax);
  if (size == 0 || header.version < boot::kVersionSetupData) return;
  boot::SetupData node{};
  node.type = boot::kSetupRngSeed;
  node.length = static_cast<uint32_t>(size);
  std::vector<std::byte> bytes(sizeof node + size);
  std::memcpy(bytes.data(), &node, sizeof node);
  std::memcpy(bytes.data() + sizeof node, request.rng_seed.data(), size);
  image.add(low_memory::kSetupData, image.keep(std::move(bytes)), "setup_data");
  header.setup_data = low_memory::kSetupData.value();
}

void add_zero_page(BootImage& image, const BootRequest& request, const boot::SetupHeader& header) {
  boot::BootParams params{};
  params.header = header;
  params.acpi_rsdp_addr = request.rsdp.value();
  const size_t count = std::min(request.memory.size(), boot::kE820EntriesMax);
  for (size_t i = 0; i < count; ++i) {
    const MemoryRegion& region = request.memory[i];
    params.e820_table[i] = {region.range.base.value(), region.range.size_bytes, region.type};
  }
  params.e820_entries = static_cast<uint8_t>(count);
  image.add_wire(low_memory::kZeroPage, params, "zero page");
}

}  // namespace

Result<void> prepare_linux(BootImage& image, const BootRequest& request, boot::SetupHeader header,
                           const LinuxEntry& entry) {
  header.type_of_loader = boot::kUndefinedLoader;
  TRY(add_command_line(image, request, entry.command_line_size_max, header));
  TRY(add_initrd(image, request, entry, header));
  add_rng_seed(image, request, header);
  add_zero_page(image, request, header);
  if (entry.is_64) {
    enter_long_mode(image, entry.address);
  } else {
    enter_protected_mode(image, static_cast<uint32_t>(entry.address));
  }
  // boot.rst, "32-bit Boot Protocol" and "64-bit Boot Protocol": (R|E)SI holds the zero page, EBP, EDI and EBX are
  // zero.
  image.cpu.gpr[x86::kRsi] = low_memory::kZeroPage.value();
  return check_placement(image, request.memory);
}

Result<BootImage> load_vmlinux(const BootRequest& request) {
  const ElfImage kernel = TRY(parse_elf(request.kernel));
  BootImage image;
  kernel.add_to(image);
  image.description = kernel.is_64 ? "ELF vmlinux, 64-bit boot protocol" : "ELF vmlinux, 32-bit boot protocol";
  // What a bzImage's header says to a kernel that has already been decompressed.
  boot::SetupHeader header{};
  header.boot_flag = boot::kBootFlag;
  header.header = boot::kHeaderMagic;
  header.version = boot::kVersionNewest;
  header.loadflags = boot::kLoadedHigh;
  header.kernel_alignment = 0x1000000u;
  const LinuxEntry entry{
      .address = kernel.physical_entry(), .is_64 = kernel.is_64, .kernel_end = image.end_of_high_segments().value()};
  TRY(prepare_linux(image, request, header, entry));
  return image;
}

}  // namespace tenon
