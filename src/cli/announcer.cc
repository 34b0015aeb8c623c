#include "cli/announcer.hh"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

namespace tenon {

namespace {

std::string memory_text(uint64_t size_bytes) {
  constexpr uint64_t kMiB = uint64_t{1} << 20;
  if (size_bytes % (kMiB << 10) == 0) return fmt::format("{} GiB", size_bytes / (kMiB << 10));
  return fmt::format("{} MiB", size_bytes / kMiB);
}

double rounded(double number) { return static_cast<double>(static_cast<int64_t>(number * 1000 + 0.5)) / 1000; }

/// Guest text may be no UTF-8; JSON must be.
std::string dump(const nlohmann::json& event) {
  return event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void Announcer::print(std::string_view text) const {
  fmt::print(stderr, "{}{}", text, line_end_);
  std::fflush(stderr);
}

void Announcer::started(const StartFacts& facts) const {
  if (style_ == Style::kJson)
    print(dump({{"event", "start"},
                {"name", facts.name},
                {"engine", facts.engine},
                {"engine_reason", facts.engine_reason},
                {"kernel", facts.kernel},
                {"memory_bytes", facts.memory_bytes},
                {"cpus", facts.cpus}}));
  if (style_ != Style::kText) return;
  print(fmt::format("tenon: {}, {}, {}, engine {}{}{}{}", facts.kernel, memory_text(facts.memory_bytes),
                    facts.cpus == 1 ? "1 vCPU" : fmt::format("{} vCPUs", facts.cpus), facts.engine,
                    facts.engine_reason.empty() ? "" : " (", facts.engine_reason,
                    facts.engine_reason.empty() ? "" : ")"));
}

void Announcer::ready(std::string_view what, double seconds) const {
  if (style_ == Style::kJson) print(dump({{"event", "ready"}, {"what", what}, {"seconds", rounded(seconds)}}));
  if (style_ == Style::kText) print(fmt::format("tenon: {} in {:.1f} s", what, seconds));
}

void Announcer::exited(int status, double seconds) const {
  if (style_ == Style::kJson) print(dump({{"event", "exit"}, {"status", status}, {"seconds", rounded(seconds)}}));
}

void Announcer::hint(std::string_view text) const {
  if (style_ == Style::kText) print(fmt::format("tenon: {}", text));
}

void Announcer::hint_on_new_line(std::string_view text) const {
  if (style_ == Style::kText) print(fmt::format("{}tenon: {}", line_end_, text));
}

void Announcer::error(std::string_view message, const std::vector<std::string>& console) const {
  if (style_ == Style::kJson) return print(dump({{"event", "error"}, {"message", message}, {"console", console}}));
  print(fmt::format("tenon: {}", message));
  if (console.empty()) return;
  print("tenon: the guest's last console lines:");
  for (const std::string& line : console) print("  | " + line);
}

void Announcer::stats(std::string_view subject, const std::vector<Counter>& counters) const {
  nlohmann::json event = {{"event", "stats"}, {"subject", subject}};
  std::string text = fmt::format("tenon: {}:", subject);
  for (const Counter& counter : counters) {
    if (const double* number = std::get_if<double>(&counter.value)) {
      event[std::string(counter.name)] = rounded(*number);
      text += fmt::format(" {} {:.2f}", counter.name, *number);
    } else {
      event[std::string(counter.name)] = std::get<uint64_t>(counter.value);
      text += fmt::format(" {} {}", counter.name, std::get<uint64_t>(counter.value));
    }
  }
  print(style_ == Style::kJson ? dump(event) : text);
}

}  // namespace tenon
