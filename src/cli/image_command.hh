// `tenon image ls|fetch|rm`: the cache of guest kernels.
#pragma once

#include "base/result.hh"
#include "cli/command_line.hh"
#include "host/image_cache.hh"

namespace tenon {

/// Runs one of the image verbs; returns tenon's exit status.
Result<int> run_image_command(const ParsedCommand& parsed);

/// The cached kernel of `flavour`, fetched with progress on stderr where there is none yet.
Result<CachedKernel> cached_or_fetched_kernel(ImageCache& cache, std::string_view flavour);

}  // namespace tenon
