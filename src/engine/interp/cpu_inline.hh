// Inline bodies of Cpu: register access, effective addresses, and the path of a memory access that hits the soft TLB.
//
// The compare of a TLB look-up also catches an access that crosses its page (soft_tlb.hh). Guest RAM is accessed with
// one host instruction of the access's own size; x86 guest memory ordering is the host's.
#pragma once

#include <type_traits>

#include "engine/interp/cpu.hh"

namespace tenon::interp {

/// Before functions that touch guest RAM: the guest's own races are by design (its instructions become the host's), so
/// the thread sanitizer is not told of these accesses. It sees everything else.
#ifdef __SANITIZE_THREAD__
#define TENON_GUEST_ACCESS [[gnu::no_sanitize("thread"), gnu::noinline]]
#else
#define TENON_GUEST_ACCESS
#endif

/// A value of T in guest RAM: any alignment, changed by others at any time.
template <typename T>
struct [[gnu::packed, gnu::may_alias]] GuestValue {
  T value;
};

template <typename T>
TENON_GUEST_ACCESS inline T load_host(const void* host) {
  return static_cast<const volatile GuestValue<T>*>(host)->value;
}

template <typename T>
TENON_GUEST_ACCESS inline void store_host(void* host, T value) {
  static_cast<volatile GuestValue<T>*>(host)->value = value;
}

/// Bytes between guest RAM and our own memory where the guest may rely on no size of access.
TENON_GUEST_ACCESS inline void copy_host(void* to, const void* from, size_t size_bytes) {
#ifdef __SANITIZE_THREAD__
  // memcpy tells the sanitizer by itself.
  for (size_t i = 0; i < size_bytes; ++i)
    static_cast<volatile uint8_t*>(to)[i] = static_cast<const volatile uint8_t*>(from)[i];
#else
  std::memcpy(to, from, size_bytes);
#endif
}

/// Whether a table has [linear, linear + size), size 1 to 4096, and its host address.
[[gnu::always_inline]] inline bool tlb_hit(const TlbEntry* table, uint64_t linear, unsigned size_bytes, void*& host) {
  const TlbEntry& entry = table[SoftTlb::index_of(linear)];
  const uint64_t in_page = linear + entry.negative_page;
  if (in_page > kPageSize - size_bytes) [[unlikely]]
    return false;
  host = reinterpret_cast<void*>(entry.host_page + in_page);
  return true;
}

[[gnu::always_inline]] inline bool segment_hit(const Cpu& cpu, SegmentIndex segment, uint64_t offset,
                                               unsigned size_bytes, Access access, void*& host) {
  const SegmentWindow& window = cpu.window[segment];
  const uint64_t end = access == Access::kWrite ? window.write_end : window.read_end;
  if (offset + size_bytes > end) [[unlikely]]
    return false;
  const TlbEntry* table = access == Access::kWrite ? cpu.tlb_write : cpu.tlb_read;
  return tlb_hit(table, (window.base + offset) & cpu.linear_mask, size_bytes, host);
}

inline void* Cpu::try_host(SegmentIndex segment, uint64_t offset, unsigned size_bytes, Access access) {
  void* host = nullptr;
  return segment_hit(*this, segment, offset, size_bytes, access, host) ? host : nullptr;
}

template <typename T>
inline bool Cpu::load(SegmentIndex segment, uint64_t offset, T& out) {
  void* host;
  if (!segment_hit(*this, segment, offset, sizeof(T), Access::kRead, host)) [[unlikely]] {
    return load_slow(segment, offset, &out, sizeof(T));
  }
  out = load_host<T>(host);
  return true;
}

template <typename T>
inline bool Cpu::store(SegmentIndex segment, uint64_t offset, T value) {
  void* host;
  if (!segment_hit(*this, segment, offset, sizeof(T), Access::kWrite, host)) [[unlikely]] {
    return store_slow(segment, offset, &value, sizeof(T));
  }
  store_host<T>(host, value);
  return true;
}

template <typename T>
inline bool Cpu::load_flat(SegmentIndex segment, uint64_t linear, T& out) {
  void* host;
  if (!tlb_hit(tlb_read, linear, sizeof(T), host)) [[unlikely]] {
    return load_slow(segment, linear, &out, sizeof(T));
  }
  out = load_host<T>(host);
  return true;
}

template <typename T>
inline bool Cpu::store_flat(SegmentIndex segment, uint64_t linear, T value) {
  void* host;
  if (!tlb_hit(tlb_write, linear, sizeof(T), host)) [[unlikely]] {
    return store_slow(segment, linear, &value, sizeof(T));
  }
  store_host<T>(host, value);
  return true;
}

inline uint8_t Cpu::reg8(const Insn& insn, unsigned number) const {
  const bool high = (number & 4) != 0 && (insn.prefixes & x86::kPrefixRex) == 0;
  return high ? static_cast<uint8_t>(gpr[number - 4] >> 8) : static_cast<uint8_t>(gpr[number]);
}

inline void Cpu::set_reg8(const Insn& insn, unsigned number, uint8_t value) {
  const bool high = (number & 4) != 0 && (insn.prefixes & x86::kPrefixRex) == 0;
  if (high) {
    gpr[number - 4] = (gpr[number - 4] & ~uint64_t{0xff00}) | (uint64_t{value} << 8);
  } else {
    gpr[number] = (gpr[number] & ~uint64_t{0xff}) | value;
  }
}

template <typename T>
inline void Cpu::set_reg(unsigned number, T value) {
  static_assert(std::is_unsigned_v<T>);
  if constexpr (sizeof(T) >= 4) {
    gpr[number] = value;
  } else {
    gpr[number] = (gpr[number] & ~uint64_t{static_cast<T>(~T{0})}) | value;
  }
}

inline uint64_t Cpu::effective_offset(const Step* step) const {
  const Insn& insn = step->insn;
  const uint64_t sum =
      gpr[insn.base] + (gpr[insn.index] << insn.scale) + static_cast<uint64_t>(int64_t{insn.displacement});
  if (insn.address_size == 8) return sum;
  return insn.address_size == 4 ? static_cast<uint32_t>(sum) : static_cast<uint16_t>(sum);
}

inline uint64_t Cpu::stack_offset(int64_t delta) const {
  const uint64_t sum = gpr[x86::kRsp] + static_cast<uint64_t>(delta);
  if (stack_address_size == 8) return sum;
  return stack_address_size == 4 ? static_cast<uint32_t>(sum) : static_cast<uint16_t>(sum);
}

inline void Cpu::set_stack_offset(uint64_t offset) {
  if (stack_address_size == 2) {
    set_reg<uint16_t>(x86::kRsp, static_cast<uint16_t>(offset));
  } else {
    gpr[x86::kRsp] = stack_address_size == 8 ? offset : static_cast<uint32_t>(offset);
  }
}

inline bool Cpu::raise(x86::Vector number) {
  pending_fault = Fault{number, false, 0};
  has_fault = true;
  attention |= kAttentionFault;
  return false;
}

inline bool Cpu::raise(x86::Vector number, uint32_t error_code) {
  pending_fault = Fault{number, true, error_code};
  has_fault = true;
  attention |= kAttentionFault;
  return false;
}

inline void Cpu::leave_at(const Step* step) {
  rip = this_rip(step);
  instructions -= step->remaining + 1u;
}

inline void Cpu::fault(const Step* step) { leave_at(step); }

inline void Cpu::fault(const Step* step, x86::Vector number) {
  raise(number);
  fault(step);
}

inline void Cpu::fault(const Step* step, x86::Vector number, uint32_t error_code) {
  raise(number, error_code);
  fault(step);
}

inline void Cpu::leave_after(const Step* step) {
  rip = next_rip(step);
  instructions -= step->remaining;
}

inline bool Cpu::is_code_target(uint64_t target) const {
  return in_long_mode ? x86::is_canonical(target) : target <= state.segments[x86::kCs].limit;
}

}  // namespace tenon::interp
