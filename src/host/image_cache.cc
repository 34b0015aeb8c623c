#include "host/image_cache.hh"

#include <fcntl.h>
#include <pwd.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/fd.hh"
#include "host/debian_archive.hh"
#include "host/initramfs.hh"

namespace tenon {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kKernelPrefix = "vmlinuz-";
constexpr size_t kInitramfsSizeMax = 128 << 20;

// clang-format off
constexpr KernelFlavour kFlavours[] = {
  {"cloud",   "linux-image-cloud-amd64", "Debian's kernel for virtual machines (the default)"},
  {"generic", "linux-image-amd64",       "Debian's kernel for any machine"},
};
// clang-format on

Result<void> make_directories(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return std::unexpected(Error::from_errno("create directory " + path, error.value()));
  return {};
}

Result<void> rename_file(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return fail_errno("rename " + from + " to " + to);
  return {};
}

void remove_tree(const std::string& path) {
  std::error_code ignored;  // what could not be removed is found again by the next fetch
  fs::remove_all(path, ignored);
}

uint64_t tree_size(const std::string& path) {
  uint64_t size_bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    if (entry->is_regular_file(ignored)) size_bytes += entry->file_size(ignored);
  }
  return size_bytes;
}

/// Held while something is fetched; released when the descriptor closes, however the process ends.
Result<Fd> lock_cache(const std::string& directory, const ProgressReport& report) {
  TRY(make_directories(directory));
  Fd lock = TRY(Fd::open(directory + "/lock", O_RDWR | O_CREAT, 0644));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  report("waiting for another fetch", -1);
  while (::flock(lock.get(), LOCK_EX) != 0)
    if (errno != EINTR) return fail_errno("lock " + directory);
  return lock;
}

Result<void> write_whole_file(const std::string& path, std::string_view contents) {
  const Fd file = TRY(Fd::open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  while (!contents.empty()) {
    const ssize_t count = ::write(file.get(), contents.data(), contents.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail_errno("write " + path);
    contents.remove_prefix(static_cast<size_t>(count));
  }
  return {};
}

std::optional<CachedKernel> describe_kernel(std::string_view flavour, const fs::path& file) {
  const std::string name = file.filename();
  struct stat status;
  if (!name.starts_with(kKernelPrefix) || ::stat(file.c_str(), &status) != 0) return std::nullopt;
  return CachedKernel{.flavour = std::string(flavour),
                      .release = name.substr(kKernelPrefix.size()),
                      .path = file,
                      .size_bytes = static_cast<uint64_t>(status.st_size),
                      .fetched_at_s = status.st_mtime};
}

}  // namespace

std::span<const KernelFlavour> kernel_flavours() { return kFlavours; }

Result<const KernelFlavour*> find_kernel_flavour(std::string_view name) {
  std::string names;
  for (const KernelFlavour& flavour : kFlavours) {
    if (flavour.name == name) return &flavour;
    names += (names.empty() ? "" : ", ") + std::string(flavour.name);
  }
  return fail(ErrorCode::kInvalidArgument, fmt::format("no kernel flavour '{}'; there are: {}", name, names));
}

Result<ImageCache> ImageCache::open_default() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && cache[0] == '/') return ImageCache(std::string(cache) + "/tenon");
  const char* home = std::getenv("HOME");
  if (home == nullptr || home[0] != '/') {
    const passwd* user = ::getpwuid(::getuid());
    home = user != nullptr ? user->pw_dir : nullptr;
  }
  if (home == nullptr || home[0] != '/')
    return fail(ErrorCode::kNotFound, "no home directory for the image cache; set XDG_CACHE_HOME to a directory");
  return ImageCache(std::string(home) + "/.cache/tenon");
}

std::string ImageCache::kernel_directory(std::string_view flavour) const {
  return fmt::format("{}/kernels/{}", directory_, flavour);
}

std::optional<CachedKernel> ImageCache::kernel(std::string_view flavour) const {
  std::optional<CachedKernel> newest;
  std::error_code error;
  for (fs::directory_iterator entry(kernel_directory(flavour), error), end; !error && entry != end;
       entry.increment(error)) {
    const std::optional<CachedKernel> one = describe_kernel(flavour, entry->path());
    // Two are there only while a fetch replaces one.
    if (one && (!newest || one->fetched_at_s > newest->fetched_at_s)) newest = one;
  }
  return newest;
}

std::vector<CachedKernel> ImageCache::kernels() const {
  std::vector<CachedKernel> found;
  for (const KernelFlavour& flavour : kFlavours)
    if (std::optional<CachedKernel> one = kernel(flavour.name)) found.push_back(*std::move(one));
  return found;
}

Result<CachedKernel> ImageCache::fetch(const KernelFlavour& flavour, const ProgressReport& report) {
  const Fd lock = TRY(lock_cache(directory_, report));
  const std::string work_directory = directory_ + "/partial";
  remove_tree(work_directory);
  TRY(make_directories(work_directory));
  const std::string package_file =
      TRY(download_debian_package(flavour.package, work_directory, directory_ + "/apt", report));
  report("unpacking " + std::string(flavour.package), -1);
  Result<CachedKernel> installed = install(flavour, package_file, work_directory);
  remove_tree(work_directory);
  return installed;
}

Result<CachedKernel> ImageCache::install(const KernelFlavour& flavour, const std::string& package_file,
                                         const std::string& work_directory) {
  TRY(unpack_boot_directory(package_file, work_directory));
  std::string unpacked;
  std::error_code error;
  for (fs::directory_iterator entry(work_directory + "/boot", error), end; !error && entry != end;
       entry.increment(error))
    if (entry->path().filename().string().starts_with(kKernelPrefix)) unpacked = entry->path();
  if (unpacked.empty())
    return fail(ErrorCode::kCorrupt, fmt::format("{} holds no /boot/{}*", package_file, kKernelPrefix));

  ::utimensat(AT_FDCWD, unpacked.c_str(), nullptr, 0);  // the time of the fetch, not of the build
  const std::string directory = kernel_directory(flavour.name);
  TRY(make_directories(directory));
  const std::string installed = directory + "/" + fs::path(unpacked).filename().string();
  TRY(rename_file(unpacked, installed));
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error))
    if (entry->path() != installed) ::unlink(entry->path().c_str());
  std::optional<CachedKernel> kernel = describe_kernel(flavour.name, installed);
  if (!kernel) return fail_errno("stat " + installed);
  return *std::move(kernel);
}

Result<std::string> ImageCache::initramfs() {
  const std::string path = directory_ + "/initramfs.cpio";
  const std::string wanted = TRY(build_initramfs());
  const Result<std::string> present = read_file(path, kInitramfsSizeMax);
  if (present && *present == wanted) return path;
  TRY(make_directories(directory_));
  const std::string temporary = fmt::format("{}.{}", path, ::getpid());
  if (Result<void> written = write_whole_file(temporary, wanted); !written) {
    ::unlink(temporary.c_str());
    return std::unexpected(std::move(written).error());
  }
  TRY(rename_file(temporary, path));
  return path;
}

Result<uint64_t> ImageCache::remove_kernel(std::string_view flavour) {
  const std::string directory = kernel_directory(flavour);
  if (!kernel(flavour)) return fail(ErrorCode::kNotFound, fmt::format("no {} kernel in {}", flavour, directory_));
  const uint64_t freed = tree_size(directory);
  remove_tree(directory);
  return freed;
}

Result<uint64_t> ImageCache::remove_all() {
  const Fd lock = TRY(lock_cache(directory_, [](std::string_view, double) {}));
  const uint64_t freed = tree_size(directory_);
  for (const char* name : {"/kernels", "/partial", "/apt", "/initramfs.cpio"}) remove_tree(directory_ + name);
  return freed;
}

}  // namespace tenon
