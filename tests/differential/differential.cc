// The differential test: random single instructions on the real CPU and on an engine, compared bit by bit.
//
//   differential [--cases N] [--seed S] [--engine interp] [--op NAME] [--jobs N] [--verbose]
//
// Prints what was covered and every mismatch (up to a limit) with the instruction's bytes and both outcomes; exits 1 where
// there was one. Jobs are processes with seeds of their own, because HostCpu owns process-wide state.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <bit>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "engine/interp/interp_engine.hh"
#include "tests/differential/generator.hh"
#include "tests/differential/guest_cpu.hh"
#include "tests/differential/host_cpu.hh"

namespace tenon::differential {
namespace {

using x86::Op;

struct Options {
  uint64_t cases = 1'000'000;
  uint64_t seed = 1;
  std::string engine = "interp";
  std::string op;
  unsigned jobs = 1;
  unsigned mismatches_max = 20;
};

/// What one job found; goes to the parent through a pipe as plain text.
struct Summary {
  uint64_t cases = 0;
  uint64_t faulted = 0;
  uint64_t mismatches = 0;
  std::set<std::string> forms;  // "Add/mem", "Vpaddd/reg": op and kind of operand that ran at least once
};

constexpr uint64_t kComparedFlags = x86::kArithmeticFlags | x86::kDf | x86::kNt | x86::kAc | x86::kId;

/// Bits that the SDM leaves undefined after the instruction and that the row names (Vol. 2, "Flags Affected").
uint64_t compared_flags(const Case& test) { return kComparedFlags & ~uint64_t{test.insn.row->rflags_undefined}; }

void add_difference(std::string& text, const char* name, uint64_t host, uint64_t guest) {
  if (host != guest) text += fmt::format("  {}: host {:#x}, guest {:#x}\n", name, host, guest);
}

constexpr const char* kRegisterNames[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};

/// Byte ranges of the XSAVE area that are compared. x87 FOP, FIP and FDP (bytes 6-23) are left out: they name the last x87
/// instruction's address, which differs by construction (SDM Vol. 1 8.1.8); MXCSR_MASK (28-31) is the processor's.
struct AreaRange {
  const char* name;
  size_t from, to;
};
constexpr AreaRange kAreaRanges[] = {{"FCW", 0, 2}, {"FSW", 2, 4}, {"FTW", 4, 5}, {"MXCSR", 24, 28}, {"XMM", 160, 416}, {"YMM high", 576, 832}};

void compare_vectors(std::string& text, const MachineState& host, const MachineState& guest) {
  for (const AreaRange& range : kAreaRanges) {
    for (size_t i = range.from; i < range.to; ++i)
      if (host.xsave[i] != guest.xsave[i]) {
        const size_t unit = range.to - range.from > 16 ? (i - range.from) / 16 : 0;
        text += fmt::format("  {} {} (byte {}): host {:#04x}, guest {:#04x}\n", range.name, unit, i,
                            static_cast<unsigned>(host.xsave[i]), static_cast<unsigned>(guest.xsave[i]));
        break;
      }
  }
  for (size_t i = 0; i < 8; ++i)  // ST(i): ten bytes of each sixteen
    if (std::memcmp(&host.xsave[32 + i * 16], &guest.xsave[32 + i * 16], 10) != 0) {
      text += fmt::format("  ST({}): host ", i);
      for (size_t b = 10; b-- > 0;) text += fmt::format("{:02x}", static_cast<unsigned>(host.xsave[32 + i * 16 + b]));
      text += ", guest ";
      for (size_t b = 10; b-- > 0;) text += fmt::format("{:02x}", static_cast<unsigned>(guest.xsave[32 + i * 16 + b]));
      text += "\n";
    }
}

/// Linux hides from user mode whether a kernel address is present: it reports the protection bit there (arch/x86/mm/fault.c).
Outcome as_linux_reports(Outcome outcome) {
  if (outcome.vector == x86::kPageFault && outcome.fault_address >= 0x7ffffffff000) outcome.error_code |= 1;
  return outcome;
}

std::string compare(const Case& test, const Outcome& host_outcome, const MachineState& host, const Outcome& guest_outcome,
                    const MachineState& guest) {
  std::string text;
  if (as_linux_reports(host_outcome) != as_linux_reports(guest_outcome))
    text += fmt::format("  outcome: host {} vector {} error {:#x} address {:#x}, guest {} vector {} error {:#x} address {:#x}\n",
                        host_outcome.faulted, host_outcome.vector, host_outcome.error_code, host_outcome.fault_address,
                        guest_outcome.faulted, guest_outcome.vector, guest_outcome.error_code, guest_outcome.fault_address);
  for (unsigned i = 0; i < 16; ++i) add_difference(text, kRegisterNames[i], host.gpr[i], guest.gpr[i]);
  add_difference(text, "RIP", host.rip, guest.rip);
  const uint64_t mask = compared_flags(test);
  add_difference(text, "RFLAGS", host.rflags & mask, guest.rflags & mask);
  add_difference(text, "FS base", host.fs_base, guest.fs_base);
  add_difference(text, "GS base", host.gs_base, guest.gs_base);
  compare_vectors(text, host, guest);
  return text;
}

std::string describe(const Case& test) {
  std::string text = fmt::format("{} [", op_name(test.insn.row->op));
  for (const uint8_t byte : test.code()) text += fmt::format("{:02x} ", byte);
  text.back() = ']';
  if (test.insn.base < 16) text += fmt::format(" base {:#x}", test.before.gpr[test.insn.base]);
  return text + fmt::format(" rsp {:#x} rbp {:#x} rcx {:#x} at {:#x} flags {:#x} mxcsr {:#x}", test.before.gpr[x86::kRsp],
                            test.before.gpr[x86::kRbp], test.before.gpr[x86::kRcx], test.address, test.before.rflags,
                            *reinterpret_cast<const uint32_t*>(&test.before.xsave[24]));
}

/// Branches may land behind the instruction; with AC set the jump back would itself be misaligned (#AC).
HostCpu::Ending ending_of(const Case& test) {
  const bool is_branch = (test.insn.row->flags & x86::kBranch) != 0;
  const bool checks_alignment = (test.before.rflags & x86::kAc) != 0 || test.insn.row->op == Op::kPopf;
  return is_branch || checks_alignment ? HostCpu::Ending::kTrap : HostCpu::Ending::kJumpBack;
}

void compare_windows(std::string& text, std::span<std::byte> host, std::span<std::byte> guest) {
  if (std::memcmp(host.data(), guest.data(), host.size()) == 0) return;
  unsigned shown = 0;
  for (size_t i = 0; i < host.size() && shown < 8; i += 8) {
    uint64_t host_word = 0;
    uint64_t guest_word = 0;
    std::memcpy(&host_word, &host[i], 8);
    std::memcpy(&guest_word, &guest[i], 8);
    if (host_word == guest_word) continue;
    text += fmt::format("  memory at {:#x}: host {:#018x}, guest {:#018x}\n", kWindow + i, host_word, guest_word);
    ++shown;
  }
  std::memcpy(guest.data(), host.data(), host.size());
}

Result<Summary> run_job(const Options& options, uint64_t seed, uint64_t cases) {
  const std::unique_ptr<HostCpu> host = TRY(HostCpu::create());
  const std::unique_ptr<GuestCpu> guest = TRY(GuestCpu::create(make_interp_engine()));
  Generator generator(seed);
  for (int i = 0; i < 256; ++i) generator.refresh(host->window());
  std::memcpy(guest->window().data(), host->window().data(), host->window().size());

  Summary summary;
  Case test;
  while (summary.cases < cases && summary.mismatches < options.mismatches_max) {
    if (summary.cases % 64 == 0) generator.refresh(host->window());
    generator.next(test, host->window());
    if (!options.op.empty() && options.op != op_name(test.insn.row->op)) continue;
    std::memcpy(guest->window().data(), host->window().data(), host->window().size());
    MachineState host_after;
    MachineState guest_after;
    const Outcome guest_outcome = guest->run(test.code(), test.address, test.before, guest_after);
    const Outcome host_outcome = host->run(test.code(), test.address, ending_of(test), test.before, host_after);
    ++summary.cases;
    summary.faulted += host_outcome.faulted;
    if (!host_outcome.faulted)
      summary.forms.insert(fmt::format("{}/{}", op_name(test.insn.row->op), test.insn.is_memory ? "mem" : "reg"));
    std::string text = guest->failure().empty() ? compare(test, host_outcome, host_after, guest_outcome, guest_after)
                                                : "  engine: " + guest->failure() + "\n";
    compare_windows(text, host->window(), guest->window());
    if (text.empty()) continue;
    ++summary.mismatches;
    fmt::print("MISMATCH {} (seed {}, case {})\n{}", describe(test), seed, summary.cases, text);
    std::fflush(stdout);
  }
  return summary;
}

int job_main(const Options& options, uint64_t seed, uint64_t cases, int pipe_fd) {
  const Result<Summary> summary = run_job(options, seed, cases);
  if (!summary) {
    fmt::print(stderr, "differential: {}\n", summary.error().message());
    return 2;
  }
  std::string text = fmt::format("{} {} {}\n", summary->cases, summary->faulted, summary->mismatches);
  for (const std::string& form : summary->forms) text += form + "\n";
  return ::write(pipe_fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 2;
}

std::string read_all(int fd) {
  std::string text;
  char buffer[4096];
  for (ssize_t count; (count = ::read(fd, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(count));
  return text;
}

int run(const Options& options) {
  struct Job {
    pid_t pid;
    Fd out;
  };
  std::vector<Job> jobs;
  for (unsigned i = 0; i < options.jobs; ++i) {
    int fds[2];
    if (::pipe(fds) < 0) return 2;
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::close(fds[0]);
      ::_exit(job_main(options, options.seed * 1000003 + i, options.cases / options.jobs, fds[1]));
    }
    ::close(fds[1]);
    jobs.push_back({pid, Fd(fds[0])});
  }
  Summary total;
  bool ok = true;
  for (Job& job : jobs) {
    std::string text = read_all(job.out.get());
    int status = 0;
    ::waitpid(job.pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      fmt::print("a job ended with status {:#x}\n", status);
      ok = false;
    }
    const size_t line = text.find('\n');
    if (line == std::string::npos) continue;
    unsigned long long cases = 0, faulted = 0, mismatches = 0;
    if (std::sscanf(text.c_str(), "%llu %llu %llu", &cases, &faulted, &mismatches) != 3) continue;
    total.cases += cases;
    total.faulted += faulted;
    total.mismatches += mismatches;
    for (size_t at = line + 1; at < text.size();) {
      const size_t end = text.find('\n', at);
      total.forms.insert(text.substr(at, end - at));
      at = end + 1;
    }
  }
  fmt::print("{} cases against the host CPU on {}: {} operation forms ran, {:.1f}% of the cases faulted on both, {} mismatches\n",
             total.cases, options.engine, total.forms.size(),
             100.0 * static_cast<double>(total.faulted) / static_cast<double>(std::max<uint64_t>(total.cases, 1)),
             total.mismatches);
  return ok && total.mismatches == 0 && total.cases > 0 ? 0 : 1;
}

}  // namespace
}  // namespace tenon::differential

int main(int argc, char** argv) {
  tenon::differential::Options options;
  CLI::App app{"Random single instructions: the real CPU against an engine"};
  app.add_option("--cases", options.cases, "how many cases in all");
  app.add_option("--seed", options.seed, "of the random generator");
  app.add_option("--engine", options.engine, "engine under test")->check(CLI::IsMember({"interp"}));
  app.add_option("--op", options.op, "only this operation, by its name in op.hh");
  app.add_option("--jobs", options.jobs, "processes side by side")->check(CLI::Range(1, 64));
  app.add_option("--mismatches", options.mismatches_max, "stop a job after so many");
  CLI11_PARSE(app, argc, argv);
  return tenon::differential::run(options);
}
