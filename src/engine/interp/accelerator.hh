// Accelerator: what the run loop of an interpreted vCPU may let run in its place, and the part of Cpu that translated
// code works on. The JIT engine is an InterpVcpu with an Accelerator: events, interrupts, single-stepping and every
// rare instruction stay where they are, and translated code is entered between two instructions and left between two.
//
// Threads: all calls are made on the vCPU's thread, except where TranslatedState says so.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "vm/address.hh"

namespace tenon::interp {

class Cpu;

class Accelerator {
 public:
  virtual ~Accelerator() = default;

  /// Called by the run loop with nothing pending and cpu.rip at the next instruction. Runs translated code until
  /// something needs the run loop (Cpu::attention, TranslatedState::poke). False: nothing was run, because this mode or
  /// this code is not translated: the loop interprets a trace.
  virtual bool run(Cpu& cpu) = 0;

  /// Behind the Cpu members of the same names (cpu.hh): linear addresses of code mean something else now.
  virtual void forget_code_translations(bool keep_global) = 0;
  virtual void forget_code_translation(uint64_t linear, uint64_t size_bytes) = 0;
  virtual void forget_code_translations_of(uint64_t context) = 0;
  /// CPL, CS, paging, EFLAGS.AC or what gates vector instructions (CR0, CR4, XCR0) changed.
  virtual void code_context_changed(Cpu& cpu) = 0;
  /// Bytes under a set CodeWatch granule were written, or the page's granules were given up (size = whole page): by
  /// this vCPU just now, or by somebody else some time before the last poke.
  virtual void code_changed(Gpa gpa, uint64_t size_bytes) = 0;
  /// More was changed elsewhere than could be listed: compare the versions of all pages.
  virtual void any_code_changed() = 0;

  /// Now and then: what other threads may read of its counters should be brought up to date.
  virtual void publish_counters() {}
};

/// The fields of Cpu that translated code and its entry and exit stubs use beside gpr, flags and the soft TLB. GS base
/// is the address of Cpu while translated code runs.
struct alignas(64) TranslatedState {
  static constexpr unsigned kIndirectEntries = 4096;
  static constexpr unsigned kCodePages = 4096;

  /// Not 0: leave translated code at the next poll and call the run loop. Set by any thread (VcpuSignal::raise) and by
  /// signal handlers; cleared by the run loop before it looks at what is pending.
  std::atomic<uint32_t> poke{0};
  uint8_t vector_live = 0;      // XMM/YMM and MXCSR of the guest are in the host's registers, not in VectorState
  uint8_t x87_live = 0;         // x87/MMX registers and control words likewise
  uint8_t vector_was_live = 0;  // the same at the last exit (other than for a refill), copied by the exit stubs
  uint8_t x87_was_live = 0;
  uint64_t exit_code = 0;                // jit/runtime.hh's ExitCode, set by exit stubs
  uint64_t exit_argument = 0;            // depends on it
  uint64_t engine_stack = 0;             // RSP of the C++ code that entered
  uint64_t return_stack = 0;             // RSP to go on with: the shadow return stack
  uint64_t return_stack_top = 0;         // empty
  uint64_t return_miss = 0;              // where a return goes that finds it empty, with R10 = guest RIP
  uint64_t return_stack_tops[2] = {};    // by privilege (0: CPL 0-2, 1: CPL 3)
  uint64_t other_return_stack = 0;       // RSP of the one that is not in use
  uint32_t return_stack_side = 0;        // which is in use
  uint32_t level_switch_blocked = 1;     // not 0: SYSCALL and SYSRET are the interpreter's
  uint64_t scratch[8] = {};              // spill slots of templates
  uint64_t index_mask = 0;               // PEXT masks: index bits of the soft TLB (21:12)
  uint64_t page_number_mask = 0;         // all bits above the page offset
  uint64_t page_offset_mask = 0;         // the others
  uint64_t indirect_mask = 0;            // bits of a RIP that index `indirect`
  uint64_t code_page_mask = 0;           // bits of a RIP that index `shifted_pages`
  uint64_t code_shift = 0;               // guest RIP - the RIP that the running code was made for; jit/mode.hh
  uint64_t stack_negative_page[2] = {};  // one-entry TLB for the stack, by CPL 3 or not: as TlbEntry::negative_page,
  uint64_t stack_addend[2] = {};         // host address - linear address; the page is writable
  uint64_t group_address[8] = {};        // host addresses of what was checked once for several accesses
  uint64_t host_tsc_offset = 0;          // Clock::host_tsc_offset(), where it has one; set at run()
  uint64_t translated_instructions = 0;  // counted only where asked for
  uint32_t host_mxcsr = 0x1f80;
  uint32_t refills_to_failure = 0;  // fault injection: counts down, the refill that makes it 0 fails; 0: none does
  /// By privilege (0: CPL 0-2, 1: CPL 3): which mapping each page of code has now; see jit/code_cache.hh.
  std::array<std::array<uint32_t, kCodePages>, 2> code_pages{};
  /// The same for code of CPL 3 that runs shifted: -(number + (shift << 17)).
  std::array<uint64_t, kCodePages> shifted_pages{};
  /// The indirect-branch cache, by privilege and bits of the RIP: where a branch goes with R10 = guest RIP; the code
  /// there looks whether it is its own. All zero, which is no valid state, until the owner of the translated code makes
  /// the entries empty.
  std::array<std::array<uint64_t, kIndirectEntries>, 2> indirect{};
};

}  // namespace tenon::interp
