// FuzzInput: a fuzzer's bytes as a stream of numbers; it yields zeros when the bytes are used up.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tenon {

class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size_bytes) : data_(data), left_(size_bytes) {}

  bool is_empty() const { return left_ == 0; }

  template <typename T>
  T take() {
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(T) && left_ > 0; ++i, --left_) value |= uint64_t{*data_++} << (8 * i);
    return static_cast<T>(value);
  }
  /// A number from 0 to `count` - 1.
  uint32_t take_below(uint32_t count) { return take<uint32_t>() % count; }
  /// An access width: 1, 2, 4 or 8, at most `max`.
  unsigned take_width(unsigned max) {
    const unsigned width = 1u << (take<uint8_t>() & 3);
    return width <= max ? width : max;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

}  // namespace tenon
