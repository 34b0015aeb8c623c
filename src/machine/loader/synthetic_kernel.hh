// Small kernels and archives made in memory, for the loaders' tests and fuzzers only.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/bits.hh"
#include "machine/loader/boot_image.hh"
#include "spec/boot.hh"
#include "spec/elf.hh"
#include "spec/multiboot.hh"

namespace tenon::synthetic {

using Buffer = std::vector<std::byte>;

template <typename Wire>
void put(Buffer& buffer, size_t offset, const Wire& wire) {
  if (buffer.size() < offset + sizeof wire) buffer.resize(offset + sizeof wire);
  std::memcpy(buffer.data() + offset, &wire, sizeof wire);
}

inline void append(Buffer& buffer, Bytes more) {
  const size_t size = buffer.size();
  buffer.resize(size + more.size());
  if (!more.empty()) std::memcpy(buffer.data() + size, more.data(), more.size());
}

inline Buffer to_buffer(std::string_view text) {
  Buffer buffer(text.size());
  if (!text.empty()) std::memcpy(buffer.data(), text.data(), text.size());
  return buffer;
}

struct ElfOptions {
  bool is_64 = true;
  uint64_t address = 0x1000000;
  uint64_t entry = 0x1000010;
  uint64_t code_size = 0x400;
  uint64_t memory_size = 0x2000;
  bool has_pvh_note = false;
  uint32_t pvh_entry = 0x1000020;
};

constexpr size_t kElfCodeOffset = 0x200;
constexpr size_t kElfNoteOffset = 0x180;

template <typename Header, typename ProgramHeader>
Buffer make_elf_of(const ElfOptions& options, uint16_t machine, uint8_t file_class) {
  Header header{};
  std::memcpy(header.magic, elf::kMagic, 4);
  header.file_class = file_class;
  header.data_encoding = elf::kLittleEndian;
  header.type = elf::kExecutable;
  header.machine = machine;
  header.entry = static_cast<decltype(header.entry + 0u)>(options.entry);
  header.phoff = static_cast<uint32_t>(sizeof header);
  header.phentsize = static_cast<uint16_t>(sizeof(ProgramHeader));
  header.phnum = options.has_pvh_note ? 2 : 1;
  ProgramHeader load{};
  load.type = elf::kLoad;
  load.offset = static_cast<uint32_t>(kElfCodeOffset);
  load.paddr = static_cast<uint32_t>(options.address);
  load.vaddr = static_cast<uint32_t>(options.address);
  load.filesz = static_cast<uint32_t>(options.code_size);
  load.memsz = static_cast<uint32_t>(options.memory_size);
  Buffer file(kElfCodeOffset + options.code_size, std::byte{0x90});
  put(file, 0, header);
  put(file, sizeof header, load);
  if (options.has_pvh_note) {
    ProgramHeader note{};
    note.type = elf::kNote;
    note.offset = static_cast<uint32_t>(kElfNoteOffset);
    note.filesz = 24u;
    note.align = 4u;
    put(file, sizeof header + sizeof load, note);
    put(file, kElfNoteOffset, elf::NoteHeader{4u, 8u, elf::kXenPhys32Entry});
    put(file, kElfNoteOffset + 12, le32(0x006e6558));  // "Xen\0"
    put(file, kElfNoteOffset + 16, le64(options.pvh_entry));
  }
  return file;
}

inline Buffer make_elf(const ElfOptions& options = {}) {
  if (options.is_64)
    return make_elf_of<elf::Header64, elf::ProgramHeader64>(options, elf::kMachineX86_64, elf::kClass64);
  return make_elf_of<elf::Header32, elf::ProgramHeader32>(options, elf::kMachine386, elf::kClass32);
}

/// A bzImage with one setup sector, whose protected-mode code is 64 bytes and then `payload`.
inline Buffer make_bzimage(const Buffer& payload, uint16_t version = 0x20f) {
  constexpr uint32_t kPayloadOffset = 64;
  boot::SetupHeader header{};
  header.setup_sects = 1;
  header.boot_flag = boot::kBootFlag;
  header.jump[0] = 0xeb;
  header.jump[1] = 0x6a;
  header.header = boot::kHeaderMagic;
  header.version = version;
  header.loadflags = boot::kLoadedHigh;
  header.syssize = static_cast<uint32_t>((kPayloadOffset + payload.size()) / 16);
  header.initrd_addr_max = 0x7fffffffu;
  header.cmdline_size = 2047u;
  header.payload_offset = kPayloadOffset;
  header.payload_length = static_cast<uint32_t>(payload.size());
  header.kernel_version = 0x80;
  Buffer file(1024 + kPayloadOffset);
  put(file, boot::kSetupHeaderOffset, header);
  const std::string_view text = "6.1.0-test (builder) #1";
  std::memcpy(file.data() + 0x280, text.data(), text.size());
  append(file, payload);
  return file;
}

struct CpioFile {
  std::string name;
  std::string content;
};

inline void append_cpio_member(Buffer& archive, const std::string& name, const std::string& content) {
  char header[111];
  std::snprintf(header, sizeof header, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 1u, 0100644u, 0u,
                0u, 1u, 0u, static_cast<unsigned>(content.size()), 0u, 0u, 0u, 0u,
                static_cast<unsigned>(name.size() + 1), 0u);
  append(archive, to_buffer(header));
  append(archive, to_buffer(name));
  archive.resize(align_up(archive.size() + 1, 4));
  append(archive, to_buffer(content));
  archive.resize(align_up(archive.size(), 4));
}

inline Buffer make_cpio(const std::vector<CpioFile>& files) {
  Buffer archive;
  for (const CpioFile& file : files) append_cpio_member(archive, file.name, file.content);
  append_cpio_member(archive, "TRAILER!!!", "");
  return archive;
}

/// A request for a machine of `ram_size` with everything else empty.
inline BootRequest make_request(Bytes kernel, uint64_t ram_size = 256 * kMiB) {
  BootRequest request;
  request.kernel_name = "test-kernel";
  request.kernel = kernel;
  request.memory = memory_map(MUST(ram_layout(ram_size, 40)));  // a valid size
  request.rsdp = Gpa(0xe0000);
  return request;
}

/// The bytes the image puts at `gpa`, or an empty span.
inline Bytes bytes_at(const BootImage& image, Gpa gpa, size_t size_bytes) {
  for (const BootSegment& segment : image.segments) {
    const GpaRange range{segment.base, segment.bytes.size()};
    if (range.contains(gpa, size_bytes)) return segment.bytes.subspan(gpa.value() - segment.base.value(), size_bytes);
  }
  return {};
}

template <typename Wire>
Wire wire_at(const BootImage& image, Gpa gpa) {
  const Bytes bytes = bytes_at(image, gpa, sizeof(Wire));
  CHECK(bytes.size() == sizeof(Wire));
  return load_wire<Wire>(bytes.data());
}

inline std::string string_at(const BootImage& image, Gpa gpa) {
  std::string text;
  for (uint64_t at = gpa.value();; ++at) {
    const Bytes byte = bytes_at(image, Gpa(at), 1);
    if (byte.empty() || byte[0] == std::byte{0}) return text;
    text += static_cast<char>(byte[0]);
  }
}

}  // namespace tenon::synthetic
