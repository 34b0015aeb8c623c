// Guest memory access of the interpreter: segmentation checks, the soft TLB's slow paths, MMIO, page crossing.
//
// An access is resolved in full (every page translated and permitted) before its first byte moves. A page that lies in
// RAM gets a soft-TLB entry on the way; its write entry only if PTE.D is set and nothing was ever decoded from the
// page, so that dirty bits and self-modifying code need no check on the hit path. Physical addresses outside all
// extents are MMIO.
//
// Source: Intel SDM Vol. 3 chapters 4 (paging), 5.3 (limits), 6.15 (#AC, #PF), 18.2 (debug registers), 4.10 (TLBs).
// Deviation: data breakpoints match explicit accesses of instructions, not the processor's own reads of descriptors.
#include <algorithm>
#include <bit>

#include "base/bits.hh"
#include "engine/interp/cpu_inline.hh"
#include "engine/interp/memory.hh"
#include "engine/interp/soft_tlb_fill.hh"
#include "engine/interp/write_log.hh"

namespace tenon::interp {
namespace {

using x86::kCs;
using x86::kSs;

// --- Resolving a linear range to at most two pieces.

struct Piece {
  uint64_t gpa = 0;
  std::byte* host = nullptr;  // nullptr: MMIO
  unsigned size_bytes = 0;
  bool read_only = false;  // ROM: writes are dropped, as on a bus
};

struct Resolved {
  Piece pieces[2];
  unsigned count = 0;
  bool has_mmio() const { return pieces[0].host == nullptr || (count == 2 && pieces[1].host == nullptr); }
};

/// SDM Vol. 3 4.6.1: implicit supervisor accesses ignore CPL, and EFLAGS.AC does not open user pages to them.
x86::PageAccess page_access(const Cpu& cpu, Access access, Privilege privilege) {
  x86::PageAccess who;
  who.write = access == Access::kWrite;
  who.fetch = access == Access::kExecute;
  who.user = privilege == Privilege::kCurrent && cpu.cpl == 3;
  who.user_pages_ok = privilege == Privilege::kCurrent && (cpu.system_flags & x86::kAc) != 0;
  return who;
}

/// The TLB set whose entries answer for `privilege`.
Cpu::TlbMode tlb_set(const Cpu& cpu, Privilege privilege) {
  if (privilege == Privilege::kCurrent) return cpu.tlb_mode;
  return cpu.paging.smap ? Cpu::kTlbSupervisor : Cpu::kTlbSupervisorUser;
}

/// Host address where its table has all of [linear, linear + size).
void* tlb_host(const Cpu& cpu, Privilege privilege, Access access, uint64_t linear, unsigned size_bytes) {
  void* host = nullptr;
  return tlb_hit(cpu.tlb.table(tlb_set(cpu, privilege), access == Access::kWrite), linear, size_bytes, host) ? host
                                                                                                             : nullptr;
}

/// False: #PF is pending.
bool translate(Cpu& cpu, uint64_t linear, const x86::PageAccess& access, TlbPage& page) {
  uint32_t error_code = 0;
  if (translate_page(cpu, linear, access, page, error_code)) return true;
  cpu.tlb.drop_piece(linear);  // SDM Vol. 3 4.10.4.1: page faults invalidate, too
  cpu.state.cr2 = linear;      // SDM Vol. 3 6.15, interrupt 14
  return cpu.raise(x86::kPageFault, error_code);
}

/// Translates one page's part of an access. False: #PF is pending.
bool resolve_piece(Cpu& cpu, uint64_t linear, unsigned size_bytes, Access access, Privilege privilege, Piece& piece) {
  ++cpu.counters.tlb_misses;
  TlbPage page;
  if (!translate(cpu, linear, page_access(cpu, access, privilege), page)) return false;
  piece =
      Piece{.gpa = page.gpa() | (linear % kPageSize), .host = nullptr, .size_bytes = size_bytes, .read_only = false};
  if (page.backing() == 0) return true;
  const TlbBacking& backing = cpu.tlb.backing(page);
  piece.host = reinterpret_cast<std::byte*>(backing.host_minus_gpa + piece.gpa);
  piece.read_only = backing.read_only;
  if (cpu.write_log != nullptr) [[unlikely]] {
    if (access == Access::kWrite && !piece.read_only) cpu.write_log->note(piece.host, piece.gpa, size_bytes);
    return true;
  }
  cpu.tlb.enter(tlb_set(cpu, privilege), cpu.paging.write_protect, linear, page);
  return true;
}

bool resolve(Cpu& cpu, uint64_t linear, unsigned size_bytes, Access access, Privilege privilege, Resolved& out) {
  const auto in_first = static_cast<unsigned>(std::min<uint64_t>(size_bytes, kPageSize - linear % kPageSize));
  if (!resolve_piece(cpu, linear, in_first, access, privilege, out.pieces[0])) return false;
  out.count = 1;
  if (in_first == size_bytes) return true;
  uint64_t second = linear + in_first;
  if (privilege == Privilege::kCurrent) second &= cpu.linear_mask;  // 32-bit code wraps at 4 GiB
  out.count = 2;
  return resolve_piece(cpu, second, size_bytes - in_first, access, privilege, out.pieces[1]);
}

// --- Moving bytes.

/// MMIO goes to the machine in naturally sized parts: 8, 4, 2 or 1 bytes.
void read_mmio(Cpu& cpu, const Piece& piece, uint8_t* out) {
  for (unsigned done = 0; done < piece.size_bytes;) {
    const unsigned part = std::min(8u, std::bit_floor(piece.size_bytes - done));
    ++cpu.counters.mmio_accesses;
    const uint64_t value = cpu.io->read_mmio(Gpa(piece.gpa + done), part);
    std::memcpy(out + done, &value, part);
    done += part;
  }
}

void write_mmio(Cpu& cpu, const Piece& piece, const uint8_t* bytes) {
  for (unsigned done = 0; done < piece.size_bytes;) {
    const unsigned part = std::min(8u, std::bit_floor(piece.size_bytes - done));
    uint64_t value = 0;
    std::memcpy(&value, bytes + done, part);
    ++cpu.counters.mmio_accesses;
    cpu.io->write_mmio(Gpa(piece.gpa + done), part, value);
    done += part;
  }
}

template <typename T>
void copy_one(void* to, const void* from) {
  store_host<T>(to, load_host<T>(from));
}

/// One host access for the sizes that the guest may rely on to be atomic (SDM Vol. 3 9.1.1).
void copy_guest(void* to, const void* from, unsigned size_bytes) {
  switch (size_bytes) {
    case 1: return copy_one<uint8_t>(to, from);
    case 2: return copy_one<uint16_t>(to, from);
    case 4: return copy_one<uint32_t>(to, from);
    case 8: return copy_one<uint64_t>(to, from);
    default: copy_host(to, from, size_bytes);
  }
}

void read_resolved(Cpu& cpu, const Resolved& resolved, void* out) {
  auto* bytes = static_cast<uint8_t*>(out);
  for (unsigned i = 0; i < resolved.count; ++i) {
    const Piece& piece = resolved.pieces[i];
    if (piece.host == nullptr) {
      read_mmio(cpu, piece, bytes);
    } else {
      copy_guest(bytes, piece.host, piece.size_bytes);
    }
    bytes += piece.size_bytes;
  }
}

void write_resolved(Cpu& cpu, const Resolved& resolved, const void* from) {
  const auto* bytes = static_cast<const uint8_t*>(from);
  for (unsigned i = 0; i < resolved.count; ++i) {
    const Piece& piece = resolved.pieces[i];
    if (piece.host == nullptr) {
      write_mmio(cpu, piece, bytes);
    } else if (!piece.read_only) {
      copy_guest(piece.host, bytes, piece.size_bytes);
      cpu.code_written(Gpa(piece.gpa), piece.size_bytes);
    }
    bytes += piece.size_bytes;
  }
}

// --- Checks around an access by segment.

/// #GP(0), or #SS(0) through SS (SDM Vol. 1 3.3.7.1, Vol. 3 5.3).
bool raise_segment_fault(Cpu& cpu, SegmentIndex segment) {
  return cpu.raise(segment == kSs ? x86::kStackFault : x86::kGeneralProtection, 0);
}

/// Alignment that #AC wants of an operand (SDM Vol. 3 Table 6-7). 16- and 32-byte operands are left alone: the aligned
/// SIMD forms raise #GP themselves, and #AC for the unaligned ones is optional (SDM Vol. 2, MOVUPS).
unsigned required_alignment(unsigned size_bytes) {
  switch (size_bytes) {
    case 2: return 2;
    case 4:
    case 6: return 4;
    case 8:
    case 10: return 8;
    case 1:
    case 16:
    case 32: return 1;
    default: return size_bytes % 4 == 0 ? 4 : 2;
  }
}

bool alignment_checked(const Cpu& cpu) {
  return cpu.cpl == 3 && (cpu.state.cr0 & x86::kCr0Am) != 0 && (cpu.system_flags & x86::kAc) != 0;
}

/// Where kTlbNever sent an access here because of #AC. Before translation: processors know the address first, so #AC
/// wins over #PF, although SDM Vol. 3 Table 6-2 lists them the other way round.
bool check_alignment(Cpu& cpu, uint64_t linear, unsigned size_bytes) {
  if (cpu.tlb_mode != Cpu::kTlbNever || linear % required_alignment(size_bytes) == 0) return true;
  return alignment_checked(cpu) ? cpu.raise(x86::kAlignmentCheck, 0) : true;
}

/// Where kTlbNever sent an access here because of DR7.
void note_data_breakpoints(Cpu& cpu, uint64_t linear, unsigned size_bytes, Access access) {
  if (cpu.tlb_mode != Cpu::kTlbNever) return;
  const uint32_t hits = match_data_breakpoints(cpu.state, linear, size_bytes, access == Access::kWrite);
  if (hits != 0) cpu.note_debug_hit(hits);
}

bool resolve_operand(Cpu& cpu, SegmentIndex segment, uint64_t offset, unsigned size_bytes, Access access,
                     Resolved& resolved) {
  uint64_t linear = 0;
  if (!cpu.linear_address(segment, offset, size_bytes, access, linear)) return false;
  if (!check_alignment(cpu, linear, size_bytes)) return false;
  if (!resolve(cpu, linear, size_bytes, access, Privilege::kCurrent, resolved)) return false;
  note_data_breakpoints(cpu, linear, size_bytes, access);
  return true;
}

/// SDM Vol. 3 3.4.5.1 Table 3-1: which segments may be read and written as data.
bool type_allows(const x86::Segment& segment, Access access) {
  const bool code = (segment.type() & 8) != 0;
  const bool read_write_bit = (segment.type() & 2) != 0;
  if (access == Access::kWrite) return !code && read_write_bit;
  return access == Access::kExecute || !code || read_write_bit;
}

bool is_protected(const Cpu& cpu) { return (cpu.state.cr0 & x86::kCr0Pe) != 0 && (cpu.system_flags & x86::kVm) == 0; }

}  // namespace

bool segment_limit_allows(const x86::Segment& segment, uint64_t offset, unsigned size_bytes) {
  const uint64_t last = offset + size_bytes - 1;
  const bool code_or_expand_up = (segment.type() & 8) != 0 || (segment.type() & 4) == 0;
  if (code_or_expand_up) return last <= segment.limit;
  // Expand-down: everything above the limit, up to 64 KiB or 4 GiB (SDM Vol. 3 5.3).
  return offset > segment.limit && last <= (segment.is_big() ? 0xffffffffu : 0xffffu);
}

uint32_t match_data_breakpoints(const x86::CpuState& state, uint64_t linear, unsigned size_bytes, bool write) {
  uint32_t hits = 0;
  bool enabled_hit = false;
  for (unsigned i = 0; i < 4; ++i) {
    const auto kind = (state.dr7 >> (16 + 4 * i)) & 3;  // SDM Vol. 3 18.2.4: 01 writes, 11 reads and writes
    if (kind != 3 && !(kind == 1 && write)) continue;
    static constexpr uint64_t kLengths[] = {1, 2, 8, 4};
    const uint64_t length = kLengths[(state.dr7 >> (18 + 4 * i)) & 3];
    const uint64_t start = align_down(state.dr[i], length);  // low bits are ignored, 18.2.5
    if (start - linear >= size_bytes && linear - start >= length) continue;
    hits |= 1u << i;
    enabled_hit = enabled_hit || ((state.dr7 >> (2 * i)) & 3) != 0;
  }
  return enabled_hit ? hits : 0;
}

bool data_breakpoints_armed(const x86::CpuState& state) {
  for (unsigned i = 0; i < 4; ++i) {
    const bool enabled = ((state.dr7 >> (2 * i)) & 3) != 0;
    if (enabled && ((state.dr7 >> (16 + 4 * i)) & 1) != 0) return true;  // kinds 01 and 11
  }
  return false;
}

bool Cpu::linear_address(SegmentIndex segment, uint64_t offset, unsigned size_bytes, Access access, uint64_t& linear) {
  const x86::Segment& descriptor = state.segments[segment];
  if (in_long_mode) {
    // Limits and types are not checked; the whole operand must be canonical (SDM Vol. 3 5.3.1, 5.8.1). One that passes
    // the top of the address space goes on at 0.
    linear = offset + (segment >= x86::kFs ? descriptor.base : 0);
    const uint64_t last = linear + size_bytes - 1;
    if (x86::is_canonical(linear) && x86::is_canonical(last)) return true;
    return raise_segment_fault(*this, segment);
  }
  if (is_protected(*this) && (descriptor.unusable() || !type_allows(descriptor, access))) {
    return raise_segment_fault(*this, segment);
  }
  if (!segment_limit_allows(descriptor, offset, size_bytes)) return raise_segment_fault(*this, segment);
  linear = (descriptor.base + offset) & 0xffffffff;
  return true;
}

bool Cpu::load_slow(SegmentIndex segment, uint64_t offset, void* out, unsigned size_bytes) {
  Resolved resolved;
  if (!resolve_operand(*this, segment, offset, size_bytes, Access::kRead, resolved)) return false;
  read_resolved(*this, resolved, out);
  return true;
}

bool Cpu::store_slow(SegmentIndex segment, uint64_t offset, const void* value, unsigned size_bytes) {
  Resolved resolved;
  if (!resolve_operand(*this, segment, offset, size_bytes, Access::kWrite, resolved)) return false;
  write_resolved(*this, resolved, value);
  return true;
}

bool Cpu::load_bytes(SegmentIndex segment, uint64_t offset, void* out, unsigned size_bytes) {
  if (size_bytes == 0) return true;
  if (const void* host = try_host(segment, offset, size_bytes, Access::kRead)) {
    copy_host(out, host, size_bytes);
    return true;
  }
  return load_slow(segment, offset, out, size_bytes);
}

bool Cpu::store_bytes(SegmentIndex segment, uint64_t offset, const void* bytes, unsigned size_bytes) {
  if (size_bytes == 0) return true;
  if (void* host = try_host(segment, offset, size_bytes, Access::kWrite)) {
    copy_host(host, bytes, size_bytes);
    return true;
  }
  return store_slow(segment, offset, bytes, size_bytes);
}

bool Cpu::probe_store(SegmentIndex segment, uint64_t offset, unsigned size_bytes) {
  if (size_bytes == 0 || try_host(segment, offset, size_bytes, Access::kWrite) != nullptr) return true;
  Resolved resolved;
  uint64_t linear = 0;
  if (!linear_address(segment, offset, size_bytes, Access::kWrite, linear)) return false;
  if (!check_alignment(*this, linear, size_bytes)) return false;
  return resolve(*this, linear, size_bytes, Access::kWrite, Privilege::kCurrent, resolved);
}

bool probe_load(Cpu& cpu, SegmentIndex segment, uint64_t offset, unsigned size_bytes) {
  Resolved resolved;
  uint64_t linear = 0;
  if (!cpu.linear_address(segment, offset, size_bytes, Access::kRead, linear)) return false;
  if (!check_alignment(cpu, linear, size_bytes)) return false;
  return resolve(cpu, linear, size_bytes, Access::kRead, Privilege::kCurrent, resolved);
}

bool check_operand_alignment(Cpu& cpu, SegmentIndex segment, uint64_t offset, unsigned size_bytes) {
  return check_alignment(cpu, (cpu.state.segments[segment].base + offset) & cpu.linear_mask, size_bytes);
}

// --- Read-modify-write.

namespace {

enum RmwKind : uint8_t {
  kRmwDirect,     // the handler works on guest RAM itself; nothing was ever decoded from the page
  kRmwWatched,    // the same, but CodeWatch must hear of it
  kRmwBuffered,   // through rmw_buffer: MMIO, page crossing, ROM
  kRmwExclusive,  // buffered, with the world stopped
};

bool is_direct(const Resolved& resolved) {
  return resolved.count == 1 && resolved.pieces[0].host != nullptr && !resolved.pieces[0].read_only;
}

}  // namespace

void* Cpu::begin_rmw(SegmentIndex segment, uint64_t offset, unsigned size_bytes, bool locked) {
  if (void* host = try_host(segment, offset, size_bytes, Access::kWrite)) {
    rmw.kind = kRmwDirect;
    return host;
  }
  uint64_t linear = 0;
  if (!linear_address(segment, offset, size_bytes, Access::kWrite, linear)) return nullptr;
  if (!check_alignment(*this, linear, size_bytes)) return nullptr;
  const bool crosses = linear % kPageSize + size_bytes > kPageSize;
  if (crosses && locked) enter_exclusive();
  Resolved resolved;
  if (!resolve(*this, linear, size_bytes, Access::kWrite, Privilege::kCurrent, resolved)) {
    if (crosses && locked) leave_exclusive();
    return nullptr;
  }
  note_data_breakpoints(*this, linear, size_bytes, Access::kWrite);
  rmw.segment = segment;
  rmw.offset = offset;
  rmw.size_bytes = size_bytes;
  rmw.gpa[0] = resolved.pieces[0].gpa;
  rmw.gpa[1] = resolved.pieces[1].gpa;
  if (is_direct(resolved)) {
    rmw.kind = kRmwWatched;
    rmw_host = resolved.pieces[0].host;
    return rmw_host;
  }
  rmw.kind = crosses && locked ? kRmwExclusive : kRmwBuffered;
  // Devices are never called with the world stopped: a bus lock on MMIO means nothing to them anyway.
  if (rmw.kind == kRmwExclusive && resolved.has_mmio()) {
    leave_exclusive();
    rmw.kind = kRmwBuffered;
  }
  read_resolved(*this, resolved, rmw_buffer);
  return rmw_buffer;
}

void Cpu::finish_rmw() {
  if (rmw.kind == kRmwDirect) return;
  if (rmw.kind == kRmwWatched) return code_written(Gpa(rmw.gpa[0]), rmw.size_bytes);
  Resolved resolved;
  const auto in_first = static_cast<unsigned>(std::min<uint64_t>(rmw.size_bytes, kPageSize - rmw.gpa[0] % kPageSize));
  const unsigned sizes[2] = {in_first, rmw.size_bytes - in_first};
  resolved.count = sizes[1] == 0 ? 1 : 2;
  for (unsigned i = 0; i < resolved.count; ++i) {
    Piece& piece = resolved.pieces[i];
    piece = Piece{.gpa = rmw.gpa[i], .host = nullptr, .size_bytes = sizes[i], .read_only = false};
    if (const Extent* extent = memory->find(Gpa(piece.gpa))) {
      piece.host = extent->host + (piece.gpa - extent->range.base.value());
      piece.read_only = extent->kind == ExtentKind::kRom;
    }
  }
  write_resolved(*this, resolved, rmw_buffer);
  if (rmw.kind == kRmwExclusive) leave_exclusive();
}

// --- System structures and instruction fetch.

bool Cpu::load_linear_slow(uint64_t linear, void* out, unsigned size_bytes, Privilege privilege) {
  linear &= linear_space_mask(*this);
  if (const void* host = tlb_host(*this, privilege, Access::kRead, linear, size_bytes)) {
    copy_guest(out, host, size_bytes);
    return true;
  }
  if (!x86::is_canonical(linear) || !x86::is_canonical(linear + size_bytes - 1)) {
    return raise(x86::kGeneralProtection, 0);
  }
  Resolved resolved;
  if (!resolve(*this, linear, size_bytes, Access::kRead, privilege, resolved)) return false;
  read_resolved(*this, resolved, out);
  return true;
}

bool Cpu::store_linear_slow(uint64_t linear, const void* value, unsigned size_bytes, Privilege privilege) {
  linear &= linear_space_mask(*this);
  if (void* host = tlb_host(*this, privilege, Access::kWrite, linear, size_bytes)) {
    copy_guest(host, value, size_bytes);
    return true;
  }
  if (!x86::is_canonical(linear) || !x86::is_canonical(linear + size_bytes - 1)) {
    return raise(x86::kGeneralProtection, 0);
  }
  Resolved resolved;
  if (!resolve(*this, linear, size_bytes, Access::kWrite, privilege, resolved)) return false;
  write_resolved(*this, resolved, value);
  return true;
}

uint64_t linear_space_mask(const Cpu& cpu) { return (cpu.state.efer & x86::kEferLma) != 0 ? ~uint64_t{0} : 0xffffffff; }

bool probe_linear_store(Cpu& cpu, uint64_t linear, unsigned size_bytes, Privilege privilege) {
  linear &= linear_space_mask(cpu);
  if (!x86::is_canonical(linear) || !x86::is_canonical(linear + size_bytes - 1)) {
    return cpu.raise(x86::kGeneralProtection, 0);
  }
  if (tlb_host(cpu, privilege, Access::kWrite, linear, size_bytes) != nullptr) return true;
  Resolved resolved;
  return resolve(cpu, linear, size_bytes, Access::kWrite, privilege, resolved);
}

bool Cpu::translate_fetch(uint64_t linear, Translation& out) {
  if (!x86::is_canonical(linear)) return raise(x86::kGeneralProtection, 0);
  TlbPage page;
  if (!translate(*this, linear, page_access(*this, Access::kExecute, Privilege::kCurrent), page)) return false;
  out.gpa = Gpa(page.gpa() | (linear % kPageSize));
  out.global = page.has(TlbPage::kGlobal);
  return true;
}

// --- Dropping translations (SDM Vol. 3 4.10.4).

namespace {

/// SDM Vol. 3 4.10.1: without CR4.PCIDE everything belongs to PCID 0.
uint16_t current_pcid(const x86::CpuState& state) {
  return (state.cr4 & x86::kCr4Pcide) != 0 ? static_cast<uint16_t>(state.cr3 & 0xfff) : uint16_t{0};
}

}  // namespace

void Cpu::flush_tlb(bool keep_global) {
  paging = x86::paging_mode(state, limits.physical_bits, limits.gigabyte_pages);
  if (!keep_global) tlb.drop_all();
  tlb.change_context(current_pcid(state), false);
  forget_code_translations(keep_global);
}

void Cpu::switch_tlb() {
  paging = x86::paging_mode(state, limits.physical_bits, limits.gigabyte_pages);
  tlb.change_context(current_pcid(state), true);
  forget_code_translations(true);
}

void Cpu::flush_tlb_page(uint64_t linear) {
  const uint64_t size_bytes = tlb.dropped_size(linear, paging.kind, true);
  tlb.drop_page(linear, paging.kind);
  forget_code_translation(linear & ~(size_bytes - 1), size_bytes);
}

void Cpu::flush_tlb_page_of(uint16_t pcid, uint64_t linear) {
  const uint64_t size_bytes = tlb.dropped_size(linear, paging.kind, false);
  tlb.drop_page_of(pcid, linear, paging.kind);
  if (pcid != tlb.pcid()) return forget_code_translations_of(tlb.context_of(pcid));
  forget_code_translation(linear & ~(size_bytes - 1), size_bytes);
}

void Cpu::flush_tlb_context(uint16_t pcid) {
  tlb.drop_context(pcid);
  if (pcid == tlb.pcid()) forget_code_translations(true);
}

void Cpu::flush_tlb_contexts() {
  tlb.drop_contexts();
  forget_code_translations(true);
}

void Cpu::flush_tlb_tables() {
  tlb.empty_tables();
  forget_code_translations(false);
}

void Cpu::flush_write_tlb() { tlb.empty_write_tables(); }

}  // namespace tenon::interp
