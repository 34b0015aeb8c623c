// Fd: an owned file descriptor. Eventfd and Mapping: owned kernel objects with named factories. All move-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/result.hh"

namespace tenon {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int owned) : fd_(owned) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~Fd() { reset(); }

  /// open(2) with O_CLOEXEC added; the error names the path.
  static Result<Fd> open(const std::string& path, int flags, unsigned mode = 0);

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset() noexcept;

 private:
  int fd_ = -1;
};

/// eventfd(2): a counter that wakes a poll loop; signal() may be called from any thread.
class Eventfd {
 public:
  static Result<Eventfd> create();
  int get() const { return fd_.get(); }
  void signal() const;
  /// Reads and clears the counter; 0 when it was not signalled.
  uint64_t drain() const;

 private:
  explicit Eventfd(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

/// An mmap(2)ed range, unmapped on destruction.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_bytes_(std::exchange(other.size_bytes_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      reset();
      address_ = std::exchange(other.address_, nullptr);
      size_bytes_ = std::exchange(other.size_bytes_, 0);
    }
    return *this;
  }
  ~Mapping() { reset(); }

  /// Private zero-filled memory, MAP_NORESERVE, aligned to `alignment` (a power of two, at least a page). `name` (at
  /// most 79 characters) shows as `[anon:name]` in /proc/PID/maps where the host kernel keeps such names.
  static Result<Mapping> anonymous(size_t size_bytes, size_t alignment, const std::string& name = {});
  /// `size_bytes` of `fd` from `offset`, with mmap(2)'s protection and flags.
  static Result<Mapping> of_fd(const Fd& fd, size_t size_bytes, int protection, int flags, uint64_t offset = 0);
  /// The same from offset 0 at an address aligned to `alignment` (a power of two, at least a page).
  static Result<Mapping> of_fd_aligned(const Fd& fd, size_t size_bytes, int protection, int flags, size_t alignment);

  std::byte* data() const { return address_; }
  size_t size_bytes() const { return size_bytes_; }
  std::span<std::byte> bytes() const { return {address_, size_bytes_}; }
  /// Asks the host to back the range with huge pages; a wish, so a refusal is not an error.
  void prefer_huge_pages() const;
  void reset() noexcept;

 private:
  Mapping(std::byte* address, size_t size_bytes) : address_(address), size_bytes_(size_bytes) {}
  std::byte* address_ = nullptr;
  size_t size_bytes_ = 0;
};

/// The whole file at `path`; an error names the path and, where it is too large, the limit.
Result<std::string> read_file(const std::string& path, size_t size_bytes_max);

}  // namespace tenon
