#include "engine/jit/fault_injection.hh"

#include <chrono>

namespace tenon::jit {

namespace {

/// splitmix64 (Steele, Lea, Flood 2014): seeded, small, the same everywhere.
uint64_t next_random(uint64_t& state) {
  state += 0x9e3779b97f4a7c15;
  uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

FaultInjection::FaultInjection(uint64_t seed, std::atomic<uint32_t>& poke) : state_(seed) {
  poker_ = std::thread([this, &poke, own = ~seed]() mutable {
    constexpr uint64_t kPauseUsMax = 500;
    while (!ends_.load(std::memory_order_relaxed)) {
      poke.store(1, std::memory_order_seq_cst);
      std::this_thread::sleep_for(std::chrono::microseconds(1 + next_random(own) % kPauseUsMax));
    }
  });
}

FaultInjection::~FaultInjection() {
  ends_.store(true, std::memory_order_relaxed);
  poker_.join();
}

uint64_t FaultInjection::random() { return next_random(state_); }

FaultInjection::Faults FaultInjection::next() {
  Faults faults;
  faults.flush_tlb = one_in(256);
  faults.drop_code = one_in(32768);
  faults.drop_page = one_in(1024);
  faults.drop_indirect = one_in(64);
  faults.reset_return_stack = one_in(32);
  faults.unlink = one_in(4096);
  if (one_in(16)) faults.refills_to_failure = 1 + static_cast<uint32_t>(random() % 64);
  return faults;
}

FaultInjection::Shape FaultInjection::shape(uint64_t seed) {
  constexpr uint64_t kSmallestCache = uint64_t{4} << 20;
  const uint64_t bits = next_random(seed);
  Shape shape{.strict_flags = (bits & 1) != 0, .insns_max = 0, .cache_bytes = kSmallestCache};
  if ((bits >> 1) % 4 == 0) shape.insns_max = 4 + static_cast<unsigned>((bits >> 3) % 8);
  return shape;
}

}  // namespace tenon::jit
