#include "engine/interp/write_log.hh"

#include <gtest/gtest.h>

#include <array>

namespace tenon::interp {
namespace {

class WriteLogTest : public testing::Test {
 protected:
  void write(size_t at, std::initializer_list<int> values) {
    log_.note(memory_.data() + at, 0x1000 + at, static_cast<unsigned>(values.size()));
    for (const int value : values) memory_[at++] = static_cast<std::byte>(value);
  }

  std::array<std::byte, 16> memory_{};
  WriteLog log_;
  WriteLog::Difference difference_;
};

TEST_F(WriteLogTest, OverlappingWritesAreUndoneInReverse) {
  write(0, {1, 2, 3, 4});
  write(2, {5, 6, 7});
  write(3, {8});
  const auto written = memory_;
  log_.undo();
  EXPECT_EQ(memory_, decltype(memory_){});
  memory_ = written;
  EXPECT_FALSE(log_.find_difference(difference_));
  log_.restore();
  EXPECT_EQ(memory_, decltype(memory_){});
}

TEST_F(WriteLogTest, TheFirstByteThatDiffersIsNamed) {
  write(4, {1, 2});
  log_.undo();
  memory_[4] = std::byte{1};
  memory_[5] = std::byte{9};
  ASSERT_TRUE(log_.find_difference(difference_));
  EXPECT_EQ(difference_.gpa, 0x1005u);
  EXPECT_EQ(difference_.first, std::byte{2});
  EXPECT_EQ(difference_.second, std::byte{9});
}

TEST_F(WriteLogTest, ClearedItKnowsNothing) {
  write(0, {1});
  log_.clear();
  log_.restore();
  EXPECT_EQ(memory_[0], std::byte{1});
  EXPECT_FALSE(log_.find_difference(difference_));
}

}  // namespace
}  // namespace tenon::interp
