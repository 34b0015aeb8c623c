// Fault injection for tests: whatever translated code and the runner remember is forgotten at random, and slow ways are
// taken where fast ones would do. None of it may change what a guest sees.
//
// Two sources. The runner asks at each look-up what to forget; the answers depend on the seed alone. A thread beside
// the vCPU pokes it at random instants, so that there are look-ups while hot code runs.
//
// Threads: next() is the vCPU's; the poking thread only stores to `poke`.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace tenon::jit {

class FaultInjection {
 public:
  /// What to do before a look-up.
  struct Faults {
    bool flush_tlb = false;      // with all that is known of where code is
    bool drop_code = false;      // the whole code cache
    bool drop_page = false;      // the code of the page that is looked up
    bool drop_indirect = false;  // the cache of indirect branches
    bool reset_return_stack = false;
    bool unlink = false;              // links without a guard
    uint32_t refills_to_failure = 0;  // not 0: the so-manieth refill of the soft TLB from now on fails
  };

  FaultInjection(uint64_t seed, std::atomic<uint32_t>& poke);
  ~FaultInjection();
  FaultInjection(const FaultInjection&) = delete;
  FaultInjection& operator=(const FaultInjection&) = delete;

  Faults next();

  /// Choices made once: of the translator's options and the size of the code cache.
  struct Shape {
    bool strict_flags = false;
    unsigned insns_max = 0;  // in a region; 0: as ever
    uint64_t cache_bytes = 0;
  };
  static Shape shape(uint64_t seed);

 private:
  uint64_t random();
  bool one_in(uint64_t n) { return random() % n == 0; }

  uint64_t state_;
  std::atomic<bool> ends_{false};
  std::thread poker_;
};

}  // namespace tenon::jit
