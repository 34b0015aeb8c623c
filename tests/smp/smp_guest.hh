// SmpGuest: some vCPUs of one engine that run one small guest together, each on its own host thread.
//
// The threads are bound to the host's processors in turn, so that vCPUs really run at the same time: threads that wait
// for each other by yielding stay on one processor otherwise. All start at FlatGuest::kCode in 64-bit mode, CPL 0, with
// RDI = number, RSI = count and a stack of their own; no chips. A guest writes port 0xf5 when a vCPU is done; run()
// returns when all are. Port 0xf4 calls on_report on the vCPU's thread.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/engine.hh"
#include "host/host_clock.hh"
#include "machine/flat_guest.hh"

#define SMP_GUEST(name)                          \
  extern "C" const std::byte tenon_smp_##name[]; \
  extern "C" const std::byte tenon_smp_##name##_end[]
#define SMP_GUEST_CODE(name) \
  std::span<const std::byte>(tenon_smp_##name, static_cast<size_t>(tenon_smp_##name##_end - tenon_smp_##name))

namespace tenon::smp {

/// Divides the length of tests: one instruction costs many times more under the thread sanitizer.
#ifdef __SANITIZE_THREAD__
constexpr uint64_t kSlowdown = 20;
#else
constexpr uint64_t kSlowdown = 1;
#endif

/// Where 4-KiB pages may be mapped: linear addresses from here on, through the page table at kPageTable.
constexpr uint64_t kWindow = 0x40000000;
constexpr uint64_t kPageTable = 0x19000;
/// RAM that no guest's code, table or stack uses, up to kRamEnd.
constexpr uint64_t kData = 0x200000;
constexpr uint64_t kRamEnd = 0x800000;

/// Page-table entry bits (SDM Vol. 3 Table 4-20).
constexpr uint64_t kPtePresent = 1, kPteWritable = 2, kPteUser = 4, kPteAccessed = 1 << 5, kPteDirty = 1 << 6;

class SmpGuest {
 public:
  SmpGuest(unsigned vcpu_count, std::span<const std::byte> code);
  ~SmpGuest();

  GuestMemory& memory() { return memory_; }
  unsigned count() const { return static_cast<unsigned>(vcpus_.size()); }
  /// State that the vCPU starts with; change it before run().
  x86::CpuState& entry(unsigned vcpu) { return vcpus_[vcpu]->entry; }
  void set_register(x86::GprIndex number, uint64_t value);
  /// State at the end.
  const x86::CpuState& result(unsigned vcpu) const { return vcpus_[vcpu]->result; }
  uint64_t result(unsigned vcpu, x86::GprIndex number) const { return vcpus_[vcpu]->result.gpr[number]; }

  /// Maps the 4-KiB page at kWindow + index * 4096 to `gpa`.
  void map(unsigned index, uint64_t gpa);
  template <typename T = uint64_t>
  T read(uint64_t gpa) {
    T value{};
    EXPECT_TRUE(memory_.read_object(Gpa(gpa), value));
    return value;
  }
  template <typename T>
  void write(uint64_t gpa, T value) {
    EXPECT_TRUE(memory_.write_object(Gpa(gpa), value));
  }
  uint64_t pte(unsigned index) { return read(kPageTable + index * 8); }

  /// Runs until every vCPU is done. A hang fails the test.
  void run();
  /// As a device would.
  void interrupt(unsigned vcpu, uint8_t number);
  /// Stops the vCPU at some instruction; its thread takes its state out, puts it back and goes on.
  void request_stop(unsigned vcpu);

  /// On the vCPU's thread.
  std::function<void(unsigned vcpu, uint32_t value)> on_report;
  /// On a thread of its own, with the vCPUs running; ends soon after `running()` has become false.
  std::function<void()> beside;
  bool running() const { return left_.load() != 0 && !failed_; }
  uint64_t stops() const { return stops_; }

 private:
  class Io;
  struct One {
    VcpuSignal signal;
    x86::CpuState entry;
    x86::CpuState result;
    std::unique_ptr<Io> io;
    std::atomic<Vcpu*> vcpu = nullptr;  // while its thread runs
    std::atomic<bool> done = false;
  };

  void thread(unsigned index);
  void fail(const std::string& why);

  GuestMemory memory_;
  HostClock clock_;
  std::unique_ptr<Engine> engine_;
  std::vector<CpuidEntry> cpuid_;
  std::vector<std::unique_ptr<One>> vcpus_;
  std::atomic<unsigned> left_{0};
  std::atomic<bool> failed_{false};
  std::atomic<uint64_t> stops_{0};
};

/// Tests that run with 2 and with 4 vCPUs.
class SmpTest : public testing::TestWithParam<unsigned> {};
#define SMP_INSTANTIATE(suite)                                    \
  INSTANTIATE_TEST_SUITE_P(Vcpus, suite, testing::Values(2u, 4u), \
                           [](const auto& tested) { return std::to_string(tested.param); })

}  // namespace tenon::smp
