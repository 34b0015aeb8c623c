// PairTable: a FlatTable under pairs of 64-bit numbers; OffsetTable: one under offsets in a page.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/jit/flat_table.hh"

namespace tenon::jit {

class PairTable {
 public:
  /// The value under (first, second), or 0.
  uint32_t find(uint64_t first, uint64_t second) const { return table_.find({first, second}); }
  /// Adds or replaces. `value` is not 0.
  void set(uint64_t first, uint64_t second, uint32_t value) { table_.set({first, second}, value); }
  /// Removes (first, second) if it is there.
  void erase(uint64_t first, uint64_t second) { table_.erase({first, second}); }
  void clear() { table_.clear(); }
  size_t size() const { return table_.size(); }

 private:
  struct Pair {
    uint64_t first = 0;
    uint64_t second = 0;
    bool operator==(const Pair&) const = default;
  };
  /// Products by odd constants: neighbouring keys are spread, and the two multiplications overlap.
  static uint64_t hash(const Pair& pair) {
    return (pair.first * 0x9e3779b97f4a7c15) ^ (pair.second * 0xc2b2ae3d27d4eb4f);
  }

  FlatTable<Pair, hash> table_;
};

inline uint64_t hash_of_offset(const uint16_t& offset) { return offset * 0x9e3779b97f4a7c15; }
using OffsetTable = FlatTable<uint16_t, hash_of_offset>;

}  // namespace tenon::jit
