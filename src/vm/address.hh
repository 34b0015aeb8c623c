// The distinct address and number types of a machine. They convert explicitly and add only through checked functions,
// so that a guest-controlled sum cannot wrap unnoticed.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>

namespace tenon {

constexpr uint64_t kPageSize = 4096;

/// Guest physical address.
class Gpa {
 public:
  constexpr Gpa() = default;
  constexpr explicit Gpa(uint64_t value) : value_(value) {}
  constexpr uint64_t value() const { return value_; }
  constexpr auto operator<=>(const Gpa&) const = default;

  /// This address plus `offset`, or nothing where the sum passes 2^64.
  constexpr std::optional<Gpa> plus(uint64_t offset) const {
    uint64_t sum = 0;
    if (__builtin_add_overflow(value_, offset, &sum)) return std::nullopt;
    return Gpa(sum);
  }
  constexpr uint64_t page_number() const { return value_ / kPageSize; }
  constexpr uint64_t page_offset() const { return value_ % kPageSize; }

 private:
  uint64_t value_ = 0;
};

/// A half-open range of guest physical addresses that does not wrap: [base, base + size_bytes).
struct GpaRange {
  Gpa base;
  uint64_t size_bytes = 0;

  constexpr bool contains(Gpa gpa, uint64_t length = 1) const {
    return gpa >= base && gpa.value() - base.value() < size_bytes &&
           length <= size_bytes - (gpa.value() - base.value());
  }
  /// By contains(), not by sums: those wrap for a range that ends at 2^64.
  constexpr bool overlaps(const GpaRange& other) const {
    return size_bytes != 0 && other.size_bytes != 0 && (contains(other.base) || other.contains(base));
  }
};

/// x86 I/O port number.
enum class IoPort : uint16_t {};
/// Index of a vCPU, 0 is the bootstrap processor. On our board it is also the local APIC ID.
enum class VcpuId : uint32_t {};
/// Global system interrupt: the IOAPIC pin number; 0-15 are also the ISA IRQs (ACPI 6.4 5.2.12.5).
enum class Gsi : uint32_t {};

constexpr uint32_t number(VcpuId id) { return static_cast<uint32_t>(id); }
constexpr uint32_t number(Gsi gsi) { return static_cast<uint32_t>(gsi); }
constexpr uint16_t number(IoPort port) { return static_cast<uint16_t>(port); }

}  // namespace tenon
