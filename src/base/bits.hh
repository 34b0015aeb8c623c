// Bit-fields as types, written in the manual's order and with the manual's numbers: `using Vector = Bits<7, 0>;`.
// Never C bit-fields: their layout is the compiler's, not the manual's.
#pragma once

#include <concepts>
#include <cstdint>

namespace tenon {

/// Bits `hi` down to `lo` (inclusive) of an unsigned register of up to 64 bits.
template <unsigned hi, unsigned lo>
struct Bits {
  static_assert(hi >= lo && hi < 64, "Bits<hi, lo> wants 63 >= hi >= lo");
  static constexpr unsigned kWidth = hi - lo + 1;
  static constexpr unsigned kShift = lo;
  static constexpr uint64_t kMax = kWidth == 64 ? ~uint64_t{0} : (uint64_t{1} << kWidth) - 1;
  static constexpr uint64_t kMask = kMax << lo;

  static constexpr uint64_t get(uint64_t word) { return (word & kMask) >> lo; }
  static constexpr bool test(uint64_t word) { return (word & kMask) != 0; }
  /// The field in place, ready to be ORed; `value` is cut to the field's width.
  static constexpr uint64_t make(uint64_t value) { return (value << lo) & kMask; }
  /// `word` with this field replaced by `value`.
  template <std::unsigned_integral Word>
  static constexpr Word set(Word word, uint64_t value) {
    return static_cast<Word>((word & ~kMask) | make(value));
  }
};

template <unsigned n>
using Bit = Bits<n, n>;

constexpr bool is_power_of_two(uint64_t x) { return x != 0 && (x & (x - 1)) == 0; }
/// `alignment` is a power of two. align_up wraps at 2^64: check the range first where a guest controls `x`.
constexpr uint64_t align_down(uint64_t x, uint64_t alignment) { return x & ~(alignment - 1); }
constexpr uint64_t align_up(uint64_t x, uint64_t alignment) { return align_down(x + alignment - 1, alignment); }

}  // namespace tenon
