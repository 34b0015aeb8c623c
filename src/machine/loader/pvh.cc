#include "machine/loader/pvh.hh"

#include <fmt/format.h>

#include "base/bits.hh"
#include "machine/loader/cpu_entry.hh"
#include "machine/loader/elf_image.hh"
#include "machine/loader/modules.hh"
#include "spec/pvh.hh"

namespace tenon {

namespace {

constexpr size_t kMemoryMapMax = 32;
constexpr Gpa kModuleList{low_memory::kStartInfo.value() + 0x100};
constexpr Gpa kMemoryMapList{low_memory::kStartInfo.value() + 0x1000};

void add_start_info(BootImage& image, const BootRequest& request, const std::vector<PlacedModule>& modules) {
  pvh::StartInfo info{};
  info.magic = pvh::kStartMagic;
  info.version = pvh::kStartVersion;
  info.command_line = low_memory::kCommandLine.value();
  info.rsdp = request.rsdp.value();
  for (size_t i = 0; i < modules.size(); ++i) {
    pvh::Module entry{};
    entry.address = modules[i].range.base.value();
    entry.size_bytes = modules[i].range.size_bytes;
    entry.command_line = modules[i].command_line.value();
    image.add_wire(Gpa(kModuleList.value() + i * sizeof entry), entry, "PVH module list");
  }
  info.module_count = static_cast<uint32_t>(modules.size());
  info.modules = modules.empty() ? 0 : kModuleList.value();
  const size_t count = std::min(request.memory.size(), kMemoryMapMax);
  for (size_t i = 0; i < count; ++i) {
    pvh::MemoryMapEntry entry{};
    entry.address = request.memory[i].range.base.value();
    entry.size_bytes = request.memory[i].range.size_bytes;
    entry.type = request.memory[i].type;
    image.add_wire(Gpa(kMemoryMapList.value() + i * sizeof entry), entry, "PVH memory map");
  }
  info.memory_map = kMemoryMapList.value();
  info.memory_map_count = static_cast<uint32_t>(count);
  image.add_wire(low_memory::kStartInfo, info, "hvm_start_info");
}

}  // namespace

Result<BootImage> load_pvh(const BootRequest& request) {
  const ElfImage kernel = TRY(parse_elf(request.kernel));
  if (!kernel.pvh_entry)
    return fail(ErrorCode::kUnsupported,
                "this ELF kernel has no PVH entry note (XEN_ELFNOTE_PHYS32_ENTRY): start it by "
                "another boot protocol, or build Linux with CONFIG_PVH");
  BootImage image;
  kernel.add_to(image);
  image.description = fmt::format("ELF{} kernel, PVH entry {:#x}", kernel.is_64 ? 64 : 32, *kernel.pvh_entry);
  TRY(add_command_line(image, request.command_line));
  const std::vector<PlacedModule> modules = TRY(place_modules(image, request));
  add_start_info(image, request, modules);
  enter_protected_mode(image, *kernel.pvh_entry);
  image.cpu.gpr[x86::kRbx] = low_memory::kStartInfo.value();
  TRY(check_placement(image, request.memory));
  return image;
}

}  // namespace tenon
