#include "machine/personality_kvm.hh"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "vm/fake_clock.hh"

namespace tenon {
namespace {

class KvmPersonalityTest : public ::testing::Test {
 protected:
  explicit KvmPersonalityTest(uint64_t tsc_hz = 2'345'678'000) : clock_(tsc_hz) {
    MUST(memory_.add({Gpa(0), 1 << 20}, ExtentKind::kPrivate, "ram"));  // fresh memory of a valid size
    personality_ = make();
  }
  std::unique_ptr<KvmPersonality> make(uint32_t vcpus = 2, bool own_apics = true) {
    return std::make_unique<KvmPersonality>(PersonalityConfig{.memory = &memory_,
                                                              .clock = &clock_,
                                                              .vcpus = vcpus,
                                                              .apic_timer_hz = 1'000'000'000,
                                                              .has_own_local_apics = own_apics});
  }
  template <typename Wire>
  Wire read(uint64_t address) {
    Wire wire;
    EXPECT_TRUE(memory_.read_object(Gpa(address), wire));
    return wire;
  }
  /// Guest time by the page at `address` when the guest's TSC reads `tsc`, as pvclock-abi.h says.
  uint64_t guest_time(uint64_t address, uint64_t tsc) {
    __extension__ using Wide = unsigned __int128;
    const auto time = read<kvm_pv::VcpuTime>(address);
    uint64_t delta = tsc - time.tsc_timestamp;
    const auto shift = static_cast<int8_t>(time.tsc_shift);
    delta = shift < 0 ? delta >> -shift : delta << shift;
    return time.system_time + static_cast<uint64_t>(Wide{delta} * time.tsc_to_system_mul >> 32);
  }

  FakeClock clock_;
  GuestMemory memory_;
  std::unique_ptr<KvmPersonality> personality_;
};

TEST_F(KvmPersonalityTest, Cpuid) {
  const auto leaves = personality_->cpuid();
  ASSERT_EQ(leaves.size(), 3u);
  char signature[12];
  std::memcpy(signature, &leaves[0].result.ebx, 12);
  EXPECT_EQ(std::string(signature, 12), std::string("KVMKVMKVM\0\0\0", 12));
  EXPECT_EQ(leaves[1].result.eax & kvm_pv::kClockSource2, uint32_t{kvm_pv::kClockSource2});
  EXPECT_EQ(leaves[2].result.eax, 2'345'678u);
  EXPECT_EQ(leaves[2].result.ebx, 1'000'000u);
}

TEST_F(KvmPersonalityTest, InKernelControllersHaveNoPvEoi) {
  const auto other = make(1, false);
  EXPECT_FALSE(other->has_pv_eoi());
  EXPECT_EQ(other->cpuid()[1].result.eax & kvm_pv::kPvEoi, 0u);
}

TEST_F(KvmPersonalityTest, SystemTimeFollowsTheClock) {
  clock_.advance_ns(123'456'789);
  ASSERT_TRUE(personality_->write_msr(VcpuId{0}, kvm_pv::kMsrSystemTime, 0x1000 | 1));
  for (const uint64_t step : {uint64_t{0}, uint64_t{1'000}, uint64_t{1'000'000'000}, uint64_t{86'400'000'000'000}}) {
    clock_.advance_ns(step);
    const uint64_t time = guest_time(0x1000, clock_.now_tsc());
    EXPECT_NEAR(static_cast<double>(time), static_cast<double>(clock_.now_ns()),
                2 + static_cast<double>(clock_.now_ns()) * 5e-10);
  }
  const auto page = read<kvm_pv::VcpuTime>(0x1000);
  EXPECT_EQ(page.version % 2, 0u);
  EXPECT_NE(page.version, 0u);
  EXPECT_EQ(page.flags, kvm_pv::kTimeTscStable);
}

TEST_F(KvmPersonalityTest, AllVcpusAgreeWhateverTheirTscOffset) {
  clock_.advance_ns(5'000'000'000);
  personality_->write_msr(VcpuId{0}, kvm_pv::kMsrSystemTime, 0x1001);
  personality_->write_msr(VcpuId{1}, kvm_pv::kMsrSystemTime, 0x2001);
  const uint32_t version = read<kvm_pv::VcpuTime>(0x2000).version;
  personality_->tsc_offset_changed(VcpuId{1}, uint64_t{0} - 1'000'000);
  EXPECT_EQ(guest_time(0x1000, clock_.now_tsc()), guest_time(0x2000, clock_.now_tsc() - 1'000'000));
  EXPECT_EQ(read<kvm_pv::VcpuTime>(0x2000).version, version + 2);
}

TEST_F(KvmPersonalityTest, WallClockIsTheTimeAtGuestTimeZero) {
  clock_.set_wall_time_at_start_ns(1'700'000'000'123'456'789);
  clock_.advance_ns(10'000'000'000);
  ASSERT_TRUE(personality_->write_msr(VcpuId{0}, kvm_pv::kMsrWallClock, 0x3000));
  const auto clock = read<kvm_pv::WallClock>(0x3000);
  EXPECT_EQ(clock.seconds, 1'700'000'000u);
  EXPECT_EQ(clock.nanoseconds, 123'456'789u);
  EXPECT_EQ(clock.version % 2, 0u);
  personality_->write_msr(VcpuId{1}, kvm_pv::kMsrWallClock, 0x3000);
  EXPECT_GT(read<kvm_pv::WallClock>(0x3000).version, uint32_t{clock.version});
}

TEST_F(KvmPersonalityTest, HostileAddressesDoNothing) {
  for (const uint64_t address :
       {uint64_t{0xffffffffffffffff}, uint64_t{0xffff8}, uint64_t{0xfffff}, uint64_t{1} << 40 | 1}) {
    EXPECT_TRUE(personality_->write_msr(VcpuId{0}, kvm_pv::kMsrSystemTime, address | 1));
    EXPECT_TRUE(personality_->write_msr(VcpuId{0}, kvm_pv::kMsrWallClock, address));
  }
  uint64_t value = 0;
  EXPECT_TRUE(personality_->read_msr(VcpuId{0}, kvm_pv::kMsrSystemTime, value));
  EXPECT_EQ(value, uint64_t{1} << 40 | 1);
}

TEST_F(KvmPersonalityTest, DisabledClockIsNotWritten) {
  personality_->write_msr(VcpuId{0}, kvm_pv::kMsrSystemTime, 0x1000);
  EXPECT_EQ(read<kvm_pv::VcpuTime>(0x1000).version, 0u);
}

TEST_F(KvmPersonalityTest, UnknownMsrsAndCalls) {
  uint64_t value = 0;
  EXPECT_FALSE(personality_->read_msr(VcpuId{0}, 0x4b564d03, value));
  EXPECT_FALSE(personality_->write_msr(VcpuId{0}, 0x4b564d02, 1));
  std::array<uint64_t, 16> gpr{};
  EXPECT_TRUE(personality_->hypercall(gpr, 0));
  EXPECT_EQ(static_cast<int64_t>(gpr[0]), -1000);
  EXPECT_TRUE(personality_->hypercall(gpr, 3));
  EXPECT_EQ(static_cast<int64_t>(gpr[0]), -1);
}

TEST_F(KvmPersonalityTest, SaveAndRestore) {
  personality_->write_msr(VcpuId{1}, kvm_pv::kMsrSystemTime, 0x2001);
  personality_->write_msr(VcpuId{0}, kvm_pv::kMsrWallClock, 0x3000);
  personality_->tsc_offset_changed(VcpuId{1}, 77);
  const SavedState state = personality_->save();
  const auto other = make();
  ASSERT_TRUE(other->restore(state));
  EXPECT_EQ(other->save().bytes.size(), state.bytes.size());
  EXPECT_EQ(read<kvm_pv::VcpuTime>(0x2000).tsc_timestamp, 77u);
  SavedState cut = state;
  cut.bytes.resize(cut.bytes.size() - 1);
  EXPECT_FALSE(other->restore(cut));
  EXPECT_FALSE(make(3)->restore(state));
}

TEST_F(KvmPersonalityTest, ResetForgetsThePages) {
  personality_->write_msr(VcpuId{0}, kvm_pv::kMsrSystemTime, 0x1001);
  personality_->reset();
  uint64_t value = 1;
  EXPECT_TRUE(personality_->read_msr(VcpuId{0}, kvm_pv::kMsrSystemTime, value));
  EXPECT_EQ(value, 0u);
}

TEST(Personality, None) {
  FakeClock clock;
  GuestMemory memory;
  const auto none = make_personality(PersonalityKind::kNone, {.memory = &memory, .clock = &clock});
  EXPECT_TRUE(none->cpuid().empty());
  std::array<uint64_t, 16> gpr{};
  EXPECT_FALSE(none->hypercall(gpr, 0));
  EXPECT_TRUE(none->restore(none->save()));
}

}  // namespace
}  // namespace tenon
