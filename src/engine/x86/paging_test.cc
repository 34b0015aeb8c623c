#include "engine/x86/paging.hh"

#include <gtest/gtest.h>

#include <thread>

namespace tenon::x86 {
namespace {

constexpr uint64_t kP = 1, kW = 2, kU = 4, kA = 0x20, kD = 0x40, kPs = 0x80, kG = 0x100, kXd = uint64_t{1} << 63;
constexpr uint64_t kRoot = 0x1000;

class PagingTest : public testing::Test {
 protected:
  PagingTest() {
    CHECK(memory_.add(GpaRange{Gpa(0), 4 << 20}, ExtentKind::kPrivate, "ram").has_value());
    CHECK(memory_.add(GpaRange{Gpa(0x800000), 0x1000}, ExtentKind::kRom, "rom").has_value());
    mode_.kind = PagingKind::k4Level;
    mode_.no_execute = true;
    mode_.write_protect = true;
    mode_.physical_bits = 40;
    mode_.root = kRoot;
  }
  void put64(uint64_t gpa, uint64_t value) { ASSERT_TRUE(memory_.write_object(Gpa(gpa), value)); }
  void put32(uint64_t gpa, uint32_t value) { ASSERT_TRUE(memory_.write_object(Gpa(gpa), value)); }
  uint64_t get64(uint64_t gpa) {
    uint64_t value = 0;
    EXPECT_TRUE(memory_.read_object(Gpa(gpa), value));
    return value;
  }
  uint32_t get32(uint64_t gpa) { return static_cast<uint32_t>(get64(gpa)); }
  /// One 4-KiB page at linear 0 with the given directory and leaf flags.
  void map_page(uint64_t pde_flags, uint64_t pte_flags) {
    put64(0x1000, 0x2000 | kP | kW | kU);
    put64(0x2000, 0x3000 | kP | kW | kU);
    put64(0x3000, 0x4000 | pde_flags);
    put64(0x4000, 0x5000 | pte_flags);
  }
  /// Error code, or -1 where the walk succeeds.
  int64_t fault_of(uint64_t linear, PageAccess access) {
    uint32_t error_code = 0;
    return walk(memory_, mode_, linear, access, out_, error_code) ? -1 : int64_t{error_code};
  }

  GuestMemory memory_;
  PagingMode mode_;
  Translation out_;
};

/// SDM Vol. 3 4.6.1 and 4.7, sentence by sentence, for a page that is mapped without reserved bits.
int64_t oracle(const PagingMode& mode, uint64_t pde, uint64_t pte, PageAccess access) {
  uint32_t code = (access.write ? kPfWrite : 0u) | (access.user ? kPfUser : 0u);
  if (access.fetch && (mode.smep || mode.no_execute)) code |= kPfFetch;
  if ((pde & kP) == 0 || (pte & kP) == 0) return code;
  const bool user_page = (pde & kU) != 0 && (pte & kU) != 0;
  const bool writable = (pde & kW) != 0 && (pte & kW) != 0;
  const bool xd = mode.no_execute && ((pde | pte) & kXd) != 0;
  bool allowed = true;
  if (!access.user && !access.fetch && !access.write) {
    if (user_page && mode.smap) allowed = access.user_pages_ok;
  } else if (!access.user && access.write) {
    if (user_page && mode.smap && !access.user_pages_ok) allowed = false;
    if (mode.write_protect && !writable) allowed = false;
  } else if (!access.user && access.fetch) {
    if (user_page && mode.smep) allowed = false;
    if (xd) allowed = false;
  } else if (access.fetch) {
    allowed = user_page && !xd;
  } else if (access.write) {
    allowed = user_page && writable;
  } else {
    allowed = user_page;
  }
  return allowed ? -1 : int64_t{code | kPfPresent};
}

TEST_F(PagingTest, PermissionMatrix) {
  unsigned cases = 0;
  for (unsigned bits = 0; bits < 1u << 13; ++bits) {
    const auto flag = [&](unsigned n, uint64_t value) { return (bits >> n) & 1 ? value : 0; };
    mode_.no_execute = flag(0, 1) != 0;
    mode_.write_protect = flag(1, 1) != 0;
    mode_.smep = flag(2, 1) != 0;
    mode_.smap = flag(3, 1) != 0;
    const uint64_t pde = flag(4, kW) | flag(5, kU) | (mode_.no_execute ? flag(6, kXd) : 0) | kP;
    const uint64_t pte = flag(7, kP) | flag(8, kW) | flag(9, kU) | (mode_.no_execute ? flag(10, kXd) : 0);
    for (unsigned kind = 0; kind < 3; ++kind) {
      PageAccess access;
      access.write = kind == 1;
      access.fetch = kind == 2;
      access.user = flag(11, 1) != 0;
      access.user_pages_ok = flag(12, 1) != 0;
      map_page(pde, pte);
      const int64_t wanted = oracle(mode_, pde, pte, access);
      ASSERT_EQ(fault_of(0x123, access), wanted) << "case " << bits << " kind " << kind;
      ++cases;
      // A bits only on success; D only by a write.
      ASSERT_EQ((get64(0x3000) & kA) != 0, wanted < 0);
      ASSERT_EQ((get64(0x4000) & kA) != 0, wanted < 0);
      ASSERT_EQ((get64(0x4000) & kD) != 0, wanted < 0 && access.write);
      if (wanted < 0) {
        ASSERT_EQ(out_.gpa, 0x5123u);
      }
    }
  }
  EXPECT_EQ(cases, 3u << 13);
}

TEST_F(PagingTest, ReservedBitsOfFourLevelEntries) {
  const auto entry_addresses = {0x1000u, 0x2000u, 0x3000u, 0x4000u};
  for (const unsigned address : entry_addresses) {
    for (unsigned bit = 12; bit < 63; ++bit) {
      map_page(kP | kW | kU, kP | kW | kU);
      put64(address, get64(address) | uint64_t{1} << bit);
      const bool reserved = bit >= 40 && bit < 52;
      if (bit < 40 && address != 0x4000u) continue;  // part of the table's address
      ASSERT_EQ(fault_of(0, {}), reserved ? int64_t{kPfPresent | kPfReserved} : -1) << address << " bit " << bit;
    }
    // PS is reserved in a PML4 entry, PAT in a PTE.
    map_page(kP | kW | kU, kP | kW | kU);
    if (address == 0x1000u) {
      put64(address, get64(address) | kPs);
      EXPECT_EQ(fault_of(0, {.user = true}), int64_t{kPfPresent | kPfReserved | kPfUser});
    }
    // XD without NXE is reserved.
    mode_.no_execute = false;
    map_page(kP | kW | kU, kP | kW | kU);
    put64(address, get64(address) | kXd);
    EXPECT_EQ(fault_of(0, {.write = true}), int64_t{kPfPresent | kPfReserved | kPfWrite});
    mode_.no_execute = true;
  }
}

TEST_F(PagingTest, LargePagesOfFourLevelPaging) {
  map_page(0, 0);
  put64(0x3000, 0x200000 | kP | kW | kU | kPs | kG);
  mode_.global_pages = true;
  EXPECT_EQ(fault_of(0x123456, {.write = true}), -1);
  EXPECT_EQ(out_.gpa, 0x323456u);
  EXPECT_EQ(out_.page_size, 2u << 20);
  EXPECT_TRUE(out_.global);
  EXPECT_TRUE(out_.dirty);
  EXPECT_EQ(get64(0x3000) & (kA | kD), kA | kD);
  put64(0x3000, 0x202000 | kP | kPs);  // bits 20:13 are reserved
  EXPECT_EQ(fault_of(0, {}), int64_t{kPfPresent | kPfReserved});

  put64(0x2000, 0x40000000 | kP | kW | kPs);
  EXPECT_EQ(fault_of(0x3fffffff, {}), -1);
  EXPECT_EQ(out_.gpa, 0x7fffffffu);
  EXPECT_EQ(out_.page_size, 1u << 30);
  EXPECT_FALSE(out_.rights.user);
  EXPECT_FALSE(out_.dirty);
  mode_.gigabyte_pages = false;
  EXPECT_EQ(fault_of(0, {}), int64_t{kPfPresent | kPfReserved});
}

TEST_F(PagingTest, GlobalNeedsPge) {
  map_page(kP | kW | kU, kP | kG);
  EXPECT_EQ(fault_of(0, {}), -1);
  EXPECT_FALSE(out_.global);
  mode_.global_pages = true;
  EXPECT_EQ(fault_of(0, {}), -1);
  EXPECT_TRUE(out_.global);
}

TEST_F(PagingTest, HighHalfUsesItsOwnEntry) {
  map_page(kP | kW | kU, kP | kW | kU);
  put64(kRoot + 8 * 511, 0x2000 | kP | kW);
  EXPECT_EQ(fault_of(0xffffff8000000042, {}), -1);
  EXPECT_EQ(out_.gpa, 0x5042u);
  EXPECT_EQ(fault_of(0xffff800000000000, {}), 0);
}

TEST_F(PagingTest, ThirtyTwoBitPaging) {
  mode_ = PagingMode{};
  mode_.kind = PagingKind::k32Bit;
  mode_.root = 0x1018;  // PWT and PCD do not belong to the address
  mode_.physical_bits = 40;
  put32(0x1000 + 4 * 3, 0x2000 | kP | kW | kU);
  put32(0x2000 + 4 * 5, 0x7000 | kP | kW | kU);
  const uint64_t linear = 3u << 22 | 5u << 12 | 0x678;
  EXPECT_EQ(fault_of(linear, {.write = true, .user = true}), -1);
  EXPECT_EQ(out_.gpa, 0x7678u);
  EXPECT_EQ(get32(0x2000 + 4 * 5) & (kA | kD), kA | kD);
  EXPECT_EQ(fault_of(0, {.fetch = true}), 0);  // no I/D bit without NXE or SMEP

  // PSE-36: bits 20:13 are address bits 39:32; bit 21 is reserved.
  mode_.large_pages = true;
  put32(0x1000, 0xc00000 | 0xabu << 13 | kP | kW | kPs);
  EXPECT_EQ(fault_of(0x3fffff, {}), -1);
  EXPECT_EQ(out_.gpa, 0xab00ffffffu);
  EXPECT_EQ(out_.page_size, 4u << 20);
  put32(0x1000, 0xc00000 | 1u << 21 | kP | kPs);
  EXPECT_EQ(fault_of(0, {}), int64_t{kPfPresent | kPfReserved});
  mode_.physical_bits = 36;
  put32(0x1000, 1u << 17 | kP | kPs);  // address bit 36
  EXPECT_EQ(fault_of(0, {}), int64_t{kPfPresent | kPfReserved});
  // Without CR4.PSE the bit is ignored.
  mode_.large_pages = false;
  put32(0x1000, 0x2000 | kP | kW | kPs);
  EXPECT_EQ(fault_of(5u << 12, {}), -1);
  EXPECT_EQ(out_.gpa, 0x7000u);
}

TEST_F(PagingTest, PaePaging) {
  mode_.kind = PagingKind::kPae;
  mode_.pdpte = {0, 0x2001, 0, 0};
  put64(0x2000 + 8 * 2, 0x3000 | kP | kW | kU);
  put64(0x3000 + 8 * 4, 0x6000 | kP | kW | kU);
  const uint64_t linear = uint64_t{1} << 30 | 2u << 21 | 4u << 12 | 9;
  EXPECT_EQ(fault_of(linear, {.write = true, .user = true}), -1);
  EXPECT_EQ(out_.gpa, 0x6009u);
  EXPECT_EQ(fault_of(0, {.user = true}), int64_t{kPfUser});
  // Bits 62:52 are reserved in PAE entries, ignored in 4-level ones.
  put64(0x3000 + 8 * 4, 0x6000 | kP | uint64_t{1} << 62);
  EXPECT_EQ(fault_of(linear, {}), int64_t{kPfPresent | kPfReserved});
}

TEST_F(PagingTest, PdptesAreCheckedWhenLoaded) {
  std::array<uint64_t, 4> pdpte{};
  put64(0x1020, 0x2001);
  put64(0x1028, 0x8000000000000006);  // not present: anything goes
  put64(0x1030, 0);
  put64(0x1038, 0x3001);
  EXPECT_TRUE(load_pdptes(memory_, 0x103f, 40, pdpte));
  EXPECT_EQ(pdpte[3], 0x3001u);
  for (const unsigned bit : {1u, 2u, 5u, 8u, 40u, 63u}) {
    put64(0x1030, kP | uint64_t{1} << bit);
    EXPECT_FALSE(load_pdptes(memory_, 0x1020, 40, pdpte)) << bit;
  }
  EXPECT_EQ(pdpte[0], 0x2001u);
}

TEST_F(PagingTest, TablesOutsideRam) {
  mode_.root = 0x40000000;  // reads as all ones: reserved bits
  EXPECT_EQ(fault_of(0, {}), int64_t{kPfPresent | kPfReserved});
  // Tables in ROM work, without A and D.
  mode_.root = kRoot;
  map_page(kP | kW | kU, 0);
  const uint64_t pte = 0x5000 | kP | kW;
  ASSERT_TRUE(memory_.load(Gpa(0x800000), std::as_bytes(std::span<const uint64_t, 1>(&pte, 1))));
  put64(0x3000, 0x800000 | kP | kW);
  EXPECT_EQ(fault_of(0, {.write = true}), -1);
  EXPECT_EQ(get64(0x800000), pte);
}

TEST_F(PagingTest, NoPagingIsIdentity) {
  mode_.kind = PagingKind::kNone;
  EXPECT_EQ(fault_of(0xfee00123, {.write = true, .user = true}), -1);
  EXPECT_EQ(out_.gpa, 0xfee00123u);
}

/// Two walkers set A and D while a third thread flips a software bit in the same entry: no update may be lost.
TEST_F(PagingTest, AccessedBitsAreAtomic) {
  map_page(kP | kW | kU, kP | kW | kU);
  constexpr uint64_t kSoftware = uint64_t{1} << 9;
  auto* entry = reinterpret_cast<uint64_t*>(memory_.host_address(Gpa(0x4000), 8));
  const auto walker = [&] {
    Translation out;
    uint32_t error_code = 0;
    for (unsigned i = 0; i < 20000; ++i) {
      ASSERT_TRUE(walk(memory_, mode_, 0, PageAccess{.write = true}, out, error_code));
    }
  };
  std::thread first(walker), second(walker);
  for (unsigned i = 0; i < 20001; ++i) __atomic_fetch_xor(entry, kSoftware, __ATOMIC_SEQ_CST);
  first.join();
  second.join();
  const uint64_t value = get64(0x4000);
  EXPECT_TRUE((value & kSoftware) != 0);
  EXPECT_EQ(value & (kA | kD), kA | kD);
}

TEST(PagingMode, FollowsControlRegisters) {
  CpuState state;
  EXPECT_EQ(paging_mode(state, 46, true).kind, PagingKind::kNone);
  state.cr0 = kCr0Pe | kCr0Pg;
  EXPECT_EQ(paging_mode(state, 46, true).kind, PagingKind::k32Bit);
  state.efer = kEferNxe;
  EXPECT_FALSE(paging_mode(state, 46, true).no_execute);
  state.cr4 = kCr4Pae;
  EXPECT_EQ(paging_mode(state, 46, true).kind, PagingKind::kPae);
  EXPECT_TRUE(paging_mode(state, 46, true).no_execute);
  state.efer |= kEferLme | kEferLma;
  EXPECT_EQ(paging_mode(state, 46, true).kind, PagingKind::k4Level);
}

TEST(Canonical, Boundaries) {
  EXPECT_TRUE(is_canonical(0x00007fffffffffff));
  EXPECT_FALSE(is_canonical(0x0000800000000000));
  EXPECT_FALSE(is_canonical(0xffff7fffffffffff));
  EXPECT_TRUE(is_canonical(0xffff800000000000));
}

}  // namespace
}  // namespace tenon::x86
