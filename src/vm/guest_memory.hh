// GuestMemory: the guest's RAM as a list of extents, and the only way to reach it.
//
// Devices, loaders and page walkers copy in and out through read()/write(), or look through a GuestSpan. There is never
// a `T&` into guest RAM: the guest writes it at any moment, so fetch once, then validate the copy.
// Threads: the extent list is fixed once the VM has started; read and write may be called from any thread.
// Scaling: extents are few (RAM below and above the PCI hole); lookup is a branch-free search over a small sorted
// array, cached by every engine's TLB. The write-watch table costs 16 bytes a guest page of address space, and host
// memory only where code has been seen.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/fd.hh"
#include "base/result.hh"
#include "vm/address.hh"
#include "vm/code_changes.hh"

namespace tenon {

/// What the host is asked to back memory with. Huge pages spare TLB misses and page faults of a machine that lives long
/// and uses what it has; they cost one that does not: each is cleared as a whole, used or not, and none is shared
/// (KSM).
enum class HostPages : uint8_t { kBase, kHuge };

enum class ExtentKind : uint8_t {
  kPrivate,  // anonymous memory of this VM
  kRom,      // private memory that the guest may only read (firmware)
};

/// One run of guest physical memory with one host mapping behind it.
struct Extent {
  GpaRange range;
  ExtentKind kind = ExtentKind::kPrivate;
  std::byte* host = nullptr;  // start of the mapping; aligned to 2 MiB for kPrivate
};

/// Where translated or decoded code lives, so that writes to it can be noticed. One entry a page of every extent,
/// shared by all vCPUs and all device threads. An engine sets granule bits, then full_fence(), then decodes; whoever
/// writes guest memory other than through a TLB entry that excludes code pages calls note_write() after the write. So a
/// racing pair either decodes the new bytes or sees the version grow. An engine that gives a page up for data sets its
/// granules to 0 and then grows its version; others that were setting bits meanwhile look again after reading the
/// version.
class CodeWatch {
 public:
  static constexpr uint64_t kGranuleSize = CodeChanges::kGranuleSize;  // 64 granules a page, one bit each

  struct Page {
    std::atomic<uint64_t> granules;  // bit n: code was decoded from bytes [64n, 64n + 64) of the page
    std::atomic<uint64_t> version;   // grows when bytes under a set granule are written; cached code compares it
  };

  /// The entry of the page at `gpa`, or nullptr where there is no RAM or ROM.
  Page* page(Gpa gpa) const;

  /// Records a write of [gpa, gpa + size_bytes), which has been made. Returns true where it hit decoded code (the
  /// versions have grown, and all vCPUs with translated code but `writer` are told).
  bool note_write(Gpa gpa, uint64_t size_bytes, CodeChanges::Listener* writer = nullptr) const;

  CodeChanges& changes() const { return changes_; }

 private:
  friend class GuestMemory;
  struct Table {
    GpaRange range;
    Mapping pages;  // Page[range.size_bytes / kPageSize], lazily populated by the host
  };
  std::vector<Table> tables_;  // sorted by range.base, one an extent
  mutable CodeChanges changes_;
};

/// A bounds-checked window on guest RAM that lies in one extent; volatile underneath, so only copies leave it.
class GuestSpan {
 public:
  GuestSpan() = default;
  GuestSpan(std::byte* host, size_t size_bytes) : host_(host), size_bytes_(size_bytes) {}
  size_t size_bytes() const { return size_bytes_; }
  /// For host system calls that take an iovec only (the kernel copies once).
  std::byte* host() const { return host_; }

 private:
  std::byte* host_ = nullptr;
  size_t size_bytes_ = 0;
};

class GuestMemory {
 public:
  GuestMemory() = default;
  GuestMemory(const GuestMemory&) = delete;
  GuestMemory& operator=(const GuestMemory&) = delete;

  /// Adds RAM or ROM backed by fresh private memory aligned to 2 MiB and named `tenon:name` in /proc/PID/maps. `range`
  /// is page-aligned and overlaps no other extent. Before the VM starts only.
  Result<void> add(GpaRange range, ExtentKind kind, std::string_view name, HostPages pages_of_host = HostPages::kBase);

  std::span<const Extent> extents() const { return extents_; }
  uint64_t ram_size_bytes() const;

  /// The extent that holds `gpa`, or nullptr.
  const Extent* find(Gpa gpa) const;
  /// Host address of [gpa, gpa + size_bytes), or nullptr where that is not inside one extent. For engines (TLB fill)
  /// and GuestSpan; everyone else copies.
  std::byte* host_address(Gpa gpa, uint64_t size_bytes) const;
  GuestSpan span(Gpa gpa, uint64_t size_bytes) const;

  /// Copies out of guest memory. False, with nothing copied, where any byte is not in an extent.
  bool read(Gpa gpa, std::span<std::byte> out) const;
  /// Copies into guest memory; ROM extents and holes refuse. False, with nothing written, where any byte is refused.
  /// Notes the write in code_watch().
  bool write(Gpa gpa, std::span<const std::byte> bytes);
  /// Like write(), but ROM extents accept it: for loaders before the VM starts.
  bool load(Gpa gpa, std::span<const std::byte> bytes);

  template <typename T>
  bool read_object(Gpa gpa, T& out) const {
    return read(gpa, std::as_writable_bytes(std::span<T, 1>(&out, 1)));
  }
  template <typename T>
  bool write_object(Gpa gpa, const T& value) {
    return write(gpa, std::as_bytes(std::span<const T, 1>(&value, 1)));
  }

  const CodeWatch& code_watch() const { return code_watch_; }

 private:
  bool copy_in(Gpa gpa, std::span<const std::byte> bytes, bool rom_too);
  /// Whether every byte is in an extent, and for writing in none that the guest may only read.
  bool covers(Gpa gpa, uint64_t size_bytes, bool for_writing) const;
  /// Calls visit_piece(extent, host address, bytes before, bytes here) for each extent's part of the range, in order.
  /// False as soon as a byte is in no extent or `visit_piece` returns false.
  template <typename Visit>
  bool visit(Gpa gpa, uint64_t size_bytes, Visit&& visit_piece) const;

  std::vector<Extent> extents_;    // sorted by range.base
  std::vector<Mapping> mappings_;  // any order; owns what extents_ point into
  CodeWatch code_watch_;
};

}  // namespace tenon
