// Translations: INVLPG and MOV CR3 after another vCPU changed the table (SDM Vol. 3 4.10.4), accessed and dirty bits
// set by several vCPUs at once (4.8).
#include <array>

#include "smp/smp_guest.hh"

SMP_GUEST(remap);
SMP_GUEST(accessed_dirty);

namespace tenon::smp {
namespace {

constexpr uint64_t kFlag = kData;
constexpr uint64_t kEntry = kPageTable;  // of kWindow
constexpr uint64_t kAvailableBit = 9;

class Paging : public SmpTest {};

TEST_P(Paging, RemappedPageIsSeenAfterInvlpgAndCr3) {
  const uint64_t rounds = 5000 / kSlowdown;
  constexpr uint64_t kPages[] = {kData + 0x10000, kData + 0x20000};
  SmpGuest guest(GetParam(), SMP_GUEST_CODE(remap));
  for (uint32_t i = 0; i < 2; ++i) {
    guest.write(kPages[i], i);
    // mov eax, i; ret
    guest.write(kPages[i] + 64, std::array<uint8_t, 6>{0xb8, static_cast<uint8_t>(i), 0, 0, 0, 0xc3});
  }
  guest.map(0, kPages[0]);
  guest.set_register(x86::kRbx, guest.pte(0));
  guest.set_register(x86::kRbp, guest.pte(0) - kPages[0] + kPages[1]);
  guest.set_register(x86::kRcx, rounds);
  guest.set_register(x86::kR13, kFlag);
  guest.set_register(x86::kR14, kWindow);
  guest.set_register(x86::kR15, kEntry);
  guest.run();
  for (unsigned i = 0; i + 1 < guest.count(); ++i) {
    EXPECT_EQ(guest.result(i, x86::kR12), 0u) << "vCPU " << i;
    EXPECT_EQ(guest.read<uint32_t>(kPages[rounds % 2] + 128 + i * 4), rounds);
    EXPECT_EQ(guest.read<uint32_t>(kPages[1 - rounds % 2] + 128 + i * 4), rounds - 1);
  }
}

TEST_P(Paging, AccessedAndDirtyBitsLoseNoOtherChange) {
  for (const uint64_t rounds : {500u, 501u}) {
    SmpGuest guest(GetParam(), SMP_GUEST_CODE(accessed_dirty));
    const uint64_t page = kData + 0x10000;
    guest.map(0, page);
    guest.set_register(x86::kRcx, rounds);
    guest.set_register(x86::kR14, kWindow);
    guest.set_register(x86::kR15, kEntry);
    guest.run();
    const uint64_t entry = guest.pte(0);
    EXPECT_EQ(entry >> 52, rounds);
    EXPECT_EQ((entry >> kAvailableBit) & 1, rounds % 2);
    EXPECT_EQ(entry & 0x000fffffffffffff & ~(uint64_t{1} << kAvailableBit),
              page | kPtePresent | kPteWritable | kPteUser | kPteAccessed | kPteDirty);
    for (unsigned i = 0; i < guest.count(); ++i) EXPECT_EQ(guest.read<uint32_t>(page + i * 4), i);
  }
}

SMP_INSTANTIATE(Paging);

}  // namespace
}  // namespace tenon::smp
