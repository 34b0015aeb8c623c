#include "machine/guest_files.hh"

#include <algorithm>
#include <array>

#include "base/fd.hh"
#include "machine/loader/kernel.hh"

namespace tenon {

namespace {

constexpr size_t kKernelSizeMax = size_t{1} << 30;
constexpr size_t kModuleSizeMax = size_t{3} << 30;  // more cannot fit below the device hole

Bytes as_bytes(const std::string& content) { return std::as_bytes(std::span(content.data(), content.size())); }

std::string file_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

}  // namespace

Result<GuestFiles> GuestFiles::load(const std::string& kernel_path, const std::vector<Module>& modules,
                                    BootRequest request) {
  GuestFiles files;
  files.contents_.reserve(1 + modules.size());
  files.contents_.push_back(TRY(read_file(kernel_path, kKernelSizeMax)));
  request.kernel_name = file_name(kernel_path);
  request.kernel = as_bytes(files.contents_.back());
  for (const Module& module : modules) {
    files.contents_.push_back(TRY(read_file(module.path, kModuleSizeMax)));
    request.modules.push_back({file_name(module.path), as_bytes(files.contents_.back()), module.command_line});
  }
  files.image_ = TRY(load_kernel(request));
  return files;
}

void GuestFiles::copy_to(GuestMemory& memory, Zeroing zeroing) const {
  constexpr std::array<std::byte, 64 * 1024> kZeros{};
  for (const BootSegment& segment : image_.segments) {
    // check_placement() has shown that every segment is inside usable memory.
    CHECK(memory.load(segment.base, segment.bytes));
    if (zeroing == Zeroing::kMemoryIsZero) continue;
    uint64_t at = segment.base.value() + segment.bytes.size();
    const uint64_t end = at + segment.zero_size_bytes;
    while (at < end) {
      const uint64_t size = std::min<uint64_t>(kZeros.size(), end - at);
      CHECK(memory.load(Gpa(at), std::span(kZeros).first(size)));
      at += size;
    }
  }
}

}  // namespace tenon
