// RegFile: a device's registers as one constexpr table, and all that follows from the table.
//
// A row says what the manual's register page says: name, offset, width, reset value, which bits the guest may write,
// which are cleared or set by writing one, and what else happens on a read or a write. The table is proven when it is
// compiled (no overlap, aligned, masks fit, names unique). RegFile does the masking, accesses of any size and alignment
// (part of a register, or several at once), reset, dump and save.
//
//   class Widget {
//     static void start(Widget& widget, const RegisterWrite& write);
//     static constexpr auto kRegisters = register_table<Widget>({
//         {.name = "CTRL",   .offset = 0, .width_bytes = 4, .reset = 1, .writable = 0xff, .on_write = start},
//         {.name = "STATUS", .offset = 4, .width_bytes = 4, .w1c = 0x3},
//     });
//     RegFile<Widget, kRegisters> registers_;
//   };
//
// Order of effects of a write: the stored value changes first, then on_write runs and sees before, after and the raw
// bits. on_read gets the stored value and returns what the guest sees. Bytes no register claims read as zero, ignore
// writes. Threads: none of its own; the device's lock covers it, as the rest of the device.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "base/bits.hh"
#include "base/byte_order.hh"
#include "base/result.hh"

namespace tenon {

/// One guest write as an on_write hook sees it; all values are positioned in the register, bit 0 is the register's bit
/// 0.
struct RegisterWrite {
  uint64_t before = 0;   // stored value before the write
  uint64_t after = 0;    // stored value now
  uint64_t raw = 0;      // bits as the guest wrote them, zero in bytes it did not write
  uint64_t enabled = 0;  // all ones in the bytes that the guest wrote
};

/// One register. Bits in none of the masks are read-only to the guest; the device changes them with RegFile::set().
template <typename Device>
struct Register {
  std::string_view name;
  uint32_t offset = 0;
  uint32_t width_bytes = 4;  // 1, 2, 4 or 8
  uint64_t reset = 0;
  uint64_t writable = 0;  // plain read/write bits
  uint64_t w1c = 0;       // cleared by writing one
  uint64_t w1s = 0;       // set by writing one
  uint64_t (*on_read)(Device&, uint64_t stored) = nullptr;
  void (*on_write)(Device&, const RegisterWrite&) = nullptr;
};

namespace reg_file_detail {

constexpr uint64_t mask_of(uint32_t width_bytes) {
  return width_bytes == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * width_bytes)) - 1;
}

/// Not constexpr: reaching a call of it while a table is proven is the compile error, and `what` is its text.
inline void register_table_error(const char* /*what*/) {}

/// A register name as a template argument.
template <size_t n>
struct Name {
  char text[n] = {};
  consteval Name(const char (&literal)[n]) {  // NOLINT: implicit on purpose, written as a string literal
    std::copy_n(literal, n, text);
  }
  constexpr std::string_view view() const { return {text, n - 1}; }
};

}  // namespace reg_file_detail

/// The table, sorted by offset and proven. Fails to compile where a row breaks a rule.
template <typename Device, size_t n>
consteval std::array<Register<Device>, n> register_table(const Register<Device> (&rows)[n]) {
  using reg_file_detail::mask_of;
  using reg_file_detail::register_table_error;
  std::array<Register<Device>, n> table = std::to_array(rows);
  std::sort(table.begin(), table.end(), [](const auto& a, const auto& b) { return a.offset < b.offset; });
  for (size_t i = 0; i < n; ++i) {
    const Register<Device>& row = table[i];
    if (row.name.empty()) register_table_error("a register without a name");
    if (!is_power_of_two(row.width_bytes) || row.width_bytes > 8) register_table_error("width is not 1, 2, 4 or 8");
    if (row.offset % row.width_bytes != 0) register_table_error("offset is not a multiple of the width");
    const uint64_t used = row.reset | row.writable | row.w1c | row.w1s;
    if ((used & ~mask_of(row.width_bytes)) != 0) register_table_error("reset value or mask wider than the register");
    if ((row.writable & (row.w1c | row.w1s)) != 0 || (row.w1c & row.w1s) != 0)
      register_table_error("a bit is in two of writable, w1c, w1s");
    if (i > 0 && table[i - 1].offset + table[i - 1].width_bytes > row.offset)
      register_table_error("two registers overlap");
    for (size_t j = 0; j < i; ++j)
      if (table[j].name == row.name) register_table_error("two registers of one name");
  }
  return table;
}

/// The registers of one device; `rows` is a static constexpr table made by register_table().
template <typename Device, const auto& rows>
class RegFile {
 public:
  static constexpr size_t kCount = rows.size();
  static constexpr uint64_t kSizeBytes = uint64_t{rows.back().offset} + rows.back().width_bytes;

  /// All stored values, for the device's saved-state structure; rows may only be added at the end of the address range.
  using Saved = std::array<le64, kCount>;

  constexpr RegFile() { reset(); }

  /// Stored values back to the table's reset values; no hook runs.
  constexpr void reset() {
    for (size_t i = 0; i < kCount; ++i) values_[i] = rows[i].reset;
  }

  /// The stored value of a register: `registers.value<"STATUS">()`. No hook runs; a wrong name does not compile.
  template <reg_file_detail::Name name>
  constexpr uint64_t value() const {
    return values_[index_of<name>()];
  }
  /// Changes the stored value from the device's side; no write mask applies.
  template <reg_file_detail::Name name>
  constexpr void set(uint64_t value) {
    constexpr size_t index = index_of<name>();
    values_[index] = value & reg_file_detail::mask_of(rows[index].width_bytes);
  }
  template <reg_file_detail::Name name>
  constexpr void set_bits(uint64_t bits) {
    set<name>(value<name>() | bits);
  }
  template <reg_file_detail::Name name>
  constexpr void clear_bits(uint64_t bits) {
    set<name>(value<name>() & ~bits);
  }

  /// A guest read of 1 to 8 bytes at any offset. Each register touched runs its on_read once.
  constexpr uint64_t read(Device& device, uint64_t offset, unsigned size_bytes) {
    uint64_t result = 0;
    for_each_touched(offset, size_bytes, [&](size_t i, const Overlap& overlap) {
      const uint64_t seen = rows[i].on_read == nullptr ? values_[i] : rows[i].on_read(device, values_[i]);
      result |= ((seen & overlap.mask) >> overlap.register_shift) << overlap.access_shift;
    });
    return result;
  }

  /// A guest write of 1 to 8 bytes at any offset. Each register touched changes and runs its on_write once, in order.
  constexpr void write(Device& device, uint64_t offset, unsigned size_bytes, uint64_t value) {
    for_each_touched(offset, size_bytes, [&](size_t i, const Overlap& overlap) {
      const Register<Device>& row = rows[i];
      const uint64_t raw = ((value >> overlap.access_shift) << overlap.register_shift) & overlap.mask;
      const uint64_t before = values_[i];
      const uint64_t plain = row.writable & overlap.mask;
      uint64_t after = (before & ~plain) | (raw & plain);
      after &= ~(raw & row.w1c);
      after |= raw & row.w1s;
      values_[i] = after;
      if (row.on_write != nullptr)
        row.on_write(device, {.before = before, .after = after, .raw = raw, .enabled = overlap.mask});
    });
  }

  Saved save() const {
    Saved saved;
    for (size_t i = 0; i < kCount; ++i) saved[i] = values_[i];
    return saved;
  }

  /// Takes values that may be hostile; an error names the register that cannot hold its value, and nothing changes.
  /// What the values mean to the device, the device checks.
  Result<void> restore(const Saved& saved) {
    for (size_t i = 0; i < kCount; ++i)
      if ((saved[i] & ~reg_file_detail::mask_of(rows[i].width_bytes)) != 0)
        return fail(ErrorCode::kCorrupt, "saved register " + std::string(rows[i].name) + " is wider than " +
                                             std::to_string(rows[i].width_bytes) + " bytes");
    for (size_t i = 0; i < kCount; ++i) values_[i] = saved[i];
    return {};
  }

  /// One line a register, "name +offset = value", stored values without hooks.
  std::string dump() const {
    std::string text;
    for (size_t i = 0; i < kCount; ++i) {
      char number[48];
      std::snprintf(number, sizeof number, " +0x%02x = 0x%0*llx\n", static_cast<unsigned>(rows[i].offset),
                    static_cast<int>(2 * rows[i].width_bytes), static_cast<unsigned long long>(values_[i]));
      text += rows[i].name;
      text += number;
    }
    return text;
  }

 private:
  /// The part of a register that an access covers.
  struct Overlap {
    uint64_t mask = 0;            // covered bits, in the register
    unsigned register_shift = 0;  // of the first covered bit in the register
    unsigned access_shift = 0;    // and in the access
  };

  template <reg_file_detail::Name name>
  static consteval size_t index_of() {
    for (size_t i = 0; i < kCount; ++i)
      if (rows[i].name == name.view()) return i;
    reg_file_detail::register_table_error("no register of that name");
    return kCount;
  }

  template <typename Visit>
  static constexpr void for_each_touched(uint64_t offset, unsigned size_bytes, Visit&& visit) {
    if (offset >= kSizeBytes) return;
    const uint64_t end = offset + std::min(size_bytes, 8u);
    for (size_t i = 0; i < kCount && rows[i].offset < end; ++i) {
      const uint64_t first = std::max<uint64_t>(offset, rows[i].offset);
      const uint64_t last = std::min<uint64_t>(end, uint64_t{rows[i].offset} + rows[i].width_bytes);
      if (first >= last) continue;
      const auto register_shift = static_cast<unsigned>(8 * (first - rows[i].offset));
      visit(i, Overlap{.mask = reg_file_detail::mask_of(static_cast<uint32_t>(last - first)) << register_shift,
                       .register_shift = register_shift,
                       .access_shift = static_cast<unsigned>(8 * (first - offset))});
    }
  }

  std::array<uint64_t, kCount> values_{};
};

}  // namespace tenon
