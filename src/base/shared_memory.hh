// Copies between our own memory and memory that others write at the same moment (guest RAM under running vCPUs).
//
// memcpy would be a data race: the compiler may read twice and the thread sanitizer complains. These copies access the
// shared side with relaxed atomics by the largest unit (8, 4, 2, 1 bytes) that is aligned there, so an aligned access
// of such a size is one access, as device models need for ring indices and descriptors. No order between units is
// promised: a protocol that needs one puts full_fence() between its accesses.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tenon {

namespace shared_memory_detail {

template <typename Unit>
inline void read_unit(std::byte*& out, const std::byte*& shared, size_t& size_bytes) {
  // SAFETY: `shared` is aligned for Unit, checked by the caller; bytes in a mapping may be accessed as any integer here
  // because every access to shared memory goes through atomics of this kind or through the guest's own instructions.
  const Unit unit = __atomic_load_n(reinterpret_cast<const Unit*>(shared), __ATOMIC_RELAXED);
  std::memcpy(out, &unit, sizeof unit);
  out += sizeof unit;
  shared += sizeof unit;
  size_bytes -= sizeof unit;
}

template <typename Unit>
inline void write_unit(std::byte*& shared, const std::byte*& bytes, size_t& size_bytes) {
  Unit unit;
  std::memcpy(&unit, bytes, sizeof unit);
  // SAFETY: as in read_unit().
  __atomic_store_n(reinterpret_cast<Unit*>(shared), unit, __ATOMIC_RELAXED);
  shared += sizeof unit;
  bytes += sizeof unit;
  size_bytes -= sizeof unit;
}

/// Whether a unit of `unit_bytes` may be accessed at `shared` with `size_bytes` left.
inline bool fits(const std::byte* shared, size_t size_bytes, size_t unit_bytes) {
  return size_bytes >= unit_bytes && reinterpret_cast<uintptr_t>(shared) % unit_bytes == 0;
}

}  // namespace shared_memory_detail

/// The gcc may_alias integers: shared memory has no declared type.
using shared_u64 [[gnu::may_alias]] = uint64_t;
using shared_u32 [[gnu::may_alias]] = uint32_t;
using shared_u16 [[gnu::may_alias]] = uint16_t;
using shared_u8 [[gnu::may_alias]] = uint8_t;

/// Copies `size_bytes` out of shared memory into memory of the caller's own.
inline void copy_from_shared(std::byte* out, const std::byte* shared, size_t size_bytes) {
  using namespace shared_memory_detail;
  while (size_bytes > 0) {
    if (fits(shared, size_bytes, 8)) {
      read_unit<shared_u64>(out, shared, size_bytes);
    } else if (fits(shared, size_bytes, 4)) {
      read_unit<shared_u32>(out, shared, size_bytes);
    } else if (fits(shared, size_bytes, 2)) {
      read_unit<shared_u16>(out, shared, size_bytes);
    } else {
      read_unit<shared_u8>(out, shared, size_bytes);
    }
  }
}

/// Copies `size_bytes` of the caller's own memory into shared memory.
inline void copy_to_shared(std::byte* shared, const std::byte* bytes, size_t size_bytes) {
  using namespace shared_memory_detail;
  while (size_bytes > 0) {
    if (fits(shared, size_bytes, 8)) {
      write_unit<shared_u64>(shared, bytes, size_bytes);
    } else if (fits(shared, size_bytes, 4)) {
      write_unit<shared_u32>(shared, bytes, size_bytes);
    } else if (fits(shared, size_bytes, 2)) {
      write_unit<shared_u16>(shared, bytes, size_bytes);
    } else {
      write_unit<shared_u8>(shared, bytes, size_bytes);
    }
  }
}

/// Orders every access before it against every access after it, on all vCPUs (store to load too). A locked instruction
/// instead of std::atomic_thread_fence, which the thread sanitizer does not model.
inline void full_fence() {
  std::atomic<uint32_t> word{0};
  word.fetch_add(1, std::memory_order_seq_cst);
}

}  // namespace tenon
