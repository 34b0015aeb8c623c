// The example of how a device uses RegFile, and its rules one by one.
#include "vm/reg_file.hh"

#include <gtest/gtest.h>

#include <vector>

namespace tenon {
namespace {

/// A made-up device: a control register that starts it, a status register, a counter read from elsewhere, a data port.
class Widget {
 public:
  uint64_t read(uint64_t offset, unsigned size_bytes) { return registers_.read(*this, offset, size_bytes); }
  void write(uint64_t offset, unsigned size_bytes, uint64_t value) {
    registers_.write(*this, offset, size_bytes, value);
  }

  uint64_t ticks = 0;
  unsigned tick_reads = 0;
  std::vector<RegisterWrite> control_writes;

 private:
  static void control_written(Widget& widget, const RegisterWrite& write) {
    widget.control_writes.push_back(write);
    if (widget.registers_.value<"CTRL">() & 1) widget.registers_.set_bits<"STATUS">(0x80);
  }
  static uint64_t ticks_read(Widget& widget, uint64_t) {
    ++widget.tick_reads;
    return widget.ticks;
  }

  // clang-format off
  static constexpr auto kRegisters = register_table<Widget>({
      {.name = "CTRL",   .offset = 0x00, .width_bytes = 4, .reset = 0x100, .writable = 0xffff, .on_write = control_written},
      {.name = "STATUS", .offset = 0x04, .width_bytes = 4, .reset = 0x3,   .w1c = 0xff, .w1s = 0x100},
      {.name = "TICKS",  .offset = 0x10, .width_bytes = 8, .on_read = ticks_read},
      {.name = "INDEX",  .offset = 0x08, .width_bytes = 1, .writable = 0x7f},
      {.name = "DATA",   .offset = 0x0a, .width_bytes = 2, .writable = 0xffff},
  });
  // clang-format on

 public:
  RegFile<Widget, kRegisters> registers_;
};

using Registers = decltype(Widget::registers_);
static_assert(Registers::kCount == 5 && Registers::kSizeBytes == 0x18);

TEST(RegFile, ResetValuesAndWriteMasks) {
  Widget widget;
  EXPECT_EQ(widget.read(0, 4), 0x100u);
  widget.write(0, 4, 0xdeadbeee);
  EXPECT_EQ(widget.read(0, 4), 0xbeeeu);
  widget.registers_.reset();
  EXPECT_EQ(widget.read(0, 4), 0x100u);
}

TEST(RegFile, WriteOneToClearAndToSet) {
  Widget widget;
  widget.write(4, 4, 0x101);
  EXPECT_EQ(widget.read(4, 4), 0x102u);
  widget.write(4, 4, 0);
  EXPECT_EQ(widget.read(4, 4), 0x102u);
  widget.write(4, 1, 0xff);  // only the bytes written clear
  EXPECT_EQ(widget.read(4, 4), 0x100u);
}

TEST(RegFile, PartialAccessTouchesOnlyItsBytes) {
  Widget widget;
  widget.write(1, 1, 0xab);
  EXPECT_EQ(widget.read(0, 4), 0xab00u);
  EXPECT_EQ(widget.read(1, 1), 0xabu);
  EXPECT_EQ(widget.read(0, 2), 0xab00u);
  ASSERT_EQ(widget.control_writes.size(), 1u);
  EXPECT_EQ(widget.control_writes[0].before, 0x100u);
  EXPECT_EQ(widget.control_writes[0].after, 0xab00u);
  EXPECT_EQ(widget.control_writes[0].raw, 0xab00u);
  EXPECT_EQ(widget.control_writes[0].enabled, 0xff00u);
}

TEST(RegFile, WideAccessTouchesSeveralRegisters) {
  Widget widget;
  widget.write(0x08, 4, 0x1234'55ff);
  EXPECT_EQ(widget.read(0x08, 1), 0x7fu);
  EXPECT_EQ(widget.read(0x0a, 2), 0x1234u);
  EXPECT_EQ(widget.read(0x08, 4), 0x1234'007fu);  // the unclaimed byte 0x09 reads zero
  EXPECT_EQ(widget.read(0x00, 8), 0x3'0000'0100u);
}

TEST(RegFile, MisalignedAccessAcrossRegisters) {
  Widget widget;
  widget.write(0x07, 4, 0xab'cd'12'00);  // last byte of STATUS, INDEX, nothing, low byte of DATA
  EXPECT_EQ(widget.registers_.value<"INDEX">(), 0x12u);
  EXPECT_EQ(widget.registers_.value<"DATA">(), 0x00abu);
  EXPECT_EQ(widget.read(0x07, 4), 0xab'00'12'00u);
}

TEST(RegFile, AccessPastTheEndReadsZeroAndIgnoresWrites) {
  Widget widget;
  EXPECT_EQ(widget.read(0x18, 4), 0u);
  EXPECT_EQ(widget.read(~uint64_t{0}, 8), 0u);
  widget.write(~uint64_t{0} - 3, 8, ~uint64_t{0});
  widget.ticks = 0x1122'3344'5566'7788;
  EXPECT_EQ(widget.read(0x17, 8), 0x11u);
}

TEST(RegFile, ReadHookRunsOnceAndCutsToTheAccess) {
  Widget widget;
  widget.ticks = 0x1122'3344'5566'7788;
  EXPECT_EQ(widget.read(0x14, 4), 0x1122'3344u);
  EXPECT_EQ(widget.tick_reads, 1u);
  EXPECT_EQ(widget.read(0x00, 4), 0x100u);
  EXPECT_EQ(widget.tick_reads, 1u);
}

TEST(RegFile, WriteHookMayChangeOtherRegisters) {
  Widget widget;
  widget.write(0, 4, 1);
  EXPECT_EQ(widget.read(4, 4), 0x83u);
}

TEST(RegFile, SaveAndRestore) {
  Widget widget;
  widget.write(0x08, 4, 0x1234'0056);
  const Registers::Saved saved = widget.registers_.save();
  static_assert(sizeof saved == 5 * 8);
  Widget other;
  ASSERT_TRUE(other.registers_.restore(saved).has_value());
  EXPECT_EQ(other.read(0x08, 4), 0x1234'0056u);
}

TEST(RegFile, RestoreNamesTheBadRegisterAndChangesNothing) {
  Widget widget;
  widget.write(0x08, 4, 0x1234'0056);
  Registers::Saved saved = widget.registers_.save();
  saved[2] = 0x1ff;  // sorted by offset: INDEX, one byte wide
  saved[0] = 0;
  const Result<void> result = widget.registers_.restore(saved);
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code(), ErrorCode::kCorrupt);
  EXPECT_NE(result.error().message().find("INDEX"), std::string::npos);
  EXPECT_EQ(widget.read(0, 4), 0x100u);
}

TEST(RegFile, DumpNamesEveryRegister) {
  Widget widget;
  EXPECT_EQ(widget.registers_.dump(),
            "CTRL +0x00 = 0x00000100\n"
            "STATUS +0x04 = 0x00000003\n"
            "INDEX +0x08 = 0x00\n"
            "DATA +0x0a = 0x0000\n"
            "TICKS +0x10 = 0x0000000000000000\n");
}

}  // namespace
}  // namespace tenon
