#include "host/child_process.hh"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <utility>

extern char** environ;

namespace tenon {

Result<Pipe> Pipe::create() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("pipe");
  return Pipe{Fd(ends[0]), Fd(ends[1])};
}

Result<ChildProcess> ChildProcess::spawn(const Options& options) {
  std::vector<char*> arguments;
  for (const std::string& argument : options.arguments) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  const auto place = [&actions](int fd, int target, int open_flags) {
    if (fd >= 0) {
      ::posix_spawn_file_actions_adddup2(&actions, fd, target);
    } else if (open_flags >= 0) {
      ::posix_spawn_file_actions_addopen(&actions, target, "/dev/null", open_flags, 0);
    }
  };
  place(options.input_fd, STDIN_FILENO, O_RDONLY);
  place(options.output_fd, STDOUT_FILENO, O_WRONLY);
  place(options.error_fd, STDERR_FILENO, -1);
  place(options.status_fd, 3, -1);

  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return std::unexpected(Error::from_errno("run " + options.arguments[0], error));
  return ChildProcess(pid);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}

ChildProcess::~ChildProcess() {
  if (pid_ > 0) wait();
}

int ChildProcess::wait() {
  CHECK(pid_ > 0);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

namespace {

/// Reads both pipes until both have ended, so that neither can fill up and block the program.
void read_both(const Fd& first, std::string& first_text, const Fd& second, std::string& second_text) {
  std::array<pollfd, 2> polled{{{first.get(), POLLIN, 0}, {second.get(), POLLIN, 0}}};
  std::array<std::string*, 2> texts{&first_text, &second_text};
  while (polled[0].fd >= 0 || polled[1].fd >= 0) {
    if (::poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) return;
    for (size_t i = 0; i < polled.size(); ++i) {
      if (polled[i].fd < 0 || polled[i].revents == 0) continue;
      char bytes[4096];
      const ssize_t count = ::read(polled[i].fd, bytes, sizeof bytes);
      if (count > 0) texts[i]->append(bytes, static_cast<size_t>(count));
      if (count == 0 || (count < 0 && errno != EINTR)) polled[i].fd = -1;
    }
  }
}

std::string_view last_line(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  const size_t newline = text.rfind('\n');
  return newline == std::string_view::npos ? text : text.substr(newline + 1);
}

}  // namespace

Result<std::string> output_of_program(const std::vector<std::string>& arguments) {
  Pipe output = TRY(Pipe::create());
  Pipe errors = TRY(Pipe::create());
  ChildProcess child = TRY(ChildProcess::spawn(
      {.arguments = arguments, .output_fd = output.write_end.get(), .error_fd = errors.write_end.get()}));
  output.write_end.reset();
  errors.write_end.reset();
  std::string text;
  std::string error_text;
  read_both(output.read_end, text, errors.read_end, error_text);
  if (const int status = child.wait(); status != 0)
    return fail(ErrorCode::kIo,
                fmt::format("{} ended with status {}: {}", arguments[0], status, last_line(error_text)));
  return text;
}

}  // namespace tenon
