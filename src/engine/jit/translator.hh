// Translator: from a guest page and an address to a Fragment of host code.
//
// Flow: region.hh finds what to translate and which flags live; emitter.hh writes host code, one template for each
// EmitKind; code_cache.hh takes the result. Guest instructions without a template become calls of the interpreter's
// handlers (InterpretSite).
//
// Source: SDM Vol. 2 for instructions; conventions of the code: runtime.hh.
#pragma once

#include <memory>
#include <span>

#include "engine/interp/cpu.hh"
#include "engine/jit/code_cache.hh"
#include "engine/jit/region.hh"
#include "engine/jit/remembered_code.hh"
#include "engine/jit/runtime.hh"

namespace tenon::jit {

struct TranslatorOptions {
  bool strict_flags = false;        // arithmetic flags are exact at every fault, also where no guest could tell
  bool count_instructions = false;  // TranslatedState::translated_instructions
  bool lockstep = false;            // a fragment is one block, and what cannot be repeated is interpreted (lockstep.hh)
  unsigned insns_max = kRegionInsnsMax;
};

/// Stubs that depend on how branches are translated, beside runtime.hh's.
struct TranslatorStubs {
  Stubs runtime;
  /// Jumped to with R10 = guest RIP after a miss of the shadow return stack: empty it, look into the indirect-branch
  /// cache. By privilege. return_miss: TranslatedState::return_miss; return_mismatch: the guest's RCX is on it. R11
  /// names the RET.
  uint64_t return_miss[2] = {};
  uint64_t return_mismatch[2] = {};
  /// Jumped to with R10 = guest RIP where the indirect-branch cache has another one: goes on where RememberedCode knows
  /// of it, else leaves with ExitCode::kIndirect. By privilege. Flags stay.
  uint64_t look_further[2] = {};
  /// enter() target that first makes the registers live that were so at the last exit, then goes to
  /// scratch[kScratchResume].
  uint64_t resume_vector = 0;
  uint64_t resume_x87 = 0;
  uint64_t resume_both = 0;
  /// Called with R10 = InterpretSite*: REP MOVS (0) and REP STOS (1) by soft-TLB mode and log2 of the element's size.
  /// Returns when RCX is 0, or leaves to the interpreter with what is left to do. Flags stay.
  uint64_t repeat[interp::kTlbNever][2][4] = {};
  uint64_t syscall = 0;  // jumped to with RCX = the return address
  uint64_t sysret = 0;   // jumped to; flags are free
};

TranslatorStubs make_translator_stubs(Assembler& assembler, const Stubs& runtime, interp::Cpu& cpu,
                                      const RememberedCode& remembered);
/// Its part in emit_string.cc.
void make_repeat_stubs(Assembler& assembler, interp::Cpu& cpu, TranslatorStubs& stubs);
/// Its part in emit_privilege.cc; needs return_miss.
void make_level_stubs(Assembler& assembler, interp::Cpu& cpu, TranslatorStubs& stubs);

class Emitter;

class Translator {
 public:
  Translator(interp::Cpu& cpu, CodeCache& cache, const TranslatorStubs& stubs, const TranslatorOptions& options);
  ~Translator();

  /// What will be translated at page[offset]: to be watched before its bytes are relied on.
  void find(PageCopy& page, unsigned offset, Elsewhere& elsewhere);
  /// The same for the one instruction that starts with all of `tail`, at `offset` of its page, and goes on with `head`
  /// in the next one. False: there is none.
  bool find_crossing(std::span<const uint8_t> tail, std::span<const uint8_t> head, unsigned offset);
  const Region& region() const { return region_; }
  /// From the next find() on.
  void set_insns_max(unsigned insns_max) { options_.insns_max = insns_max; }

  /// Emits the found region. nullptr: nothing there can be translated (its first instruction crosses the page or is
  /// none): the interpreter's.
  Fragment* translate(uint64_t linear_page, uint64_t gpa_page, bool global, Mode mode, uint64_t second_gpa_page);

  /// Makes the way to `rip` in `target` for indirect branches: code that TranslatedState::indirect can name, which goes
  /// on only when R10 is `rip` and nothing is pending. A fragment of its own, with kModeIndirect, to be linked.
  Fragment* make_indirect_entry(uint64_t rip, const Fragment& target);

 private:
  const TranslatorStubs& stubs_;
  CodeCache& cache_;
  const uint64_t state_;  // address of the Cpu
  TranslatorOptions options_;
  Region region_;
  std::unique_ptr<Emitter> emitter_;
};

}  // namespace tenon::jit
