#include "base/code_memory.hh"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "base/bits.hh"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U  // Linux 6.3
#endif

// Linux 5.14
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace tenon {

namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

/// Where vm.memfd_noexec=1, a memfd without MFD_EXEC cannot be mapped executable; kernels before 6.3 do not know the
/// flag.
Fd create_executable_memfd(const char* name) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_EXEC);
  if (fd < 0 && errno == EINVAL) fd = memfd_create(name, MFD_CLOEXEC);
  return Fd(fd);
}

}  // namespace

Result<CodeMemory> CodeMemory::create(size_t capacity_bytes, const char* name) {
  const auto page_bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t size = align_up(capacity_bytes, page_bytes);
  if (size == 0) return fail(ErrorCode::kInvalidArgument, std::string("code memory ") + name + " of no bytes");
  const Fd fd = create_executable_memfd(name);
  if (!fd.is_open()) return fail_errno(std::string("memfd_create ") + name);
  if (ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return fail_errno(std::string("ftruncate memfd ") + name);
  // Much code is spread over many pages: huge ones spare the host's instruction TLB. Only whole ones in both views are.
  const size_t alignment = size >= kHugePageBytes ? kHugePageBytes : page_bytes;
  Mapping writable = TRY(Mapping::of_fd_aligned(fd, size, PROT_READ | PROT_WRITE, MAP_SHARED, alignment));
  Mapping executable = TRY(Mapping::of_fd_aligned(fd, size, PROT_READ | PROT_EXEC, MAP_SHARED, alignment));
  if (alignment == kHugePageBytes) {
    writable.prefer_huge_pages();
    executable.prefer_huge_pages();
  }
  return CodeMemory(std::move(writable), std::move(executable));
}

const std::byte* CodeMemory::append(std::span<const uint8_t> code) {
  const size_t start = align_up(size_bytes_, kAlignment);
  if (start > capacity_bytes() || code.size() > capacity_bytes() - start) return nullptr;
  std::memcpy(writable_.data() + start, code.data(), code.size());
  size_bytes_ = start + code.size();
  return executable_.data() + start;
}

void populate(std::span<std::byte> pages) { ::madvise(pages.data(), pages.size(), MADV_POPULATE_WRITE); }

void CodeMemory::populate(size_t offset, size_t size_bytes) const {
  tenon::populate(writable_.bytes().subspan(offset, size_bytes));
  ::madvise(executable_.data() + offset, size_bytes, MADV_POPULATE_READ);
}

}  // namespace tenon
