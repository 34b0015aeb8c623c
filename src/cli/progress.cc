#include "cli/progress.hh"

#include <fmt/format.h>

#include <cstdio>

namespace tenon {

std::string Progress::line(std::string_view step, double done) {
  if (done < 0) return fmt::format("tenon: {} ...", step);
  return fmt::format("tenon: {} {:3.0f}%", step, done * 100);
}

void Progress::report(std::string_view step, double done) {
  const bool new_step = step != step_;
  step_ = step;
  if (!is_terminal_) {
    if (new_step) fmt::print(stderr, "tenon: {}\n", step);
    return;
  }
  if (new_step) finish();
  std::string text = line(step, done);
  if (text == shown_) return;
  fmt::print(stderr, "\r{}\x1B[K", text);
  shown_ = std::move(text);
}

void Progress::finish() {
  if (!shown_.empty()) fmt::print(stderr, "\n");
  shown_.clear();
}

}  // namespace tenon
