// Speed of an engine on small guests, in guest instructions per second (Google Benchmark; `make bench` runs it).
#include <benchmark/benchmark.h>

#include <memory>

#include "engine/empty_cpu_io.hh"
#include "engine/interp/interp_engine.hh"
#include "host/host_clock.hh"
#include "machine/flat_guest.hh"

extern "C" {
extern const std::byte tenon_bench_arithmetic[];
extern const std::byte tenon_bench_sieve[];
extern const std::byte tenon_bench_calls[];
extern const std::byte tenon_bench_search[];
extern const std::byte tenon_bench_vectors[];
}

namespace tenon {
namespace {

constexpr size_t kGuestSize = 1024;
constexpr uint16_t kDonePort = 0xf5;

/// No devices: the only port that matters ends the run.
class DoneIo final : public EmptyCpuIo {
 public:
  explicit DoneIo(Vcpu& vcpu) : vcpu_(vcpu) {}
  void write_port(IoPort port, unsigned, uint32_t) override {
    if (number(port) == kDonePort) vcpu_.request_stop();
  }

 private:
  Vcpu& vcpu_;
};

void run_guest(benchmark::State& bench, const std::byte* guest) {
  GuestMemory memory;
  HostClock clock;
  const std::unique_ptr<Engine> engine = make_interp_engine();
  VcpuSignal signal;
  CHECK(memory.add({Gpa(0), 4 << 20}, ExtentKind::kPrivate, "bench").has_value());
  CHECK(engine->attach(memory, clock).has_value());
  const std::vector<CpuidEntry> cpuid = MUST(engine->supported_cpuid());  // the interpreter runs on every host
  const std::unique_ptr<Vcpu> vcpu = MUST(engine->create_vcpu({.id = VcpuId{0}, .cpuid = cpuid, .signal = &signal}));
  const x86::CpuState state = MUST(FlatGuest::load(memory, {guest, kGuestSize}));  // RAM was added above
  DoneIo io(*vcpu);
  const uint64_t before = vcpu->stats().instructions;
  for (auto _ : bench) {
    CHECK(vcpu->set_state(state).has_value());
    const Halt halt = vcpu->run(io);
    if (halt.reason != Halt::Reason::kStopped) bench.SkipWithError(halt.detail.c_str());
  }
  bench.counters["instructions/s"] =
      benchmark::Counter(static_cast<double>(vcpu->stats().instructions - before), benchmark::Counter::kIsRate);
}

BENCHMARK_CAPTURE(run_guest, arithmetic, tenon_bench_arithmetic)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(run_guest, sieve, tenon_bench_sieve)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(run_guest, calls, tenon_bench_calls)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(run_guest, search, tenon_bench_search)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(run_guest, vectors, tenon_bench_vectors)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tenon

BENCHMARK_MAIN();
