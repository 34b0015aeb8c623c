#include "devices/pci/config_space.hh"

#include <string>

#include "base/check.hh"

namespace tenon {

using pci::kConfigSize;

uint64_t ConfigSpace::get(unsigned offset, unsigned size_bytes) const {
  CHECK(offset + size_bytes <= kConfigSize);
  return read(offset, size_bytes);
}

void ConfigSpace::set(unsigned offset, unsigned size_bytes, uint64_t value) {
  CHECK(offset + size_bytes <= kConfigSize);
  for (unsigned i = 0; i < size_bytes; ++i) bytes_[offset + i] = static_cast<uint8_t>(value >> (8 * i));
}

void ConfigSpace::set_writable(unsigned offset, unsigned size_bytes, uint64_t mask) {
  CHECK(offset + size_bytes <= kConfigSize);
  for (unsigned i = 0; i < size_bytes; ++i) writable_[offset + i] = static_cast<uint8_t>(mask >> (8 * i));
}

void ConfigSpace::set_write_one_to_clear(unsigned offset, unsigned size_bytes, uint64_t mask) {
  CHECK(offset + size_bytes <= kConfigSize);
  for (unsigned i = 0; i < size_bytes; ++i) write_one_to_clear_[offset + i] = static_cast<uint8_t>(mask >> (8 * i));
}

uint64_t ConfigSpace::read(unsigned offset, unsigned size_bytes) const {
  uint64_t value = 0;
  for (unsigned i = 0; i < size_bytes; ++i) {
    const uint64_t byte = offset + i < kConfigSize ? bytes_[offset + i] : 0xff;
    value |= byte << (8 * i);
  }
  return value;
}

void ConfigSpace::write(unsigned offset, unsigned size_bytes, uint64_t value) {
  for (unsigned i = 0; i < size_bytes && offset + i < kConfigSize; ++i) {
    const auto byte = static_cast<uint8_t>(value >> (8 * i));
    const uint8_t writable = writable_[offset + i];
    uint8_t& stored = bytes_[offset + i];
    stored = static_cast<uint8_t>((stored & ~writable) | (byte & writable));
    stored &= static_cast<uint8_t>(~(byte & write_one_to_clear_[offset + i]));
  }
}

Result<void> ConfigSpace::restore(std::span<const std::byte, kConfigSize> saved) {
  for (unsigned i = 0; i < kConfigSize; ++i) {
    const uint8_t changeable = writable_[i] | write_one_to_clear_[i];
    const auto found = static_cast<uint8_t>(saved[i]);
    if (((found ^ bytes_[i]) & ~changeable) != 0)
      return fail(ErrorCode::kCorrupt, "saved configuration space: read-only byte " + std::to_string(i) + " is " +
                                           std::to_string(found) + ", this device has " + std::to_string(bytes_[i]));
  }
  for (unsigned i = 0; i < kConfigSize; ++i) bytes_[i] = static_cast<uint8_t>(saved[i]);
  return {};
}

}  // namespace tenon
