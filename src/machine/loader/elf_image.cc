#include "machine/loader/elf_image.hh"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/bits.hh"
#include "spec/elf.hh"

namespace tenon {

namespace {

constexpr size_t kSegmentsMax = 128;

struct Format32 {
  using Header = elf::Header32;
  using ProgramHeader = elf::ProgramHeader32;
};
struct Format64 {
  using Header = elf::Header64;
  using ProgramHeader = elf::ProgramHeader64;
};

/// Adds a PT_LOAD segment after checking that its bytes are in the file and its addresses do not wrap.
template <typename ProgramHeader>
Result<void> add_load(ElfImage& image, Bytes file, const ProgramHeader& header, unsigned index) {
  const uint64_t file_size = header.filesz;
  const uint64_t memory_size = header.memsz;
  const uint64_t address = header.paddr;
  if (memory_size == 0) return {};
  const std::string what = fmt::format("ELF program header {}", index);
  if (file_size > memory_size)
    return fail(ErrorCode::kCorrupt, fmt::format("{}: p_filesz {:#x} is larger than p_memsz {:#x}: the file is corrupt",
                                                 what, file_size, memory_size));
  if (!Gpa(address).plus(memory_size))
    return fail(ErrorCode::kCorrupt, fmt::format("{}: p_paddr {:#x} + p_memsz {:#x} passes 2^64: the file is corrupt",
                                                 what, address, memory_size));
  TRY(check_inside(file, header.offset, file_size, what + ": its segment"));
  if (image.segments.size() == kSegmentsMax)
    return fail(ErrorCode::kUnsupported, fmt::format("ELF with more than {} loadable segments", kSegmentsMax));
  image.segments.push_back({.physical_address = address,
                            .virtual_address = header.vaddr,
                            .bytes = file.subspan(header.offset, file_size),
                            .memory_size_bytes = memory_size});
  return {};
}

/// Looks for the PVH note. A malformed note section has no PVH note: notes are optional, so this is no error.
std::optional<uint32_t> find_pvh_entry(Bytes notes, uint64_t alignment) {
  while (notes.size() >= sizeof(elf::NoteHeader)) {
    const auto header = load_wire<elf::NoteHeader>(notes.data());
    const uint64_t name_size = align_up(header.name_size, alignment);
    const uint64_t descriptor_size = align_up(header.descriptor_size, alignment);
    notes = notes.subspan(sizeof(elf::NoteHeader));
    if (name_size > notes.size() || header.descriptor_size > notes.size() - name_size) return std::nullopt;
    const bool is_xen = header.name_size == 4 && std::memcmp(notes.data(), "Xen", 4) == 0;
    const Bytes descriptor = notes.subspan(name_size, header.descriptor_size);
    // Linux writes four bytes in 32-bit kernels, eight in 64-bit ones (arch/x86/platform/pvh/head.S).
    if (is_xen && header.type == elf::kXenPhys32Entry && descriptor.size() >= sizeof(le32))
      return load_wire<le32>(descriptor.data());
    notes = notes.subspan(std::min<uint64_t>(name_size + descriptor_size, notes.size()));
  }
  return std::nullopt;
}

template <typename Format>
Result<void> check_header(const typename Format::Header& header) {
  constexpr uint16_t machine = std::is_same_v<Format, Format64> ? elf::kMachineX86_64 : elf::kMachine386;
  if (header.data_encoding != elf::kLittleEndian)
    return fail(ErrorCode::kUnsupported,
                fmt::format("ELF header: data encoding {} at offset 5: only little-endian x86 runs here",
                            header.data_encoding));
  // x32-style files (32-bit class, x86-64 machine) are not kernels.
  if (header.machine != machine)
    return fail(ErrorCode::kUnsupported,
                fmt::format("ELF header: e_machine {} at offset 0x12: only i386 (3, 32-bit) and "
                            "x86-64 (62, 64-bit) run here",
                            uint16_t{header.machine}));
  if (header.type != elf::kExecutable && header.type != elf::kShared)
    return fail(ErrorCode::kUnsupported,
                fmt::format("ELF header: e_type {} at offset 0x10: not an executable (2 or 3); is "
                            "it a kernel module or a core file?",
                            uint16_t{header.type}));
  if (header.phentsize != sizeof(typename Format::ProgramHeader))
    return fail(ErrorCode::kCorrupt, fmt::format("ELF header: e_phentsize {} instead of {}: the file is corrupt",
                                                 uint16_t{header.phentsize}, sizeof(typename Format::ProgramHeader)));
  return {};
}

template <typename Format>
Result<ElfImage> parse(Bytes file) {
  using ProgramHeader = typename Format::ProgramHeader;
  const auto header = TRY(read_wire<typename Format::Header>(file, 0, "ELF header"));
  TRY(check_header<Format>(header));
  ElfImage image;
  image.is_64 = std::is_same_v<Format, Format64>;
  image.entry = header.entry;
  const uint64_t table = header.phoff;
  const unsigned count = header.phnum;
  TRY(check_inside(file, table, uint64_t{count} * sizeof(ProgramHeader), "ELF program header table"));
  for (unsigned i = 0; i < count; ++i) {
    const auto segment = load_wire<ProgramHeader>(file.data() + table + i * sizeof(ProgramHeader));
    if (segment.type == elf::kLoad) TRY(add_load(image, file, segment, i));
    if (segment.type == elf::kNote && !image.pvh_entry && check_inside(file, segment.offset, segment.filesz, ""))
      image.pvh_entry = find_pvh_entry(file.subspan(segment.offset, segment.filesz), segment.align == 8 ? 8 : 4);
  }
  if (image.segments.empty())
    return fail(ErrorCode::kCorrupt,
                fmt::format("ELF file has no loadable segment among its {} program headers", count));
  return image;
}

}  // namespace

bool is_elf(Bytes file) {
  return file.size() >= sizeof elf::kMagic && std::memcmp(file.data(), elf::kMagic, sizeof elf::kMagic) == 0;
}

Result<ElfImage> parse_elf(Bytes file) {
  if (!is_elf(file)) return fail(ErrorCode::kCorrupt, "not an ELF file: magic 7f 45 4c 46 is missing at offset 0");
  if (file.size() < offsetof(elf::Header32, data_encoding) + 1)
    return fail(ErrorCode::kCorrupt, fmt::format("ELF header ends after the file ({} bytes): truncated", file.size()));
  const auto file_class = static_cast<uint8_t>(file[offsetof(elf::Header32, file_class)]);
  if (file_class == elf::kClass64) return parse<Format64>(file);
  if (file_class == elf::kClass32) return parse<Format32>(file);
  return fail(ErrorCode::kCorrupt,
              fmt::format("ELF header: file class {} at offset 4 is neither 1 (32-bit) nor 2 (64-bit)", file_class));
}

uint64_t ElfImage::physical_entry() const {
  for (const ElfSegment& segment : segments) {
    if (entry >= segment.physical_address && entry - segment.physical_address < segment.memory_size_bytes) return entry;
  }
  for (const ElfSegment& segment : segments) {
    if (entry >= segment.virtual_address && entry - segment.virtual_address < segment.memory_size_bytes)
      return segment.physical_address + (entry - segment.virtual_address);
  }
  return entry;
}

void ElfImage::add_to(BootImage& image) const {
  for (size_t i = 0; i < segments.size(); ++i) {
    const ElfSegment& segment = segments[i];
    image.add(Gpa(segment.physical_address), segment.bytes, fmt::format("kernel segment {}", i),
              segment.memory_size_bytes - segment.bytes.size());
  }
}

}  // namespace tenon
