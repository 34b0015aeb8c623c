// ChildProcess: a program of the host that does a job for us (apt-get, dpkg-deb), started without a shell.
//
// Not implemented: programs that outlive us or are watched while a VM runs.
#pragma once

#include <string>
#include <vector>

#include "base/fd.hh"
#include "base/result.hh"

namespace tenon {

class ChildProcess {
 public:
  struct Options {
    std::vector<std::string> arguments;  // [0] is looked up in PATH
    int input_fd = -1;                   // becomes stdin; -1: /dev/null
    int output_fd = -1;                  // becomes stdout; -1: /dev/null
    int error_fd = -1;                   // becomes stderr; -1: ours
    int status_fd = -1;                  // becomes descriptor 3 where not -1
  };

  static Result<ChildProcess> spawn(const Options& options);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;
  /// Waits for the process where wait() was not called.
  ~ChildProcess();

  /// 0 to 255, or 128 + n after signal n.
  int wait();

 private:
  ChildProcess(int pid) : pid_(pid) {}
  int pid_ = -1;
};

/// A pipe; both ends close on exec.
struct Pipe {
  Fd read_end;
  Fd write_end;
  static Result<Pipe> create();
};

/// What `arguments` prints on stdout. A non-zero status is an error that carries the program's last line on stderr.
Result<std::string> output_of_program(const std::vector<std::string>& arguments);

}  // namespace tenon
