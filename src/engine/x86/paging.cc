#include "engine/x86/paging.hh"

#include <algorithm>

#include "base/bits.hh"

namespace tenon::x86 {
namespace {

// Bits of paging-structure entries (SDM Vol. 3 Tables 4-4 to 4-20); the same in both entry sizes.
constexpr uint64_t kPresent = Bit<0>::kMask;
constexpr uint64_t kWritable = Bit<1>::kMask;
constexpr uint64_t kUser = Bit<2>::kMask;
constexpr uint64_t kAccessed = Bit<5>::kMask;
constexpr uint64_t kDirty = Bit<6>::kMask;
constexpr uint64_t kLarge = Bit<7>::kMask;
constexpr uint64_t kGlobal = Bit<8>::kMask;
constexpr uint64_t kNoExecute = Bit<63>::kMask;

constexpr uint64_t mask_from(unsigned high, unsigned low) {
  if (low > high) return 0;
  return (high == 63 ? ~uint64_t{0} : (uint64_t{1} << (high + 1)) - 1) & ~((uint64_t{1} << low) - 1);
}

struct Entry {
  uint64_t gpa = 0;
  uint64_t value = 0;
};

/// The walk in progress: the entries used so far and the rights they leave.
struct Walk {
  std::array<Entry, 4> used{};
  unsigned count = 0;
  PageRights rights;
};

uint64_t read_entry(const GuestMemory& memory, uint64_t gpa, unsigned size_bytes) {
  std::byte* host = memory.host_address(Gpa(gpa), size_bytes);
  if (host == nullptr) return size_bytes == 8 ? ~uint64_t{0} : 0xffffffffu;  // unclaimed
  // SAFETY: entries are naturally aligned and inside one extent; the guest writes them concurrently, hence atomic.
  if (size_bytes == 8) return __atomic_load_n(reinterpret_cast<uint64_t*>(host), __ATOMIC_ACQUIRE);
  return __atomic_load_n(reinterpret_cast<uint32_t*>(host), __ATOMIC_ACQUIRE);
}

/// Sets `bits` in the entry if it still has the value the walk saw. False: it changed, walk again.
bool update_entry(GuestMemory& memory, const Entry& entry, uint64_t bits, unsigned size_bytes) {
  if ((entry.value & bits) == bits) return true;
  const Extent* extent = memory.find(Gpa(entry.gpa));
  if (extent == nullptr || extent->kind == ExtentKind::kRom) return true;
  std::byte* host = memory.host_address(Gpa(entry.gpa), size_bytes);
  bool same = false;
  // SAFETY: as in read_entry().
  if (size_bytes == 8) {
    uint64_t expected = entry.value;
    same = __atomic_compare_exchange_n(reinterpret_cast<uint64_t*>(host), &expected, entry.value | bits, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  } else {
    auto expected = static_cast<uint32_t>(entry.value);
    same = __atomic_compare_exchange_n(reinterpret_cast<uint32_t*>(host), &expected,
                                       static_cast<uint32_t>(entry.value | bits), false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE);
  }
  if (same) memory.code_watch().note_write(Gpa(entry.gpa), size_bytes);
  return same;
}

/// SDM Vol. 3 4.7: I/D is reported only where fetches can be told from reads.
uint32_t access_bits(const PagingMode& mode, PageAccess access) {
  uint32_t bits = 0;
  if (access.write) bits |= kPfWrite;
  if (access.user) bits |= kPfUser;
  if (access.fetch && (mode.smep || mode.no_execute)) bits |= kPfFetch;
  return bits;
}

/// Shape of one level of a table.
struct Level {
  uint8_t shift;  // lowest linear-address bit that indexes it
  uint8_t index_bits;
  bool may_be_leaf;  // bit 7 makes it map a page
  bool is_last;
};

constexpr std::array<Level, 4> k4LevelTables = {
    {{39, 9, false, false}, {30, 9, true, false}, {21, 9, true, false}, {12, 9, false, true}}};
constexpr std::array<Level, 2> k32BitTables = {{{22, 10, true, false}, {12, 10, false, true}}};

/// Reserved bits of an 8-byte entry (SDM Vol. 3 4.4.2, 4.5.4; Tables 4-9 to 4-11 and 4-15 to 4-20).
uint64_t reserved_bits_64(const PagingMode& mode, const Level& level, bool leaf) {
  // 4-level entries ignore bits 62:52; PAE entries reserve them.
  uint64_t reserved = mask_from(mode.kind == PagingKind::kPae ? 62 : 51, mode.physical_bits);
  if (!mode.no_execute) reserved |= kNoExecute;
  if (leaf && !level.is_last) reserved |= mask_from(level.shift - 1u, 13);
  if (!leaf && level.shift == 39) reserved |= kLarge;
  if (leaf && level.shift == 30 && !mode.gigabyte_pages) reserved |= kLarge;
  return reserved;
}

/// A 4-MByte PDE holds address bits 39:32 in bits 20:13 (PSE-36); what exceeds the physical width is reserved (SDM
/// Vol. 3 Table 4-4).
uint64_t reserved_bits_32(const PagingMode& mode, const Level& level, bool leaf) {
  if (!leaf || level.is_last) return 0;
  const unsigned width = std::min<unsigned>(40, mode.physical_bits);
  return mask_from(21, width - 19);
}

uint64_t leaf_base(const PagingMode& mode, const Level& level, uint64_t entry) {
  if (mode.kind == PagingKind::k32Bit) {
    if (level.is_last) return entry & mask_from(31, 12);
    return (entry & mask_from(31, 22)) | (Bits<20, 13>::get(entry) << 32);
  }
  return entry & mask_from(51, level.shift);
}

enum class Step : uint8_t { kDone, kFault, kRetry };

/// A bits first, from the root down, then A and D of the leaf (SDM Vol. 3 4.8).
bool mark_used(GuestMemory& memory, const Walk& walk, bool write, unsigned entry_size) {
  for (unsigned i = 0; i < walk.count; ++i) {
    const bool leaf = i + 1 == walk.count;
    if (!update_entry(memory, walk.used[i], leaf && write ? kAccessed | kDirty : kAccessed, entry_size)) return false;
  }
  return true;
}

Step finish(GuestMemory& memory, const PagingMode& mode, const Walk& walk, const Level& level, uint64_t linear,
            PageAccess access, Translation& out, uint32_t& error_code) {
  if (!permits(mode, walk.rights, access)) {
    error_code = access_bits(mode, access) | kPfPresent;
    return Step::kFault;
  }
  const unsigned entry_size = mode.kind == PagingKind::k32Bit ? 4 : 8;
  if (!mark_used(memory, walk, access.write, entry_size)) return Step::kRetry;
  const uint64_t leaf = walk.used[walk.count - 1].value;
  out.page_size = uint64_t{1} << level.shift;
  out.gpa = leaf_base(mode, level, leaf) | (linear & (out.page_size - 1));
  out.rights = walk.rights;
  out.global = mode.global_pages && (leaf & kGlobal) != 0;
  out.dirty = access.write || (leaf & kDirty) != 0;
  return Step::kDone;
}

Step walk_once(GuestMemory& memory, const PagingMode& mode, uint64_t linear, PageAccess access, Translation& out,
               uint32_t& error_code) {
  const bool narrow = mode.kind == PagingKind::k32Bit;
  const unsigned entry_size = narrow ? 4 : 8;
  std::span<const Level> levels = narrow ? std::span<const Level>(k32BitTables) : std::span<const Level>(k4LevelTables);
  uint64_t table = mode.root & (narrow ? mask_from(31, 12) : mask_from(mode.physical_bits - 1u, 12));
  if (mode.kind == PagingKind::kPae) {
    const uint64_t pdpte = mode.pdpte[Bits<31, 30>::get(linear)];
    if ((pdpte & kPresent) == 0) {
      error_code = access_bits(mode, access);
      return Step::kFault;
    }
    table = pdpte & mask_from(51, 12);
    levels = levels.subspan(2);
  }

  Walk walk;
  for (const Level& level : levels) {
    const uint64_t index = (linear >> level.shift) & ((uint64_t{1} << level.index_bits) - 1);
    Entry& entry = walk.used[walk.count++];
    entry.gpa = table + index * entry_size;
    entry.value = read_entry(memory, entry.gpa, entry_size);
    if ((entry.value & kPresent) == 0) {
      error_code = access_bits(mode, access);
      return Step::kFault;
    }
    const bool large = level.may_be_leaf && (entry.value & kLarge) != 0 && (!narrow || mode.large_pages);
    const bool leaf = level.is_last || large;
    const uint64_t reserved = narrow ? reserved_bits_32(mode, level, leaf) : reserved_bits_64(mode, level, leaf);
    if ((entry.value & reserved) != 0) {
      error_code = access_bits(mode, access) | kPfPresent | kPfReserved;
      return Step::kFault;
    }
    PageRights& rights = walk.rights;
    rights.writable = rights.writable && (entry.value & kWritable) != 0;
    rights.user = rights.user && (entry.value & kUser) != 0;
    rights.no_execute = rights.no_execute || (mode.no_execute && (entry.value & kNoExecute) != 0);
    if (leaf) return finish(memory, mode, walk, level, linear, access, out, error_code);
    table = entry.value & (narrow ? mask_from(31, 12) : mask_from(51, 12));
  }
  return Step::kFault;  // not reached: the last level is a leaf
}

}  // namespace

PagingMode paging_mode(const CpuState& state, unsigned physical_bits, bool gigabyte_pages) {
  PagingMode mode;
  // SDM Vol. 3 4.1.1.
  if ((state.cr0 & kCr0Pg) == 0) {
    mode.kind = PagingKind::kNone;
  } else if ((state.cr4 & kCr4Pae) == 0) {
    mode.kind = PagingKind::k32Bit;
  } else {
    mode.kind = (state.efer & kEferLma) != 0 ? PagingKind::k4Level : PagingKind::kPae;
  }
  mode.no_execute = (state.efer & kEferNxe) != 0 && (state.cr4 & kCr4Pae) != 0;
  mode.write_protect = (state.cr0 & kCr0Wp) != 0;
  mode.large_pages = (state.cr4 & kCr4Pse) != 0;
  mode.smep = (state.cr4 & kCr4Smep) != 0;
  mode.smap = (state.cr4 & kCr4Smap) != 0;
  mode.global_pages = (state.cr4 & kCr4Pge) != 0;
  mode.gigabyte_pages = gigabyte_pages;
  mode.physical_bits = static_cast<uint8_t>(physical_bits);
  mode.root = state.cr3;
  mode.pdpte = state.pdpte;
  return mode;
}

bool walk(GuestMemory& memory, const PagingMode& mode, uint64_t linear, PageAccess access, Translation& out,
          uint32_t& error_code) {
  if (mode.kind == PagingKind::kNone) {
    out = Translation{};
    out.gpa = linear;
    return true;
  }
  Step step = Step::kRetry;
  while (step == Step::kRetry) step = walk_once(memory, mode, linear, access, out, error_code);
  return step == Step::kDone;
}

bool load_pdptes(const GuestMemory& memory, uint64_t cr3, unsigned physical_bits, std::array<uint64_t, 4>& pdpte) {
  const uint64_t reserved = mask_from(2, 1) | mask_from(8, 5) | mask_from(63, physical_bits);
  std::array<uint64_t, 4> loaded{};
  for (unsigned i = 0; i < 4; ++i) {
    loaded[i] = read_entry(memory, (cr3 & mask_from(31, 5)) + 8 * i, 8);
    if ((loaded[i] & kPresent) != 0 && (loaded[i] & reserved) != 0) return false;
  }
  pdpte = loaded;
  return true;
}

}  // namespace tenon::x86
