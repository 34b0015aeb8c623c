// Lockstep: translated code against the interpreter, block by block, while a guest runs. A test of the translator with
// whole guests, and the way to find the instruction that it gets wrong.
//
// A block (straight code up to a branch) is executed by the interpreter first, one instruction after the other, with a
// log of its stores. Then registers and memory are put back, and its translation runs. Registers, RIP, flags (exact:
// strict_flags), x87 and vector state and the bytes that were stored must then be the same. What cannot be repeated is
// the interpreter's alone: instructions that are not translated, and blocks that reach devices, change the CPU's mode,
// or rewrite code. At a difference the block is repeated instruction by instruction, and the vCPU stops with a report.
//
// Not seen: stores of translated code to places where the interpreter stored nothing; links between blocks, the shadow
// return stack and the cache of indirect branches, which are not used (fault_injection.hh is for them).
// Deviation: FIP, FDP and FOP are not compared; translated code does not keep them (stubs.cc). Nor is OF in blocks that
// rotate by an immediate, where it is undefined and the interpreter differs from processors.
//
// For one vCPU: what others store between the two runs would look like a difference.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "engine/interp/cpu.hh"
#include "engine/interp/write_log.hh"

namespace tenon::jit {

/// What a block may change and what is compared.
struct RegisterSnapshot {
  std::array<uint64_t, 16> gpr;
  uint64_t rip = 0;
  uint16_t arithmetic_flags = 0;
  bool has_vector = false;
  interp::VectorState vector;  // where has_vector

  void take(const interp::Cpu& cpu, bool with_vector);
  void put_back(interp::Cpu& cpu) const;
};

/// What no block that is run twice changes.
struct ContextSnapshot {
  std::array<interp::SegmentWindow, x86::kSegmentCount> windows;
  uint64_t system_flags = 0;
  uint64_t tlb_drops = 0;
  uint64_t device_accesses = 0;
  uint64_t kernel_gs_base = 0;
  uint8_t cpl = 0;

  void take(const interp::Cpu& cpu);
  bool is_same(const interp::Cpu& cpu) const;
};

struct Lockstep {
  RegisterSnapshot before;
  RegisterSnapshot expected;
  ContextSnapshot context;
  interp::WriteLog log;
  std::string failure;  // of the guest's run: what is different

  bool overflow_differs(const interp::Cpu& cpu) const;
  /// Lines of what is not as expected; empty: nothing. Of the flags only `flags` are compared (RFLAGS bits).
  std::string differences(const interp::Cpu& cpu, uint64_t flags) const;

 private:
  void compare_vectors(std::string& text, const interp::Cpu& cpu) const;
};

}  // namespace tenon::jit
