// CodeChanges: tells every vCPU which bytes of guest code were written.
//
// Interpreted code compares the version of its page (CodeWatch::Page) each time it is entered. Translated code is
// linked and compares nothing, so it must be told: whoever writes bytes under a granule notes it here, which appends a
// line to a log that all vCPUs share and sets the poke word of each. A vCPU that finds its poke word set leaves
// translated code and reads the log from its own cursor on. The log is a ring; a vCPU that has fallen behind, or that
// finds a line being written just now, is told that anything may have changed and compares versions itself.
//
// A line is one word: the number of its lap around the ring, the first granule and their number. So a line is whole or
// from another lap, and a writer that was held up in the middle can only make readers find the wrong lap.
// Order: bytes, version, line, poke word. A vCPU clears its poke word before it reads the log.
// Threads: note() any, without waiting for anybody; a Listener belongs to its vCPU's thread.
// Scaling: only writes that hit code come here; each costs a store for every vCPU that has translated code.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/mutex.hh"
#include "vm/address.hh"

namespace tenon {

class CodeChanges {
 public:
  static constexpr unsigned kLines = 256;
  static constexpr uint64_t kGranuleSize = 64;

  /// One vCPU's place in the log.
  class Listener {
   public:
    Listener() = default;
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;

   private:
    friend class CodeChanges;
    std::atomic<uint32_t>* poke_ = nullptr;
    std::atomic<Listener*> next_{nullptr};
    uint64_t cursor_ = 0;  // the first line that it has not read
  };

  /// From now on changes set `poke`; earlier ones do not count. Not while the listener is added.
  void add(Listener& listener, std::atomic<uint32_t>& poke);
  /// On return nobody touches the listener or its poke word any more.
  void remove(Listener& listener);

  /// [gpa, gpa + size_bytes), inside one page, was written, and the versions have grown. `writer`: its own vCPU, which
  /// knows already. Uses general registers only: page walks from translated code come here.
  void note(Gpa gpa, uint64_t size_bytes, Listener* writer);

  /// Whether there is anything to read for `listener`.
  bool has_news(const Listener& listener) const { return head_.load(std::memory_order_acquire) != listener.cursor_; }
  /// Calls changed(Gpa, size_bytes) for each new line, or any() once where they cannot be told.
  template <typename Changed, typename Any>
  void read(Listener& listener, Changed&& changed, Any&& any) const {
    const uint64_t head = head_.load(std::memory_order_seq_cst);
    bool whole = head - listener.cursor_ <= kLines;
    for (uint64_t at = listener.cursor_; whole && at != head; ++at) {
      const uint64_t line = lines_[at % kLines].load(std::memory_order_seq_cst);
      whole = line >> kLapShift == lap(at);
      if (whole)
        changed(Gpa((line & kGranuleMask) * kGranuleSize), (line >> kCountShift & 63) * kGranuleSize + kGranuleSize);
    }
    listener.cursor_ = head;
    if (!whole) any();
  }

 private:
  // Bits of a line: 45:0 first granule, 51:46 number of granules - 1, 63:52 lap. No address has more than 52 bits.
  static constexpr unsigned kCountShift = 46;
  static constexpr unsigned kLapShift = 52;
  static constexpr uint64_t kGranuleMask = (uint64_t{1} << kCountShift) - 1;
  static constexpr uint64_t lap(uint64_t at) { return (at / kLines + 1) & 0xfff; }  // an unused line is in lap 0

  std::atomic<uint64_t> head_{0};  // lines ever written, or being written
  std::atomic<Listener*> first_{nullptr};
  std::atomic<uint32_t> notifying_{0};  // threads that go along the list of listeners
  Mutex changing_;                      // who adds or removes a listener
  std::atomic<uint64_t> lines_[kLines]{};
};

}  // namespace tenon
