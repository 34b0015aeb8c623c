// ConsoleTail: the last of what the guest wrote on its console, to show when it died.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

class ConsoleTail {
 public:
  static constexpr size_t kCapacity = 16 * 1024;

  void append(std::span<const uint8_t> bytes);
  /// The last `count` lines that are not empty, without control characters and terminal sequences: they come from the
  /// guest and go to the user's terminal.
  std::vector<std::string> last_lines(size_t count) const { return last_lines_of(text_, count); }
  /// What tells best how the guest died: the lines from where Linux says that it panics, else the last ones.
  std::vector<std::string> death_lines(size_t count) const;
  /// Whether Linux has said that it panics, and so will restart or has done so.
  bool has_panic() const;
  /// Whether it died before it could: then it halts for good with interrupts off (arch/x86/mm/extable.c,
  /// early_fixup_exception).
  bool has_early_exception() const { return text_.find("PANIC: early exception") != std::string::npos; }

 private:
  static std::vector<std::string> last_lines_of(std::string_view text, size_t count);
  std::string text_;
};

}  // namespace tenon
