#include "devices/chip/reset_control.hh"

#include <gtest/gtest.h>

#include "devices/chip/debug_exit.hh"
#include "devices/chip/post_code.hh"

namespace tenon {
namespace {

TEST(ResetControl, ResetsOnTheRisingEdgeOfRstCpu) {
  unsigned resets = 0;
  ResetControl control([&] { ++resets; });
  control.bus_write(0, 1, 0x02);
  EXPECT_EQ(resets, 0u);
  control.bus_write(0, 1, 0x06);
  EXPECT_EQ(resets, 1u);
  control.bus_write(0, 1, 0x0e);
  EXPECT_EQ(resets, 1u);
  EXPECT_EQ(control.bus_read(0, 1), 0x0eu);
  control.reset();
  control.bus_write(0, 1, ResetControl::kResetValue);
  EXPECT_EQ(resets, 2u);
}

TEST(ResetControl, StateIsChecked) {
  ResetControl control(nullptr);
  SavedState state = control.save();
  EXPECT_TRUE(control.restore(state));
  state.bytes[0] = std::byte{1};
  EXPECT_FALSE(control.restore(state));
}

TEST(DebugExit, TellsTheValueAndMakesAnOddStatus) {
  uint32_t seen = 0;
  Bus ports("port");
  DebugExit exit([&](uint32_t value) { seen = value; });
  ASSERT_TRUE(exit.map(ports));
  ports.write(DebugExit::kPort, 1, 0x10);
  EXPECT_EQ(seen, 0x10u);
  EXPECT_EQ(DebugExit::exit_status(0), 1);
  EXPECT_EQ(DebugExit::exit_status(0x10), 0x21);
  EXPECT_EQ(DebugExit::exit_status(0xffffffff), 0xff);
  EXPECT_TRUE(exit.restore(exit.save()));
  EXPECT_FALSE(exit.restore({.schema = "other", .version = 1, .bytes = {}}));
}

TEST(PostCode, KeepsBytesAndTheLastCode) {
  Bus ports("port");
  PostCode post;
  ASSERT_TRUE(post.map(ports));
  ports.write(0x80, 1, 0x77);
  ports.write(0x81, 2, 0x3412);
  EXPECT_EQ(post.code(), 0x77);
  EXPECT_EQ(ports.read(0x80, 4), 0x00341277u);
  const SavedState state = post.save();
  post.reset();
  EXPECT_EQ(post.code(), 0);
  ASSERT_TRUE(post.restore(state));
  EXPECT_EQ(post.code(), 0x77);
}

}  // namespace
}  // namespace tenon
