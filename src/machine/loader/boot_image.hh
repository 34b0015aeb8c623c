// BootImage: what a loader produces, and BootRequest: what it works from.
//
// A loader is a pure function: file bytes and the memory map in; segments to copy and the first CPU state out. It
// touches no guest memory and no file, so every loader runs in unit tests and fuzzers without a machine. All file bytes
// are hostile: a field is checked before it is used, and the error names the offset, the field and its value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"
#include "engine/x86/cpu_state.hh"
#include "machine/firmware/memory_map.hh"
#include "vm/address.hh"

namespace tenon {

using Bytes = std::span<const std::byte>;

/// A file handed to the kernel: the initrd, or a multiboot or PVH module.
struct BootModule {
  std::string name;  // for error messages
  Bytes bytes;
  std::string command_line;
};

enum class BootProtocol : uint8_t { kAuto, kLinux, kPvh, kMultiboot, kRaw };

struct BootRequest {
  std::string kernel_name;  // for error messages
  Bytes kernel;
  std::vector<BootModule> modules;  // Linux takes at most one: the initrd
  std::string command_line;
  MemoryMap memory;
  Gpa rsdp;
  BootProtocol protocol = BootProtocol::kAuto;
  Gpa raw_address;                  // BootProtocol::kRaw: load and start address
  std::vector<std::byte> rng_seed;  // entropy for the Linux guest; may be empty
};

/// Bytes for guest memory, followed by zeros.
struct BootSegment {
  Gpa base;
  Bytes bytes;  // of the request's files or of BootImage's own buffers
  uint64_t zero_size_bytes = 0;
  std::string name;

  GpaRange range() const { return {base, bytes.size() + zero_size_bytes}; }
};

/// Move-only: its segments point into the request's files (which must outlive it) and into its own buffers.
class BootImage {
 public:
  BootImage() = default;
  BootImage(BootImage&&) = default;
  BootImage& operator=(BootImage&&) = default;

  std::string description;  // one phrase for the start-up line: "bzImage 6.1.0-9 (lz4), 64-bit boot protocol"
  x86::CpuState cpu;        // of the bootstrap processor
  std::vector<BootSegment> segments;

  /// Takes ownership of `bytes` for as long as the image lives and returns a view of them.
  Bytes keep(std::vector<std::byte> bytes) {
    kept_.push_back(std::move(bytes));
    return kept_.back();
  }
  void add(Gpa base, Bytes bytes, std::string name, uint64_t zero_size_bytes = 0) {
    segments.push_back({base, bytes, zero_size_bytes, std::move(name)});
  }
  template <typename Wire>
  void add_wire(Gpa base, const Wire& wire, std::string name) {
    const Bytes view = std::as_bytes(std::span<const Wire, 1>(&wire, 1));
    add(base, keep({view.begin(), view.end()}), std::move(name));
  }
  /// A NUL-terminated string.
  void add_string(Gpa base, std::string_view text, std::string name);

  /// The first address after the highest segment that starts at or above 1 MiB; at least 1 MiB.
  Gpa end_of_high_segments() const;

 private:
  std::vector<std::vector<std::byte>> kept_;  // moving a vector leaves its buffer where it is
};

/// kOutOfRange where a segment is not inside usable memory or overlaps another one; names both.
Result<void> check_placement(const BootImage& image, const MemoryMap& memory);

/// Copies sizeof(Wire) bytes at `offset`, or kCorrupt naming `what`, the offset and the file size.
Result<void> check_inside(Bytes file, uint64_t offset, uint64_t size_bytes, std::string_view what);

template <typename Wire>
Result<Wire> read_wire(Bytes file, uint64_t offset, std::string_view what) {
  if (auto inside = check_inside(file, offset, sizeof(Wire), what); !inside) return std::unexpected(inside.error());
  return load_wire<Wire>(file.data() + offset);
}

/// Fixed places of boot structures in conventional memory; a kernel that wants them itself fails check_placement().
namespace low_memory {
constexpr Gpa kGdt{0x1000};
constexpr Gpa kStartInfo{0x2000};  // hvm_start_info or multiboot information, then its lists
constexpr Gpa kSetupData{0x6000};
constexpr Gpa kZeroPage{0x7000};
constexpr Gpa kPageTables{0x9000};    // PML4, PDPT and four page directories: 24 KiB
constexpr Gpa kCommandLine{0x20000};  // up to 64 KiB
constexpr uint64_t kCommandLineSizeMax = 0x10000;
constexpr Gpa kModuleCommandLines{0x30000};  // up to 64 KiB
}  // namespace low_memory

}  // namespace tenon
