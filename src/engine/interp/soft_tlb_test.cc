// The soft TLB by itself, and as the memory accesses, refills and system instructions of a vCPU use it.
#include "engine/interp/soft_tlb.hh"

#include <random>

#include "engine/interp/soft_tlb_fill.hh"
#include "engine/interp/system_handlers.hh"
#include "engine/interp/system_test_support.hh"

namespace tenon::interp {

/// Lets a test put the count of contexts just before its low bits wrap.
struct SoftTlbTestAccess {
  static constexpr uint64_t kTags = SoftTlb::kContextMask + 1;
  static void set_last_context(SoftTlb& tlb, uint64_t last) { tlb.last_context_ = last; }
};

namespace {

using Machine = TestMachine;
constexpr uint64_t kP = 1, kW = 2, kU = 4, kA = 0x20, kD = 0x40, kG = 0x100;
constexpr uint64_t kRam = uint64_t{4} << 20;
constexpr uint64_t kRom = uint64_t{8} << 20;

/// What translated code does.
bool hits(const TlbEntry* table, uint64_t linear, unsigned size_bytes) {
  const TlbEntry& entry = table[(linear >> 12) & 1023];
  return linear + entry.negative_page <= 4096 - size_bytes;
}

uint64_t host_of(const TlbEntry* table, uint64_t linear) {
  const TlbEntry& entry = table[(linear >> 12) & 1023];
  return entry.host_page + (linear + entry.negative_page);
}

// --- The tables and level 2 alone.

class SoftTlbTest : public testing::Test {
 protected:
  SoftTlbTest() {
    EXPECT_TRUE(memory_.add({Gpa(0), kRam}, ExtentKind::kPrivate, "ram"));
    EXPECT_TRUE(memory_.add({Gpa(kRom), kPageSize}, ExtentKind::kRom, "rom"));
    EXPECT_TRUE(tlb_->attach(memory_));
  }
  static x86::Translation page_at(uint64_t gpa, bool global = false, uint64_t page_size = kPageSize) {
    return {.gpa = gpa, .page_size = page_size, .rights = {}, .global = global, .dirty = true};
  }
  /// Into both levels, for user code.
  void map(uint64_t linear, const x86::Translation& translation) {
    EXPECT_TRUE(tlb_->enter(kTlbUser, true, linear, tlb_->insert(linear, translation)));
  }
  bool in_tables(uint64_t linear) const { return hits(tlb_->table(kTlbUser, false), linear, 1); }
  bool in_level2(uint64_t linear) const {
    TlbPage page;
    return tlb_->find(linear, page);
  }
  uint64_t host(uint64_t gpa) const { return reinterpret_cast<uint64_t>(memory_.host_address(Gpa(gpa), 1)); }

  GuestMemory memory_;
  std::unique_ptr<SoftTlb> tlb_ = std::make_unique<SoftTlb>();
};

TEST_F(SoftTlbTest, EmptyEntriesMatchNoAddress) {
  std::mt19937_64 random(1);
  for (const unsigned size : {1u, 2u, 8u, 32u, 64u, 4096u}) {
    for (uint64_t page = 0; page < 4096; ++page) {
      for (const uint64_t high : {uint64_t{0}, uint64_t{1} << 22, uint64_t{1} << 47, ~uint64_t{0} << 47,
                                  ~uint64_t{0} << 22, uint64_t{1} << 63, random() << 22}) {
        for (const uint64_t offset : {0u, 1u, 4095u}) {
          const uint64_t linear = high + page * kPageSize + offset;
          ASSERT_FALSE(hits(tlb_->table(kTlbUser, false), linear, size)) << std::hex << linear;
        }
      }
    }
  }
  for (unsigned i = 0; i < 1'000'000; ++i) ASSERT_FALSE(hits(tlb_->table(kTlbNever, true), random(), 1));
}

TEST_F(SoftTlbTest, HitsOnlyInsideThePage) {
  constexpr uint64_t kLinear = 0xffff'8880'0012'3000;
  map(kLinear, page_at(0x5000));
  const TlbEntry* table = tlb_->table(kTlbUser, false);
  EXPECT_EQ(host_of(table, kLinear + 0x123), host(0x5123));
  for (const unsigned size : {1u, 2u, 4u, 8u, 16u, 32u, 64u, 512u, 4096u}) {
    EXPECT_TRUE(hits(table, kLinear, size)) << size;
    EXPECT_TRUE(hits(table, kLinear + 4096 - size, size)) << size;
    EXPECT_FALSE(hits(table, kLinear + 4096 - size + 1, size)) << size;
    EXPECT_FALSE(hits(table, kLinear - 1, size)) << size;
    EXPECT_FALSE(hits(table, kLinear + SoftTlb::kEntries * kPageSize, size)) << size;
    EXPECT_FALSE(hits(table, kLinear & 0xffff'ffff'ffff, size)) << size;  // the same without the upper bits
  }
  // The page below has been filled, too, and does not make an access that crosses into this one hit.
  map(kLinear - kPageSize, page_at(0x4000));
  EXPECT_TRUE(hits(table, kLinear - 8, 8));
  EXPECT_FALSE(hits(table, kLinear - 7, 8));
}

TEST_F(SoftTlbTest, FirstAndLastPageOfTheAddressSpace) {
  const TlbEntry* table = tlb_->table(kTlbUser, false);
  const uint64_t last = 0 - kPageSize;
  map(last, page_at(0x6000));
  EXPECT_TRUE(hits(table, last + 4088, 8));
  EXPECT_FALSE(hits(table, last + 4089, 8));  // would go on at 0
  EXPECT_FALSE(hits(table, 0, 1));
  map(0, page_at(0x7000));
  EXPECT_TRUE(hits(table, 0, 8));
  EXPECT_EQ(host_of(table, 4095), host(0x7fff));
  EXPECT_FALSE(hits(table, last + 4089, 8));
}

TEST_F(SoftTlbTest, ModesAndDirectionsAreApart) {
  const TlbPage page = tlb_->insert(0x1000, page_at(0x5000));
  EXPECT_TRUE(tlb_->enter(kTlbSupervisor, true, 0x1000, page));
  for (unsigned mode = 0; mode < kTlbModes; ++mode) {
    for (const bool write : {false, true})
      EXPECT_EQ(hits(tlb_->table(TlbMode(mode), write), 0x1000, 8), mode == kTlbSupervisor);
  }
  EXPECT_FALSE(tlb_->enter(kTlbNever, true, 0x1000, page));
  EXPECT_FALSE(hits(tlb_->table(kTlbNever, false), 0x1000, 8));
}

TEST_F(SoftTlbTest, WriteEntriesNeedDirtyWritableRamWithoutCode) {
  const auto write_entry = [&](const x86::Translation& translation, TlbMode mode, bool write_protect) {
    tlb_->drop_all();
    EXPECT_TRUE(tlb_->enter(mode, write_protect, 0x1000, tlb_->insert(0x1000, translation)));
    EXPECT_TRUE(hits(tlb_->table(mode, false), 0x1000, 8));
    return hits(tlb_->table(mode, true), 0x1000, 8);
  };
  x86::Translation page = page_at(0x5000);
  EXPECT_TRUE(write_entry(page, kTlbUser, true));
  page.dirty = false;
  EXPECT_FALSE(write_entry(page, kTlbUser, true));
  page = page_at(0x5000);
  page.rights.writable = false;
  EXPECT_FALSE(write_entry(page, kTlbUser, false));
  EXPECT_FALSE(write_entry(page, kTlbSupervisorUser, true));
  EXPECT_TRUE(write_entry(page, kTlbSupervisorUser, false));  // CR0.WP = 0
  EXPECT_FALSE(write_entry(page_at(kRom), kTlbUser, true));
  memory_.code_watch().page(Gpa(0x5000))->granules = 1;
  EXPECT_FALSE(write_entry(page_at(0x5000), kTlbUser, true));
  EXPECT_TRUE(write_entry(page_at(0x6000), kTlbUser, true));
  memory_.code_watch().page(Gpa(0x5000))->granules = 0;
  EXPECT_TRUE(write_entry(page_at(0x5000), kTlbUser, true));
}

TEST_F(SoftTlbTest, MmioHasNoEntryButATranslation) {
  TlbPage page = tlb_->insert(0x1000, page_at(0xfee00000));
  EXPECT_FALSE(tlb_->enter(kTlbUser, true, 0x1000, page));
  EXPECT_FALSE(in_tables(0x1000));
  ASSERT_TRUE(tlb_->find(0x1000, page));
  EXPECT_EQ(page.gpa(), 0xfee00000u);
  EXPECT_EQ(page.backing(), 0u);
}

TEST_F(SoftTlbTest, Level2KeepsRights) {
  x86::Translation translation = page_at(0x5123);
  translation.rights = {.writable = false, .user = true, .no_execute = true};
  translation.dirty = false;
  tlb_->insert(0x1000, translation);
  TlbPage page;
  ASSERT_TRUE(tlb_->find(0x1fff, page));
  EXPECT_EQ(page.gpa(), 0x5000u);
  EXPECT_FALSE(page.has(TlbPage::kWritable));
  EXPECT_TRUE(page.has(TlbPage::kUser));
  EXPECT_TRUE(page.has(TlbPage::kNoExecute));
  EXPECT_FALSE(page.has(TlbPage::kDirty));
  EXPECT_FALSE(page.has(TlbPage::kGlobal));
  // A second walk of the page takes the first one's place, also as a global translation.
  translation.dirty = translation.global = true;
  tlb_->insert(0x1000, translation);
  ASSERT_TRUE(tlb_->find(0x1000, page));
  EXPECT_TRUE(page.has(TlbPage::kDirty));
  EXPECT_TRUE(page.has(TlbPage::kGlobal));
}

TEST_F(SoftTlbTest, Level2EvictsAndNeverMixesPages) {
  // Far more pages than it has room for, among them many of one set.
  std::mt19937_64 random(2);
  std::vector<uint64_t> pages;
  for (unsigned i = 0; i < 40000; ++i)
    pages.push_back((i % 2 == 0 ? uint64_t{i} << 23 : random() % (uint64_t{1} << 35)) * kPageSize & 0x7fff'ffff'f000);
  for (const uint64_t page : pages) tlb_->insert(page, page_at(page % kRam & ~(kPageSize - 1)));
  unsigned found = 0;
  for (const uint64_t linear : pages) {
    TlbPage page;
    if (!tlb_->find(linear, page)) continue;
    ++found;
    ASSERT_EQ(page.gpa(), linear % kRam & ~(kPageSize - 1));
  }
  EXPECT_GT(found, 1000u);
  EXPECT_LE(found, 2 * SoftTlb::kSets * SoftTlb::kWays);
  // One set holds four pages; what was put last is always there.
  tlb_->drop_all();
  constexpr uint64_t kStride = uint64_t{1} << 33;
  for (uint64_t i = 0; i < 4; ++i) tlb_->insert(i * kStride, page_at(0));
  for (uint64_t i = 0; i < 4; ++i) EXPECT_TRUE(in_level2(i * kStride)) << i;
}

TEST_F(SoftTlbTest, ContextsKeepTheirOwnPages) {
  tlb_->change_context(1, false);
  map(0x1000, page_at(0x5000));
  map(0x7000, page_at(0x8000, true));
  tlb_->change_context(2, false);
  EXPECT_FALSE(in_tables(0x1000));
  EXPECT_FALSE(in_level2(0x1000));
  EXPECT_TRUE(in_tables(0x7000));  // global
  EXPECT_TRUE(in_level2(0x7000));
  map(0x1000, page_at(0x6000));
  const uint64_t second = tlb_->context();
  tlb_->change_context(1, true);
  EXPECT_FALSE(in_tables(0x1000));
  TlbPage page;
  ASSERT_TRUE(tlb_->find(0x1000, page));
  EXPECT_EQ(page.gpa(), 0x5000u);
  tlb_->change_context(2, true);
  EXPECT_EQ(tlb_->context(), second);
  ASSERT_TRUE(tlb_->find(0x1000, page));
  EXPECT_EQ(page.gpa(), 0x6000u);
  map(0x1000, page_at(0x6000));
  tlb_->change_context(2, true);  // the same: nothing goes
  EXPECT_TRUE(in_tables(0x1000));
  tlb_->change_context(2, false);
  EXPECT_NE(tlb_->context(), second);
  EXPECT_FALSE(in_tables(0x1000));
  EXPECT_FALSE(in_level2(0x1000));
  tlb_->change_context(1, true);
  EXPECT_TRUE(in_level2(0x1000));
}

TEST_F(SoftTlbTest, DroppingContexts) {
  const auto fill = [&] {
    tlb_->drop_all();
    for (const uint16_t pcid : {2, 1}) {
      tlb_->change_context(pcid, false);
      map(0x1000, page_at(0x5000));
    }
    map(0x7000, page_at(0x8000, true));
  };
  fill();
  tlb_->drop_context(2);
  EXPECT_TRUE(in_tables(0x1000));
  tlb_->change_context(2, true);
  EXPECT_FALSE(in_level2(0x1000));
  fill();
  tlb_->drop_context(1);
  EXPECT_FALSE(in_tables(0x1000));
  EXPECT_FALSE(in_level2(0x1000));
  EXPECT_TRUE(in_tables(0x7000));
  tlb_->change_context(2, true);
  EXPECT_TRUE(in_level2(0x1000));
  fill();
  tlb_->drop_contexts();
  EXPECT_FALSE(in_tables(0x1000));
  EXPECT_TRUE(in_tables(0x7000));
  EXPECT_TRUE(in_level2(0x7000));
  tlb_->change_context(2, true);
  EXPECT_FALSE(in_level2(0x1000));
  fill();
  tlb_->drop_all();
  EXPECT_FALSE(in_tables(0x7000));
  EXPECT_FALSE(in_level2(0x7000));
}

TEST_F(SoftTlbTest, DroppingAPage) {
  tlb_->change_context(2, false);
  map(0x1000, page_at(0x5000));
  tlb_->change_context(1, false);
  for (const uint64_t linear : {0x1000, 0x2000, 0x401000}) map(linear, page_at(0x5000));
  EXPECT_FALSE(tlb_->drop_page(0x1234, x86::PagingKind::k4Level));
  EXPECT_FALSE(in_tables(0x1000));
  EXPECT_FALSE(in_level2(0x1000));
  EXPECT_TRUE(in_tables(0x401000));  // the same index
  EXPECT_TRUE(in_level2(0x2000));
  tlb_->change_context(2, true);
  EXPECT_TRUE(in_level2(0x1000));
  tlb_->change_context(1, true);
  tlb_->drop_page_of(2, 0x1000, x86::PagingKind::k4Level);
  EXPECT_TRUE(in_level2(0x2000));
  tlb_->change_context(2, true);
  EXPECT_FALSE(in_level2(0x1000));
  // Globals belong to no PCID, so INVPCID of one leaves them; INVLPG does not.
  map(0x7000, page_at(0x8000, true));
  tlb_->drop_page_of(1, 0x7000, x86::PagingKind::k4Level);
  EXPECT_TRUE(in_tables(0x7000));
  tlb_->drop_page(0x7000, x86::PagingKind::k4Level);
  EXPECT_FALSE(in_tables(0x7000));
  EXPECT_FALSE(in_level2(0x7000));
}

TEST_F(SoftTlbTest, DroppingALargePageDropsAllPieces) {
  constexpr uint64_t kMebi = uint64_t{1} << 20;
  struct Case {
    uint64_t page_size, first, inside, outside;
    x86::PagingKind paging;
  };
  for (const bool global : {false, true}) {
    for (const Case& c : {Case{2 * kMebi, 0x40200000, 0x403ff000, 0x40400000, x86::PagingKind::k4Level},
                          Case{4 * kMebi, 0x40400000, 0x407ff000, 0x40800000, x86::PagingKind::k32Bit},
                          Case{1024 * kMebi, 0x80000000, 0xbffff000, 0xc0000000, x86::PagingKind::k4Level}}) {
      tlb_->drop_all();
      for (const uint64_t linear : {c.first, c.first + 0x5000, c.inside})
        map(linear, page_at(linear % kRam, global, c.page_size));
      map(c.outside, page_at(0));
      map(c.first - kPageSize, page_at(0));
      EXPECT_TRUE(tlb_->drop_page(c.first + kMebi, c.paging));
      for (const uint64_t linear : {c.first, c.first + 0x5000, c.inside}) {
        EXPECT_FALSE(in_tables(linear)) << std::hex << linear;
        EXPECT_FALSE(in_level2(linear)) << std::hex << linear;
      }
      EXPECT_TRUE(in_level2(c.outside));
      EXPECT_TRUE(in_level2(c.first - kPageSize));
      EXPECT_TRUE(in_tables(c.outside));
    }
  }
}

TEST_F(SoftTlbTest, ManyLargePagesStillDropAlone) {
  // More large pages than the filter can tell apart: it is emptied before INVLPG of anything becomes a sweep.
  tlb_->change_context(1, false);
  for (uint64_t i = 0; i < 3000; ++i) tlb_->insert(i << 21, page_at(0, false, 2 << 20));
  tlb_->change_context(1, false);
  map(0x1000, page_at(0x5000));
  EXPECT_FALSE(tlb_->drop_page(0x1000, x86::PagingKind::k4Level));
}

TEST_F(SoftTlbTest, ContextNumbersWrap) {
  SoftTlbTestAccess::set_last_context(*tlb_, SoftTlbTestAccess::kTags - 4);
  tlb_->change_context(1, false);
  map(0x1000, page_at(0x5000));
  map(0x7000, page_at(0x8000, true));
  for (uint16_t pcid = 2; pcid < 200; ++pcid) {
    const uint64_t before = tlb_->context();
    tlb_->change_context(pcid, false);
    EXPECT_GT(tlb_->context(), before);
    EXPECT_FALSE(in_level2(0x1000));
    tlb_->insert(0x1000, page_at(0x6000));
  }
  tlb_->change_context(1, true);
  TlbPage page;
  EXPECT_FALSE(tlb_->find(0x1000, page) && page.gpa() != 0x5000);
  tlb_->change_context(199, true);
  EXPECT_TRUE(in_level2(0x1000));
}

TEST_F(SoftTlbTest, EmptyingTablesKeepsLevel2) {
  map(0x1000, page_at(0x5000));
  tlb_->empty_write_tables();
  EXPECT_TRUE(in_tables(0x1000));
  EXPECT_FALSE(hits(tlb_->table(kTlbUser, true), 0x1000, 1));
  tlb_->empty_tables();
  EXPECT_FALSE(in_tables(0x1000));
  EXPECT_TRUE(in_level2(0x1000));
}

/// Whatever is filled and dropped in whatever order, the tables hold only what a plain model says they may.
TEST_F(SoftTlbTest, RandomOperationsAgainstAModel) {
  struct Known {
    uint64_t gpa;
    bool global;
  };
  std::map<std::pair<uint16_t, uint64_t>, Known> model;  // by PCID and page; globals under PCID 0xffff
  constexpr uint16_t kGlobal = 0xffff;
  std::mt19937_64 random(3);
  uint16_t pcid = 0;
  tlb_->change_context(0, false);
  const auto erase_if = [&](auto&& wanted) {
    std::erase_if(model, [&](const auto& item) { return wanted(item.first); });
  };
  for (unsigned step = 0; step < 200'000; ++step) {
    const uint64_t linear = (random() % 3 << 22) + random() % 64 * kPageSize;
    const auto other = static_cast<uint16_t>(random() % 4);
    switch (random() % 24) {
      case 0: tlb_->change_context(pcid = other, true); break;
      case 1:
        tlb_->change_context(pcid = other, false);
        erase_if([&](const auto& key) { return key.first == other; });
        break;
      case 2:
        tlb_->drop_context(other);
        erase_if([&](const auto& key) { return key.first == other; });
        break;
      case 3:
        tlb_->drop_page(linear, x86::PagingKind::k4Level);
        erase_if([&](const auto& key) { return key.second == linear && (key.first == pcid || key.first == kGlobal); });
        break;
      case 4:
        tlb_->drop_page_of(other, linear, x86::PagingKind::k4Level);
        erase_if([&](const auto& key) { return key.second == linear && key.first == other; });
        break;
      case 5:
        if (random() % 64 != 0) break;
        tlb_->drop_contexts();
        erase_if([&](const auto& key) { return key.first != kGlobal; });
        break;
      case 6:
        if (random() % 64 != 0) break;
        tlb_->drop_all();
        model.clear();
        break;
      case 7: tlb_->empty_write_tables(); break;
      default: {
        TlbPage page;
        if (!tlb_->find(linear, page)) {
          const bool global = linear >> 22 == 2;
          const uint64_t gpa = random() % 1024 * kPageSize;
          page = tlb_->insert(linear, page_at(gpa, global));
          model[{global ? kGlobal : pcid, linear}] = {gpa, global};
        }
        tlb_->enter(kTlbUser, true, linear, page);
      }
    }
    // Level 2 and the tables may know less than the model, never something else.
    for (const uint64_t probe : {linear, (random() % 3 << 22) + random() % 64 * kPageSize}) {
      auto known = model.find({kGlobal, probe});
      if (known == model.end()) known = model.find({pcid, probe});
      TlbPage page;
      if (tlb_->find(probe, page)) {
        ASSERT_TRUE(known != model.end() && known->second.gpa == page.gpa()) << step;
      }
      for (const bool write : {false, true}) {
        const TlbEntry* table = tlb_->table(kTlbUser, write);
        if (!hits(table, probe, 8)) continue;
        ASSERT_TRUE(known != model.end() && host(known->second.gpa) == host_of(table, probe)) << step;
      }
    }
  }
}

// --- With a vCPU.

class TlbFillTest : public testing::Test {
 protected:
  Cpu& enter(bool user = false) {
    machine_.enter_64({});
    if (user) {
      machine_.state.segments[x86::kCs].attributes |= 0x60;
      machine_.state.segments[x86::kSs].attributes |= 0x60;
    }
    machine_.state.cr4 |= x86::kCr4Pge | x86::kCr4Pcide;
    return prepare(machine_);
  }
  uint64_t entry(uint64_t linear) const {
    return machine_.peek<uint64_t>(Machine::kPageTables + 0x3000 + linear / kPageSize * 8);
  }
  static constexpr uint32_t kRead = 0, kWrite = 1;
  Machine machine_;
};

TEST_F(TlbFillTest, SetsAccessedAndDirtyAsTheAccessWants) {
  Cpu& cpu = enter();
  EXPECT_EQ(entry(0x20000) & (kA | kD), 0u);
  ASSERT_TRUE(tenon_tlb_fill(&cpu, 0x20ff0, kRead));
  EXPECT_EQ(entry(0x20000) & (kA | kD), kA);
  EXPECT_TRUE(hits(cpu.tlb_read, 0x20000, 8));
  EXPECT_FALSE(hits(cpu.tlb_write, 0x20000, 8));  // clean
  const uint64_t walks = cpu.counters.tlb_walks;
  ASSERT_TRUE(tenon_tlb_fill(&cpu, 0x20ff0, kWrite));
  EXPECT_EQ(entry(0x20000) & (kA | kD), kA | kD);
  EXPECT_TRUE(hits(cpu.tlb_write, 0x20000, 8));
  EXPECT_EQ(cpu.counters.tlb_walks, walks + 1);
  // From level 2: no walk, and both entries at once.
  cpu.flush_tlb_tables();
  ASSERT_TRUE(tenon_tlb_fill(&cpu, 0x20ff0, kRead));
  EXPECT_TRUE(hits(cpu.tlb_write, 0x20000, 8));
  EXPECT_EQ(cpu.counters.tlb_walks, walks + 1);
}

TEST_F(TlbFillTest, RefusesWhatTheInterpreterMustDo) {
  Cpu& cpu = enter(true);
  machine_.set_page(0x21000, 0);
  machine_.set_page(0x22000, 0x22000 | kP | kU);                  // read-only
  machine_.set_page(0x23000, 0x23000 | kP | kW);                  // supervisor
  machine_.set_page(0x24000, 0xfee00000 | kP | kW | kU);          // MMIO
  machine_.memory.code_watch().page(Gpa(0x25000))->granules = 1;  // code
  cpu.flush_tlb(false);
  const x86::CpuState before = cpu.state;
  for (const uint32_t access : {kRead, kWrite}) {
    EXPECT_FALSE(tenon_tlb_fill(&cpu, 0x21000, access));
    EXPECT_FALSE(tenon_tlb_fill(&cpu, 0x23000, access));
    EXPECT_FALSE(tenon_tlb_fill(&cpu, 0x24000, access));
    EXPECT_FALSE(tenon_tlb_fill(&cpu, 0x8000'0000'0000, access));
    EXPECT_FALSE(tenon_tlb_fill(&cpu, 0xffff'0000'0000'0000, access));
  }
  EXPECT_FALSE(tenon_tlb_fill(&cpu, 0x22000, kWrite));
  EXPECT_EQ(entry(0x22000) & kD, 0u);
  EXPECT_TRUE(tenon_tlb_fill(&cpu, 0x22000, kRead));
  EXPECT_FALSE(tenon_tlb_fill(&cpu, 0x25000, kWrite));
  EXPECT_TRUE(hits(cpu.tlb_read, 0x25000, 8));
  EXPECT_FALSE(cpu.has_fault);
  EXPECT_EQ(cpu.attention & Cpu::kAttentionFault, 0u);
  EXPECT_EQ(cpu.state.cr2, before.cr2);
  // Data breakpoints: the slow path has to see every access.
  cpu.state.dr7 = 0x400 | 1u | 1u << 16;
  cpu.update_mode();
  EXPECT_EQ(cpu.tlb_mode, kTlbNever);
  EXPECT_FALSE(tenon_tlb_fill(&cpu, 0x20000, kRead));
}

TEST_F(TlbFillTest, RefusesAPageThatIsThere) {
  Cpu& cpu = enter();
  EXPECT_TRUE(tenon_tlb_fill(&cpu, 0x20ffc, kWrite));
  EXPECT_FALSE(hits(cpu.tlb_write, 0x20ffc, 8));
  EXPECT_FALSE(tenon_tlb_fill(&cpu, 0x20ffc, kWrite));  // or the access would miss for ever
}

TEST_F(TlbFillTest, CodeAppearsAndGoes) {
  Cpu& cpu = enter();
  CodeWatch::Page* page = machine_.memory.code_watch().page(Gpa(0x20000));
  ASSERT_TRUE(tenon_tlb_fill(&cpu, 0x20000, kWrite));
  cpu.safepoint->set_code_granules(cpu, *page, 1);
  EXPECT_FALSE(hits(cpu.tlb_write, 0x20000, 1));
  EXPECT_TRUE(hits(cpu.tlb_read, 0x20000, 1));
  EXPECT_FALSE(tenon_tlb_fill(&cpu, 0x20000, kWrite));  // level 2 says writable and dirty
  EXPECT_FALSE(hits(cpu.tlb_write, 0x20000, 1));
  page->granules = 0;
  EXPECT_TRUE(tenon_tlb_fill(&cpu, 0x20000, kWrite));
}

TEST_F(TlbFillTest, RomIsNotWritable) {
  GuestMemory memory;
  ASSERT_TRUE(memory.add({Gpa(0), kRam}, ExtentKind::kPrivate, "ram"));
  ASSERT_TRUE(memory.add({Gpa(kRom), kPageSize}, ExtentKind::kRom, "rom"));
  Cpu& cpu = enter();
  cpu.memory = &memory;
  ASSERT_TRUE(cpu.tlb.attach(memory));
  cpu.state.cr0 &= ~uint64_t{x86::kCr0Pg};  // linear addresses are physical
  cpu.state.cr4 &= ~uint64_t{x86::kCr4Pcide};
  cpu.state.efer = 0;
  cpu.update_mode();
  cpu.flush_tlb(false);
  EXPECT_TRUE(tenon_tlb_fill(&cpu, kRom, kRead));
  EXPECT_FALSE(tenon_tlb_fill(&cpu, kRom, kWrite));
  EXPECT_TRUE(tenon_tlb_fill(&cpu, 0x5000, kWrite));
  EXPECT_FALSE(tenon_tlb_fill(&cpu, kRam, kRead));
}

TEST_F(TlbFillTest, WriteProtectChangesTheTablesOnly) {
  Cpu& cpu = enter();
  machine_.set_page(0x22000, 0x22000 | kP | kA | kD);
  cpu.flush_tlb(false);
  EXPECT_TRUE(tenon_tlb_fill(&cpu, 0x22000, kRead));
  EXPECT_FALSE(hits(cpu.tlb_write, 0x22000, 1));
  Step step;
  step.insn.reg = 0;
  step.insn.rm = x86::kRbx;
  cpu.gpr[x86::kRbx] = cpu.state.cr0 & ~uint64_t{x86::kCr0Wp};
  ASSERT_TRUE(mov_to_cr(cpu, &step));
  EXPECT_TRUE(tenon_tlb_fill(&cpu, 0x22000, kWrite));
  EXPECT_TRUE(hits(cpu.tlb_write, 0x22000, 1));
  cpu.gpr[x86::kRbx] |= x86::kCr0Wp;
  ASSERT_TRUE(mov_to_cr(cpu, &step));
  EXPECT_FALSE(hits(cpu.tlb_write, 0x22000, 1));
  EXPECT_FALSE(tenon_tlb_fill(&cpu, 0x22000, kWrite));
}

TEST_F(TlbFillTest, RightsThatGrewAreFoundWithoutInvlpg) {
  Cpu& cpu = enter(true);
  machine_.set_page(0x22000, 0x22000 | kP | kU);
  cpu.flush_tlb(false);
  EXPECT_TRUE(tenon_tlb_fill(&cpu, 0x22000, kRead));
  EXPECT_FALSE(tenon_tlb_fill(&cpu, 0x22000, kWrite));
  machine_.set_page(0x22000, 0x22000 | kP | kU | kW);
  EXPECT_TRUE(tenon_tlb_fill(&cpu, 0x22000, kWrite));
}

TEST_F(TlbFillTest, PageFaultsDropWhatIsKnownOfThePage) {
  Cpu& cpu = enter(true);
  machine_.set_page(0x22000, 0x22000 | kP | kU);
  cpu.flush_tlb(false);
  machine_.poke<uint8_t>(0x22000, 1);
  machine_.poke<uint8_t>(0x23000, 2);
  uint8_t byte = 0;
  ASSERT_TRUE(cpu.load<uint8_t>(x86::kDs, 0x22000, byte));
  machine_.set_page(0x22000, 0x23000 | kP | kU);  // another page, without INVLPG: what is known may be used
  ASSERT_FALSE(cpu.store<uint8_t>(x86::kDs, 0x22000, 3));
  expect_fault(cpu, x86::kPageFault, x86::kPfPresent | x86::kPfWrite | x86::kPfUser);
  ASSERT_TRUE(cpu.load<uint8_t>(x86::kDs, 0x22000, byte));
  EXPECT_EQ(byte, 2);
}

TEST_F(TlbFillTest, FetchesUseLevel2) {
  Cpu& cpu = enter();
  Translation out;
  ASSERT_TRUE(cpu.translate_fetch(0x21123, out));
  EXPECT_EQ(out.gpa, Gpa(0x21123));
  const uint64_t walks = cpu.counters.tlb_walks;
  ASSERT_TRUE(cpu.translate_fetch(0x21fff, out));
  EXPECT_EQ(out.gpa, Gpa(0x21fff));
  ASSERT_TRUE(tenon_tlb_fill(&cpu, 0x21000, kRead));
  EXPECT_EQ(cpu.counters.tlb_walks, walks);
}

// --- PCID by instructions. Page 300H000H of each address space holds a number of its own.

constexpr uint64_t kProbe = 0x300000;

class PcidTest : public testing::Test {
 protected:
  PcidTest() {
    machine_.enter_64({});
    // A second address space: its own copy of all four levels, with the probe elsewhere.
    for (uint64_t offset = 0; offset < 0x5000; offset += 8) {
      uint64_t value = machine_.peek<uint64_t>(Machine::kPageTables + offset);
      if (offset < 0x3000 && value != 0) value += kSecondRoot - Machine::kPageTables;
      machine_.poke<uint64_t>(kSecondRoot + offset, value);
    }
    set_probe(Machine::kPageTables, 0x301000 | 7);
    set_probe(kSecondRoot, 0x302000 | 7);
    for (const uint64_t page : {1, 2, 3}) machine_.poke<uint64_t>(kProbe + page * kPageSize, page);
    machine_.state.cr4 |= x86::kCr4Pge;
    cpu_ = &prepare(machine_);
    EXPECT_TRUE(move_to(4, cpu_->state.cr4 | x86::kCr4Pcide));
  }
  static constexpr uint64_t kSecondRoot = 0x140000;
  static constexpr uint64_t kKeep = uint64_t{1} << 63;

  void set_probe(uint64_t root, uint64_t entry) {
    machine_.poke<uint64_t>(root + 0x3000 + kProbe / kPageSize * 8, entry);
  }
  bool move_to(unsigned control, uint64_t value) {
    Step step;
    step.insn.reg = static_cast<uint8_t>(control);
    step.insn.rm = x86::kRbx;
    cpu_->gpr[x86::kRbx] = value;
    const bool done = mov_to_cr(*cpu_, &step);
    clear_fault(*cpu_);
    return done;
  }
  void load_cr3(uint64_t value) { EXPECT_TRUE(move_to(3, value)); }
  void invalidate(uint64_t type, uint64_t pcid, uint64_t linear) {
    Step step;
    step.insn.reg = x86::kRcx;
    step.insn.is_memory = true;
    step.insn.base = step.insn.index = Cpu::kZeroRegister;
    step.insn.displacement = 0x20000;
    step.insn.segment = x86::kDs;
    cpu_->gpr[x86::kRcx] = type;
    machine_.poke<uint64_t>(0x20000, pcid);
    machine_.poke<uint64_t>(0x20008, linear);
    EXPECT_TRUE(invpcid(*cpu_, &step));
  }
  uint64_t probe(uint64_t linear = kProbe) {
    uint64_t value = 0;
    EXPECT_TRUE(cpu_->load<uint64_t>(x86::kDs, linear, value));
    Translation code;
    EXPECT_TRUE(cpu_->translate_fetch(linear, code));
    uint64_t by_fetch = 0;
    EXPECT_TRUE(machine_.memory.read_object(code.gpa, by_fetch));
    EXPECT_EQ(value, by_fetch);  // both levels agree
    return value;
  }
  /// PCID 1 on the first, PCID 2 on the second tables, each with the probe known; then both tables say 3.
  void know_both(uint64_t flags = 0) {
    set_probe(Machine::kPageTables, 0x301000 | 7 | flags);
    set_probe(kSecondRoot, 0x302000 | 7 | flags);
    EXPECT_TRUE(move_to(4, cpu_->state.cr4 & ~uint64_t{x86::kCr4Pge}));
    EXPECT_TRUE(move_to(4, cpu_->state.cr4 | x86::kCr4Pge));
    load_cr3(kSecondRoot | 2);
    EXPECT_EQ(probe(), 2u);
    load_cr3(Machine::kPageTables | 1);
    EXPECT_EQ(probe(), flags == kG ? 2u : 1u);
    set_probe(Machine::kPageTables, 0x303000 | 7 | flags);
    set_probe(kSecondRoot, 0x303000 | 7 | flags);
  }
  void expect_known(bool first, bool second) {
    load_cr3(Machine::kPageTables | 1 | kKeep);
    EXPECT_EQ(probe(), first ? 1u : 3u);
    load_cr3(kSecondRoot | 2 | kKeep);
    EXPECT_EQ(probe(), second ? 2u : 3u);
  }

  Machine machine_;
  Cpu* cpu_ = nullptr;
};

TEST_F(PcidTest, Bit63KeepsTranslations) {
  know_both();
  expect_known(true, true);
  know_both();
  load_cr3(kSecondRoot | 2);  // drops PCID 2's
  EXPECT_EQ(probe(), 3u);
  expect_known(true, false);
  EXPECT_EQ(cpu_->state.cr3, kSecondRoot | 2);  // bit 63 is not stored
}

TEST_F(PcidTest, GlobalsAreEverybodys) {
  know_both(kG);
  load_cr3(Machine::kPageTables | 5);
  EXPECT_EQ(probe(), 2u);
  EXPECT_TRUE(move_to(4, cpu_->state.cr4 & ~uint64_t{x86::kCr4Pge}));
  EXPECT_EQ(probe(), 3u);
}

TEST_F(PcidTest, InvlpgIsOfTheCurrentPcidAndGlobals) {
  know_both();
  cpu_->flush_tlb_page(kProbe + 123);
  expect_known(false, true);
  know_both(kG);
  load_cr3(Machine::kPageTables | 7);
  cpu_->flush_tlb_page(kProbe);
  load_cr3(kSecondRoot | 2 | kKeep);
  EXPECT_EQ(probe(), 3u);
}

TEST_F(PcidTest, InvpcidTypes) {
  know_both();
  invalidate(0, 2, kProbe);
  expect_known(true, false);
  know_both();
  invalidate(0, 1, kProbe);
  expect_known(false, true);
  know_both();
  invalidate(0, 1, kProbe + kPageSize);  // another page
  expect_known(true, true);
  know_both();
  invalidate(1, 2, 0);
  expect_known(true, false);
  know_both();
  invalidate(1, 1, 0);
  expect_known(false, true);
  know_both();
  invalidate(3, 0, 0);
  expect_known(false, false);
  know_both();
  invalidate(2, 0, 0);
  expect_known(false, false);
}

TEST_F(PcidTest, InvpcidAndGlobals) {
  for (const uint64_t type : {0, 1, 3}) {
    know_both(kG);
    invalidate(type, type == 3 ? 0 : 1, kProbe);
    load_cr3(kSecondRoot | 2 | kKeep);
    EXPECT_EQ(probe(), 2u) << type;
  }
  know_both(kG);
  invalidate(2, 0, 0);
  EXPECT_EQ(probe(), 3u);
}

TEST_F(PcidTest, PcideItself) {
  // Only with PCID 0, and bit 63 is reserved without it.
  load_cr3(Machine::kPageTables);
  EXPECT_EQ(probe(), 1u);
  set_probe(Machine::kPageTables, 0x303000 | 7);
  EXPECT_TRUE(move_to(4, cpu_->state.cr4 & ~uint64_t{x86::kCr4Pcide}));
  EXPECT_EQ(probe(), 3u);  // from 1 to 0 drops everything
  EXPECT_FALSE(move_to(3, Machine::kPageTables | kKeep));
  load_cr3(Machine::kPageTables | 0x18);  // PCD and PWT, not a PCID
  EXPECT_FALSE(move_to(4, cpu_->state.cr4 | x86::kCr4Pcide));
  load_cr3(Machine::kPageTables);
  EXPECT_EQ(probe(), 3u);
  set_probe(Machine::kPageTables, 0x301000 | 7);
  EXPECT_TRUE(move_to(4, cpu_->state.cr4 | x86::kCr4Pcide));
  EXPECT_EQ(probe(), 3u);  // from 0 to 1 keeps it
  EXPECT_FALSE(move_to(0, cpu_->state.cr0 & ~uint64_t{x86::kCr0Pg}));
}

TEST_F(PcidTest, SmepDropsCode) {
  Translation code;
  EXPECT_TRUE(cpu_->translate_fetch(kProbe, code));
  EXPECT_TRUE(move_to(4, cpu_->state.cr4 | x86::kCr4Smep));
  EXPECT_FALSE(cpu_->translate_fetch(kProbe, code));  // a user page
  clear_fault(*cpu_);
}

/// Two address spaces with different code at one address, switched with bit 63 set: each finds its own again.
GUEST_CODE(switching, "64", R"(
  mov rax, cr4
  or eax, 0x20000
  mov cr4, rax
  mov rsi, 0x100001
  mov rdi, 0x140002
  mov cr3, rdi
  mov cr3, rsi
  bts rsi, 63
  bts rdi, 63
  xor ebx, ebx
  mov ebp, 1000
1: mov cr3, rsi
  mov eax, 0x300000
  call rax
  mov cr3, rdi
  mov eax, 0x300000
  call rax
  dec ebp
  jnz 1b
)" DONE);
GUEST_CODE(adds_one, "64", "add rbx, 1\nret");
GUEST_CODE(adds_thousand, "64", "add rbx, 1000\nret");

TEST_F(PcidTest, CodeFollowsTheAddressSpace) {
  machine_.load(0x301000, adds_one);
  machine_.load(0x302000, adds_thousand);
  machine_.load(Machine::kCode, switching);
  machine_.run_to_done();
  EXPECT_EQ(machine_.gpr(x86::kRbx), 1001u * 1000);
}

/// The same, and INVLPG or INVPCID after each change of the mapping takes effect on code.
GUEST_CODE(remapping, "64", R"(
  mov rax, cr4
  or eax, 0x20000
  mov cr4, rax
  mov rsi, 0x100001
  mov cr3, rsi
  bts rsi, 63
  xor ebx, ebx
  mov eax, 0x300000
  call rax
  mov dword ptr [0x104800], 0x302007
  invlpg [0x300000]
  call rax
  mov dword ptr [0x104800], 0x301007
  mov rdi, 0x140002
  mov cr3, rdi
  mov qword ptr [0x20000], 1
  mov qword ptr [0x20008], 0x300000
  xor ecx, ecx
  invpcid rcx, [0x20000]
  mov cr3, rsi
  call rax
)" DONE);

TEST_F(PcidTest, CodeFollowsInvalidation) {
  machine_.load(0x301000, adds_one);
  machine_.load(0x302000, adds_thousand);
  machine_.load(Machine::kCode, remapping);
  static_assert(Machine::kPageTables + 0x3000 + kProbe / kPageSize * 8 == 0x104800);
  machine_.run_to_done();
  EXPECT_EQ(machine_.gpr(x86::kRbx), 1002u);
}

}  // namespace
}  // namespace tenon::interp
