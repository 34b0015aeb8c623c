// le16, le32, le64: little-endian integers without alignment, for structures that cross a wire or live in guest memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace tenon {

template <typename T>
class LittleEndian {
  static_assert(std::is_unsigned_v<T>);

 public:
  LittleEndian() = default;
  constexpr LittleEndian(T value) {  // NOLINT: implicit on purpose, a wire field is assigned like an integer
    for (unsigned i = 0; i < sizeof(T); ++i) bytes_[i] = static_cast<uint8_t>(value >> (8 * i));
  }
  constexpr operator T() const {  // NOLINT: implicit on purpose
    T value = 0;
    for (unsigned i = 0; i < sizeof(T); ++i) value = static_cast<T>(value | static_cast<T>(T{bytes_[i]} << (8 * i)));
    return value;
  }

 private:
  uint8_t bytes_[sizeof(T)];
};

using le16 = LittleEndian<uint16_t>;
using le32 = LittleEndian<uint32_t>;
using le64 = LittleEndian<uint64_t>;

static_assert(sizeof(le64) == 8 && alignof(le64) == 1);

/// Reads a trivially copyable wire structure from unaligned bytes; the caller has checked that sizeof(T) are there.
template <typename T>
T load_wire(const void* bytes) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

}  // namespace tenon
