// The engine contract (engine/engine.hh) held against every engine this host can run, with small purpose-built guests.
// KVM tests are skipped with a message where /dev/kvm is absent.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <thread>

#include "engine/empty_cpu_io.hh"
#include "engine/interp/interp_engine.hh"
#include "engine/jit/jit_engine.hh"
#include "engine/kvm/kvm_engine.hh"
#include "host/host_clock.hh"
#include "machine/engine_selftest.hh"
#include "machine/flat_guest.hh"

#define GUEST(name) extern "C" const std::byte tenon_guest_##name[]
GUEST(ports);
GUEST(mmio);
GUEST(msr);
GUEST(triple_fault);
GUEST(count);
GUEST(interrupt);
GUEST(interrupt_flag);
GUEST(system_state);
GUEST(repeated);
GUEST(time_stamp_counter);
GUEST(system_call);
GUEST(shared_object);
GUEST(far_copy);
GUEST(io_apic);
GUEST(doorbell);
GUEST(startup);
#undef GUEST

namespace tenon {
namespace {

using testing::ElementsAre;

constexpr size_t kGuestSize = 1024;
constexpr uint64_t kHandlerOffset = 0x80;
constexpr uint64_t kDeviceMmio = 0xd0000000;
constexpr uint16_t kReportPort = 0xf4;
constexpr uint16_t kDonePort = 0xf5;

/// A machine of one to two vCPUs with scripted call-outs that it records.
class ScriptedIo : public EmptyCpuIo {
 public:
  explicit ScriptedIo(std::function<void()> stop) : stop_(std::move(stop)) {}

  uint32_t read_port(IoPort port, unsigned size_bytes) override {
    if (number(port) == 0x620) return next_string_byte_++;
    return 0x01020300u + number(port) + size_bytes;
  }
  void write_port(IoPort port, unsigned size_bytes, uint32_t value) override {
    if (number(port) == kDonePort) return stop_();
    if (number(port) == kReportPort) {
      reports.push_back(value);
      if (on_report) on_report(value);
      return;
    }
    port_writes.push_back({number(port), size_bytes, value});
  }
  uint64_t read_mmio(Gpa gpa, unsigned size_bytes) override {
    const uint64_t offset = gpa.value() - kDeviceMmio;
    uint64_t value = 0;
    for (unsigned i = 0; i < size_bytes; ++i) value |= (offset + i + 1) << (8 * i);
    return value;
  }
  void write_mmio(Gpa gpa, unsigned size_bytes, uint64_t value) override {
    if (gpa.value() >= kDeviceMmio && gpa.value() < kDeviceMmio + 0x1000)
      mmio_writes.push_back({gpa.value() - kDeviceMmio, size_bytes, value});
  }
  bool read_msr(uint32_t index, uint64_t& value) override {
    if (!msrs.contains(index)) return false;
    value = msrs[index];
    return true;
  }
  bool write_msr(uint32_t index, uint64_t value) override {
    if ((index & 0xffffff00u) != 0x4b564d00u) return false;
    msrs[index] = value;
    return true;
  }
  int acknowledge_interrupt() override { return vector.exchange(-1); }
  bool interrupt_pending() override { return vector.load() >= 0; }
  uint8_t startup_vector() override { return 5; }

  struct Write {
    uint64_t address;
    unsigned size_bytes;
    uint64_t value;
    bool operator==(const Write&) const = default;
  };
  std::vector<Write> port_writes;
  std::vector<Write> mmio_writes;
  std::vector<uint32_t> reports;
  std::map<uint32_t, uint64_t> msrs;
  std::function<void(uint32_t)> on_report;
  std::atomic<int> vector{-1};  // pending interrupt, for engines without in-kernel controllers

 private:
  std::function<void()> stop_;
  uint8_t next_string_byte_ = 'a';
};

void PrintTo(const ScriptedIo::Write& write, std::ostream* out) {
  *out << std::hex << write.address << "/" << write.size_bytes << "=" << write.value;
}

enum class EngineKind { kInterp, kJit, kKvm };

std::string kind_name(const testing::TestParamInfo<EngineKind>& info) {
  switch (info.param) {
    case EngineKind::kInterp: return "interp";
    case EngineKind::kJit: return "jit";
    case EngineKind::kKvm: return "kvm";
  }
  return {};
}

Result<std::unique_ptr<Engine>> make_engine(EngineKind kind) {
  switch (kind) {
    case EngineKind::kInterp: return make_interp_engine();
    case EngineKind::kJit: return make_jit_engine();
    case EngineKind::kKvm: return make_kvm_engine();
  }
  return fail(ErrorCode::kInvalidArgument, "no such engine");
}

class EngineTest : public testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<Engine>> engine = make_engine(GetParam());
    if (!engine) GTEST_SKIP() << "not usable here: " << engine.error().message();
    engine_ = std::move(*engine);
    ASSERT_TRUE(memory_.add({Gpa(0), 8 << 20}, ExtentKind::kPrivate, "test"));
    clock_ = std::make_unique<HostClock>();
    ASSERT_TRUE(engine_->attach(memory_, *clock_));
    cpuid_ = *engine_->supported_cpuid();
  }

  /// Loads `guest` and gives a vCPU ready to run it.
  void load(const std::byte* guest) {
    const Result<x86::CpuState> state = FlatGuest::load(memory_, {guest, kGuestSize});
    ASSERT_TRUE(state);
    Result<std::unique_ptr<Vcpu>> vcpu = engine_->create_vcpu({.id = VcpuId{0}, .cpuid = cpuid_, .signal = &signal_});
    ASSERT_TRUE(vcpu) << vcpu.error().message();
    vcpu_ = std::move(*vcpu);
    const Result<void> set = vcpu_->set_state(*state);
    ASSERT_TRUE(set) << set.error().message();
    io_ = std::make_unique<ScriptedIo>([this] { vcpu_->request_stop(); });
  }

  /// Runs until the guest is done; a hang fails the test instead of blocking it.
  Halt run() {
    if (vcpu_ == nullptr) return {Halt::Reason::kError, "not loaded"};
    std::atomic<bool> done = false;
    std::thread watchdog([&] {
      for (int i = 0; i < 1000 && !done; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      if (!done) {
        ADD_FAILURE() << "guest hangs";
        vcpu_->request_stop();
      }
    });
    Halt halt = vcpu_->run(*io_);
    done = true;
    watchdog.join();
    return halt;
  }

  void run_to_done(const std::byte* guest) {
    load(guest);
    if (HasFatalFailure()) return;
    const Halt halt = run();
    EXPECT_EQ(halt.reason, Halt::Reason::kStopped) << halt.detail;
  }

  /// A gate to the guest's handler.
  void set_gate(uint8_t vector) {
    ASSERT_TRUE(FlatGuest::set_gate(memory_, vector, FlatGuest::kCode + kHandlerOffset, 0));
  }

  /// Interrupts vCPU 0 as a device would.
  void interrupt(uint8_t vector) {
    if (InterruptSink* sink = engine_->in_kernel_interrupts(); sink != nullptr) {
      sink->send_msi({.address = 0xfee00000, .data = vector});
    } else {
      io_->vector = vector;
      signal_.raise(VcpuSignal::kInterrupt);
    }
  }

  GuestMemory memory_;
  std::unique_ptr<HostClock> clock_;
  VcpuSignal signal_;
  std::vector<CpuidEntry> cpuid_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<ScriptedIo> io_;
  std::unique_ptr<Vcpu> vcpu_;
};

using W = ScriptedIo::Write;

TEST_P(EngineTest, PortsOfEachSizeAndStrings) {
  run_to_done(tenon_guest_ports);
  EXPECT_THAT(io_->port_writes,
              ElementsAre(W{0x11, 1, 0x12}, W{0x14, 2, 0x0315}, W{0x1c, 4, 0x0102031d}, W{0x621, 1, 'a'},
                          W{0x621, 1, 'b'}, W{0x621, 1, 'c'}, W{0x621, 1, 'd'}, W{0x621, 1, 'e'}));
}

TEST_P(EngineTest, MmioOfEachSizeReadModifyWriteAndRepMovs) {
  run_to_done(tenon_guest_mmio);
  EXPECT_THAT(io_->mmio_writes,
              ElementsAre(W{0x10, 1, 0x01}, W{0x12, 2, 0x0403}, W{0x14, 4, 0x08070605}, W{0x18, 8, 0x100f0e0d0c0b0a09},
                          W{0x14, 4, 0x18171616}, W{0x20, 8, 0x100f0e0d0c0b0a09}));
}

TEST_P(EngineTest, MsrCallOutsAndGeneralProtection) {
  set_gate(x86::kGeneralProtection);
  run_to_done(tenon_guest_msr);
  EXPECT_THAT(io_->reports, ElementsAre(0x11223344, 0x55667788, 13));
  EXPECT_EQ(io_->msrs[0x4b564d01], 0x5566778811223344u);
}

TEST_P(EngineTest, TripleFaultHalts) {
  load(tenon_guest_triple_fault);
  EXPECT_EQ(run().reason, Halt::Reason::kTripleFault);
}

TEST_P(EngineTest, StopsFromAnotherThreadAndGoesOn) {
  load(tenon_guest_count);
  uint64_t count = 0;
  for (int i = 0; i < 3; ++i) {
    std::thread stopper([this] {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      vcpu_->request_stop();
    });
    EXPECT_EQ(run().reason, Halt::Reason::kStopped);
    stopper.join();
    const uint64_t now = vcpu_->get_state().gpr[x86::kRbx];
    EXPECT_GT(now, count);
    count = now;
  }
}

TEST_P(EngineTest, StopBeforeRunIsSticky) {
  load(tenon_guest_count);
  vcpu_->request_stop();
  EXPECT_EQ(run().reason, Halt::Reason::kStopped);
}

TEST_P(EngineTest, StateComesBackAsSet) {
  load(tenon_guest_count);
  x86::CpuState state = vcpu_->get_state();
  for (unsigned i = 0; i < 16; ++i) state.gpr[i] = 0x0101010101010101u * (i + 1);
  state.rip = 0x12345678;
  state.rflags = x86::kFlagsOne | x86::kCf | x86::kZf | x86::kIf;
  state.cr2 = 0xdeadbeef000;
  state.lstar = 0xffffffff81000000;
  state.kernel_gs_base = 0xffff888000000000;
  state.segments[x86::kGs].base = 0xffff888000001000;
  state.mtrr_default_type = 0x806;
  state.mtrr_variable[0] = 0xc0000000;
  state.xcr0 = 7;
  for (size_t i = 0; i < 16; ++i) state.xsave.bytes[x86::XsaveArea::kXmmOffset + i] = std::byte(0xa0 + i);
  for (size_t i = 0; i < 16; ++i) state.xsave.bytes[x86::XsaveArea::kYmmHighOffset + i] = std::byte(0xb0 + i);
  state.xsave.bytes[x86::XsaveArea::kHeaderOffset] = std::byte{7};  // XSTATE_BV: all three in use
  const Result<void> set = vcpu_->set_state(state);
  ASSERT_TRUE(set) << set.error().message();
  const x86::CpuState back = vcpu_->get_state();
  EXPECT_EQ(back.gpr, state.gpr);
  EXPECT_EQ(back.rip, state.rip);
  EXPECT_EQ(back.rflags, state.rflags);
  EXPECT_EQ(back.cr2, state.cr2);
  EXPECT_EQ(back.cr3, state.cr3);
  EXPECT_EQ(back.cr4, state.cr4);
  EXPECT_EQ(back.efer, state.efer);
  EXPECT_EQ(back.mtrr_default_type, state.mtrr_default_type);
  EXPECT_EQ(back.mtrr_variable[0], state.mtrr_variable[0]);
  EXPECT_EQ(back.lstar, state.lstar);
  EXPECT_EQ(back.kernel_gs_base, state.kernel_gs_base);
  EXPECT_EQ(back.segments[x86::kGs].base, state.segments[x86::kGs].base);
  EXPECT_EQ(back.segments[x86::kCs].attributes, state.segments[x86::kCs].attributes);
  for (const size_t at : {x86::XsaveArea::kXmmOffset, x86::XsaveArea::kYmmHighOffset})
    for (size_t i = 0; i < 16; ++i) EXPECT_EQ(back.xsave.bytes[at + i], state.xsave.bytes[at + i]) << at + i;
}

TEST_P(EngineTest, InterruptsWakeHlt) {
  set_gate(0x40);
  load(tenon_guest_interrupt);
  io_->on_report = [&](uint32_t value) {
    // Once while it runs, once while it sleeps.
    if (value == 1) return interrupt(0x40);
    if (io_->reports.size() == 2)
      std::thread([this] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        interrupt(0x40);
      }).detach();
  };
  const Halt halt = run();
  EXPECT_EQ(halt.reason, Halt::Reason::kStopped) << halt.detail;
  EXPECT_THAT(io_->reports, ElementsAre(1, 0x40, 0x40));
}

TEST_P(EngineTest, InterruptsWaitForTheInterruptFlag) {
  if (GetParam() == EngineKind::kKvm) GTEST_SKIP() << "a KVM in software may look for interrupts later than after STI";
  set_gate(0x40);
  load(tenon_guest_interrupt_flag);
  io_->on_report = [&](uint32_t value) {
    if (value == 1 || value == 2) interrupt(0x40);
  };
  EXPECT_EQ(run().reason, Halt::Reason::kStopped);
  EXPECT_THAT(io_->reports, ElementsAre(1, 0x41, 2, 0x40, 0x200, 0));
}

TEST_P(EngineTest, SystemStateIsWhatWasWritten) {
  run_to_done(tenon_guest_system_state);
  EXPECT_THAT(io_->reports,
              ElementsAre(0x8d7, 0x403, 3, 0x5678, 0x11223344, 0xffff8000, 0x5678, 0x5678, 0x80000001, 0x1234, 0));
}

TEST_P(EngineTest, TimeStampCounterFollowsItsMsrsAndTsd) {
  if (GetParam() == EngineKind::kKvm) GTEST_SKIP() << "the processor's own, or whatever stands for it";
  load(tenon_guest_time_stamp_counter);
  set_gate(x86::kGeneralProtection);
  EXPECT_EQ(run().reason, Halt::Reason::kStopped);
  EXPECT_THAT(io_->reports, ElementsAre(5, 1, 8, 0x1234, 8, 0, 0));
}

TEST_P(EngineTest, SystemCallsGoAndComeBack) {
  if (GetParam() == EngineKind::kKvm) GTEST_SKIP() << "the processor's own, or whatever stands for it";
  load(tenon_guest_system_call);
  set_gate(x86::kGeneralProtection);
  EXPECT_EQ(run().reason, Halt::Reason::kStopped);
  EXPECT_THAT(io_->reports, ElementsAre(0, 8, 1000));
}

TEST_P(EngineTest, CodeAtSeveralPlacesSeesWhereItIs) {
  load(tenon_guest_shared_object);
  set_gate(x86::kGeneralProtection);
  EXPECT_EQ(run().reason, Halt::Reason::kStopped);
  ASSERT_EQ(io_->reports.size(), 4u);
  const uint64_t function = io_->reports[2];
  const uint64_t inner = io_->reports[3];
  uint64_t expected = 0;
  for (uint64_t round = 1; round <= 1000; ++round) {
    for (uint64_t depth = 0; depth <= 3; ++depth) {
      const uint64_t place = (round + depth) % 5;
      const uint64_t base = place << 39;
      expected += 2 * (base + function) + (base + inner) + 0x11'1111'1111 + 0x1111'1111'1234'5678 +
                  (place == 4 ? 0x2222 : 0x1111);
    }
  }
  EXPECT_EQ(uint64_t{io_->reports[1]} << 32 | io_->reports[0], expected);
}

TEST_P(EngineTest, RepeatedStringInstructionsCrossPages) {
  run_to_done(tenon_guest_repeated);
  EXPECT_THAT(io_->reports, ElementsAre(0x2c004, 0x88776655, 0x25004 + 0x35006, 0x3322ee00, 0x00118877, 0x22eeeeee,
                                        0x32005 + 0x32006, 0x80000002));
}

TEST_P(EngineTest, CopiesBetweenPagesOfTheSameIndexEnd) {
  run_to_done(tenon_guest_far_copy);
  EXPECT_THAT(io_->reports, ElementsAre(0x12345678));
  // The interpreter goes by elements there, with two misses each.
  if (GetParam() != EngineKind::kInterp) {
    EXPECT_LT(vcpu_->stats().tlb_misses, 100u);
  }
}

TEST_P(EngineTest, SelfTestGivesAVerdict) {
  const Result<SelfTestReport> report = run_engine_self_test(*[&] {
    engine_ = *make_engine(GetParam());
    return engine_.get();
  }());
  ASSERT_TRUE(report) << report.error().message();
  RecordProperty("last_step", self_test_step_name(report->last_step));
  RecordProperty("failure", report->failure);
  RecordProperty("instructions_per_second", std::to_string(report->ring0_instructions_per_second));
  // A software KVM may fail it, with a reason; our own engine may not.
  EXPECT_EQ(report->passed(), report->last_step == SelfTestStep::kLoopEnd);
  if (GetParam() != EngineKind::kKvm) {
    EXPECT_TRUE(report->passed()) << report->failure;
  }
  if (report->passed()) {
    EXPECT_GT(report->ring0_instructions_per_second, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Engines, EngineTest, testing::Values(EngineKind::kInterp, EngineKind::kJit, EngineKind::kKvm),
                         kind_name);

/// What only in-kernel chips have.
class KvmTest : public EngineTest {};

TEST_P(KvmTest, IrqfdReachesTheGuestThroughTheIoApic) {
  set_gate(0x41);
  load(tenon_guest_io_apic);
  const Result<Eventfd> event = Eventfd::create();
  ASSERT_TRUE(event);
  const Result<void> added = engine_->add_interrupt_event(Gsi{5}, *event);
  ASSERT_TRUE(added) << added.error().message();
  io_->on_report = [&](uint32_t value) {
    if (value == 1) event->signal();
  };
  EXPECT_EQ(run().reason, Halt::Reason::kStopped);
  EXPECT_THAT(io_->reports, ElementsAre(1, 0x41));
}

TEST_P(KvmTest, SetGsiReachesTheGuestThroughTheIoApic) {
  set_gate(0x41);
  load(tenon_guest_io_apic);
  io_->on_report = [&](uint32_t value) {
    if (value == 1) IrqLine(*engine_->in_kernel_interrupts(), Gsi{5}).pulse();
  };
  EXPECT_EQ(run().reason, Halt::Reason::kStopped);
  EXPECT_THAT(io_->reports, ElementsAre(1, 0x41));
}

TEST_P(KvmTest, DoorbellsSignalInsteadOfCallingOut) {
  load(tenon_guest_doorbell);
  const Result<Eventfd> port = Eventfd::create();
  const Result<Eventfd> mmio = Eventfd::create();
  ASSERT_TRUE(port && mmio);
  ASSERT_TRUE(engine_->add_doorbell(
      {.is_port = true, .address = 0x600, .size_bytes = 2, .match_value = true, .value = 7}, *port));
  ASSERT_TRUE(engine_->add_doorbell({.address = kDeviceMmio + 0x100, .size_bytes = 4}, *mmio));
  EXPECT_EQ(run().reason, Halt::Reason::kStopped);
  EXPECT_EQ(port->drain(), 1u);
  EXPECT_EQ(mmio->drain(), 1u);
  EXPECT_TRUE(io_->port_writes.empty());
  EXPECT_THAT(io_->mmio_writes, ElementsAre(W{0x104, 4, 4}));
}

TEST_P(KvmTest, StartupIpiStartsTheSecondVcpuInRealMode) {
  load(tenon_guest_startup);
  Result<std::unique_ptr<Vcpu>> second = engine_->create_vcpu({.id = VcpuId{1}, .cpuid = cpuid_, .signal = &signal_});
  ASSERT_TRUE(second) << second.error().message();
  ScriptedIo second_io([&] { (*second)->request_stop(); });
  Halt second_halt;
  std::thread thread([&] { second_halt = (*second)->run(second_io); });
  const Halt halt = run();
  (*second)->request_stop();
  thread.join();
  EXPECT_EQ(halt.reason, Halt::Reason::kStopped) << halt.detail;
  EXPECT_EQ(second_halt.reason, Halt::Reason::kStopped) << second_halt.detail;
  EXPECT_THAT(second_io.port_writes, ElementsAre(W{0x10, 1, 0x77}));
}

INSTANTIATE_TEST_SUITE_P(Engines, KvmTest, testing::Values(EngineKind::kKvm), kind_name);

}  // namespace
}  // namespace tenon
