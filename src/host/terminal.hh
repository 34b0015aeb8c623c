// The terminal that tenon was started from: raw mode that is undone on every way out, and the window size.
//
// Threads: the main thread. One RawMode at a time.
#pragma once

#include <termios.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.hh"

namespace tenon {

constexpr int kStdin = 0;
constexpr int kStdout = 1;
constexpr int kStderr = 2;

/// Opens /dev/null in place of those of the three that the parent has closed: the next file to be opened would become
/// stdin or stdout otherwise. First thing in main().
void open_missing_standard_descriptors();

bool is_terminal(int fd);

struct TerminalSize {
  uint16_t rows = 0;
  uint16_t columns = 0;
};
/// Zeros where `fd` is no terminal or does not know.
TerminalSize terminal_size(int fd);

/// Raw input and output from creation to destruction. exit(3), abort(3) and fatal signals undo it too; only SIGKILL
/// leaves a raw terminal behind.
class RawMode {
 public:
  static Result<std::unique_ptr<RawMode>> enter(int fd);
  ~RawMode();
  RawMode(const RawMode&) = delete;
  RawMode& operator=(const RawMode&) = delete;

  /// Gives the terminal back for a while (job control), then takes it again.
  void suspend();
  void resume();

 private:
  RawMode(int fd, const termios& before) : fd_(fd), before_(before) {}
  int fd_;
  termios before_;
};

/// Finds the character that leaves (Ctrl-]) in what a person types. It is never passed on.
class EscapeFilter {
 public:
  static constexpr char kEscape = 0x1D;  // Ctrl-], as virsh and telnet have it
  /// Position of the first escape in `bytes`, if any.
  static std::optional<size_t> find(const uint8_t* bytes, size_t size_bytes);
};

}  // namespace tenon
