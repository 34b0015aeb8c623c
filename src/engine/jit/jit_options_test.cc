#include <gtest/gtest.h>

#include "engine/jit/jit_engine.hh"

namespace tenon {
namespace {

TEST(JitOptions, NothingIsTheDefaults) {
  const Result<JitOptions> options = parse_jit_options("");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->cache_bytes, JitOptions{}.cache_bytes);
  EXPECT_FALSE(options->strict_flags || options->lockstep || options->fault_injection.has_value());
}

TEST(JitOptions, WordsWithCommas) {
  const Result<JitOptions> options = parse_jit_options("cache=16,fault-injection=0,strict-flags");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->cache_bytes, size_t{16} << 20);
  EXPECT_EQ(options->fault_injection, 0u);
  EXPECT_TRUE(options->strict_flags);
  EXPECT_FALSE(options->lockstep);
}

TEST(JitOptions, LockstepComparesFlagsSoTheyMustBeExact) {
  const Result<JitOptions> options = parse_jit_options("lockstep");
  ASSERT_TRUE(options);
  EXPECT_TRUE(options->lockstep && options->strict_flags);
}

TEST(JitOptions, WrongOnesAreRefusedWithTheirName) {
  for (const char* text : {"lockstp", "lockstep=1", "cache", "cache=", "cache=3", "cache=1025", "cache=16M", "cache=-1",
                           "fault-injection", "fault-injection=x", "strict-flags,,lockstep", "=", "lockstep="}) {
    const Result<JitOptions> options = parse_jit_options(text);
    ASSERT_FALSE(options) << text;
    EXPECT_EQ(options.error().code(), ErrorCode::kInvalidArgument);
  }
  EXPECT_NE(parse_jit_options("cache=3").error().message().find("cache=3"), std::string::npos);
}

}  // namespace
}  // namespace tenon
