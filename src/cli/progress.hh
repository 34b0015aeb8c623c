// Progress on stderr: one line that is rewritten on a terminal, one line per step anywhere else.
#pragma once

#include <string>
#include <string_view>

namespace tenon {

class Progress {
 public:
  explicit Progress(bool is_terminal) : is_terminal_(is_terminal) {}
  /// Ends the line in progress, if there is one.
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Fits ProgressReport: `done` is 0 to 1, or negative where that is not known.
  void report(std::string_view step, double done);
  void finish();

  /// "fetching linux-image-6.1.0  42%" and the like; for tests.
  static std::string line(std::string_view step, double done);

 private:
  const bool is_terminal_;
  std::string step_;
  std::string shown_;
};

}  // namespace tenon
