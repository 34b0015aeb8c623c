#include "cli/image_command.hh"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/exit_status.hh"
#include "cli/progress.hh"
#include "host/terminal.hh"

namespace tenon {

namespace {

std::string size_text(uint64_t size_bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(size_bytes) / (1 << 20));
}

Result<int> list_as_json(ImageCache& cache) {
  nlohmann::json kernels = nlohmann::json::array();
  for (const CachedKernel& kernel : cache.kernels())
    kernels.push_back({{"flavour", kernel.flavour},
                       {"release", kernel.release},
                       {"path", kernel.path},
                       {"size_bytes", kernel.size_bytes},
                       {"fetched_at", kernel.fetched_at_s}});
  const std::string initramfs = TRY(cache.initramfs());
  fmt::print("{}\n",
             nlohmann::json{{"directory", cache.directory()}, {"kernels", kernels}, {"initramfs", initramfs}}.dump(2));
  return exit_status::kSuccess;
}

Result<int> list(ImageCache& cache, const ParsedCommand& parsed) {
  if (parsed.has("--json")) return list_as_json(cache);
  const std::vector<CachedKernel> kernels = cache.kernels();
  if (kernels.empty()) {
    fmt::print("No kernels in {} yet. 'tenon image fetch' gets one, and 'tenon run' does so by itself.\n",
               cache.directory());
    return exit_status::kSuccess;
  }
  fmt::print("{:<10} {:<28} {:>10}  {}\n", "FLAVOUR", "RELEASE", "SIZE", "FETCHED");
  for (const CachedKernel& kernel : kernels)
    fmt::print("{:<10} {:<28} {:>10}  {:%Y-%m-%d %H:%M}\n", kernel.flavour, kernel.release,
               size_text(kernel.size_bytes), fmt::localtime(static_cast<std::time_t>(kernel.fetched_at_s)));
  return exit_status::kSuccess;
}

Result<CachedKernel> fetch_with_progress(ImageCache& cache, const KernelFlavour& flavour) {
  Progress progress(is_terminal(kStderr));
  return cache.fetch(flavour, [&progress](std::string_view step, double done) { progress.report(step, done); });
}

Result<int> fetch(ImageCache& cache, const ParsedCommand& parsed) {
  const std::string name = parsed.value("--flavour").value_or(std::string(kDefaultFlavour));
  const KernelFlavour* flavour = TRY(find_kernel_flavour(name));
  const CachedKernel kernel = TRY(fetch_with_progress(cache, *flavour));
  fmt::print("{} ({}) is in {}\n", kernel.release, size_text(kernel.size_bytes), cache.directory());
  return exit_status::kSuccess;
}

Result<int> remove(ImageCache& cache, const ParsedCommand& parsed) {
  if (parsed.has("--all") == !parsed.operands.empty())
    return fail(ErrorCode::kInvalidArgument, "say which kernels to remove, or --all (see 'tenon image rm --help')");
  uint64_t freed = 0;
  if (parsed.has("--all")) freed = TRY(cache.remove_all());
  for (const std::string& name : parsed.operands) {
    TRY(find_kernel_flavour(name));
    freed += TRY(cache.remove_kernel(name));
  }
  fmt::print("{} freed\n", size_text(freed));
  return exit_status::kSuccess;
}

}  // namespace

Result<CachedKernel> cached_or_fetched_kernel(ImageCache& cache, std::string_view flavour) {
  if (std::optional<CachedKernel> kernel = cache.kernel(flavour)) return *std::move(kernel);
  const KernelFlavour* row = TRY(find_kernel_flavour(flavour));
  return fetch_with_progress(cache, *row);
}

Result<int> run_image_command(const ParsedCommand& parsed) {
  ImageCache cache = TRY(ImageCache::open_default());
  if (parsed.verb->name == "image ls") return list(cache, parsed);
  if (parsed.verb->name == "image fetch") return fetch(cache, parsed);
  return remove(cache, parsed);
}

}  // namespace tenon
