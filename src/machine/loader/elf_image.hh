// ElfImage: the parts of an i386 or x86-64 ELF executable that a loader needs, checked against the file.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "machine/loader/boot_image.hh"

namespace tenon {

struct ElfSegment {
  uint64_t physical_address = 0;
  uint64_t virtual_address = 0;
  Bytes bytes;                     // of the file
  uint64_t memory_size_bytes = 0;  // at least bytes.size()
};

struct ElfImage {
  bool is_64 = false;
  uint64_t entry = 0;                 // as in the header
  std::vector<ElfSegment> segments;   // PT_LOAD with memory; physical ranges do not wrap
  std::optional<uint32_t> pvh_entry;  // XEN_ELFNOTE_PHYS32_ENTRY

  /// The physical address of the entry point: kernels put it in the header as physical already; where it is a virtual
  /// address it is translated by the segment that holds it.
  uint64_t physical_entry() const;
  /// Adds every segment to `image`.
  void add_to(BootImage& image) const;
};

bool is_elf(Bytes file);

/// kCorrupt names the header field, its offset and value.
Result<ElfImage> parse_elf(Bytes file);

}  // namespace tenon
