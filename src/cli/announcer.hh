// Announcer: what tenon itself says during a run, on stderr: as lines for a person, as JSON, or not at all.
//
// JSON lines ("--json"): {"event": "start" | "ready" | "exit" | "error" | "stats", ...}; the fields are in
// announcer.cc, one function an event. Threads: the main thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tenon {

struct StartFacts {
  std::string name;
  std::string engine;
  std::string engine_reason;  // why that one; may be empty
  std::string kernel;
  uint64_t memory_bytes = 0;
  uint32_t cpus = 0;
};

class Announcer {
 public:
  enum class Style : uint8_t { kSilent, kText, kJson };

  explicit Announcer(Style style) : style_(style) {}

  void started(const StartFacts& facts) const;
  /// The shell or the command runs.
  void ready(std::string_view what, double seconds) const;
  void exited(int status, double seconds) const;
  /// For a person at the keyboard: nothing with JSON.
  void hint(std::string_view text) const;
  /// Likewise, below what the guest has left on the line.
  void hint_on_new_line(std::string_view text) const;
  /// Also in kSilent: whoever asked must learn why there is no result. `console` are the guest's last lines.
  void error(std::string_view message, const std::vector<std::string>& console = {}) const;
  /// One line of `--stats`: counters of `subject` by name.
  using Value = std::variant<uint64_t, double>;
  struct Counter {
    std::string_view name;
    Value value;
  };
  void stats(std::string_view subject, const std::vector<Counter>& counters) const;

  /// While the terminal is raw, a line feed does not return the carriage.
  void set_raw_terminal(bool raw) { line_end_ = raw ? "\r\n" : "\n"; }

 private:
  void print(std::string_view text) const;

  const Style style_;
  std::string_view line_end_ = "\n";
};

}  // namespace tenon
