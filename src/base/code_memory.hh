// CodeMemory: memory for machine code made at run time.
//
// One memfd is mapped twice: a view that can be written and never executed, and a view that can be executed and never
// written; the file descriptor is closed, so nothing can map it a third time. append() is a bump allocator for code
// that is made once and never changed (thunks); a code generator that patches and frees uses writable() and
// executable() itself.
//
// Threads: append() by one thread at a time (the owner's lock); code it has returned may be executed by any thread that
// got the address through that lock. No flush is needed on x86: an address is not executed before its code is complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/fd.hh"

namespace tenon {

/// Has the host back whole pages at once, which is cheaper than a page fault for each; a wish, so a refusal is not an
/// error.
void populate(std::span<std::byte> pages);

class CodeMemory {
 public:
  static constexpr size_t kAlignment = 16;  // of what append() returns

  /// `capacity_bytes` is rounded up to pages; host memory is used only as code is added. `name` shows in
  /// /proc/PID/maps.
  static Result<CodeMemory> create(size_t capacity_bytes, const char* name);

  /// Copies `code` behind what is there and returns where to execute it; nullptr when it does not fit.
  const std::byte* append(std::span<const uint8_t> code);

  /// Has the host back [offset, offset + size_bytes), whole pages, in both views at once, which is cheaper than a page
  /// fault for each page and view; a wish, so a refusal is not an error.
  void populate(size_t offset, size_t size_bytes) const;

  size_t size_bytes() const { return size_bytes_; }
  size_t capacity_bytes() const { return writable_.size_bytes(); }
  /// The two views of the whole capacity: byte n of one is byte n of the other.
  std::span<std::byte> writable() const { return writable_.bytes(); }
  std::span<const std::byte> executable() const { return executable_.bytes(); }

 private:
  CodeMemory(Mapping writable, Mapping executable)
      : writable_(std::move(writable)), executable_(std::move(executable)) {}

  Mapping writable_;
  Mapping executable_;
  size_t size_bytes_ = 0;
};

}  // namespace tenon
