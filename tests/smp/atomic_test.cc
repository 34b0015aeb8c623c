// Locked instructions of several vCPUs are atomic wherever their operand lies (SDM Vol. 3 9.1.2.2): in a line, in two
// lines, in two pages, also where the pages lie apart in memory and where one of them holds code.
#include <gmock/gmock.h>

#include <cstring>
#include <vector>

#include "smp/smp_guest.hh"

SMP_GUEST(adders_byte);
SMP_GUEST(adders_word);
SMP_GUEST(adders_dword);
SMP_GUEST(adders_qword);
SMP_GUEST(bits);
SMP_GUEST(inversions);
SMP_GUEST(tokens_dword);
SMP_GUEST(tokens_qword);
SMP_GUEST(neighbours);
SMP_GUEST(pairs_8);
SMP_GUEST(pairs_16);

namespace tenon::smp {
namespace {

struct Place {
  const char* name;
  uint64_t address;     // of an 8-byte operand; smaller ones lie at `inside` more
  uint64_t iterations;  // split locks are slow on any host
};

// Windows pages 0 and 1 are mapped to pages that lie apart in memory.
// clang-format off
constexpr Place kPlaces[] = {
    {"aligned",           kData,                        20000},
    {"unaligned",         kData + 0x1003,               20000},
    {"split line",        kData + 0x2040 - 1,           200},
    {"split page",        kData + 0x4000 - 1,           200},
    {"split page apart",  kWindow + kPageSize - 1,      200},
};
// clang-format on

void map_window(SmpGuest& guest) {
  guest.map(0, kData + 0x10000);
  guest.map(1, kData + 0x30000);
}

/// What the operand holds: reads through the window where it lies there.
template <typename T>
T operand(SmpGuest& guest, uint64_t address) {
  if (address < kWindow) return guest.read<T>(address);
  uint8_t bytes[sizeof(T)];
  for (unsigned i = 0; i < sizeof(T); ++i) {
    const uint64_t offset = address + i - kWindow;
    bytes[i] = guest.read<uint8_t>(kData + 0x10000 + offset / kPageSize * 0x20000 + offset % kPageSize);
  }
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

uint64_t iterations(const Place& place) { return std::max<uint64_t>(place.iterations / kSlowdown, 50); }

class Atomic : public SmpTest {};

template <typename T>
void expect_exact_sum(unsigned count, std::span<const std::byte> code) {
  for (const Place& place : kPlaces) {
    SCOPED_TRACE(testing::Message() << place.name << ", " << sizeof(T) << " bytes");
    SmpGuest guest(count, code);
    map_window(guest);
    guest.set_register(x86::kRbx, place.address);
    guest.set_register(x86::kRcx, iterations(place));
    guest.run();
    EXPECT_EQ(operand<T>(guest, place.address), static_cast<T>(14 * count * iterations(place)));
  }
}

TEST_P(Atomic, SumsOfBytes) { expect_exact_sum<uint8_t>(GetParam(), SMP_GUEST_CODE(adders_byte)); }
TEST_P(Atomic, SumsOfWords) { expect_exact_sum<uint16_t>(GetParam(), SMP_GUEST_CODE(adders_word)); }
TEST_P(Atomic, SumsOfDoublewords) { expect_exact_sum<uint32_t>(GetParam(), SMP_GUEST_CODE(adders_dword)); }
TEST_P(Atomic, SumsOfQuadwords) { expect_exact_sum<uint64_t>(GetParam(), SMP_GUEST_CODE(adders_qword)); }

/// Operands beside the guest's own code: each store is looked at for changed code, and the page changes from code to
/// data and back.
TEST_P(Atomic, SumsInAPageWithCode) {
  for (const uint64_t address : {FlatGuest::kCode + 0xf00, FlatGuest::kCode + 0xffd}) {
    SmpGuest guest(GetParam(), SMP_GUEST_CODE(adders_qword));
    guest.set_register(x86::kRbx, address);
    guest.set_register(x86::kRcx, 500 / kSlowdown);
    guest.run();
    EXPECT_EQ(guest.read(address), 14 * GetParam() * (500 / kSlowdown)) << address;
  }
}

TEST_P(Atomic, BitsOfOneWordDoNotDisturbEachOther) {
  for (const Place& place : kPlaces) {
    SCOPED_TRACE(place.name);
    SmpGuest guest(GetParam(), SMP_GUEST_CODE(bits));
    map_window(guest);
    guest.set_register(x86::kRbx, place.address);
    guest.set_register(x86::kRcx, iterations(place));
    guest.run();
    for (unsigned i = 0; i < guest.count(); ++i) EXPECT_EQ(guest.result(i, x86::kR12), 0u) << "vCPU " << i;
    EXPECT_EQ(operand<uint32_t>(guest, place.address), 0u);
  }
}

TEST_P(Atomic, EvenNumbersOfNotAndNegAreNothing) {
  for (const Place& place : kPlaces) {
    if (place.address >= kWindow) continue;
    SCOPED_TRACE(place.name);
    SmpGuest guest(GetParam(), SMP_GUEST_CODE(inversions));
    guest.write(place.address, uint64_t{0x123456789abcdef0});
    guest.write(place.address + 0x80, uint64_t{0x0fedcba987654321});
    guest.set_register(x86::kRbx, place.address);
    guest.set_register(x86::kRcx, iterations(place) + iterations(place) % 2);
    guest.run();
    EXPECT_EQ(guest.read(place.address), 0x123456789abcdef0u);
    EXPECT_EQ(guest.read(place.address + 0x80), 0x0fedcba987654321u);
  }
}

template <typename T>
void expect_tokens_kept(unsigned count, std::span<const std::byte> code) {
  const auto token = [](unsigned i) { return static_cast<T>(0x0101010101010101u * (i + 1)); };
  for (const Place& place : kPlaces) {
    SCOPED_TRACE(testing::Message() << place.name << ", " << sizeof(T) << " bytes");
    SmpGuest guest(count, code);
    map_window(guest);
    guest.set_register(x86::kRbx, place.address);
    guest.set_register(x86::kRcx, iterations(place));
    std::vector<T> expected{T{0}}, seen;
    for (unsigned i = 0; i < count; ++i) {
      guest.entry(i).gpr[x86::kRax] = token(i);
      expected.push_back(token(i));
    }
    guest.run();
    for (unsigned i = 0; i < count; ++i) seen.push_back(static_cast<T>(guest.result(i, x86::kRax)));
    seen.push_back(operand<T>(guest, place.address));
    EXPECT_THAT(seen, testing::UnorderedElementsAreArray(expected));
  }
}

TEST_P(Atomic, XchgKeepsDoublewords) { expect_tokens_kept<uint32_t>(GetParam(), SMP_GUEST_CODE(tokens_dword)); }
TEST_P(Atomic, XchgKeepsQuadwords) { expect_tokens_kept<uint64_t>(GetParam(), SMP_GUEST_CODE(tokens_qword)); }

TEST_P(Atomic, PlainStoresBesideStay) {
  for (const Place& place : kPlaces) {
    SCOPED_TRACE(place.name);
    SmpGuest guest(GetParam(), SMP_GUEST_CODE(neighbours));
    map_window(guest);
    // Two pages apart from each other, of which the owned bytes are in both.
    guest.set_register(x86::kRbx, place.address);
    guest.set_register(x86::kRcx, iterations(place) * 4);
    guest.run();
    for (unsigned i = 0; i < guest.count(); ++i) EXPECT_EQ(guest.result(i, x86::kR12), 0u) << "vCPU " << i;
    const unsigned adders = GetParam() / 2;
    EXPECT_EQ(operand<uint64_t>(guest, place.address) >> 32, 2 * adders * iterations(place) * 4);
  }
}

TEST_P(Atomic, Cmpxchg8bCountsPairs) {
  for (const Place& place : kPlaces) {
    SCOPED_TRACE(place.name);
    SmpGuest guest(GetParam(), SMP_GUEST_CODE(pairs_8));
    map_window(guest);
    guest.set_register(x86::kRbx, place.address);
    guest.set_register(x86::kRcx, iterations(place));
    guest.run();
    const uint64_t sum = GetParam() * iterations(place);
    EXPECT_EQ(operand<uint64_t>(guest, place.address), sum | (3 * sum) << 32);
    for (unsigned i = 0; i < guest.count(); ++i) EXPECT_EQ(guest.result(i, x86::kR12), 0u) << "vCPU " << i;
  }
}

TEST_P(Atomic, Cmpxchg16bCountsPairs) {
  SmpGuest guest(GetParam(), SMP_GUEST_CODE(pairs_16));
  const uint64_t count = 40000 / kSlowdown;
  guest.set_register(x86::kRbx, kData);
  guest.set_register(x86::kRcx, count);
  guest.run();
  EXPECT_EQ(guest.read(kData), GetParam() * count);
  EXPECT_EQ(guest.read(kData + 8), 3 * GetParam() * count);
  for (unsigned i = 0; i < guest.count(); ++i) EXPECT_EQ(guest.result(i, x86::kR12), 0u) << "vCPU " << i;
}

SMP_INSTANTIATE(Atomic);

}  // namespace
}  // namespace tenon::smp
