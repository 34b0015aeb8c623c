// Stops at random instants, each with the state taken out and put back, do not change what guests compute.
#include <gmock/gmock.h>

#include <array>
#include <chrono>
#include <random>
#include <thread>

#include "smp/smp_guest.hh"

SMP_GUEST(work);

namespace tenon::smp {
namespace {

constexpr uint64_t kCounter = kData;
constexpr uint64_t kSplitCounter = kData + 0x2000 - 3;
constexpr uint64_t kPrivate = kData + 0x10000;
constexpr uint64_t kPrivateSize = 0x1000;
const uint64_t kRounds = 100000 / kSlowdown / 64 * 64;

struct Outcome {
  std::vector<std::array<uint64_t, kPrivateSize / 8>> memory;
  std::vector<std::array<uint64_t, 2>> registers;
  uint64_t stops = 0;
};

Outcome work(unsigned count, bool storm) {
  SmpGuest guest(count, SMP_GUEST_CODE(work));
  guest.set_register(x86::kRcx, kRounds);
  guest.set_register(x86::kRbx, kCounter);
  guest.set_register(x86::kR14, kSplitCounter);
  for (unsigned i = 0; i < count; ++i) guest.entry(i).gpr[x86::kRbp] = kPrivate + i * kPrivateSize;
  if (storm) {
    guest.beside = [&] {
      std::minstd_rand random(1);
      while (guest.running()) {
        guest.request_stop(static_cast<unsigned>(random() % count));
        if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 200));
      }
    };
  }
  guest.run();
  EXPECT_EQ(guest.read(kCounter), count * kRounds);
  EXPECT_EQ(guest.read(kSplitCounter), count * kRounds / 64);
  Outcome outcome;
  outcome.stops = guest.stops();
  for (unsigned i = 0; i < count; ++i) {
    outcome.memory.push_back(guest.read<std::array<uint64_t, kPrivateSize / 8>>(kPrivate + i * kPrivateSize));
    outcome.registers.push_back({guest.result(i, x86::kR12), guest.result(i, x86::kR13)});
  }
  return outcome;
}

class Stop : public SmpTest {};

TEST_P(Stop, StormsDoNotDisturbTheResult) {
  const Outcome calm = work(1, false);
  EXPECT_EQ(calm.memory[0][0xa00 / 8], kRounds + 1);  // x87 has counted
  const Outcome storm = work(GetParam(), true);
  for (unsigned i = 0; i < GetParam(); ++i) {
    EXPECT_EQ(storm.registers[i], calm.registers[0]) << "vCPU " << i;
    EXPECT_TRUE(storm.memory[i] == calm.memory[0]) << "vCPU " << i;
  }
  EXPECT_GT(storm.stops, 0u);
  RecordProperty("stops", std::to_string(storm.stops));
}

SMP_INSTANTIATE(Stop);

}  // namespace
}  // namespace tenon::smp
