// ImageCache: the kernels and the initramfs that `tenon run` uses when it is told none, in the user's cache directory.
//
//   <cache>/kernels/<flavour>/vmlinuz-<release>   one per flavour, from Debian's archive, fetched with apt as any user
//   <cache>/initramfs.cpio                        made from the embedded init and the host's busybox
//   <cache>/partial/                              work in progress; whatever an interruption left is removed by the
//   next fetch <cache>/apt/                                  package lists of our own, only where the host's have
//   nothing
//
// Files appear under their final name by rename(2) only, complete. Fetches exclude each other by a lock on the cache.
// Threads: one; between processes the lock and rename do it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"

namespace tenon {

/// A kernel package that Tenon knows how to fetch.
struct KernelFlavour {
  std::string_view name;     // "cloud"
  std::string_view package;  // the meta package; what it depends on holds the kernel
  std::string_view description;
};
std::span<const KernelFlavour> kernel_flavours();
/// The error names the flavours there are.
Result<const KernelFlavour*> find_kernel_flavour(std::string_view name);
constexpr std::string_view kDefaultFlavour = "cloud";

struct CachedKernel {
  std::string flavour;
  std::string release;  // "6.1.0-56-cloud-amd64"
  std::string path;
  uint64_t size_bytes = 0;
  int64_t fetched_at_s = 0;  // seconds since 1970
};

/// `step` says what is being done; `done` is 0 to 1, or negative where that is not known.
using ProgressReport = std::function<void(std::string_view step, double done)>;

class ImageCache {
 public:
  /// $XDG_CACHE_HOME/tenon, else ~/.cache/tenon (XDG Base Directory Specification 0.8).
  static Result<ImageCache> open_default();
  explicit ImageCache(std::string directory) : directory_(std::move(directory)) {}

  const std::string& directory() const { return directory_; }
  std::vector<CachedKernel> kernels() const;
  std::optional<CachedKernel> kernel(std::string_view flavour) const;

  /// Fetches the newest kernel of the flavour, also where an older one is there already.
  Result<CachedKernel> fetch(const KernelFlavour& flavour, const ProgressReport& report);
  /// Path of the initramfs, made again where it is not what this program and this busybox give.
  Result<std::string> initramfs();

  /// Removes the kernel of one flavour; returns the bytes freed.
  Result<uint64_t> remove_kernel(std::string_view flavour);
  /// Removes everything; returns the bytes freed.
  Result<uint64_t> remove_all();

 private:
  std::string kernel_directory(std::string_view flavour) const;
  Result<CachedKernel> install(const KernelFlavour& flavour, const std::string& package_file,
                               const std::string& work_directory);

  std::string directory_;
};

}  // namespace tenon
