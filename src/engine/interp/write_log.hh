// WriteLog: what stores have overwritten in guest RAM, so that they can be undone and made again: for running a piece
// of code twice (jit/lockstep.hh). While Cpu::write_log points to one, the soft TLB gets no entries, so that every
// store takes the slow way, where it is noted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace tenon::interp {

class WriteLog {
 public:
  /// `size_bytes` at `host` are about to be written.
  void note(std::byte* host, uint64_t gpa, unsigned size_bytes) {
    entries_.push_back({host, gpa, size_bytes, before_.size()});
    before_.insert(before_.end(), host, host + size_bytes);
  }
  void clear() {
    entries_.clear();
    before_.clear();
    after_.clear();
  }
  /// Keeps what is there now for difference(), and puts back what was there before.
  void undo() {
    after_.clear();
    for (const Entry& entry : entries_) after_.insert(after_.end(), entry.host, entry.host + entry.size_bytes);
    restore();
  }
  /// Puts back what was there before.
  void restore() {
    for (size_t i = entries_.size(); i-- > 0;)
      std::memcpy(entries_[i].host, &before_[entries_[i].at], entries_[i].size_bytes);
  }
  struct Difference {
    uint64_t gpa = 0;
    std::byte first{};   // at undo()
    std::byte second{};  // now
  };
  /// Whether a byte is not what it was at undo().
  bool find_difference(Difference& out) const {
    for (const Entry& entry : entries_) {
      for (unsigned i = 0; i < entry.size_bytes; ++i) {
        if (entry.host[i] == after_[entry.at + i]) continue;
        out = {entry.gpa + i, after_[entry.at + i], entry.host[i]};
        return true;
      }
    }
    return false;
  }

 private:
  struct Entry {
    std::byte* host;
    uint64_t gpa;
    unsigned size_bytes;
    size_t at;  // in before_ and after_
  };
  std::vector<Entry> entries_;
  std::vector<std::byte> before_, after_;
};

}  // namespace tenon::interp
