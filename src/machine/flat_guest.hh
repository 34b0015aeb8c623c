// A bare 64-bit environment for small purpose-built guests: identity-mapped page tables, flat GDT, empty IDT and TSS,
// laid out below 64 KiB, and the CpuState that enters code in it. Used by the engine self-test and by the engine
// contract tests.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.hh"
#include "engine/x86/cpu_state.hh"
#include "vm/guest_memory.hh"

namespace tenon {

struct FlatGuest {
  // Where things are (guest physical = linear).
  static constexpr uint64_t kGdt = 0x1000;
  static constexpr uint64_t kIdt = 0x2000;
  static constexpr uint64_t kTss = 0x3000;
  static constexpr uint64_t kPageTables = 0x8000;      // PML4, PDPT; then page directories for the first 4 GiB
  static constexpr uint64_t kKernelStackTop = 0x7000;  // also TSS.RSP0
  static constexpr uint64_t kCode = 0x10000;
  // Selectors in the GDT.
  static constexpr uint16_t kKernelCode = 0x08, kKernelData = 0x10, kUserData = 0x1b, kUserCode = 0x23,
                            kTssSelector = 0x28;

  /// Loads tables and `code` (at kCode) into `memory`, which has RAM at 0 up to at least kCode + code.size(). The first
  /// 4 GiB are mapped with 2 MiB pages, present, writable and user. Returns the state at the first byte of `code`: CPL
  /// 0, interrupts off.
  static Result<x86::CpuState> load(GuestMemory& memory, std::span<const std::byte> code);

  /// A 64-bit interrupt gate for `vector` at code offset `offset`, reachable by INT n from CPL `dpl` (SDM Vol.
  /// 3 6.14.1).
  static bool set_gate(GuestMemory& memory, uint8_t vector, uint64_t handler, unsigned dpl);
};

}  // namespace tenon
