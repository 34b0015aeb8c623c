#include "base/float_trap.hh"

#include <gtest/gtest.h>

#include <array>

#include "base/code_memory.hh"

namespace tenon {
namespace {

// Divides by zero with ZM clear; eax = 0 unless the trap takes it to `resume`, where eax = the MXCSR of the fault.
constexpr std::array<uint8_t, 51> kDivide{
    0x0f, 0xae, 0x5c, 0x24, 0xf8,                    // stmxcsr [rsp-8]
    0xc7, 0x44, 0x24, 0xf0, 0x80, 0x1d, 0x00, 0x00,  // mov dword [rsp-16], 0x1d80
    0x0f, 0xae, 0x54, 0x24, 0xf0,                    // ldmxcsr [rsp-16]
    0x0f, 0x57, 0xc0,                                // xorps xmm0, xmm0
    0xb8, 1, 0, 0, 0,                                // mov eax, 1
    0xf3, 0x0f, 0x2a, 0xc8,                          // cvtsi2ss xmm1, eax
    0xf3, 0x0f, 0x5e, 0xc8,                          // divss xmm1, xmm0
    0x31, 0xc0,                                      // xor eax, eax
    0xc3,                                            // ret
    // resume, at byte 37:
    0x0f, 0xae, 0x5c, 0x24, 0xf0,  // stmxcsr [rsp-16]
    0x8b, 0x44, 0x24, 0xf0,        // mov eax, [rsp-16]
    0x0f, 0xae, 0x54, 0x24, 0xf8,  // ldmxcsr [rsp-8]
};

TEST(FloatTrap, ContinuesAtResumeWithTheFlagsOfTheFault) {
  auto memory = CodeMemory::create(4096, "test-trap");
  ASSERT_TRUE(memory.has_value());
  const std::byte* code = memory->append(kDivide);
  memory->writable()[memory->size_bytes()] = std::byte{0xc3};
  auto range = FloatTrapRange::add(memory->executable(), code + 37);
  ASSERT_TRUE(range.has_value()) << range.error().message();
  const auto run = reinterpret_cast<uint32_t (*)()>(reinterpret_cast<uintptr_t>(code));
  EXPECT_EQ(run(), 0x1d84u);  // ZE set; twice, so that the signal is seen not to stay blocked
  EXPECT_EQ(run(), 0x1d84u);
}

TEST(FloatTrap, SlotsAreGivenBack) {
  auto memory = CodeMemory::create(4096, "test-trap");
  ASSERT_TRUE(memory.has_value());
  for (int i = 0; i < 1000; ++i)
    ASSERT_TRUE(FloatTrapRange::add(memory->executable(), memory->executable().data()).has_value());
}

using FloatTrapDeathTest = testing::Test;
TEST(FloatTrapDeathTest, OutsideEveryRangeTheProcessStillDies) {
  auto memory = CodeMemory::create(4096, "test-trap");
  ASSERT_TRUE(memory.has_value());
  const std::byte* code = memory->append(kDivide);
  auto range = FloatTrapRange::add(memory->executable().subspan(2048), code + 37);
  ASSERT_TRUE(range.has_value());
  EXPECT_DEATH(reinterpret_cast<uint32_t (*)()>(reinterpret_cast<uintptr_t>(code))(), "");
}

}  // namespace
}  // namespace tenon
