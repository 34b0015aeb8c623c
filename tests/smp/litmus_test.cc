// Memory order of the guest is x86-TSO (SDM Vol. 3 9.2.2 and 9.2.3, whose examples these are): outcomes that it forbids
// are never seen. Each round has memory of its own; outcomes are counted by the values that the vCPUs read.
#include <gmock/gmock.h>

#include <array>
#include <cstdio>
#include <map>

#include "smp/smp_guest.hh"

SMP_GUEST(sb);
SMP_GUEST(sb_mfence);
SMP_GUEST(sb_lock);
SMP_GUEST(sb_xchg);
SMP_GUEST(mp);
SMP_GUEST(lb);
SMP_GUEST(iriw);
SMP_GUEST(corr);
SMP_GUEST(two_two_w);

namespace tenon::smp {
namespace {

constexpr uint64_t kRoundsInBatch = 8192;
constexpr uint64_t kCellSize = 128;
constexpr uint64_t kCells = kData;                                  // 1 MiB
constexpr uint64_t kResults = kCells + kRoundsInBatch * kCellSize;  // 64 KiB a vCPU
constexpr uint64_t kRounds = 204800;

/// One round: two values of each vCPU, and the cell at the end.
struct Outcome {
  std::array<std::array<uint32_t, 2>, 4> read{};
  uint32_t x = 0, y = 0;
};

class Litmus : public testing::Test {
 protected:
  using Forbidden = bool (*)(const Outcome&);
  using Name = std::string (*)(const Outcome&);

  /// Runs `code` on `count` vCPUs; `meet_mask` + 1 is how many rounds pass between two meetings.
  void run(unsigned count, uint64_t meet_mask, std::span<const std::byte> code, Forbidden forbidden, Name name) {
    SmpGuest guest(count, code);
    guest.set_register(x86::kRbx, kCells);
    guest.set_register(x86::kRcx, kRoundsInBatch);
    guest.set_register(x86::kRdx, std::max<uint64_t>(1, kRounds / kRoundsInBatch / kSlowdown));
    guest.set_register(x86::kRbp, kResults);
    guest.set_register(x86::kR15, meet_mask);
    guest.on_report = [&](unsigned, uint32_t) { count_batch(guest, forbidden, name); };
    guest.run();
    EXPECT_EQ(forbidden_seen_, 0u);
    std::printf("outcomes:");
    for (const auto& [text, times] : outcomes_)
      std::printf("  %s %llu", text.c_str(), static_cast<unsigned long long>(times));
    std::printf("\n");
  }

 private:
  void count_batch(SmpGuest& guest, Forbidden forbidden, Name name) {
    std::array<std::vector<std::array<uint32_t, 2>>, 4> read;
    for (unsigned i = 0; i < guest.count(); ++i) {
      read[i].resize(kRoundsInBatch);
      ASSERT_TRUE(guest.memory().read(Gpa(kResults + i * 0x10000), std::as_writable_bytes(std::span(read[i]))));
    }
    for (uint64_t round = 0; round < kRoundsInBatch; ++round) {
      Outcome outcome;
      for (unsigned i = 0; i < guest.count(); ++i) outcome.read[i] = read[i][round];
      outcome.x = guest.read<uint32_t>(kCells + round * kCellSize);
      outcome.y = guest.read<uint32_t>(kCells + round * kCellSize + 64);
      if (forbidden(outcome)) ++forbidden_seen_;
      ++outcomes_[name(outcome)];
    }
    const std::vector<std::byte> zeros(kRoundsInBatch * kCellSize);
    ASSERT_TRUE(guest.memory().write(Gpa(kCells), zeros));
  }

  uint64_t forbidden_seen_ = 0;
  std::map<std::string, uint64_t> outcomes_;
};

std::string first_values(const Outcome& o) { return std::to_string(o.read[0][0]) + std::to_string(o.read[1][0]); }
std::string reader_values(const Outcome& o) { return std::to_string(o.read[1][0]) + std::to_string(o.read[1][1]); }
bool both_zero(const Outcome& o) { return o.read[0][0] == 0 && o.read[1][0] == 0; }

/// 9.2.3.4: a load may pass an earlier store to another place: 00 is allowed.
TEST_F(Litmus, StoreBufferMayBeSeen) {
  run(
      2, 15, SMP_GUEST_CODE(sb), [](const Outcome&) { return false; }, first_values);
}
TEST_F(Litmus, StoreBufferWithMfence) { run(2, 15, SMP_GUEST_CODE(sb_mfence), both_zero, first_values); }
/// 9.2.3.9: locked instructions order loads and stores.
TEST_F(Litmus, StoreBufferWithLock) { run(2, 15, SMP_GUEST_CODE(sb_lock), both_zero, first_values); }
TEST_F(Litmus, StoreBufferWithXchg) { run(2, 15, SMP_GUEST_CODE(sb_xchg), both_zero, first_values); }

/// 9.2.3.2: neither loads nor stores pass others of their kind.
TEST_F(Litmus, MessagePassing) {
  run(
      2, 15, SMP_GUEST_CODE(mp), [](const Outcome& o) { return o.read[1][0] == 1 && o.read[1][1] == 0; },
      reader_values);
}
/// 9.2.3.3: stores do not pass earlier loads.
TEST_F(Litmus, LoadBuffering) {
  run(
      2, 15, SMP_GUEST_CODE(lb), [](const Outcome& o) { return o.read[0][0] == 1 && o.read[1][0] == 1; }, first_values);
}
/// One place only grows for each reader.
TEST_F(Litmus, CoherenceOfOnePlace) {
  run(
      2, 15, SMP_GUEST_CODE(corr), [](const Outcome& o) { return o.read[1][0] > o.read[1][1] || o.x != 2; },
      reader_values);
}
TEST_F(Litmus, StoresInOneOrder) {
  run(
      2, 15, SMP_GUEST_CODE(two_two_w), [](const Outcome& o) { return o.x == 1 && o.y == 1; },
      [](const Outcome& o) { return std::to_string(o.x) + std::to_string(o.y); });
}
/// 9.2.3.7: stores are seen in one order by all others.
TEST_F(Litmus, IndependentReadsOfIndependentWrites) {
  run(
      4, 15, SMP_GUEST_CODE(iriw),
      [](const Outcome& o) {
        return o.read[2] == std::array{1u, 0u} && o.read[3] == std::array{1u, 0u};
      },
      [](const Outcome& o) {
        return std::to_string(o.read[2][0]) + std::to_string(o.read[2][1]) + std::to_string(o.read[3][0]) +
               std::to_string(o.read[3][1]);
      });
}

}  // namespace
}  // namespace tenon::smp
