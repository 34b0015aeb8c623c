// The timer of the local APIC (SDM Vol. 3 11.5.4): a deadline in guest time, computed when a register changes.
#include <algorithm>
#include <limits>

#include "devices/chip/local_apic.hh"

namespace tenon {
namespace {

using TimerMode = Bits<18, 17>;
constexpr unsigned kPeriodic = 1;
constexpr unsigned kTscDeadline = 2;
constexpr uint32_t kLvtMasked = 1u << 16;

static_assert(apic::kTimerHz == kNanosecondsPerSecond, "a timer tick is a nanosecond in the code below");

}  // namespace

unsigned LocalApic::timer_mode() const { return TimerMode::get(lvt_[kTimer].load(std::memory_order_relaxed)); }

bool LocalApic::is_timer_masked() const { return (lvt_[kTimer].load(std::memory_order_relaxed) & kLvtMasked) != 0; }

/// SDM Vol. 3 Figure 11-10: bits 3, 1 and 0 are log2(divisor) - 1, and 7 means divide by one.
unsigned LocalApic::timer_shift() const { return (((divide_ & 3) | (divide_ >> 1 & 4)) + 1) & 7; }

void LocalApic::start_count(uint64_t ticks) { count_end_ns_ = clock_.now_ns() + (ticks << timer_shift()); }

void LocalApic::write_initial_count(uint32_t value) {
  if (timer_mode() == kTscDeadline) return;  // SDM Vol. 3 11.5.4.1: ignored in TSC-deadline mode
  settle_timer();
  initial_count_ = value;
  if (value == 0) {
    count_end_ns_ = kNoDeadline;  // SDM Vol. 3 11.5.4: writing 0 stops the timer
  } else {
    start_count(value);
  }
  update_deadline();
}

/// A new divisor applies to the ticks that are left.
void LocalApic::write_divide(uint32_t value) {
  const uint32_t ticks = current_count();
  divide_ = value;
  if (count_end_ns_ != kNoDeadline) start_count(ticks);
  update_deadline();
}

uint32_t LocalApic::current_count() {
  settle_timer();
  if (count_end_ns_ == kNoDeadline) return 0;
  const uint64_t now_ns = clock_.now_ns();
  if (now_ns >= count_end_ns_) return 0;
  const uint64_t unit = uint64_t{1} << timer_shift();
  return static_cast<uint32_t>(std::min<uint64_t>((count_end_ns_ - now_ns + unit - 1) / unit, initial_count_));
}

/// Brings the timer up to now: delivers its interrupt where it has expired. Periods that passed unseen count once.
void LocalApic::settle_timer() {
  bool has_fired = false;
  if (timer_mode() == kTscDeadline) {
    if (tsc_deadline_ != 0 && guest_tsc() >= tsc_deadline_) {
      tsc_deadline_ = 0;  // SDM Vol. 3 11.5.4.1: the MSR reads 0 once the timer has fired
      has_fired = true;
    }
  } else if (count_end_ns_ != kNoDeadline) {
    const uint64_t now_ns = clock_.now_ns();
    if (now_ns >= count_end_ns_) {
      has_fired = true;
      const uint64_t period_ns = uint64_t{initial_count_} << timer_shift();
      const bool repeats = timer_mode() == kPeriodic && period_ns != 0;
      count_end_ns_ = repeats ? count_end_ns_ + ((now_ns - count_end_ns_) / period_ns + 1) * period_ns : kNoDeadline;
    }
  }
  if (has_fired) deliver_lvt(kTimer);  // which looks at the mask
}

void LocalApic::timer_expired() {
  settle_timer();
  update_deadline();
}

/// A masked timer needs no deadline: settle_timer() catches up when software looks at it.
void LocalApic::update_deadline() {
  if (is_timer_masked() || !is_enabled()) return signal_.set_deadline_ns(kNoDeadline);
  signal_.set_deadline_ns(timer_mode() == kTscDeadline ? tsc_deadline_ns() : count_end_ns_);
}

/// tsc_deadline_ in guest nanoseconds, rounded up; a deadline beyond 2^64 ns is as good as none.
uint64_t LocalApic::tsc_deadline_ns() const {
  if (tsc_deadline_ == 0) return kNoDeadline;
  const uint64_t now_ns = clock_.now_ns();
  const uint64_t tsc = guest_tsc();
  if (tsc >= tsc_deadline_) return now_ns;
  __extension__ using Wide = unsigned __int128;
  const Wide delta_ns = static_cast<Wide>(tsc_deadline_ - tsc) * kNanosecondsPerSecond / clock_.tsc_hz() + 1;
  const Wide deadline_ns = delta_ns + now_ns;
  return deadline_ns < kNoDeadline ? static_cast<uint64_t>(deadline_ns) : kNoDeadline;
}

void LocalApic::write_tsc_deadline(uint64_t value) {
  if (timer_mode() != kTscDeadline) return;  // SDM Vol. 3 11.5.4.1: ignored in the other modes
  settle_timer();
  tsc_deadline_ = value;
  settle_timer();  // a deadline that has passed fires at once
  update_deadline();
}

void LocalApic::set_tsc_offset(uint64_t offset) {
  tsc_offset_ = offset;
  settle_timer();
  update_deadline();
}

/// SDM Vol. 3 11.5.4.1: a change between TSC-deadline mode and the others disarms the timer.
void LocalApic::write_lvt_timer(uint32_t value) {
  settle_timer();
  const bool was_tsc = timer_mode() == kTscDeadline;
  lvt_[kTimer].store(value, std::memory_order_relaxed);
  if (was_tsc != (timer_mode() == kTscDeadline)) {
    count_end_ns_ = kNoDeadline;
    tsc_deadline_ = 0;
  }
  update_deadline();
}

}  // namespace tenon
