// Self-modifying and cross-modifying code (SDM Vol. 3 9.1.3), through the same and other addresses, by vCPUs and by the
// host.
#include <array>
#include <thread>

#include "smp/smp_guest.hh"

SMP_GUEST(self_modifying);
SMP_GUEST(alias);
SMP_GUEST(cross_modifying);
SMP_GUEST(written_by_host);
SMP_GUEST(interrupted);

namespace tenon::smp {
namespace {

constexpr uint64_t kFlag = kData;  // the round; answers are counted 64 bytes after it
constexpr uint64_t kFunctionPage = kData + 0x10000;
constexpr uint8_t kVector = 0x40;

/// mov eax, imm32; ret
std::array<uint8_t, 6> function(uint32_t value) {
  return {0xb8,
          static_cast<uint8_t>(value),
          static_cast<uint8_t>(value >> 8),
          static_cast<uint8_t>(value >> 16),
          static_cast<uint8_t>(value >> 24),
          0xc3};
}

class Code : public SmpTest {};

void expect_no_old_code(const SmpGuest& guest) {
  for (unsigned i = 0; i < guest.count(); ++i) EXPECT_EQ(guest.result(i, x86::kR12), 0u) << "vCPU " << i;
}

/// One vCPU: the others would change its code too.
TEST(CodeAlone, SelfModifyingCodeIsSeenAtOnce) {
  SmpGuest guest(1, SMP_GUEST_CODE(self_modifying));
  guest.set_register(x86::kRcx, 20000 / kSlowdown);
  guest.run();
  expect_no_old_code(guest);
}

TEST(CodeAlone, ChangesThroughAnotherAddressAreSeen) {
  SmpGuest guest(1, SMP_GUEST_CODE(alias));
  guest.map(0, FlatGuest::kCode);
  guest.map(1, FlatGuest::kCode + kPageSize);
  guest.set_register(x86::kRbx, kWindow - FlatGuest::kCode);
  guest.set_register(x86::kRcx, 20000 / kSlowdown);
  guest.run();
  expect_no_old_code(guest);
}

struct CrossCase {
  const char* name;
  uint64_t runs_at;
  uint64_t written_at;
};
// Window page 0 is kFunctionPage, page 1 lies apart; window pages 4 and 5 are the same two.
// clang-format off
constexpr CrossCase kCrossCases[] = {
    {"same address",          kFunctionPage + 0x100,       kFunctionPage + 0x100},
    {"another address",       kFunctionPage + 0x100,       kWindow + 0x100},
    {"two pages",             kWindow + kPageSize - 3,     kWindow + kPageSize - 3},
    {"two pages, another",    kWindow + kPageSize - 2,     kWindow + 5 * kPageSize - 2},
    {"beside data",           kFlag + 0x200,               kFlag + 0x200},
};
// clang-format on

void map_function(SmpGuest& guest) {
  for (const unsigned index : {0u, 4u}) {
    guest.map(index, kFunctionPage);
    guest.map(index + 1, kFunctionPage + 0x8000);
  }
}

/// Physical address of a byte of the cases above.
uint64_t physical(uint64_t linear) {
  if (linear < kWindow) return linear;
  const uint64_t offset = linear - kWindow;
  return kFunctionPage + offset / kPageSize * 0x8000 + offset % kPageSize;
}

void write_function(SmpGuest& guest, uint64_t linear, uint32_t value) {
  const auto bytes = function(value);
  const size_t in_first = std::min<uint64_t>(bytes.size(), kPageSize - linear % kPageSize);
  const auto all = std::as_bytes(std::span(bytes));
  EXPECT_TRUE(guest.memory().write(Gpa(physical(linear)), all.first(in_first)));
  EXPECT_TRUE(guest.memory().write(Gpa(physical(linear + in_first)), all.subspan(in_first)));
}

TEST_P(Code, CrossModifyingCodeRunsAfterTheHandshake) {
  for (const CrossCase& one : kCrossCases) {
    SCOPED_TRACE(one.name);
    SmpGuest guest(GetParam(), SMP_GUEST_CODE(cross_modifying));
    map_function(guest);
    write_function(guest, one.runs_at, 0);
    guest.set_register(x86::kRcx, 1500 / kSlowdown);
    guest.set_register(x86::kRbp, one.written_at);
    guest.set_register(x86::kR13, kFlag);
    guest.set_register(x86::kR14, one.runs_at);
    guest.run();
    expect_no_old_code(guest);
  }
}

/// Waits for `answers` from the vCPUs. False: the guest has ended.
bool wait_for_answers(SmpGuest& guest, uint64_t answers) {
  while (guest.read(kFlag + 64) < answers) {
    if (!guest.running()) return guest.read(kFlag + 64) >= answers;
    std::this_thread::yield();
  }
  return true;
}

TEST_P(Code, CodeWrittenByTheHostRuns) {
  for (const CrossCase& one : kCrossCases) {
    if (one.runs_at != one.written_at) continue;
    SCOPED_TRACE(one.name);
    const uint64_t rounds = 1000 / kSlowdown;
    SmpGuest guest(GetParam(), SMP_GUEST_CODE(written_by_host));
    map_function(guest);
    guest.set_register(x86::kRcx, rounds);
    guest.set_register(x86::kR13, kFlag);
    guest.set_register(x86::kR14, one.runs_at);
    guest.beside = [&] {
      for (uint64_t round = 1; round <= rounds; ++round) {
        write_function(guest, one.runs_at, static_cast<uint32_t>(round));
        guest.write(kFlag, round);
        if (!wait_for_answers(guest, round * guest.count())) return;
      }
    };
    guest.run();
    expect_no_old_code(guest);
  }
}

TEST_P(Code, CodeWrittenByTheHostRunsInAnInterrupt) {
  const uint64_t rounds = 300 / kSlowdown;
  SmpGuest guest(GetParam(), SMP_GUEST_CODE(interrupted));
  ASSERT_TRUE(FlatGuest::set_gate(guest.memory(), kVector, FlatGuest::kCode + 0x80, 0));
  write_function(guest, kFunctionPage, 0);
  guest.set_register(x86::kRcx, rounds);
  guest.set_register(x86::kR13, kFlag);
  guest.set_register(x86::kR14, kFunctionPage);
  guest.beside = [&] {
    for (uint64_t round = 1; round <= rounds; ++round) {
      write_function(guest, kFunctionPage, static_cast<uint32_t>(round));
      for (unsigned i = 0; i < guest.count(); ++i) guest.interrupt(i, kVector);
      if (!wait_for_answers(guest, round * guest.count())) return;
    }
  };
  guest.run();
  expect_no_old_code(guest);
  for (unsigned i = 0; i < guest.count(); ++i) EXPECT_EQ(guest.result(i, x86::kRbx), rounds);
}

SMP_INSTANTIATE(Code);

}  // namespace
}  // namespace tenon::smp
