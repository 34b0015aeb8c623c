#include "engine/jit/lockstep.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

namespace tenon::jit {
namespace {

using testing::HasSubstr;

class LockstepTest : public testing::Test {
 protected:
  void expect(bool with_vector) { lockstep_.expected.take(*cpu_, with_vector); }
  std::string differences() const { return lockstep_.differences(*cpu_, x86::kArithmeticFlags); }

  std::unique_ptr<interp::Cpu> cpu_ = std::make_unique<interp::Cpu>();
  Lockstep lockstep_;
};

TEST_F(LockstepTest, WhatIsTheSameIsNotNamed) {
  cpu_->gpr[3] = 7;
  cpu_->vector.ymm[2][9] = 1;
  expect(true);
  EXPECT_EQ(differences(), "");
}

TEST_F(LockstepTest, EachRegisterIsNamedWithBothValues) {
  expect(true);
  cpu_->gpr[10] = 0x12;
  cpu_->rip = 0x34;
  cpu_->arithmetic_flags = 1;  // OF in AX form
  cpu_->vector.mxcsr = 0x1f80;
  cpu_->vector.ymm[15][0] = 0xab;
  cpu_->vector.fx[48] = 0xcd;
  for (const char* name : {"R10: interpreter 0x0, translated 0x12", "RIP: interpreter 0x0, translated 0x34",
                           "flags: interpreter 0x0, translated 0x800", "MXCSR", "YMM15", "ST(1)"})
    EXPECT_THAT(differences(), HasSubstr(name));
}

TEST_F(LockstepTest, FlagsThatAreUndefinedAreNotCompared) {
  expect(false);
  cpu_->arithmetic_flags = 1;
  EXPECT_TRUE(lockstep_.overflow_differs(*cpu_));
  EXPECT_EQ(lockstep_.differences(*cpu_, x86::kArithmeticFlags & ~uint64_t{x86::kOf}), "");
}

TEST_F(LockstepTest, AddressesOfTheLastX87InstructionAreNotCompared) {
  expect(true);
  for (size_t at = 6; at < 24; ++at) cpu_->vector.fx[at] = 0xff;
  EXPECT_EQ(differences(), "");
}

TEST_F(LockstepTest, RegistersComeBack) {
  cpu_->gpr[0] = 5;
  cpu_->vector.ymm[0][0] = 6;
  lockstep_.before.take(*cpu_, true);
  cpu_->gpr[0] = 0;
  cpu_->vector.ymm[0][0] = 0;
  lockstep_.before.put_back(*cpu_);
  EXPECT_EQ(cpu_->gpr[0], 5u);
  EXPECT_EQ(cpu_->vector.ymm[0][0], 6u);
}

}  // namespace
}  // namespace tenon::jit
