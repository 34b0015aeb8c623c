#include "base/fd.hh"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.hh"

namespace tenon {

Result<Fd> Fd::open(const std::string& path, int flags, unsigned mode) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) return fail_errno("open " + path);
  return Fd(fd);
}

void Fd::reset() noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

Result<Eventfd> Eventfd::create() {
  Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd.is_open()) return fail_errno("eventfd");
  return Eventfd(std::move(fd));
}

void Eventfd::signal() const {
  const uint64_t one = 1;
  // A full counter (EAGAIN) is already signalled, so the result carries no news.
  [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
}

uint64_t Eventfd::drain() const {
  uint64_t count = 0;
  return ::read(fd_.get(), &count, sizeof count) == sizeof count ? count : 0;
}

namespace {

// linux/prctl.h values; Debian 12's <sys/prctl.h> may come without them.
constexpr int kPrSetVma = 0x53564d41;
constexpr unsigned long kPrSetVmaAnonName = 0;

}  // namespace

Result<Mapping> Mapping::anonymous(size_t size_bytes, size_t alignment, const std::string& name) {
  CHECK(size_bytes > 0);
  CHECK(is_power_of_two(alignment));
  if (size_bytes > SIZE_MAX - alignment) return fail(ErrorCode::kOutOfRange, "memory size does not fit in 64 bits");
  // SAFETY: a fresh private mapping over-allocated by `alignment`; head and tail are given back below.
  void* raw = ::mmap(nullptr, size_bytes + alignment, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return fail_errno("mmap " + std::to_string(size_bytes) + " bytes");
  const uintptr_t start = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = align_up(start, alignment);
  if (aligned > start) ::munmap(raw, aligned - start);
  const size_t tail = start + alignment - aligned;
  if (tail > 0) ::munmap(reinterpret_cast<void*>(aligned + size_bytes), tail);
  // A kernel without CONFIG_ANON_VMA_NAME refuses; the name only serves people who look at the process.
  if (!name.empty()) ::prctl(kPrSetVma, kPrSetVmaAnonName, aligned, size_bytes, name.c_str());
  return Mapping(reinterpret_cast<std::byte*>(aligned), size_bytes);
}

void Mapping::prefer_huge_pages() const {
  if (address_ != nullptr) ::madvise(address_, size_bytes_, MADV_HUGEPAGE);
}

Result<Mapping> Mapping::of_fd(const Fd& fd, size_t size_bytes, int protection, int flags, uint64_t offset) {
  // SAFETY: the kernel chooses the address; the mapping is owned by the returned object.
  void* address = ::mmap(nullptr, size_bytes, protection, flags, fd.get(), static_cast<off_t>(offset));
  if (address == MAP_FAILED) return fail_errno("mmap " + std::to_string(size_bytes) + " bytes of a file");
  return Mapping(static_cast<std::byte*>(address), size_bytes);
}

Result<Mapping> Mapping::of_fd_aligned(const Fd& fd, size_t size_bytes, int protection, int flags, size_t alignment) {
  Mapping place = TRY(anonymous(size_bytes, alignment));
  // SAFETY: replaces exactly the pages that `place` owns, which stays their owner.
  void* address = ::mmap(place.address_, size_bytes, protection, flags | MAP_FIXED, fd.get(), 0);
  if (address == MAP_FAILED) return fail_errno("mmap " + std::to_string(size_bytes) + " bytes of a file");
  return place;
}

void Mapping::reset() noexcept {
  if (address_ != nullptr) ::munmap(address_, size_bytes_);
  address_ = nullptr;
  size_bytes_ = 0;
}

Result<std::string> read_file(const std::string& path, size_t size_bytes_max) {
  const Fd fd = TRY(Fd::open(path, O_RDONLY));
  std::string content;
  char buffer[64 * 1024];
  for (;;) {
    const ssize_t count = ::read(fd.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno("read " + path);
    if (count == 0) return content;
    content.append(buffer, static_cast<size_t>(count));
    if (content.size() > size_bytes_max)
      return fail(ErrorCode::kOutOfRange, path + ": larger than " + std::to_string(size_bytes_max) + " bytes");
  }
}

}  // namespace tenon
