#include "vm/code_changes.hh"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "vm/guest_memory.hh"

namespace tenon {
namespace {

/// A vCPU as far as CodeChanges is concerned.
struct Reader {
  explicit Reader(CodeChanges& changes) : log(changes) { log.add(listener, poke); }
  ~Reader() { log.remove(listener); }
  using Range = std::pair<uint64_t, uint64_t>;

  void read() {
    ranges.clear();
    any = false;
    log.read(
        listener, [&](Gpa gpa, uint64_t size_bytes) { ranges.emplace_back(gpa.value(), size_bytes); },
        [&] { any = true; });
  }

  CodeChanges& log;
  CodeChanges::Listener listener;
  std::atomic<uint32_t> poke{0};
  std::vector<Range> ranges;
  bool any = false;
};

TEST(CodeChanges, ReachEveryListenerInWholeGranules) {
  CodeChanges changes;
  Reader first(changes), second(changes);
  changes.note(Gpa(0x1030), 4, nullptr);
  changes.note(Gpa(0xffff'ffff'f07f), 2, nullptr);
  changes.note(Gpa(0x3000), kPageSize, nullptr);
  const std::vector<Reader::Range> expected{{0x1000, 64}, {0xffff'ffff'f040, 128}, {0x3000, kPageSize}};
  for (Reader* reader : {&first, &second}) {
    EXPECT_EQ(reader->poke, 1u);
    EXPECT_TRUE(changes.has_news(reader->listener));
    reader->read();
    EXPECT_EQ(reader->ranges, expected);
    EXPECT_FALSE(reader->any);
    EXPECT_FALSE(changes.has_news(reader->listener));
  }
}

TEST(CodeChanges, TheWriterKnowsAlready) {
  CodeChanges changes;
  Reader writer(changes), other(changes);
  changes.note(Gpa(0x1000), 4, &writer.listener);
  EXPECT_EQ(writer.poke, 0u);
  EXPECT_FALSE(changes.has_news(writer.listener));
  EXPECT_EQ(other.poke, 1u);
  // Behind somebody else's change its own is read again.
  changes.note(Gpa(0x2000), 4, nullptr);
  changes.note(Gpa(0x3000), 4, &writer.listener);
  writer.read();
  EXPECT_EQ(writer.ranges, (std::vector<Reader::Range>{{0x2000, 64}, {0x3000, 64}}));
}

TEST(CodeChanges, WhoHasFallenBehindIsToldThatAnythingMayHaveChanged) {
  CodeChanges changes;
  Reader reader(changes);
  for (unsigned lap = 0; lap < 3; ++lap) {
    for (unsigned i = 0; i < CodeChanges::kLines; ++i) changes.note(Gpa(i * kPageSize), 1, nullptr);
    reader.read();
    EXPECT_EQ(reader.ranges.size(), CodeChanges::kLines);
    EXPECT_FALSE(reader.any);
    for (unsigned i = 0; i <= CodeChanges::kLines; ++i) changes.note(Gpa(i * kPageSize), 1, nullptr);
    reader.read();
    EXPECT_TRUE(reader.any);
    EXPECT_FALSE(changes.has_news(reader.listener));
  }
}

TEST(CodeChanges, OnlyWritesToCodeAreNoted) {
  GuestMemory memory;
  ASSERT_TRUE(memory.add({Gpa(0), 16 * kPageSize}, ExtentKind::kPrivate, "test"));
  Reader reader(memory.code_watch().changes());
  memory.code_watch().page(Gpa(0x3000))->granules = 1u << 2;
  const std::array<std::byte, 64> bytes{};
  EXPECT_TRUE(memory.write(Gpa(0x3040), bytes));
  EXPECT_FALSE(memory.code_watch().changes().has_news(reader.listener));
  EXPECT_EQ(reader.poke, 0u);
  EXPECT_TRUE(memory.write(Gpa(0x3041), bytes));
  EXPECT_EQ(reader.poke, 1u);
  reader.read();
  EXPECT_EQ(reader.ranges, (std::vector<Reader::Range>{{0x3040, 128}}));
}

/// Versions that writers raise and readers follow by what the log tells them.
TEST(CodeChanges, NoChangeIsLost) {
  constexpr unsigned kPages = 32;
  constexpr unsigned kWriters = 2, kReaders = 2, kRounds = 20000;
  CodeChanges changes;
  std::array<std::atomic<uint64_t>, kPages> versions{};
  std::atomic<unsigned> writing{kWriters};
  std::vector<std::thread> threads;
  std::atomic<unsigned> listening{0};
  for (unsigned n = 0; n < kReaders; ++n) {
    threads.emplace_back([&] {
      Reader reader(changes);
      ++listening;
      std::array<uint64_t, kPages> known{};
      for (bool last = false; !last;) {
        last = writing == 0;
        if (reader.poke.exchange(0) == 0) {
          std::this_thread::yield();
          continue;
        }
        reader.read();
        for (const auto& [gpa, size_bytes] : reader.ranges) known[gpa / kPageSize] = versions[gpa / kPageSize];
        if (reader.any) std::copy(versions.begin(), versions.end(), known.begin());
      }
      for (unsigned page = 0; page < kPages; ++page) EXPECT_EQ(known[page], versions[page]) << page;
    });
  }
  while (listening < kReaders) std::this_thread::yield();
  for (unsigned n = 0; n < kWriters; ++n) {
    threads.emplace_back([&, n] {
      for (unsigned i = 0; i < kRounds; ++i) {
        const unsigned page = (i * (2 * n + 1)) % kPages;
        versions[page].fetch_add(1);
        changes.note(Gpa(page * kPageSize), 8, nullptr);
        if (i % 64 == 0) std::this_thread::yield();
      }
      --writing;
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(CodeChanges, ListenersComeAndGoWhileOthersWrite) {
  CodeChanges changes;
  std::atomic<bool> end{false};
  std::thread writer([&] {
    while (!end) changes.note(Gpa(0x1000), 8, nullptr);
  });
  for (int i = 0; i < 2000; ++i) {
    const auto first = std::make_unique<Reader>(changes);
    auto second = std::make_unique<Reader>(changes);
    const auto third = std::make_unique<Reader>(changes);
    second.reset();
  }
  end = true;
  writer.join();
}

}  // namespace
}  // namespace tenon
