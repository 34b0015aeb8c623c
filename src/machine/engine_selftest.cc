#include "machine/engine_selftest.hh"

#include <array>
#include <chrono>
#include <thread>

#include "base/mutex.hh"
#include "engine/empty_cpu_io.hh"
#include "host/host_clock.hh"
#include "machine/flat_guest.hh"

extern "C" {
extern const std::byte tenon_self_test_guest[];
extern const std::byte tenon_self_test_guest_end[];
extern const std::byte tenon_self_test_breakpoint[];
extern const std::byte tenon_self_test_fault[];
}

namespace tenon {

namespace {

constexpr uint16_t kReportPort = 0xf4;
constexpr uint8_t kFaultReport = 0xff;
constexpr uint64_t kLoopInstructions = 6 * 10000;  // LOOP_COUNT turns in engine_selftest_guest.S
constexpr uint64_t kMemorySize = 2 << 20;
constexpr auto kTimeLimit = std::chrono::seconds(2);

constexpr std::array kStepNames = {"the first instruction", "a port write at CPL 0",
                                   "LOCK CMPXCHG16B",       "XSAVE and XRSTOR",
                                   "INT3 at CPL 0",         "IRET to CPL 3 and INT3 from there",
                                   "the timed loop",        "the end of the loop"};

/// The guest's whole machine: a port to report on. Everything else answers as an empty bus.
class ReportIo final : public EmptyCpuIo {
 public:
  explicit ReportIo(Vcpu& vcpu) : vcpu_(vcpu) {}

  void write_port(IoPort port, unsigned, uint32_t value) override {
    if (number(port) != kReportPort) return;
    const auto now = std::chrono::steady_clock::now();
    if (value == kFaultReport || value > static_cast<uint32_t>(SelfTestStep::kLoopEnd)) {
      faulted_ = true;
    } else {
      last_step_ = static_cast<SelfTestStep>(value);
      if (last_step_ == SelfTestStep::kLoopStart) loop_start_ = now;
      if (last_step_ == SelfTestStep::kLoopEnd)
        loop_seconds_ = std::chrono::duration<double>(now - loop_start_).count();
    }
    if (faulted_ || last_step_ == SelfTestStep::kLoopEnd) vcpu_.request_stop();
  }

  SelfTestStep last_step() const { return last_step_; }
  bool faulted() const { return faulted_; }
  double loop_seconds() const { return loop_seconds_; }

 private:
  Vcpu& vcpu_;
  SelfTestStep last_step_ = SelfTestStep::kNone;
  bool faulted_ = false;
  std::chrono::steady_clock::time_point loop_start_{};
  double loop_seconds_ = 0;
};

/// Stops the vCPU when the guest has hung; the destructor calls it off.
class Watchdog {
 public:
  explicit Watchdog(Vcpu& vcpu) : thread_([this, &vcpu] { watch(vcpu); }) {}
  ~Watchdog() {
    {
      MutexLock lock(mutex_);
      done_ = true;
    }
    condition_.notify_one();
    thread_.join();
  }
  bool expired() {
    MutexLock lock(mutex_);
    return expired_;
  }

 private:
  void watch(Vcpu& vcpu) {
    const auto deadline = std::chrono::steady_clock::now() + kTimeLimit;
    mutex_.lock();
    while (!done_ && std::chrono::steady_clock::now() < deadline) condition_.wait_until(mutex_, deadline);
    expired_ = !done_;
    const bool stop = expired_;
    mutex_.unlock();
    if (stop) vcpu.request_stop();
  }

  Mutex mutex_;
  Condition condition_;
  bool done_ TENON_GUARDED_BY(mutex_) = false;
  bool expired_ TENON_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when the rest is ready
};

Result<x86::CpuState> load_guest(GuestMemory& memory) {
  TRY(memory.add({Gpa(0), kMemorySize}, ExtentKind::kPrivate, "self-test"));
  const x86::CpuState state = TRY(FlatGuest::load(memory, {tenon_self_test_guest, tenon_self_test_guest_end}));
  const auto address = [](const std::byte* label) {
    return FlatGuest::kCode + static_cast<uint64_t>(label - tenon_self_test_guest);
  };
  bool ok = true;
  for (uint8_t vector = 0; vector < 32; ++vector)
    ok = ok && FlatGuest::set_gate(memory, vector, address(tenon_self_test_fault), 0);
  ok = ok && FlatGuest::set_gate(memory, x86::kBreakpoint, address(tenon_self_test_breakpoint), 3);
  CHECK(ok);  // RAM was added above
  return state;
}

SelfTestReport judge(const ReportIo& io, const Halt& halt, bool expired) {
  SelfTestReport report;
  report.last_step = io.last_step();
  if (io.loop_seconds() > 0) report.ring0_instructions_per_second = kLoopInstructions / io.loop_seconds();
  if (report.last_step == SelfTestStep::kLoopEnd && !io.faulted()) return report;
  const auto next = static_cast<SelfTestStep>(static_cast<uint8_t>(report.last_step) + 1);
  report.failure = std::string("fails at ") + self_test_step_name(next);
  if (!halt.detail.empty()) report.failure += ": " + halt.detail;
  if (io.faulted()) report.failure += ": unexpected exception in the guest";
  if (expired) report.failure += ": no progress for two seconds";
  return report;
}

}  // namespace

const char* self_test_step_name(SelfTestStep step) { return kStepNames.at(static_cast<size_t>(step)); }

Result<SelfTestReport> run_engine_self_test(Engine& engine) {
  GuestMemory memory;
  const x86::CpuState state = TRY(load_guest(memory));
  const std::unique_ptr<HostClock> clock = std::make_unique<HostClock>();
  TRY(engine.attach(memory, *clock));
  const std::vector<CpuidEntry> cpuid = TRY(engine.supported_cpuid());
  VcpuSignal signal;
  const std::unique_ptr<Vcpu> vcpu = TRY(engine.create_vcpu({.id = VcpuId{0}, .cpuid = cpuid, .signal = &signal}));
  TRY(vcpu->set_state(state));
  ReportIo io(*vcpu);
  Watchdog watchdog(*vcpu);
  const Halt halt = vcpu->run(io);
  return judge(io, halt, watchdog.expired());
}

}  // namespace tenon
