// FlatTable: a hash table from small keys to 32-bit numbers that are not 0, for look-ups of a few nanoseconds.
//
// Open addressing with linear probing, at most two thirds full. Erasing moves later entries of the run back, so there
// are no graves and a table that lives long stays as fast as a new one. It starts small and doubles; it never shrinks.
// `Hash` makes 64 bits of a key, of which the highest count.
//
// Threads: the owner's. Guest-chosen keys can make long runs, which cost the guest's own vCPU alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tenon::jit {

template <typename Key, uint64_t (*Hash)(const Key&)>
class FlatTable {
 public:
  FlatTable() : slots_(kSlotsMin) {}

  /// The value under `key`, or 0.
  uint32_t find(const Key& key) const { return slots_[index_of(key)].value; }

  /// Adds or replaces. `value` is not 0.
  void set(const Key& key, uint32_t value) {
    size_t index = index_of(key);
    if (slots_[index].value == 0) {
      if ((size_ + 1) * 3 > slots_.size() * 2) {
        grow();
        index = index_of(key);
      }
      ++size_;
    }
    slots_[index] = {.key = key, .value = value};
  }

  /// Removes `key` if it is there.
  void erase(const Key& key) {
    const size_t mask = slots_.size() - 1;
    size_t hole = index_of(key);
    if (slots_[hole].value == 0) return;
    --size_;
    // An entry may move back to the hole unless its home lies behind the hole on the way to it.
    for (size_t i = (hole + 1) & mask; slots_[i].value != 0; i = (i + 1) & mask) {
      const size_t home = home_of(slots_[i].key);
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
    Key key{};
    uint32_t value = 0;  // 0: empty
  };

  size_t home_of(const Key& key) const { return Hash(key) >> shift_; }

  /// Where `key` is, or the empty slot where it would go.
  size_t index_of(const Key& key) const {
    const size_t mask = slots_.size() - 1;
    size_t index = home_of(key);
    while (slots_[index].value != 0 && !(slots_[index].key == key)) index = (index + 1) & mask;
    return index;
  }

  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    --shift_;
    for (const Slot& slot : old) {
      if (slot.value != 0) slots_[index_of(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;  // a power of two of them, never full
  unsigned shift_ = kShiftMax;
  size_t size_ = 0;
};

}  // namespace tenon::jit
