#include "base/result.hh"

#include <gtest/gtest.h>

#include <memory>

namespace tenon {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return fail(ErrorCode::kInvalidArgument, std::to_string(value) + " is odd");
  return value / 2;
}

Result<std::unique_ptr<int>> quarter(int value) {
  const int halved = TRY(half(value));
  return std::make_unique<int>(TRY(half(halved)));
}

Result<void> check_quarter(int value) {
  TRY(quarter(value));
  return {};
}

TEST(Result, TryPassesValuesAndErrors) {
  EXPECT_EQ(**quarter(8), 2);
  EXPECT_EQ(quarter(6).error().message(), "3 is odd");
  EXPECT_TRUE(check_quarter(4).has_value());
  EXPECT_EQ(check_quarter(5).error().code(), ErrorCode::kInvalidArgument);
}

TEST(Result, MustTakesTheValue) { EXPECT_EQ(MUST(half(4)), 2); }

TEST(ResultDeathTest, MustStopsOnAnError) { EXPECT_DEATH(static_cast<void>(MUST(half(3))), "check failed"); }

TEST(Result, ContextIsPutInFront) {
  EXPECT_EQ(Error(ErrorCode::kIo, "short read").with_context("kernel").with_context("boot").message(),
            "boot: kernel: short read");
}

TEST(Result, ErrnoBecomesCodeAndText) {
  EXPECT_EQ(Error::from_errno("open x", ENOENT).code(), ErrorCode::kNotFound);
  EXPECT_EQ(Error::from_errno("open x", ENOENT).message(), "open x: No such file or directory");
  EXPECT_EQ(Error::from_errno("mmap", ENOMEM).code(), ErrorCode::kNoMemory);
  EXPECT_EQ(Error::from_errno("x", EACCES).code(), ErrorCode::kIo);
  EXPECT_EQ(Error::from_errno("x", 99999).message(), "x: unknown error");
}

}  // namespace
}  // namespace tenon
