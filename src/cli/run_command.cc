#include "cli/run_command.hh"

#include <fmt/format.h>

#include "cli/image_command.hh"
#include "cli/run_options.hh"
#include "cli/run_plan.hh"
#include "cli/run_session.hh"
#include "host/image_cache.hh"
#include "host/signals.hh"
#include "host/terminal.hh"

namespace tenon {

namespace {

/// The files to boot: the ones asked for, or the cache's.
Result<BootFiles> find_boot_files(const RunOptions& options) {
  BootFiles files;
  if (options.kernel && !options.has_our_init()) return BootFiles{*options.kernel, *options.initrd};
  ImageCache cache = TRY(ImageCache::open_default());
  if (options.kernel) {
    files.kernel = *options.kernel;
  } else {
    files.kernel = TRY(cached_or_fetched_kernel(cache, options.flavour)).path;
  }
  files.initrd = options.has_our_init() ? TRY(cache.initramfs()) : *options.initrd;
  return files;
}

Announcer::Style announcer_style(const RunOptions& options, const RunPlan& plan, const StandardStreams& streams) {
  if (options.json) return Announcer::Style::kJson;
  const bool wanted = streams.stderr_is_terminal || plan.kind == RunPlan::Kind::kTranscript || options.verbose;
  return wanted ? Announcer::Style::kText : Announcer::Style::kSilent;
}

}  // namespace

Result<int> run_run_command(const ParsedCommand& parsed) {
  const RunOptions options = TRY(RunOptions::from(parsed));
  const StandardStreams streams = {.stdin_is_terminal = is_terminal(kStdin),
                                   .stdout_is_terminal = is_terminal(kStdout),
                                   .stderr_is_terminal = is_terminal(kStderr)};
  const RunPlan plan = RunPlan::make(options, streams);
  const BootFiles files = TRY(find_boot_files(options));
  signals::ignore_broken_pipes();
  const Announcer announcer(announcer_style(options, plan, streams));
  RunSession session(options, plan, streams, announcer);
  return session.run(files);
}

}  // namespace tenon
