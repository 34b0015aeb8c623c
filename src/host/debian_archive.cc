#include "host/debian_archive.hh"

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include "base/fd.hh"
#include "host/child_process.hh"

namespace tenon {

namespace fs = std::filesystem;

namespace {

using Arguments = std::vector<std::string>;

/// Options of apt that make it use lists of our own in `lists_directory`; empty for the host's.
Arguments list_options(const std::string& lists_directory) {
  return {"-o", "Dir::State=" + lists_directory, "-o", "Dir::Cache=" + lists_directory + "/cache"};
}

Arguments concat(Arguments first, const Arguments& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

/// The package with the kernel, or an error where the lists have none.
Result<std::string> resolve(std::string_view meta_package, const Arguments& lists) {
  const Arguments show = concat({"apt-cache"}, lists);
  const Result<std::string> record =
      output_of_program(concat(show, {"show", "--no-all-versions", std::string(meta_package)}));
  std::string dependency = record ? first_dependency(*record) : "";
  if (dependency.empty()) return fail(ErrorCode::kNotFound, fmt::format("apt knows no package {}", meta_package));
  return dependency;
}

/// Reads apt's status lines until apt closes its end.
void follow_status(const Fd& status, std::string_view step, const ProgressReport& report) {
  std::string line;
  char bytes[1024];
  for (ssize_t count; (count = ::read(status.get(), bytes, sizeof bytes)) != 0;) {
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return;
    for (const char byte : std::string_view(bytes, static_cast<size_t>(count))) {
      if (byte != '\n') {
        line += byte;
        continue;
      }
      if (const double done = download_progress(line); done >= 0) report(step, done);
      line.clear();
    }
  }
}

/// Runs apt-get with its progress reported and its messages kept for the error.
Result<void> run_apt_get(const Arguments& arguments, const std::string& directory, std::string_view step,
                         const ProgressReport& report) {
  report(step, 0);
  Pipe status = TRY(Pipe::create());
  const std::string log_path = directory + "/apt.log";
  const Fd log = TRY(Fd::open(log_path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  // apt downloads into the current directory, hence env -C. As root it would drop to the user _apt, who may not write
  // there, and warn about it.
  Arguments command = {"env", "-C", directory, "LC_ALL=C", "apt-get", "-q", "-o", "APT::Status-Fd=3"};
  if (::geteuid() == 0) command = concat(command, {"-o", "APT::Sandbox::User=root"});
  ChildProcess child = TRY(ChildProcess::spawn({.arguments = concat(command, arguments),
                                                .output_fd = log.get(),
                                                .error_fd = log.get(),
                                                .status_fd = status.write_end.get()}));
  status.write_end.reset();
  follow_status(status.read_end, step, report);
  if (child.wait() == 0) return {};
  const Result<std::string> messages = read_file(log_path, 1 << 20);
  std::string reason = "no message";
  if (messages)
    for (size_t at = 0; (at = messages->find("E: ", at)) != std::string::npos; at += 3)
      reason = messages->substr(at + 3, messages->find('\n', at) - at - 3);
  return fail(ErrorCode::kIo, "apt-get " + arguments.back() + ": " + reason);
}

Result<void> update_own_lists(const std::string& directory, const std::string& lists_directory,
                              const ProgressReport& report) {
  std::error_code error;
  for (const char* part : {"/lists/partial", "/cache/archives/partial"}) {
    fs::create_directories(lists_directory + part, error);
    if (error) return std::unexpected(Error::from_errno("create directory " + lists_directory + part, error.value()));
  }
  return run_apt_get(concat(list_options(lists_directory), {"update"}), directory, "fetching Debian's package lists",
                     report);
}

Result<std::string> downloaded_file(const std::string& directory, const std::string& package) {
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename();
    if (name.starts_with(package + "_") && name.ends_with(".deb")) return entry->path().string();
  }
  return fail(ErrorCode::kNotFound, "apt-get download left no file of " + package + " in " + directory);
}

Result<std::string> download_with(std::string_view meta_package, const Arguments& lists, const std::string& directory,
                                  const ProgressReport& report) {
  const std::string package = TRY(resolve(meta_package, lists));
  TRY(run_apt_get(concat(lists, {"download", package}), directory, "fetching " + package, report));
  return downloaded_file(directory, package);
}

}  // namespace

std::string first_dependency(std::string_view package_record) {
  constexpr std::string_view kField = "\nDepends: ";
  const std::string text = "\n" + std::string(package_record);
  const size_t field = text.find(kField);
  if (field == std::string::npos) return "";
  const size_t start = field + kField.size();
  return text.substr(start, text.find_first_of(" ,|\n", start) - start);
}

double download_progress(std::string_view status_line) {
  // "dlstatus:<item>:<per cent>:<text>" (apt's README.progress-reporting)
  if (!status_line.starts_with("dlstatus:")) return -1;
  const size_t item = status_line.find(':') + 1;
  const size_t percent = status_line.find(':', item);
  if (percent == std::string_view::npos) return -1;
  double value = -1;
  const char* first = status_line.data() + percent + 1;
  const auto parsed = std::from_chars(first, status_line.data() + status_line.size(), value);
  return parsed.ec == std::errc() && value >= 0 && value <= 100 ? value / 100 : -1;
}

Result<std::string> download_debian_package(std::string_view meta_package, const std::string& directory,
                                            const std::string& lists_directory, const ProgressReport& report) {
  if (Result<std::string> file = download_with(meta_package, {}, directory, report)) return file;
  // No lists (a fresh container), or lists so old that the archive has moved on.
  const auto advice = [](Error error) {
    return std::unexpected(Error(error.code(), error.message() +
                                                   "; check the network and /etc/apt/sources.list, or give "
                                                   "a kernel of your own with --kernel"));
  };
  if (Result<void> updated = update_own_lists(directory, lists_directory, report); !updated)
    return advice(std::move(updated).error());
  Result<std::string> file = download_with(meta_package, list_options(lists_directory), directory, report);
  if (!file) return advice(std::move(file).error());
  return file;
}

Result<void> unpack_boot_directory(const std::string& package_file, const std::string& directory) {
  Pipe archive = TRY(Pipe::create());
  ChildProcess unpack = TRY(ChildProcess::spawn(
      {.arguments = {"dpkg-deb", "--fsys-tarfile", package_file}, .output_fd = archive.write_end.get()}));
  archive.write_end.reset();
  ChildProcess extract = TRY(
      ChildProcess::spawn({.arguments = {"tar", "-x", "-C", directory, "--no-same-owner", "--wildcards", "./boot/*"},
                           .input_fd = archive.read_end.get()}));
  archive.read_end.reset();
  const int extract_status = extract.wait();
  const int unpack_status = unpack.wait();
  if (unpack_status != 0 || extract_status != 0)
    return fail(ErrorCode::kCorrupt, fmt::format("unpacking {}: dpkg-deb ended with {}, tar with {}", package_file,
                                                 unpack_status, extract_status));
  return {};
}

}  // namespace tenon
