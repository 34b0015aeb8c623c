#include "engine/jit/fault_injection.hh"

#include <gtest/gtest.h>

#include <thread>

namespace tenon::jit {
namespace {

struct Counts {
  unsigned flush_tlb = 0, drop_code = 0, drop_page = 0, drop_indirect = 0, reset_return_stack = 0, unlink = 0,
           refills = 0;
  bool operator==(const Counts&) const = default;
};

Counts counts(uint64_t seed) {
  std::atomic<uint32_t> poke{0};
  FaultInjection injection(seed, poke);
  Counts result;
  for (int i = 0; i < 100'000; ++i) {
    const FaultInjection::Faults faults = injection.next();
    result.flush_tlb += faults.flush_tlb;
    result.drop_code += faults.drop_code;
    result.drop_page += faults.drop_page;
    result.drop_indirect += faults.drop_indirect;
    result.reset_return_stack += faults.reset_return_stack;
    result.unlink += faults.unlink;
    result.refills += faults.refills_to_failure != 0;
  }
  return result;
}

TEST(FaultInjection, EveryKindHappensAndTheSeedDecides) {
  const Counts first = counts(7);
  EXPECT_GT(first.flush_tlb, 0u);
  EXPECT_GT(first.drop_code, 0u);
  EXPECT_GT(first.drop_page, 0u);
  EXPECT_GT(first.drop_indirect, 0u);
  EXPECT_GT(first.reset_return_stack, 0u);
  EXPECT_GT(first.unlink, 0u);
  EXPECT_GT(first.refills, 0u);
  EXPECT_EQ(first, counts(7));
  EXPECT_NE(first, counts(8));
}

TEST(FaultInjection, PokesAgainAndAgain) {
  std::atomic<uint32_t> poke{0};
  const FaultInjection injection(1, poke);
  for (int i = 0; i < 10; ++i) {
    while (poke.exchange(0) == 0) std::this_thread::yield();
  }
}

TEST(FaultInjection, SeedsDifferInShape) {
  bool strict[2] = {};
  bool small[2] = {};
  for (uint64_t seed = 0; seed < 64; ++seed) {
    const FaultInjection::Shape shape = FaultInjection::shape(seed);
    strict[shape.strict_flags] = true;
    small[shape.insns_max != 0] = true;
  }
  EXPECT_TRUE(strict[0] && strict[1] && small[0] && small[1]);
}

}  // namespace
}  // namespace tenon::jit
