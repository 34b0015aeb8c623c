// Translating through the soft TLB, and filling its level 1: for memory.cc and, with guest vectors in the host's
// registers, for translated code. soft_tlb_fill.cc and everything it calls is compiled for general registers only,
// which the general_registers_only test checks.
#pragma once

#include <cstdint>

#include "engine/interp/soft_tlb.hh"
#include "engine/x86/paging.hh"

namespace tenon::interp {

class Cpu;

/// The translation of the page of `linear` (canonical, cut to 32 bits outside IA-32e mode) for one access: from level
/// 2, else by a walk, which sets A and, for a write, D. False: #PF with `error_code`.
bool translate_page(Cpu& cpu, uint64_t linear, x86::PageAccess access, TlbPage& page, uint32_t& error_code);

}  // namespace tenon::interp

extern "C" {

/// For translated code whose look-up missed. `access`: 0 reads, 1 writes. True: the current mode's table for that
/// access has the page of `linear` now and did not before. False: anything else (it had, so the access crosses into the
/// next page; #PF, MMIO, ROM, a page with code, kTlbNever, not canonical), and the instruction has to be executed by
/// the interpreter; nothing has changed that the guest could tell, but A and D bits that its own access may set.
bool tenon_tlb_fill(tenon::interp::Cpu* cpu, uint64_t linear, uint32_t access);

/// Makes the page of `linear` the one of TranslatedState::stack_* for the current privilege, where [linear, linear +
/// size) lies in it and it may be written without anybody's notice.
bool tenon_stack_fill(tenon::interp::Cpu* cpu, uint64_t linear, uint64_t size_bytes, uint32_t access);

/// Makes the current mode's table for `access` have the page of `linear`, if [linear, linear + size) lies in it. False:
/// it does not, or tenon_tlb_fill() cannot.
bool tenon_group_fill(tenon::interp::Cpu* cpu, uint64_t linear, uint64_t size_bytes, uint32_t access);
}
