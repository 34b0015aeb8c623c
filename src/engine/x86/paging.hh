// Paging: linear to guest physical addresses, as the page walker of an Intel CPU does it.
//
// Shared by every software engine: the walker takes guest memory and a small PagingMode, touches no CPU state, and
// reports a fault as the error code of #PF. Accessed and dirty bits are set with compare-exchange on guest RAM, because
// other vCPUs walk and change the same tables at the same moment; where an entry changed under the walk, the walk
// starts again. An entry that is not in RAM reads as all-ones, like any unclaimed address; entries in ROM keep their A
// and D bits.
//
// Translated code refills its TLB through this walker with guest vectors in the host's registers: paging.cc is compiled
// for general registers only and calls nothing that is not.
//
// Source: Intel SDM Vol. 3 chapter 4 (revision 080 and later: "Paging").
// Not implemented: 5-level paging, protection keys, shadow stacks, HLAT. Memory types (PAT, PCD, PWT) have no effect.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "engine/x86/cpu_state.hh"
#include "vm/guest_memory.hh"

namespace tenon::x86 {

enum class PagingKind : uint8_t { kNone, k32Bit, kPae, k4Level };

/// Bits of the #PF error code (SDM Vol. 3 4.7, Figure 4-12).
enum PageFaultBits : uint32_t {
  kPfPresent = 1u << 0,  // protection violation or reserved bit; clear: not present
  kPfWrite = 1u << 1,
  kPfUser = 1u << 2,
  kPfReserved = 1u << 3,
  kPfFetch = 1u << 4,
};

/// What of the control registers decides a walk. Made by paging_mode() whenever CR0, CR3, CR4 or EFER change.
struct PagingMode {
  PagingKind kind = PagingKind::kNone;
  bool no_execute = false;     // EFER.NXE, where entries are 64 bits wide
  bool write_protect = false;  // CR0.WP
  bool large_pages = false;    // CR4.PSE (32-bit paging only)
  bool smep = false;
  bool smap = false;
  bool global_pages = false;        // CR4.PGE
  bool gigabyte_pages = true;       // CPUID.80000001H:EDX.Page1GB
  uint8_t physical_bits = 39;       // MAXPHYADDR
  uint64_t root = 0;                // CR3
  std::array<uint64_t, 4> pdpte{};  // PAE: the registers loaded at MOV CR3 (SDM Vol. 3 4.4.1)
};

PagingMode paging_mode(const CpuState& state, unsigned physical_bits, bool gigabyte_pages);

/// What the access is and on whose behalf.
struct PageAccess {
  bool write = false;
  bool fetch = false;
  bool user = false;          // made at CPL 3, and not an implicit supervisor access
  bool user_pages_ok = true;  // supervisor data access to user pages passes CR4.SMAP: explicit, with EFLAGS.AC set
};

/// What all levels of a translation leave together.
struct PageRights {
  bool writable = true;  // R/W, before CR0.WP
  bool user = true;      // U/S
  bool no_execute = false;
};

struct Translation {
  uint64_t gpa = 0;                // of the very address asked for
  uint64_t page_size = kPageSize;  // of the mapping: 4K, 2M, 4M, 1G
  PageRights rights;
  bool global = false;
  bool dirty = true;  // the leaf's D after this walk
};

/// Whether `rights` allow `access` (SDM Vol. 3 4.6.1).
constexpr bool permits(const PagingMode& mode, PageRights rights, PageAccess access) {
  if (access.user) {
    if (!rights.user) return false;
    if (access.fetch) return !rights.no_execute;
    return !access.write || rights.writable;
  }
  if (access.fetch) return !rights.no_execute && !(rights.user && mode.smep);
  if (rights.user && mode.smap && !access.user_pages_ok) return false;
  return !access.write || rights.writable || !mode.write_protect;
}

/// Walks for one access to `linear` (canonical; bits 63:32 clear outside IA-32e mode). On success the A bits of the
/// entries used are set, D too for a write. Otherwise `error_code` is #PF's and no entry has changed.
bool walk(GuestMemory& memory, const PagingMode& mode, uint64_t linear, PageAccess access, Translation& out,
          uint32_t& error_code);

/// Loads the four PAE PDPTEs from CR3's table. False where a present one has a reserved bit set: #GP(0) for the MOV
/// (SDM Vol. 3 4.4.1); `pdpte` is then unchanged.
bool load_pdptes(const GuestMemory& memory, uint64_t cr3, unsigned physical_bits, std::array<uint64_t, 4>& pdpte);

/// Canonical for a 48-bit linear address space (SDM Vol. 1 3.3.7.1).
constexpr bool is_canonical(uint64_t linear) {
  return static_cast<uint64_t>(static_cast<int64_t>(linear << 16) >> 16) == linear;
}

}  // namespace tenon::x86
