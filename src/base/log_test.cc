#include "base/log.hh"

#include <gtest/gtest.h>

#include <string>

namespace tenon {
namespace {

class LogTest : public testing::Test {
 protected:
  ~LogTest() override { set_log_level(LogLevel::kWarning); }
};

TEST_F(LogTest, GoesToStandardErrorWithItsLevel) {
  testing::internal::CaptureStderr();
  log_warning("disk {} is {}", "d0", 7);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "tenon: warning: disk d0 is 7\n");
}

TEST_F(LogTest, BelowTheLevelNothingIsWritten) {
  testing::internal::CaptureStderr();
  log_info("not seen");
  set_log_level(LogLevel::kOff);
  log_error("not seen either");
  set_log_level(LogLevel::kDebug);
  log_debug("seen");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "tenon: debug: seen\n");
}

TEST_F(LogTest, BracesInArgumentsAreText) {
  testing::internal::CaptureStderr();
  log_error("guest says {}", "{0} {}");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "tenon: error: guest says {0} {}\n");
}

}  // namespace
}  // namespace tenon
