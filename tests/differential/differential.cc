// The differential test: random single instructions on the real CPU and on an engine, compared bit by bit.
//
//   differential [--cases N] [--seed S] [--engine jit] [--engine-options LIST] [--op NAME] [--jobs N] [--mismatches N]
//                [--verbose] [--masks]
//
// Prints what was covered and every mismatch (up to a limit) with the instruction's bytes and both outcomes; exits 1
// where there was one. Jobs are processes with seeds of their own, because HostCpu owns process-wide state.
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "engine/interp/interp_engine.hh"
#include "engine/jit/jit_engine.hh"
#include "tests/differential/comparison.hh"
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
  std::string engine_options;
  std::string op;
  unsigned jobs = 1;
  unsigned mismatches_max = 20;
  bool verbose = false;
  bool masks = false;
};

constexpr size_t kFormsMax = 4096;

/// What the jobs found, in memory that they share.
struct Summary {
  std::atomic<uint64_t> cases = 0;
  std::atomic<uint64_t> faulted = 0;
  std::atomic<uint64_t> mismatches = 0;
  std::atomic<bool> covered[kFormsMax] = {};  // by form of the RowCatalog
};

/// Branches may land behind the instruction; with AC set the jump back would itself be misaligned (#AC).
HostCpu::Ending ending_of(const Case& test) {
  const bool is_branch = (test.insn.row->flags & x86::kBranch) != 0;
  const bool checks_alignment = (test.before.rflags & x86::kAc) != 0 || test.insn.row->op == Op::kPopf;
  return is_branch || checks_alignment ? HostCpu::Ending::kTrap : HostCpu::Ending::kJumpBack;
}

/// Instructions that can do nothing but fault at CPL 3 with IOPL 0.
bool only_faults(const x86::OpcodeRow& row) {
  if ((row.flags & x86::kCpl0) != 0) return true;
  switch (row.op) {
    case Op::kIn:
    case Op::kOut:
    case Op::kIns:
    case Op::kOuts:
    case Op::kCli:
    case Op::kSti:
    case Op::kUd0:
    case Op::kUd1:
    case Op::kUd2: return true;
    default: return false;
  }
}

/// Whether the host did what the instruction is for: it ran, or it is one that traps (a branch ends in INT3).
bool did_its_work(const Case& test, const Outcome& host) {
  return !host.faulted || host.vector == x86::kBreakpoint || only_faults(*test.insn.row);
}

class Job {
 public:
  Job(const Options& options, const RowCatalog& catalog, uint64_t seed, Summary& summary)
      : options_(options), seed_(seed), generator_(catalog, seed), endings_(~seed), summary_(summary) {}
  Result<void> run(uint64_t cases);

 private:
  Result<std::unique_ptr<Engine>> make_engine() const;
  Result<void> run_share(uint64_t first, uint64_t end);
  void run_case(uint64_t number);

  const Options& options_;
  const uint64_t seed_;
  Generator generator_;
  Random endings_;
  Summary& summary_;
  std::unique_ptr<HostCpu> host_;
  std::unique_ptr<GuestCpu> guest_;
  bool exact_flags_ = true;  // also at a fault where the next instruction overwrites them
  Case test_;
  unsigned mismatches_ = 0;
};

Result<std::unique_ptr<Engine>> Job::make_engine() const {
  if (options_.engine == "interp") return make_interp_engine();
  JitOptions options = TRY(parse_jit_options(options_.engine_options));
  options.strict_flags = exact_flags_;
  return make_jit_engine(options);
}

/// Half of the cases with exact flags, one guest after the other: a thread can have one vCPU of the JIT.
Result<void> Job::run(uint64_t cases) {
  exact_flags_ = true;
  TRY(run_share(0, cases / 2));
  exact_flags_ = options_.engine == "interp";
  return run_share(cases / 2, cases);
}

Result<void> Job::run_share(uint64_t first, uint64_t end) {
  guest_ = nullptr;
  auto engine = TRY(make_engine());
  guest_ = TRY(GuestCpu::create(std::move(engine)));
  // The engine's signal handlers and its signal stack, which goes with the guest, come first.
  const std::array<uint8_t, 1> nop = {0x90};
  MachineState state;
  state.rip = kCodePage;
  state.rflags = x86::kFlagsOne;
  static_cast<void>(guest_->run(nop, state.rip, GuestCpu::Ending::kTrap, state, state));
  if (host_ == nullptr) {
    host_ = TRY(HostCpu::create());
    for (int i = 0; i < 256; ++i) generator_.refresh(host_->window());
  }
  for (uint64_t number = first; number < end && mismatches_ < options_.mismatches_max;) {
    if (number % 16 == 0) generator_.refresh(host_->window());
    generator_.next(test_, host_->window());
    if (options_.op.empty() || options_.op == op_name(test_.insn.row->op)) run_case(number++);
  }
  return {};
}

void Job::run_case(uint64_t number) {
  GuestCpu& guest = *guest_;
  const bool is_branch = (test_.insn.row->flags & x86::kBranch) != 0;
  const auto ending = is_branch || endings_.one_in(2) ? GuestCpu::Ending::kTrap : GuestCpu::Ending::kCompare;
  std::memcpy(guest.window().data(), host_->window().data(), host_->window().size());
  MachineState host_after;
  MachineState guest_after;
  const Outcome host_outcome = host_->run(test_.code(), test_.address, ending_of(test_), test_.before, host_after);
  const Outcome guest_outcome = guest.run(test_.code(), test_.address, ending, test_.before, guest_after);
  ++summary_.cases;
  if (host_outcome.faulted) ++summary_.faulted;
  if (did_its_work(test_, host_outcome)) summary_.covered[test_.form].store(true, std::memory_order_relaxed);
  // A fault of the instruction, and not of what stands behind it or at a branch's target.
  const bool faulted = guest_outcome.faulted && guest_outcome.vector != x86::kBreakpoint;
  const bool overwritten = faulted ? !exact_flags_ : ending == GuestCpu::Ending::kCompare;
  const Leniency leniency{.arithmetic_flags = overwritten, .x87_pointers = options_.engine == "jit"};
  std::string text = guest.failure().empty()
                         ? compare(test_, host_outcome, host_after, guest_outcome, guest_after, leniency)
                         : "  engine: " + guest.failure() + "\n";
  text += compare_windows(host_->window(), guest.window());
  if (text.empty()) return;
  ++mismatches_;
  ++summary_.mismatches;
  // One write, so that the jobs' texts do not mix.
  const std::string all = fmt::format("MISMATCH {} (seed {}, case {}{}{})\n{}", describe(test_), seed_, number,
                                      exact_flags_ ? ", exact flags" : "", overwritten ? ", flags dead" : "", text);
  std::fwrite(all.data(), 1, all.size(), stdout);
  std::fflush(stdout);
}

[[noreturn]] void job_main(const Options& options, const RowCatalog& catalog, unsigned number, Summary& summary) {
  Job job(options, catalog, options.seed * 1000003 + number, summary);
  const Result<void> result = job.run(options.cases / options.jobs);
  if (!result) fmt::print(stderr, "differential: {}\n", result.error().message());
  ::_exit(result ? 0 : 2);
}

void print_summary(const Options& options, const RowCatalog& catalog, const Summary& summary) {
  size_t covered = 0;
  for (size_t i = 0; i < catalog.size(); ++i) {
    covered += summary.covered[i] ? 1 : 0;
    if (options.verbose && !summary.covered[i]) fmt::print("not covered: {}\n", catalog.form(i).name());
  }
  const uint64_t cases = summary.cases;
  fmt::print(
      "{} cases against the host CPU on {}: {} of {} forms of {} rows covered ({:.1f}%; 64-bit mode has {} rows), "
      "{:.1f}% of the cases faulted, {} mismatches\n",
      cases, options.engine, covered, catalog.size(), catalog.rows(),
      100.0 * static_cast<double>(covered) / static_cast<double>(catalog.size()), catalog.rows_of_64_bit_mode(),
      100.0 * static_cast<double>(summary.faulted) / static_cast<double>(std::max<uint64_t>(cases, 1)),
      summary.mismatches.load());
}

int run(const Options& options) {
  const RowCatalog catalog;
  CHECK(catalog.size() <= kFormsMax);
  void* shared = ::mmap(nullptr, sizeof(Summary), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 2;
  auto* summary = new (shared) Summary;
  std::vector<pid_t> jobs;
  for (unsigned i = 0; i < options.jobs; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0) job_main(options, catalog, i, *summary);
    jobs.push_back(pid);
  }
  bool ok = true;
  for (const pid_t pid : jobs) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    fmt::print("a job ended with status {:#x}\n", status);
    ok = false;
  }
  print_summary(options, catalog, *summary);
  return ok && summary->mismatches == 0 && summary->cases > 0 ? 0 : 1;
}

}  // namespace
}  // namespace tenon::differential

int main(int argc, char** argv) {
  tenon::differential::Options options;
  CLI::App app{"Random single instructions: the real CPU against an engine"};
  app.add_option("--cases", options.cases, "how many cases in all");
  app.add_option("--seed", options.seed, "of the random generator");
  app.add_option("--engine", options.engine, "engine under test")->check(CLI::IsMember({"interp", "jit"}));
  app.add_option("--engine-options", options.engine_options, "for the jit engine: cache=MIB,fault-injection=SEED");
  app.add_option("--op", options.op, "only this operation, by its name in op.hh");
  app.add_option("--jobs", options.jobs, "processes side by side")->check(CLI::Range(1, 64));
  app.add_option("--mismatches", options.mismatches_max, "stop a job after so many");
  app.add_flag("--verbose", options.verbose, "list the operation forms that were not covered");
  app.add_flag("--masks", options.masks, "list the results and instructions that are not compared, and end");
  CLI11_PARSE(app, argc, argv);
  if (options.masks) {
    fmt::print("Results not compared:\n{}\nInstructions not compared:\n{}", tenon::differential::describe_masks(),
               tenon::differential::RowCatalog().describe_exclusions());
    return 0;
  }
  return tenon::differential::run(options);
}
