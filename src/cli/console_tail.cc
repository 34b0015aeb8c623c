#include "cli/console_tail.hh"

#include <algorithm>

namespace tenon {

namespace {

constexpr std::string_view kPanic = "Kernel panic - not syncing";

/// Length of the escape sequence at the start of `text` (ECMA-48 5.4: CSI parameters end with a byte 0x40 to 0x7E).
size_t escape_length(std::string_view text) {
  if (text.size() < 2 || text[1] != '[') return std::min<size_t>(text.size(), 2);
  size_t length = 2;
  while (length < text.size() && (text[length] < 0x40 || text[length] > 0x7E)) ++length;
  return std::min(length + 1, text.size());
}

std::string printable(std::string_view line) {
  std::string clean;
  while (!line.empty()) {
    const size_t length = line[0] == '\x1B' ? escape_length(line) : 1;
    const unsigned char byte = static_cast<unsigned char>(line[0]);
    if (byte == '\t' || (byte >= 0x20 && byte != 0x7F)) clean += line[0];
    line.remove_prefix(length);
  }
  return clean;
}

}  // namespace

bool ConsoleTail::has_panic() const { return text_.find(kPanic) != std::string::npos; }

void ConsoleTail::append(std::span<const uint8_t> bytes) {
  text_.append(bytes.begin(), bytes.end());
  if (text_.size() > 2 * kCapacity) text_.erase(0, text_.size() - kCapacity);
}

std::vector<std::string> ConsoleTail::death_lines(size_t count) const {
  const size_t panic = text_.find(kPanic);
  if (panic == std::string::npos) return last_lines(count);
  const size_t line_start = text_.rfind('\n', panic) + 1;  // npos + 1 is the start of the text
  size_t end = line_start;
  for (size_t lines = 0; lines < count && end != std::string::npos; ++lines) end = text_.find('\n', end + 1);
  return last_lines_of(std::string_view(text_).substr(line_start, end - line_start), count);
}

std::vector<std::string> ConsoleTail::last_lines_of(std::string_view text, size_t count) {
  std::vector<std::string> lines;
  std::string_view rest = text;
  while (!rest.empty() && lines.size() < count) {
    const size_t newline = rest.rfind('\n');
    const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
    if (std::string line = printable(rest.substr(start)); !line.empty()) lines.push_back(std::move(line));
    rest = rest.substr(0, newline == std::string_view::npos ? 0 : newline);
  }
  std::ranges::reverse(lines);
  return lines;
}

}  // namespace tenon
