// Mode: everything beside its bytes and addresses that the translation of 64-bit code depends on, in one byte.
#pragma once

#include "engine/interp/cpu.hh"
#include "engine/jit/code_cache.hh"

namespace tenon::jit {

enum ModeBits : Mode {
  kModeTlb = 3,            // Cpu::TlbMode in the low bits: which soft-TLB tables are looked at
  kModeUser = 1 << 2,      // CPL 3
  kModeSystem = 1 << 3,    // CPL 0
  kModeVector = 1 << 4,    // legacy SSE may run: CR0.EM = CR0.TS = 0, CR4.OSFXSR = 1 (SDM Vol. 3 Table 13-1)
  kModeAvx = 1 << 5,       // VEX may run: CR4.OSXSAVE = 1, XCR0[2:1] = 3, CR0.TS = 0 (SDM Vol. 2 2.4)
  kModeX87 = 1 << 6,       // CR0.EM = CR0.TS = 0
  kModeInvalid = 1 << 7,   // of a vCPU: code that is not translated: not 64-bit, or watched (kTlbNever)
  kModePlain = 1 << 7,     // of a fragment: no access relies on the check of another one
  kModeIndirect = 1 << 8,  // of a fragment: the way in for indirect branches (Translator::make_indirect_entry)
  kModeShifted = 1 << 9,   // of a fragment: it serves its physical page at all linear addresses
};

/// A shared object is in each process somewhere else, and so is a program made for that. Their code is translated once
/// for all: for a nominal RIP below 2 GiB, which belongs to the physical page (Runner::nominal_page()). What it does
/// with RIPs adds TranslatedState::code_shift, the distance from there to where it runs. Whoever enters such code sets
/// code_shift; direct links keep it, calls save it and their return sites restore it. Only user code far up is like
/// that: kernels, and programs linked for one address, are where they are.
constexpr uint64_t kShiftedFrom = uint64_t{1} << 32;
inline bool is_shifted(Mode mode) { return (mode & kModeShifted) != 0; }

inline interp::TlbMode tlb_mode(Mode mode) { return static_cast<interp::TlbMode>(mode & kModeTlb); }
/// Index into the tables of TranslatedState that differ by privilege.
inline unsigned privilege(Mode mode) { return (mode & kModeUser) != 0 ? 1 : 0; }

/// The mode that code at CPL 0 or 3 has where `mode`, a valid one, is that at another level, without SMAP and with AC
/// clear.
Mode mode_at_level(Mode mode, unsigned cpl);

/// The mode `cpu` runs in now.
Mode current_mode(const interp::Cpu& cpu);

}  // namespace tenon::jit
