#include "host/host_clock.hh"

#include <cpuid.h>
#include <x86intrin.h>

#include <algorithm>
#include <chrono>

#include "base/futex.hh"
#include "base/thread.hh"

namespace tenon {

namespace {

__extension__ using Wide = unsigned __int128;

// 10^9 / tsc_hz fits 64 bits with 60 of them after the point for any TSC above 62.5 MHz.
constexpr unsigned kFractionBits = 60;
constexpr uint64_t kTscHzMin = 100'000'000;

constexpr uint64_t kHz = 1'000;  // a kilohertz, the unit of several CPUID leaves

/// The TSC, read after all earlier loads: without the fence a thread could see an older time than one told to it in
/// memory.
uint64_t read_tsc() {
  _mm_lfence();
  return __rdtsc();
}

uint64_t monotonic_ns() {
  return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
}

/// SDM Vol. 2 CPUID: leaf 0x15 gives TSC/crystal as EBX/EAX and the crystal in ECX; where ECX is 0, leaf 0x16 EAX is
/// the base frequency in MHz, at which the TSC of such processors runs.
uint64_t tsc_hz_from_cpu() {
  unsigned denominator = 0, numerator = 0, crystal_hz = 0, unused = 0;
  if (__get_cpuid(0x15, &denominator, &numerator, &crystal_hz, &unused) == 0) return 0;
  if (denominator == 0 || numerator == 0) return 0;
  if (crystal_hz != 0) return scale(crystal_hz, numerator, denominator);
  unsigned base_mhz = 0, max_mhz = 0, bus_mhz = 0;
  if (__get_cpuid(0x16, &base_mhz, &max_mhz, &bus_mhz, &unused) == 0) return 0;
  return uint64_t{base_mhz & 0xffff} * kHz * kHz;
}

/// Leaf 0x40000010 EAX: TSC kHz, where we run under a hypervisor that declares it (VMware, KVM and others).
uint64_t tsc_hz_from_hypervisor() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & (1u << 31)) == 0) return 0;
  __cpuid(0x40000000, eax, ebx, ecx, edx);
  if (eax < 0x40000010 || eax > 0x400000ff) return 0;
  __cpuid(0x40000010, eax, ebx, ecx, edx);
  return uint64_t{eax} * kHz;
}

/// A TSC value and the monotonic time it was read at, the closest pair of several tries.
struct TimePair {
  uint64_t tsc = 0;
  uint64_t ns = 0;
};

TimePair read_pair() {
  TimePair best;
  uint64_t best_gap = ~uint64_t{0};
  for (int i = 0; i < 8; ++i) {
    const uint64_t before = read_tsc();
    const uint64_t ns = monotonic_ns();
    const uint64_t gap = read_tsc() - before;
    if (gap >= best_gap) continue;
    best_gap = gap;
    best = {.tsc = before + gap / 2, .ns = ns};
  }
  return best;
}

uint64_t measure_tsc_hz() {
  const TimePair first = read_pair();
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const TimePair second = read_pair();
  const uint64_t hz = scale(second.tsc - first.tsc, kNanosecondsPerSecond, second.ns - first.ns);
  return (hz + kHz / 2) / kHz * kHz;
}

uint64_t find_tsc_hz() {
  for (const auto source : {tsc_hz_from_cpu, tsc_hz_from_hypervisor})
    if (const uint64_t hz = source(); hz >= kTscHzMin) return hz;
  return std::max(measure_tsc_hz(), kTscHzMin);
}

}  // namespace

uint64_t host_tsc_hz() {
  static const uint64_t hz = find_tsc_hz();
  return hz;
}

HostClock::HostClock()
    : tsc_hz_(host_tsc_hz()),
      ns_per_tick_(static_cast<uint64_t>((Wide{kNanosecondsPerSecond} << kFractionBits) / tsc_hz_)),
      tsc_base_(read_tsc()),
      timers_([this] { wake_timer_thread(); }),
      timer_thread_([this] { run_timers(); }) {}

HostClock::~HostClock() {
  stopping_.store(true, std::memory_order_release);
  wake_timer_thread();
  timer_thread_.join();
}

uint64_t HostClock::now_tsc() const {
  for (;;) {
    const uint32_t sequence = sequence_.load(std::memory_order_acquire);
    const bool paused = paused_.load(std::memory_order_acquire);
    const uint64_t base = tsc_base_.load(std::memory_order_acquire);
    const uint64_t now = paused ? base : read_tsc() - base;
    if (sequence % 2 == 0 && sequence_.load(std::memory_order_acquire) == sequence) return now;
  }
}

std::optional<uint64_t> HostClock::host_tsc_offset() const {
  for (;;) {
    const uint32_t sequence = sequence_.load(std::memory_order_acquire);
    const bool paused = paused_.load(std::memory_order_acquire);
    const uint64_t base = tsc_base_.load(std::memory_order_acquire);
    if (sequence % 2 != 0 || sequence_.load(std::memory_order_acquire) != sequence) continue;
    return paused ? std::nullopt : std::optional<uint64_t>(0 - base);
  }
}

uint64_t HostClock::now_ns() const { return static_cast<uint64_t>((Wide{now_tsc()} * ns_per_tick_) >> kFractionBits); }

uint64_t HostClock::wall_time_ns() const {
  return static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
}

std::unique_ptr<Timer> HostClock::make_timer(std::function<void()> callback) {
  return timers_.make_timer(std::move(callback));
}

void HostClock::pause() {
  const MutexLock lock(pause_mutex_);
  if (paused_.load()) return;
  sequence_.fetch_add(1);
  tsc_base_.store(read_tsc() - tsc_base_.load());
  paused_.store(true);
  sequence_.fetch_add(1);
  wake_timer_thread();
}

void HostClock::resume() {
  const MutexLock lock(pause_mutex_);
  if (!paused_.load()) return;
  sequence_.fetch_add(1);
  tsc_base_.store(read_tsc() - tsc_base_.load());
  paused_.store(false);
  sequence_.fetch_add(1);
  wake_timer_thread();
}

void HostClock::wake_timer_thread() {
  timer_news_.fetch_add(1, std::memory_order_seq_cst);
  futex_wake_one(timer_news_);
}

void HostClock::run_timers() {
  name_this_thread("timer");
  wake_this_thread_exactly();
  for (;;) {
    // News that arrive after this load make futex_wait() return at once.
    const uint32_t news = timer_news_.load(std::memory_order_seq_cst);
    if (stopping_.load(std::memory_order_acquire)) return;
    const uint64_t deadline = timers_.next_deadline_ns();
    if (deadline == kNoDeadline || paused_.load(std::memory_order_acquire)) {
      futex_wait(timer_news_, news);
      continue;
    }
    const uint64_t now = now_ns();
    if (now < deadline) {
      futex_wait(timer_news_, news, deadline - now);
    } else {
      timers_.run_due(now);
    }
  }
}

}  // namespace tenon
