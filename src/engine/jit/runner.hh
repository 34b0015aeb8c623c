// Runner: runs one vCPU's translated code: finds or makes it, enters it, and deals with why it was left.
//
// It is the Accelerator behind an interpreter's run loop, so it returns whenever something between two instructions is to
// be done. It answers for everything that remembers where code is: the indirect-branch cache, code_pages, the shadow
// return stack and links; all of it is dropped when translations of code are forgotten or code is removed.
//
// Threads: the vCPU's own, but for add_to().
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/result.hh"
#include "engine/interp/accelerator.hh"
#include "engine/interp/cpu.hh"
#include "engine/jit/code_cache.hh"
#include "engine/jit/mode.hh"
#include "engine/jit/runtime.hh"
#include "engine/jit/translator.hh"

namespace tenon::jit {

class FaultInjection;

struct RunnerOptions {
  TranslatorOptions translator;
  size_t cache_bytes = size_t{256} << 20;
};

class Runner final : public interp::Accelerator {
 public:
  static Result<std::unique_ptr<Runner>> create(interp::Cpu& cpu, const RunnerOptions& options);
  ~Runner() override;

  /// Before the vCPU's run(), on its thread: signals, GS base, shadow stack.
  Result<void> prepare_thread();

  bool run(interp::Cpu& cpu) override;
  void forget_code_translations(bool keep_global) override;
  void forget_code_translation(uint64_t linear) override;
  void code_context_changed(interp::Cpu& cpu) override;
  void code_changed(Gpa gpa, uint64_t size_bytes) override;
  void any_code_changed() override;

  /// For tests; before the vCPU runs.
  void start_fault_injection(uint64_t seed);

  void publish_counters() override;

  /// Any thread: adds the counters of translated code, as last published.
  void add_to(VcpuStats& stats) const;

 private:
  static constexpr size_t kOperations = static_cast<size_t>(x86::Op::kCount);
  static constexpr size_t kCounters = sizeof(TranslationStats) / sizeof(uint64_t);

  static constexpr unsigned kFetchLines = 256;
  static constexpr unsigned kSeenBits = 4096;
  static constexpr uint64_t kNoPage = ~uint64_t{0};

  /// Translation of one page of code for one privilege; holds while `stamp` is the current one of its kind.
  struct FetchLine {
    uint64_t page = ~uint64_t{0};
    uint64_t gpa_page = 0;
    uint64_t stamp = 0;
    bool global = false;
  };

  Runner(interp::Cpu& cpu, const RunnerOptions& options, std::unique_ptr<CodeCache> cache);
  void make_stubs();

  // --- What translated code remembers.
  void refresh_mode();
  void drop_remembered(bool keep_global);
  void drop_indirect(unsigned privilege, bool keep_global);
  void drop_after_removal();
  void drop_stack_pages();
  void remember_indirect(uint64_t rip, uint64_t host);
  void reset_return_stack() { reset_return_stack_ = true; }

  // --- Finding code.
  uint64_t look_up(uint64_t rip);
  const FetchLine* fetch(uint64_t rip);
  uint64_t look_up_plain(uint64_t rip);
  uint64_t translate(uint64_t rip, const FetchLine& line, Mode mode);
  bool watch(uint64_t gpa_page, uint64_t granules, const uint8_t* expected);
  bool copy_page(uint64_t gpa_page);
  void link_ready(Fragment& fragment);

  // --- runner_crossing.cc: instructions in two pages.
  const FetchLine* fetch_code_page(uint64_t rip);
  Fragment* translate_crossing(uint64_t rip, const FetchLine& first, Mode mode);
  uint64_t after_guard(uint64_t rip, uint64_t host, uint64_t second_gpa_page);
  void invalidate_crossing(uint64_t gpa_page);

  // --- Running it.
  void enter(uint64_t host);
  uint64_t resume_target(uint64_t host);
  uint64_t after_exit();
  uint64_t after_link(uint64_t argument);
  uint64_t after_indirect(uint64_t target);
  uint64_t after_interpret(InterpretSite& site);
  uint64_t after_fault(uint64_t address);
  bool must_leave() const;
  void count_interpreted(x86::Op operation);
  void inject_faults(uint64_t rip);

  interp::Cpu& cpu_;
  interp::TranslatedState& state_;
  RunnerOptions options_;
  std::unique_ptr<CodeCache> cache_;
  TranslatorStubs stubs_;
  std::unique_ptr<Translator> translator_;
  std::unique_ptr<HostThread> thread_;
  std::unique_ptr<FaultInjection> faults_;  // nullptr: none

  Mode mode_ = kModeInvalid;
  std::array<Mode, 2> last_mode_{kModeInvalid, kModeInvalid};  // by privilege: whose code `indirect` names
  bool reset_return_stack_ = true;
  uint64_t tlb_drops_ = ~uint64_t{0};  // SoftTlb::drops() that the stack pages belong to
  uint64_t generation_ = 0;  // of the cache, that everything remembered belongs to
  uint64_t local_stamp_ = 1;
  uint64_t global_stamp_ = 1;
  std::array<std::array<FetchLine, kFetchLines>, 2> fetch_{};
  std::bitset<kSeenBits> seen_;  // linear pages (hashed) that something remembered relies on
  /// Entries of `indirect` in use, by privilege and whether their page is global.
  std::vector<uint16_t> indirect_used_[2][2];
  std::vector<uint16_t> code_pages_used_[2][2];
  std::unordered_map<uint64_t, uint64_t> versions_;  // of CodeWatch, by physical page with fragments, when first seen
  /// By second page: the first pages of instructions that go on there.
  std::unordered_map<uint64_t, std::vector<uint64_t>> crossing_;
  /// The page translated last, as find_region wants it.
  std::array<uint8_t, kPageSize> page_copy_;
  uint64_t copied_page_ = kNoPage;

  TranslationStats stats_;  // without what the cache counts
  std::array<std::atomic<uint64_t>, kCounters> published_{};
  std::array<std::atomic<uint64_t>, kOperations> interpreted_{};  // with count_instructions; only this thread adds
};

}  // namespace tenon::jit
