#include "vm/output_pin.hh"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace tenon {
namespace {

TEST(OutputPin, PublishesChangesOnly) {
  std::vector<bool> seen;
  OutputPin pin([&](bool level) { seen.push_back(level); });
  pin.note(false);
  pin.publish();
  pin.note(true);
  pin.note(true);
  EXPECT_TRUE(seen.empty()) << "nothing is called before publish()";
  pin.publish();
  pin.publish();
  EXPECT_EQ(seen, std::vector<bool>{true});
  EXPECT_TRUE(pin.level());
}

TEST(OutputPin, AnUnseenPulseIsStillAnEdge) {
  std::vector<bool> seen;
  OutputPin pin([&](bool level) { seen.push_back(level); });
  for (int i = 0; i < 10; ++i) {
    pin.note(true);
    pin.note(false);
  }
  pin.publish();
  EXPECT_EQ(seen, (std::vector<bool>{true, false})) << "pulses that nobody saw fall together, but not to nothing";
}

TEST(OutputPin, AListenerMayNoteAgain) {
  std::vector<bool> seen;
  OutputPin pin;
  pin.connect([&](bool level) {
    seen.push_back(level);
    if (level) {  // as an acknowledge that comes back at once
      pin.note(false);
      pin.publish();
    }
  });
  pin.note(true);
  pin.publish();
  EXPECT_EQ(seen, (std::vector<bool>{true, false}));
}

TEST(OutputPin, AssumeTellsNobody) {
  unsigned calls = 0;
  OutputPin pin([&](bool) { ++calls; });
  pin.assume(true);
  pin.publish();
  pin.note(true);
  pin.publish();
  EXPECT_EQ(calls, 0u);
  pin.note(false);
  pin.publish();
  EXPECT_EQ(calls, 1u);
}

TEST(OutputPin, ThreadsAlternateLevelsAndTheLastOneArrives) {
  bool driven = false;  // the listener is never called by two threads at once
  bool alternates = true;
  OutputPin pin([&](bool level) {
    alternates = alternates && level != driven;
    driven = level;
  });
  Mutex chip;
  bool wanted = false;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (unsigned i = 0; i < 5000; ++i) {
        {
          const MutexLock lock(chip);
          wanted = !wanted;
          pin.note(wanted);
        }
        pin.publish();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(alternates);
  EXPECT_EQ(driven, wanted);
}

}  // namespace
}  // namespace tenon
