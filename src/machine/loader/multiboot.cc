#include "machine/loader/multiboot.hh"

#include <fmt/format.h>

#include <algorithm>

#include "machine/loader/cpu_entry.hh"
#include "machine/loader/elf_image.hh"
#include "machine/loader/modules.hh"
#include "spec/multiboot.hh"

namespace tenon {

namespace {

constexpr size_t kMemoryMapMax = 32;
constexpr Gpa kModuleList{low_memory::kStartInfo.value() + 0x100};
constexpr Gpa kMemoryMapList{low_memory::kStartInfo.value() + 0x1000};
constexpr Gpa kLoaderName{low_memory::kStartInfo.value() + 0x2000};

Result<void> check_flags(uint32_t flags, uint64_t offset) {
  constexpr uint32_t kKnown = multiboot::kPageAlignModules | multiboot::kWantMemory;
  const uint32_t unknown = flags & multiboot::kRequiredMask & ~kKnown;
  if (unknown == 0) return {};
  return fail(
      ErrorCode::kUnsupported,
      fmt::format("multiboot header at offset {:#x}: flags {:#x} require features {:#x} (4 is a video mode) that are "
                  "not supported",
                  offset, flags, unknown));
}

/// Loads by the header's address fields (specification 3.1.3); returns the entry point.
Result<uint32_t> load_by_addresses(BootImage& image, Bytes file, uint64_t header_offset) {
  const auto header = TRY(read_wire<multiboot::Header>(file, header_offset, "multiboot address fields"));
  const uint32_t load = header.load_address;
  const uint32_t header_address = header.header_address;
  const uint32_t load_end = header.load_end_address;
  const uint32_t bss_end = header.bss_end_address;
  const std::string what = fmt::format("multiboot header at offset {:#x}", header_offset);
  if (load > header_address || header_address - load > header_offset)
    return fail(ErrorCode::kCorrupt,
                fmt::format("{}: load_addr {:#x} does not lie at or shortly before header_addr {:#x}", what, load,
                            header_address));
  const uint64_t file_start = header_offset - (header_address - load);
  if (load_end != 0 && load_end < load)
    return fail(ErrorCode::kCorrupt,
                fmt::format("{}: load_end_addr {:#x} is below load_addr {:#x}", what, load_end, load));
  const uint64_t size = load_end != 0 ? load_end - load : file.size() - file_start;
  TRY(check_inside(file, file_start, size, what + ": its load range"));
  const uint64_t loaded_end = uint64_t{load} + size;
  if (bss_end != 0 && bss_end < loaded_end)
    return fail(ErrorCode::kCorrupt, fmt::format("{}: bss_end_addr {:#x} is below the end of the loaded bytes {:#x}",
                                                 what, bss_end, loaded_end));
  image.add(Gpa(load), file.subspan(file_start, size), "kernel", bss_end != 0 ? bss_end - loaded_end : 0);
  return uint32_t{header.entry_address};
}

Result<uint32_t> load_by_elf(BootImage& image, Bytes file, uint64_t header_offset) {
  if (!is_elf(file))
    return fail(ErrorCode::kCorrupt,
                fmt::format("multiboot header at offset {:#x} gives no load addresses (flags bit 16) "
                            "and the file is not ELF",
                            header_offset));
  const ElfImage kernel = TRY(parse_elf(file));
  kernel.add_to(image);
  const uint64_t entry = kernel.physical_entry();
  if (entry > 0xffffffff)
    return fail(ErrorCode::kUnsupported, fmt::format("multiboot ELF: entry point {:#x} is above 4 GiB", entry));
  return static_cast<uint32_t>(entry);
}

void add_memory(BootImage& image, const BootRequest& request, multiboot::Info& info) {
  const size_t count = std::min(request.memory.size(), kMemoryMapMax);
  for (size_t i = 0; i < count; ++i) {
    const MemoryRegion& region = request.memory[i];
    multiboot::MemoryMapEntry entry{};
    entry.size_bytes = static_cast<uint32_t>(sizeof entry - sizeof entry.size_bytes);
    entry.address = region.range.base.value();
    entry.length = region.range.size_bytes;
    entry.type = region.type;
    image.add_wire(Gpa(kMemoryMapList.value() + i * sizeof entry), entry, "multiboot memory map");
    const uint64_t kib = region.range.size_bytes / kKiB;
    const bool is_ram = region.type == boot::kE820Ram;
    if (is_ram && region.range.base == Gpa(0)) info.mem_lower = static_cast<uint32_t>(kib);
    if (is_ram && region.range.base == Gpa(kHighMemoryStart)) info.mem_upper = static_cast<uint32_t>(kib);
  }
  info.memory_map = static_cast<uint32_t>(kMemoryMapList.value());
  info.memory_map_length = static_cast<uint32_t>(count * sizeof(multiboot::MemoryMapEntry));
}

void add_info(BootImage& image, const BootRequest& request, const std::vector<PlacedModule>& modules) {
  multiboot::Info info{};
  info.flags = multiboot::kInfoMemory | multiboot::kInfoCommandLine | multiboot::kInfoModules |
               multiboot::kInfoMemoryMap | multiboot::kInfoLoaderName;
  info.command_line = static_cast<uint32_t>(low_memory::kCommandLine.value());
  for (size_t i = 0; i < modules.size(); ++i) {
    const GpaRange range = modules[i].range;
    multiboot::Module entry{};
    entry.start = static_cast<uint32_t>(range.base.value());
    entry.end = static_cast<uint32_t>(range.base.value() + range.size_bytes);
    entry.command_line = static_cast<uint32_t>(modules[i].command_line.value());
    image.add_wire(Gpa(kModuleList.value() + i * sizeof entry), entry, "multiboot module list");
  }
  info.module_count = static_cast<uint32_t>(modules.size());
  info.modules = modules.empty() ? 0u : static_cast<uint32_t>(kModuleList.value());
  add_memory(image, request, info);
  image.add_string(kLoaderName, "Tenon", "multiboot loader name");
  info.boot_loader_name = static_cast<uint32_t>(kLoaderName.value());
  image.add_wire(low_memory::kStartInfo, info, "multiboot information");
}

}  // namespace

std::optional<uint64_t> find_multiboot_header(Bytes file) {
  const uint64_t end = std::min<uint64_t>(file.size(), multiboot::kSearchBytes);
  for (uint64_t at = 0; at + multiboot::kShortHeaderSize <= end; at += 4) {
    const auto* words = file.data() + at;
    const uint32_t magic = load_wire<le32>(words);
    if (magic != multiboot::kHeaderMagic) continue;
    const uint32_t flags = load_wire<le32>(words + 4);
    const uint32_t checksum = load_wire<le32>(words + 8);
    if (magic + flags + checksum == 0) return at;
  }
  return std::nullopt;
}

Result<BootImage> load_multiboot(const BootRequest& request) {
  const auto offset = find_multiboot_header(request.kernel);
  if (!offset)
    return fail(ErrorCode::kUnsupported,
                "no multiboot 1 header (magic 0x1badb002 with a right checksum) in the first 8 KiB");
  const uint32_t flags = load_wire<le32>(request.kernel.data() + *offset + 4);
  TRY(check_flags(flags, *offset));
  BootImage image;
  const bool by_addresses = (flags & multiboot::kAddressFields) != 0;
  const uint32_t entry = by_addresses ? TRY(load_by_addresses(image, request.kernel, *offset))
                                      : TRY(load_by_elf(image, request.kernel, *offset));
  image.description = fmt::format("multiboot kernel ({}), entry {:#x}", by_addresses ? "address fields" : "ELF", entry);
  // Specification 3.3: the command line is preceded by the kernel's name.
  TRY(add_command_line(image, request.kernel_name + (request.command_line.empty() ? "" : " " + request.command_line)));
  const std::vector<PlacedModule> modules = TRY(place_modules(image, request));
  add_info(image, request, modules);
  enter_protected_mode(image, entry);
  image.cpu.gpr[x86::kRax] = multiboot::kLoaderMagic;
  image.cpu.gpr[x86::kRbx] = low_memory::kStartInfo.value();
  TRY(check_placement(image, request.memory));
  return image;
}

}  // namespace tenon
