#include "base/thread.hh"

#include <gtest/gtest.h>

#include <fstream>
#include <thread>

namespace tenon {
namespace {

TEST(Thread, NameIsVisibleToTheHostAndCut) {
  std::string seen;
  std::thread thread([&] {
    name_this_thread("vcpu0123456789abcdef");
    wake_this_thread_exactly();
    std::ifstream("/proc/thread-self/comm") >> seen;
  });
  thread.join();
  EXPECT_EQ(seen, "vcpu0123456789a");
}

}  // namespace
}  // namespace tenon
