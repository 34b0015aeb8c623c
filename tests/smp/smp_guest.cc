#include "smp/smp_guest.hh"

#include <sched.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "machine/engine_choice.hh"

namespace tenon::smp {
namespace {

constexpr uint16_t kReportPort = 0xf4;
constexpr uint16_t kDonePort = 0xf5;
constexpr uint64_t kStackTop = 0x1f000;
constexpr uint64_t kStackSize = 0x400;
constexpr auto kHang = std::chrono::seconds(120);
// Page directory of the gigabyte of kWindow, as FlatGuest lays its tables out: PML4, PDPT, directories.
constexpr uint64_t kWindowDirectory = FlatGuest::kPageTables + (2 + (kWindow >> 30)) * kPageSize;

/// Binds this thread to the `index`-th of the processors it may run on. Failure changes only how much is tested.
void bind_to_processor(unsigned index) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  unsigned left = index % static_cast<unsigned>(CPU_COUNT(&allowed));
  for (unsigned i = 0; i < CPU_SETSIZE; ++i) {
    if (!CPU_ISSET(i, &allowed) || left-- != 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(i, &one);
    static_cast<void>(sched_setaffinity(0, sizeof one, &one));
    return;
  }
}

/// "jit" or "jit:strict-flags,cache=4" in the environment; CMakeLists.txt runs the tests with several.
std::unique_ptr<Engine> make_tested_engine() {
  const char* variable = std::getenv("TENON_TEST_ENGINE");
  const std::string text = variable == nullptr ? "interp" : variable;
  const size_t colon = std::min(text.find(':'), text.size());
  Result<EngineChoice> choice =
      choose_engine({.name = text.substr(0, colon), .options = text.substr(std::min(colon + 1, text.size()))});
  if (choice) return std::move(choice->engine);
  ADD_FAILURE() << choice.error().message();
  std::abort();  // every test would fail
}

}  // namespace

class SmpGuest::Io final : public CpuIo {
 public:
  Io(SmpGuest& guest, unsigned index) : guest_(guest), index_(index) {}

  uint32_t read_port(IoPort, unsigned) override { return 0; }
  void write_port(IoPort port, unsigned, uint32_t value) override {
    if (number(port) == kReportPort && guest_.on_report) guest_.on_report(index_, value);
    if (number(port) != kDonePort) return;
    One& one = *guest_.vcpus_[index_];
    one.done = true;
    one.vcpu.load()->request_stop();
  }
  uint64_t read_mmio(Gpa gpa, unsigned) override {
    guest_.fail("read outside RAM at " + std::to_string(gpa.value()));
    return 0;
  }
  void write_mmio(Gpa gpa, unsigned, uint64_t) override {
    guest_.fail("write outside RAM at " + std::to_string(gpa.value()));
  }
  bool read_msr(uint32_t, uint64_t&) override { return false; }
  bool write_msr(uint32_t, uint64_t) override { return false; }
  bool hypercall(std::span<uint64_t, 16>, unsigned) override { return false; }
  int acknowledge_interrupt() override { return pending.exchange(-1); }
  bool interrupt_pending() override { return pending.load() >= 0; }
  void timer_expired() override {}
  uint8_t startup_vector() override { return 0; }
  void init_received() override {}
  uint8_t read_cr8() override { return 0; }
  void write_cr8(uint8_t) override {}

  std::atomic<int> pending{-1};

 private:
  SmpGuest& guest_;
  const unsigned index_;
};

SmpGuest::SmpGuest(unsigned vcpu_count, std::span<const std::byte> code) : engine_(make_tested_engine()) {
  EXPECT_TRUE(memory_.add({Gpa(0), kRamEnd}, ExtentKind::kPrivate, "smp"));
  EXPECT_TRUE(engine_->attach(memory_, clock_));
  cpuid_ = *engine_->supported_cpuid();
  const Result<x86::CpuState> state = FlatGuest::load(memory_, code);
  EXPECT_TRUE(state);
  write(kWindowDirectory, kPageTable | kPtePresent | kPteWritable | kPteUser);
  for (unsigned i = 0; i < vcpu_count; ++i) {
    auto one = std::make_unique<One>();
    one->entry = *state;
    one->entry.gpr[x86::kRdi] = i;
    one->entry.gpr[x86::kRsi] = vcpu_count;
    one->entry.gpr[x86::kRsp] = kStackTop - i * kStackSize;
    one->io = std::make_unique<Io>(*this, i);
    vcpus_.push_back(std::move(one));
  }
}

SmpGuest::~SmpGuest() = default;

void SmpGuest::set_register(x86::GprIndex number, uint64_t value) {
  for (auto& one : vcpus_) one->entry.gpr[number] = value;
}

void SmpGuest::map(unsigned index, uint64_t gpa) {
  write(kPageTable + index * 8, gpa | kPtePresent | kPteWritable | kPteUser);
}

void SmpGuest::interrupt(unsigned vcpu, uint8_t number) {
  vcpus_[vcpu]->io->pending = number;
  vcpus_[vcpu]->signal.raise(VcpuSignal::kInterrupt);
}

void SmpGuest::request_stop(unsigned vcpu) { vcpus_[vcpu]->signal.raise(VcpuSignal::kStop); }

void SmpGuest::fail(const std::string& why) {
  if (failed_.exchange(true)) return;
  ADD_FAILURE() << why;
  for (auto& one : vcpus_) one->signal.raise(VcpuSignal::kStop);
}

void SmpGuest::thread(unsigned index) {
  One& one = *vcpus_[index];
  bind_to_processor(index);
  auto vcpu = engine_->create_vcpu({.id = VcpuId{index}, .cpuid = cpuid_, .signal = &one.signal});
  if (!vcpu) {
    left_.fetch_sub(1);
    return fail(vcpu.error().message());
  }
  one.vcpu = vcpu->get();
  if (const Result<void> set = (*vcpu)->set_state(one.entry); !set) fail(set.error().message());
  while (!one.done && !failed_) {
    const Halt halt = (*vcpu)->run(*one.io);
    if (halt.reason != Halt::Reason::kStopped) fail("vCPU " + std::to_string(index) + " halts: " + halt.detail);
    one.result = (*vcpu)->get_state();
    if (one.done || failed_) break;
    stops_.fetch_add(1);
    if (const Result<void> set = (*vcpu)->set_state(one.result); !set) fail(set.error().message());
  }
  left_.fetch_sub(1);
  // A stop that comes late must not find the vCPU gone.
  while (left_.load() != 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  one.vcpu = nullptr;
}

void SmpGuest::run() {
  left_ = count();
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < count(); ++i) threads.emplace_back([this, i] { thread(i); });
  if (beside) threads.emplace_back(beside);
  const auto until = std::chrono::steady_clock::now() + kHang;
  while (left_.load() != 0 && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (left_.load() != 0) fail("guest hangs");
  for (std::thread& one : threads) one.join();
}

}  // namespace tenon::smp
