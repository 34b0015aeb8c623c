// Runner: runs one vCPU's translated code: finds or makes it, enters it, and deals with why it was left.
//
// It is the Accelerator behind an interpreter's run loop, so it returns whenever something between two instructions is
// to be done. It answers for everything that remembers where code is: the indirect-branch cache, code_pages, the shadow
// return stack and links; all of it is dropped when translations of code are forgotten or code is removed.
//
// Threads: the vCPU's own, but for add_to().
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/result.hh"
#include "engine/interp/accelerator.hh"
#include "engine/interp/cpu.hh"
#include "engine/jit/code_cache.hh"
#include "engine/jit/mode.hh"
#include "engine/jit/remembered_code.hh"
#include "engine/jit/runtime.hh"
#include "engine/jit/translator.hh"

namespace tenon::jit {

class FaultInjection;
struct Lockstep;

struct RunnerOptions {
  TranslatorOptions translator;
  size_t cache_bytes = size_t{256} << 20;
};

class Runner final : public interp::Accelerator, private Elsewhere {
 public:
  static Result<std::unique_ptr<Runner>> create(interp::Cpu& cpu, const RunnerOptions& options);
  ~Runner() override;

  /// Before the vCPU's run(), on its thread: signals, GS base, shadow stack.
  Result<void> prepare_thread();

  bool run(interp::Cpu& cpu) override;
  void forget_code_translations(bool keep_global) override;
  void forget_code_translation(uint64_t linear, uint64_t size_bytes) override;
  void forget_code_translations_of(uint64_t context) override;
  void code_context_changed(interp::Cpu& cpu) override;
  void code_changed(Gpa gpa, uint64_t size_bytes) override;
  void any_code_changed() override;

  /// For tests; before the vCPU runs.
  void start_fault_injection(uint64_t seed);

  /// Before the vCPU runs; with TranslatorOptions::lockstep and strict_flags.
  void start_lockstep();
  /// Why the vCPU was stopped, or nullptr; the vCPU's thread.
  const std::string* failure() const;

  void publish_counters() override;

  /// Any thread: adds the counters of translated code, as last published.
  void add_to(VcpuStats& stats) const;

 private:
  static constexpr size_t kOperations = static_cast<size_t>(x86::Op::kCount);
  static constexpr size_t kCounters = sizeof(TranslationStats) / sizeof(uint64_t);

  static constexpr uint64_t kNoPage = ~uint64_t{0};

  Runner(interp::Cpu& cpu, const RunnerOptions& options, std::unique_ptr<CodeCache> cache);
  void make_stubs();

  // --- What translated code remembers.
  void refresh_mode();
  void enter_mode(Mode now);
  void follow_level();
  void lost(RememberedCode::Loss loss, RememberedCode::Sides local);
  void drop_after_removal();
  void drop_stack_pages();
  uint64_t remember_indirect(uint64_t rip, uint64_t host);
  void raise_at_branch();

  // --- Finding code.
  uint64_t look_up(uint64_t rip);
  uint64_t look_up_plain(uint64_t rip);
  uint64_t look_up_slowly(uint64_t rip, Mode mode);
  static Mode mode_of(const RememberedCode::Line& line, Mode mode) {
    return line.shift != 0 ? static_cast<Mode>(mode | kModeShifted) : mode;
  }
  uint64_t shift_of(const Fragment& fragment) const;
  uint64_t nominal_page(uint64_t rip, uint64_t gpa_page);
  const RememberedCode::Line* fetch(uint64_t rip);
  uint64_t translate(uint64_t rip, const RememberedCode::Line& line, Mode mode);
  bool watch(uint64_t gpa_page, uint64_t granules, const uint8_t* expected);
  void link_ready(Fragment& fragment);

  // --- runner_look_ahead.cc: flags behind exits to other pages.
  struct Look {
    uint64_t linear = ~uint64_t{0};
    uint64_t stamp = 0;
    uint64_t gpa_page = 0;
    uint64_t granules = 0;  // looked at; 0: nothing is known
    uint16_t live = 0;
  };
  /// Fragments made from `granules` of `gpa_page` rely on what is in `looked` of the page they are listed under.
  struct Dependent {
    uint64_t looked = 0;
    uint64_t gpa_page = 0;
    uint64_t granules = 0;
  };
  uint16_t live_at(int64_t offset) override;
  bool is_translated(unsigned offset) override;
  Look look_at(uint64_t linear);
  bool find_page(uint64_t linear, uint64_t& gpa_page);
  void begin_looking(uint64_t linear_page, const RememberedCode::Line& line, Mode mode);
  void note_looks(uint64_t gpa_page, uint64_t granules);
  void invalidate_dependents(uint64_t gpa_page, uint64_t granules);

  // --- runner_crossing.cc: instructions in two pages.
  Fragment* translate_crossing(uint64_t rip, const RememberedCode::Line& first, Mode mode);
  uint64_t after_guard(uint64_t rip, uint64_t host, uint64_t second_gpa_page);
  void invalidate_crossing(uint64_t gpa_page);

  // --- Running it.
  void enter(uint64_t host);
  uint64_t resume_target(uint64_t host);
  uint64_t go_on();
  bool deliver_here();
  uint64_t after_exit();
  uint64_t after_link(uint64_t argument);
  uint64_t after_indirect(uint64_t target);
  uint64_t after_interpret(InterpretSite& site);
  uint64_t after_fault(uint64_t address);
  bool must_leave() const;
  void count_interpreted(x86::Op operation);
  void inject_faults(uint64_t rip);

  // --- Lockstep (runner_lockstep.cc).
  /// The interpreter's run of a block.
  struct BlockRun {
    unsigned count = 0;     // of instructions that are done
    uint64_t last_rip = 0;  // of the last of them
    bool faulted = false;   // at the next one
  };
  bool run_in_lockstep();
  bool interpret_block(const Fragment& fragment, BlockRun& run);
  std::string run_block_twice(uint64_t host);
  bool run_translation(const Fragment& block, uint64_t host, const BlockRun& run);
  uint64_t resume_in(const Fragment& fragment);
  void report_difference(const std::string& difference);
  template <typename Visit>
  void visit_block(uint64_t rip, Visit&& visit);
  std::string describe_block(uint64_t start);
  bool rotates_by_immediate(uint64_t start);

  interp::Cpu& cpu_;
  interp::TranslatedState& state_;
  RunnerOptions options_;
  std::unique_ptr<CodeCache> cache_;
  TranslatorStubs stubs_;
  std::unique_ptr<Translator> translator_;
  std::unique_ptr<HostThread> thread_;
  std::unique_ptr<FaultInjection> faults_;  // nullptr: none
  std::unique_ptr<Lockstep> lockstep_;      // nullptr: translated code runs alone

  RememberedCode remembered_;
  Mode mode_ = kModeInvalid;
  bool mode_is_stale_ = true;
  bool ran_ = false;                                           // go_on() has executed something
  std::array<Mode, 2> last_mode_{kModeInvalid, kModeInvalid};  // by privilege: whose code is remembered
  /// Counts up with every change of the mode or of what is remembered: code that was running may not go on as it is.
  uint64_t changes_ = 0;
  uint64_t context_ = 0;  // SoftTlb's, when translations were last forgotten, and its PCID
  uint16_t pcid_ = 0;
  uint64_t tlb_drops_ = ~uint64_t{0};                // SoftTlb::drops() that the stack pages belong to
  uint64_t generation_ = 0;                          // of the cache, that everything remembered belongs to
  std::unordered_map<uint64_t, uint64_t> versions_;  // of CodeWatch, by physical page with fragments, when first seen
  std::array<Look, 1024> looks_{};
  uint64_t look_stamp_ = 1;
  uint64_t looking_from_ = 0;               // the page being translated
  RememberedCode::Line looking_from_line_;  // and where it is
  Mode looking_mode_ = kModeInvalid;
  std::vector<std::pair<uint64_t, uint64_t>> relied_on_;  // physical page and granules, for the region being made
  std::unordered_map<uint64_t, std::vector<Dependent>> dependents_;
  /// By second page: the first pages of instructions that go on there.
  std::unordered_map<uint64_t, std::vector<uint64_t>> crossing_;
  uint64_t likely_shift_ =
      0;  // of what is looked up, where control comes from shifted code by a direct branch; 0: unknown
  PairTable nominal_pages_;  // (physical page, 0): number of the page that its code is made for where it is shifted
  /// A page of guest memory; what was copied serves until watch() finds it changed.
  class GuestPage final : public PageCopy {
   public:
    /// False: there is no memory.
    bool open(const GuestMemory& memory, uint64_t gpa_page);
    void close() { gpa_page_ = kNoPage; }

   private:
    void copy(uint64_t granules, std::array<uint8_t, kPageSize>& to) override;

    const std::byte* host_ = nullptr;
    uint64_t gpa_page_ = kNoPage;
  };
  GuestPage page_copy_;    // translated last
  GuestPage looked_page_;  // looked at last

  TranslationStats stats_;  // without what the cache counts
  std::array<std::atomic<uint64_t>, kCounters> published_{};
  std::array<std::atomic<uint64_t>, kOperations> interpreted_{};  // with count_instructions; only this thread adds
};

}  // namespace tenon::jit
