// ConfigSpace: the 4 KiB of one function's configuration registers as bytes, with a mask of what software may write.
//
// Source: PCI Local Bus Specification 3.0 chapter 6. Used by PciFunction, which adds the meaning and the lock.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hh"
#include "spec/pci.hh"

namespace tenon {

class ConfigSpace {
 public:
  /// Little-endian field of 1 to 8 bytes, from the device's side: no mask applies.
  uint64_t get(unsigned offset, unsigned size_bytes) const;
  void set(unsigned offset, unsigned size_bytes, uint64_t value);
  /// Lets software write the bits of `mask`, or clear them by writing one.
  void set_writable(unsigned offset, unsigned size_bytes, uint64_t mask);
  void set_write_one_to_clear(unsigned offset, unsigned size_bytes, uint64_t mask);

  /// Software's access: any offset and size; bytes past the end read as all ones and ignore writes.
  uint64_t read(unsigned offset, unsigned size_bytes) const;
  void write(unsigned offset, unsigned size_bytes, uint64_t value);

  /// Takes saved bytes; kCorrupt where a bit that software cannot change differs.
  Result<void> restore(std::span<const std::byte, pci::kConfigSize> saved);
  std::span<const uint8_t, pci::kConfigSize> bytes() const { return bytes_; }
  /// All registers back to what bytes() gave earlier.
  void assign(std::span<const uint8_t, pci::kConfigSize> bytes) { std::ranges::copy(bytes, bytes_.begin()); }

 private:
  std::array<uint8_t, pci::kConfigSize> bytes_{};
  std::array<uint8_t, pci::kConfigSize> writable_{};
  std::array<uint8_t, pci::kConfigSize> write_one_to_clear_{};
};

}  // namespace tenon
