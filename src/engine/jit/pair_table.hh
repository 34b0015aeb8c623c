// PairTable: a hash table from a pair of 64-bit numbers to a 32-bit one that is not 0, for look-ups of a few
// nanoseconds.
//
// Open addressing with linear probing, at most two thirds full. Erasing moves later entries of the run back, so there
// are no graves and a table that lives long stays as fast as a new one. It starts small and doubles; it never shrinks.
//
// Threads: the owner's. Guest-chosen keys can make long runs, which cost the guest's own vCPU alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tenon::jit {

class PairTable {
 public:
  PairTable() : slots_(kSlotsMin) {}

  /// The value under (first, second), or 0.
  uint32_t find(uint64_t first, uint64_t second) const { return slots_[index_of(first, second)].value; }

  /// Adds or replaces. `value` is not 0.
  void set(uint64_t first, uint64_t second, uint32_t value) {
    size_t index = index_of(first, second);
    if (slots_[index].value == 0) {
      if ((size_ + 1) * 3 > slots_.size() * 2) {
        grow();
        index = index_of(first, second);
      }
      ++size_;
    }
    slots_[index] = {.first = first, .second = second, .value = value};
  }

  /// Removes (first, second) if it is there.
  void erase(uint64_t first, uint64_t second) {
    const size_t mask = slots_.size() - 1;
    size_t hole = index_of(first, second);
    if (slots_[hole].value == 0) return;
    --size_;
    // An entry may move back to the hole unless its home lies behind the hole on the way to it.
    for (size_t i = (hole + 1) & mask; slots_[i].value != 0; i = (i + 1) & mask) {
      const size_t home = home_of(slots_[i].first, slots_[i].second);
      if (((i - home) & mask) < ((i - hole) & mask)) continue;
      slots_[hole] = slots_[i];
      hole = i;
    }
    slots_[hole] = {};
  }

  void clear() {
    slots_ = std::vector<Slot>(kSlotsMin);
    shift_ = kShiftMax;
    size_ = 0;
  }

  size_t size() const { return size_; }

 private:
  static constexpr size_t kSlotsMin = 16;
  static constexpr unsigned kShiftMax = 60;  // 64 - log2(kSlotsMin)

  struct Slot {
    uint64_t first = 0;
    uint64_t second = 0;
    uint32_t value = 0;  // 0: empty
  };

  /// The high bits of products by odd constants: neighbouring keys are spread, and the two multiplications overlap.
  size_t home_of(uint64_t first, uint64_t second) const {
    return ((first * 0x9e3779b97f4a7c15) ^ (second * 0xc2b2ae3d27d4eb4f)) >> shift_;
  }

  /// Where (first, second) is, or the empty slot where it would go.
  size_t index_of(uint64_t first, uint64_t second) const {
    const size_t mask = slots_.size() - 1;
    size_t index = home_of(first, second);
    while (slots_[index].value != 0 && (slots_[index].first != first || slots_[index].second != second)) {
      index = (index + 1) & mask;
    }
    return index;
  }

  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    --shift_;
    for (const Slot& slot : old) {
      if (slot.value != 0) slots_[index_of(slot.first, slot.second)] = slot;
    }
  }

  std::vector<Slot> slots_;  // a power of two of them, never full
  unsigned shift_ = kShiftMax;
  size_t size_ = 0;
};

}  // namespace tenon::jit
