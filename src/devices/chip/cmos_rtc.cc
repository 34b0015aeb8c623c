#include "devices/chip/cmos_rtc.hh"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/bits.hh"
#include "base/byte_order.hh"

namespace tenon {
namespace {

constexpr uint16_t kIndexPort = 0x70;

// "Address Map", Figure 12.
enum Index : uint8_t {
  kSeconds = 0,
  kSecondsAlarm = 1,
  kMinutes = 2,
  kMinutesAlarm = 3,
  kHours = 4,
  kHoursAlarm = 5,
  kWeekday = 6,
  kDay = 7,
  kMonth = 8,
  kYear = 9,
  kRegisterA = 10,
  kRegisterB = 11,
  kRegisterC = 12,
  kRegisterD = 13,
};

// "Register A".
using AUpdate = Bit<7>;
using ADivider = Bits<6, 4>;
using ARate = Bits<3, 0>;
constexpr uint8_t kAWritable = 0x7f;
constexpr uint8_t kAReset = 0x26;           // 32768 Hz crystal, 1024 Hz periodic rate: what PC firmware sets
constexpr unsigned kDividerResetFirst = 6;  // 11x: divider held in reset

// "Register B".
using BSet = Bit<7>;
using BPeriodicEnable = Bit<6>;
using BAlarmEnable = Bit<5>;
using BUpdateEnable = Bit<4>;
using BBinary = Bit<2>;
using B24Hours = Bit<1>;
constexpr uint8_t kBReset = 0x02;
constexpr uint8_t kInterruptEnables = 0x70;

// "Register C": flags at the places of their enables, the OR of both in bit 7.
using CInterrupt = Bit<7>;
using CPeriodic = Bit<6>;
using CAlarm = Bit<5>;
using CUpdate = Bit<4>;

constexpr uint8_t kDValid = 0x80;              // "Register D": the battery is fine
constexpr uint8_t kDontCare = 0xc0;            // alarm bytes 11xxxxxx match everything
constexpr uint8_t kPm = 0x80;                  // of hours in 12-hour mode
constexpr uint64_t kUpdateWindowNs = 244'000;  // "Update Cycle": UIP rises 244 us before the update
constexpr uint64_t kCrystalHz = 32768;
constexpr uint64_t kSecondsPerDay = 86400;

constexpr uint64_t kNsPerDay = kSecondsPerDay * kNanosecondsPerSecond;

/// Days since 1970-01-01 and the proleptic Gregorian calendar, both ways; eras of 400 years start on 1 March.
struct Date {
  uint32_t year = 1970, month = 1, day = 1;
};
constexpr uint64_t kDaysPerEra = 146097;
constexpr uint64_t kEpochDayOfEra = 719468;  // 1970-01-01 counted from 0000-03-01

constexpr uint64_t days_from_date(const Date& date) {
  const uint64_t year = date.month <= 2 ? date.year - 1 : date.year;
  const uint64_t era = year / 400, year_of_era = year % 400;
  const uint64_t month = (date.month + 9) % 12;  // March is 0
  const uint64_t day_of_year = (153 * month + 2) / 5 + date.day - 1;
  const uint64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * kDaysPerEra + day_of_era - kEpochDayOfEra;
}
constexpr Date date_from_days(uint64_t days) {
  const uint64_t shifted = days + kEpochDayOfEra;
  const uint64_t era = shifted / kDaysPerEra, day_of_era = shifted % kDaysPerEra;
  const uint64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const uint64_t month = (5 * day_of_year + 2) / 153;
  const auto calendar_month = static_cast<uint32_t>(month < 10 ? month + 3 : month - 9);
  return {.year = static_cast<uint32_t>(era * 400 + year_of_era + (calendar_month <= 2 ? 1 : 0)),
          .month = calendar_month,
          .day = static_cast<uint32_t>(day_of_year - (153 * month + 2) / 5 + 1)};
}
static_assert(days_from_date({1970, 1, 1}) == 0 && days_from_date({2000, 3, 1}) == 11017);
static_assert(date_from_days(11016).month == 2 && date_from_days(11016).day == 29);

constexpr std::string_view kSchema = "cmos_rtc";
constexpr uint32_t kVersion = 1;

struct CmosRtcV1 {
  uint8_t memory[CmosRtc::kSize];  // 0
  le64 offset_ns;                  // 128
  le64 held_of_day_ns;             // 136
  le64 settled_ns;                 // 144
  le16 held_year;                  // 152
  uint8_t held_month;              // 154
  uint8_t held_day;                // 155
  uint8_t index;                   // 156
  uint8_t weekday_offset;          // 157
};
static_assert(sizeof(CmosRtcV1) == 158);

/// Times in nanoseconds since 1970 fit 64 bits until 2554.
constexpr uint32_t kYearMin = 1970, kYearMax = 2500;
constexpr uint64_t kTimeNsMax = days_from_date({kYearMax + 1, 1, 1}) * kNsPerDay;

bool is_time_index(uint8_t index) {
  return index == kSeconds || index == kMinutes || index == kHours || (index >= kWeekday && index <= kYear) ||
         index == CmosRtc::kCenturyIndex;
}

}  // namespace

CmosRtc::CmosRtc(Clock& clock, IrqLine irq) : clock_(clock), irq_(irq), timer_(clock, [this] { on_timer(); }) {
  const MutexLock lock(mutex_);
  memory_[kRegisterA] = kAReset;
  memory_[kRegisterB] = kBReset;
  settled_ns_ = time_ns();
}

Result<void> CmosRtc::map(Bus& ports) { return window_.map(ports, kIndexPort, 2, "cmos rtc"); }

void CmosRtc::set_memory(uint8_t index, uint8_t value) {
  const MutexLock lock(mutex_);
  if (index > kRegisterD && index < kSize && index != kCenturyIndex) memory_[index] = value;
}

// Time.

/// "Register B", SET, and "Register A", divider: the time stands, and the guest may write it undisturbed.
bool CmosRtc::is_held() const {
  return BSet::test(memory_[kRegisterB]) || ADivider::get(memory_[kRegisterA]) >= kDividerResetFirst;
}

uint64_t CmosRtc::Moment::to_ns() const {
  const uint64_t first = days_from_date({.year = year, .month = month, .day = 1});
  const Date next_month = month == 12 ? Date{year + 1, 1, 1} : Date{year, month + 1, 1};
  const uint64_t length = days_from_date(next_month) - first;
  return (first + std::min<uint64_t>(day, length) - 1) * kNsPerDay + of_day_ns;
}

CmosRtc::Moment CmosRtc::Moment::from_ns(uint64_t time_ns) {
  const Date date = date_from_days(time_ns / kNsPerDay);
  return {.year = date.year, .month = date.month, .day = date.day, .of_day_ns = time_ns % kNsPerDay};
}

CmosRtc::Moment CmosRtc::moment() const { return is_held() ? held_ : Moment::from_ns(time_ns()); }

uint64_t CmosRtc::time_ns() const { return is_held() ? held_.to_ns() : clock_.wall_time_ns() + offset_ns_; }

/// Sets the running clock. A jump is neither an update nor an alarm.
void CmosRtc::set_time_ns(uint64_t time_ns) {
  offset_ns_ = time_ns - clock_.wall_time_ns();  // modulo 2^64
  settled_ns_ = time_ns;
}

/// After a write to register A or B: carries the time over between standing and running.
void CmosRtc::hold_or_release(bool was_held) {
  if (is_held() == was_held) return;
  if (is_held()) {
    held_ = Moment::from_ns(clock_.wall_time_ns() + offset_ns_);
  } else {
    set_time_ns(held_.to_ns());
  }
}

uint8_t CmosRtc::encode(unsigned value) const {
  return static_cast<uint8_t>(BBinary::test(memory_[kRegisterB]) ? value : value % 10 | value / 10 % 10 << 4);
}

unsigned CmosRtc::decode(uint8_t value) const {
  return BBinary::test(memory_[kRegisterB]) ? value : (value & 0xfu) + (value >> 4) * 10u;
}

/// "Time, Calendar, and Alarm Locations": 12-hour mode counts 12, 1, ... 11 with bit 7 for PM.
uint8_t CmosRtc::encode_hours(unsigned hours) const {
  if (B24Hours::test(memory_[kRegisterB])) return encode(hours);
  const unsigned twelve = hours % 12 == 0 ? 12 : hours % 12;
  return encode(twelve) | (hours >= 12 ? kPm : 0);
}

unsigned CmosRtc::decode_hours(uint8_t value) const {
  if (B24Hours::test(memory_[kRegisterB])) return decode(value);
  const unsigned twelve = decode(static_cast<uint8_t>(value & ~kPm)) % 12;
  return (value & kPm) != 0 ? twelve + 12 : twelve;
}

uint8_t CmosRtc::read_time(uint8_t index) const {
  const Moment now = moment();
  const auto of_day = static_cast<unsigned>(now.of_day_ns / kNanosecondsPerSecond);
  switch (index) {
    case kSeconds: return encode(of_day % 60);
    case kMinutes: return encode(of_day / 60 % 60);
    case kHours: return encode_hours(of_day / 3600);
    case kWeekday:  // 1 is Sunday; 1970-01-01 was a Thursday
      return encode(static_cast<unsigned>((now.to_ns() / kNsPerDay + 4 + weekday_offset_) % 7) + 1);
    case kDay: return encode(now.day);
    case kMonth: return encode(now.month);
    case kYear: return encode(now.year % 100);
    default: return encode(now.year / 100);
  }
}

/// Replaces one field of the time. Values outside their field's range are pulled into it.
void CmosRtc::write_time(uint8_t index, uint8_t value) {
  Moment next = moment();
  const uint64_t below_second_ns = next.of_day_ns % kNanosecondsPerSecond;
  auto of_day = static_cast<unsigned>(next.of_day_ns / kNanosecondsPerSecond);
  const unsigned number = index == kHours ? decode_hours(value) : decode(value);
  switch (index) {
    case kSeconds: of_day = of_day / 60 * 60 + std::min(number, 59u); break;
    case kMinutes: of_day = of_day / 3600 * 3600 + std::min(number, 59u) * 60 + of_day % 60; break;
    case kHours: of_day = std::min(number, 23u) * 3600 + of_day % 3600; break;
    case kWeekday:
      weekday_offset_ = static_cast<uint8_t>((number + 6 + 7 - (next.to_ns() / kNsPerDay + 4) % 7) % 7);
      return;
    case kDay: next.day = std::clamp(number, 1u, 31u); break;
    case kMonth: next.month = std::clamp(number, 1u, 12u); break;
    case kYear: next.year = next.year / 100 * 100 + std::min(number, 99u); break;
    default: next.year = std::min(number, 99u) * 100 + next.year % 100; break;
  }
  next.year = std::clamp(next.year, kYearMin, kYearMax);
  next.of_day_ns = of_day * kNanosecondsPerSecond + below_second_ns;
  if (is_held()) {
    held_ = next;
    settled_ns_ = next.to_ns();
  } else {
    set_time_ns(next.to_ns());
  }
}

// Interrupts.

/// "Register A", Table 5: the periodic rate in crystal ticks, 0 for none. Rates 1 and 2 repeat 8 and 9.
uint64_t CmosRtc::period_ticks() const {
  const auto rate = static_cast<unsigned>(ARate::get(memory_[kRegisterA]));
  if (rate == 0 || is_held()) return 0;
  return uint64_t{1} << (rate <= 2 ? rate + 6 : rate - 1);
}

/// The first second after `after_second` at which the alarm matches, or kNoDeadline.
uint64_t CmosRtc::next_alarm_second(uint64_t after_second) const {
  const bool any_hour = memory_[kHoursAlarm] >= kDontCare;
  const bool any_minute = memory_[kMinutesAlarm] >= kDontCare;
  const bool any_second = memory_[kSecondsAlarm] >= kDontCare;
  const unsigned hour = decode_hours(memory_[kHoursAlarm]);
  const unsigned minute = decode(memory_[kMinutesAlarm]);
  const unsigned second = decode(memory_[kSecondsAlarm]);
  const bool never = (!any_hour && hour > 23) || (!any_minute && minute > 59) || (!any_second && second > 59);
  if (never) return kNoDeadline;
  uint64_t t = after_second + 1;
  // Each step moves to the start of the next second, minute or hour that may match: about 60 + 60 + 24 of them at most.
  for (;;) {
    const uint64_t of_day = t % kSecondsPerDay;
    if (!any_hour && of_day / 3600 != hour) {
      t = t / 3600 * 3600 + 3600;
    } else if (!any_minute && of_day / 60 % 60 != minute) {
      t = t / 60 * 60 + 60;
    } else if (!any_second && of_day % 60 != second) {
      ++t;
    } else {
      return t;
    }
  }
}

/// Sets the flags of everything that happened since the last call ("Register C": flags are set whatever is enabled).
void CmosRtc::settle() {
  const uint64_t now_ns = time_ns();
  const uint64_t before_ns = std::exchange(settled_ns_, now_ns);
  if (now_ns <= before_ns || is_held()) return;
  const uint64_t now_second = now_ns / kNanosecondsPerSecond;
  const uint64_t before_second = before_ns / kNanosecondsPerSecond;
  uint8_t flags = 0;
  const uint64_t ticks = period_ticks();
  const auto tick = [](uint64_t ns) { return scale(ns, kCrystalHz, kNanosecondsPerSecond); };
  if (ticks != 0 && tick(now_ns) / ticks != tick(before_ns) / ticks) flags |= CPeriodic::kMask;
  if (now_second != before_second) flags |= CUpdate::kMask;
  if (next_alarm_second(before_second) <= now_second) flags |= CAlarm::kMask;
  memory_[kRegisterC] |= flags;
}

/// When the timer has to look again: the next event whose interrupt is enabled and not already flagged.
uint64_t CmosRtc::next_event_ns() const {
  const uint8_t wanted = memory_[kRegisterB] & kInterruptEnables & static_cast<uint8_t>(~memory_[kRegisterC]);
  if (wanted == 0 || is_held()) return kNoDeadline;
  // Counted from where the flags are known, so that what passed while the guest lay in a file fires at once.
  const uint64_t second = settled_ns_ / kNanosecondsPerSecond;
  uint64_t next_ns = kNoDeadline;
  if (BUpdateEnable::test(wanted)) next_ns = (second + 1) * kNanosecondsPerSecond;
  if (BAlarmEnable::test(wanted)) {
    const uint64_t alarm = next_alarm_second(second);
    if (alarm != kNoDeadline) next_ns = std::min(next_ns, alarm * kNanosecondsPerSecond);
  }
  const uint64_t ticks = period_ticks();
  if (BPeriodicEnable::test(wanted) && ticks != 0) {
    const uint64_t tick = (scale(settled_ns_, kCrystalHz, kNanosecondsPerSecond) / ticks + 1) * ticks;
    const uint64_t tick_ns = scale(tick, kNanosecondsPerSecond, kCrystalHz);
    const bool is_exact = scale(tick_ns, kCrystalHz, kNanosecondsPerSecond) == tick;
    next_ns = std::min(next_ns, is_exact ? tick_ns : tick_ns + 1);
  }
  if (next_ns == kNoDeadline) return kNoDeadline;
  const uint64_t now_ns = time_ns();
  return clock_.now_ns() + (next_ns > now_ns ? next_ns - now_ns : 0);
}

/// Interrupt pin and timer after any change.
void CmosRtc::update() {
  uint8_t& flags = memory_[kRegisterC];
  const bool is_asserted = (flags & memory_[kRegisterB] & kInterruptEnables) != 0;
  flags = static_cast<uint8_t>((flags & kInterruptEnables) | CInterrupt::make(is_asserted));
  irq_.note(is_asserted);
  timer_.note(next_event_ns());
}

void CmosRtc::publish() {
  irq_.publish();
  timer_.publish();
}

void CmosRtc::on_timer() {
  {
    const MutexLock lock(mutex_);
    settle();
    update();
  }
  publish();
}

// Registers.

uint8_t CmosRtc::read_byte(uint16_t port) {
  if (port == kIndexPort) return 0xff;  // write-only on a PC
  uint8_t value = 0;
  {
    const MutexLock lock(mutex_);
    value = read_register(index_);
    if (index_ != kRegisterC) return value;
    update();
  }
  publish();
  return value;
}

uint8_t CmosRtc::read_register(uint8_t index) {
  if (is_time_index(index)) return read_time(index);
  switch (index) {
    case kRegisterA: {
      const bool is_updating =
          !is_held() && time_ns() % kNanosecondsPerSecond >= kNanosecondsPerSecond - kUpdateWindowNs;
      return static_cast<uint8_t>(memory_[kRegisterA] | AUpdate::make(is_updating));
    }
    case kRegisterC: {
      settle();
      const uint8_t flags = memory_[kRegisterC];
      const bool is_asserted = (flags & memory_[kRegisterB] & kInterruptEnables) != 0;
      memory_[kRegisterC] = 0;  // "Register C": cleared by the read
      return static_cast<uint8_t>((flags & kInterruptEnables) | CInterrupt::make(is_asserted));
    }
    case kRegisterD: return kDValid;
    default: return memory_[index];
  }
}

void CmosRtc::write_byte(uint16_t port, uint8_t value) {
  {
    const MutexLock lock(mutex_);
    if (port == kIndexPort) {
      index_ = value & 0x7f;  // bit 7 masks NMI on a PC; nothing here raises one
      return;
    }
    settle();
    write_register(index_, value);
    update();
  }
  publish();
}

void CmosRtc::write_register(uint8_t index, uint8_t value) {
  if (is_time_index(index)) return write_time(index, value);
  switch (index) {
    case kRegisterA: return write_register_a(value);
    case kRegisterB: return write_register_b(value);
    case kRegisterC:
    case kRegisterD: return;  // read-only
    default: memory_[index] = value; return;
  }
}

void CmosRtc::write_register_a(uint8_t value) {
  const bool was_held = is_held();
  memory_[kRegisterA] = value & kAWritable;
  hold_or_release(was_held);
}

void CmosRtc::write_register_b(uint8_t value) {
  const bool was_held = is_held();
  // "Register B": SET going to one clears the update-ended interrupt enable.
  if (BSet::test(value)) value = BUpdateEnable::set(value, 0);
  memory_[kRegisterB] = value;
  hold_or_release(was_held);
}

/// "RESET pin": interrupt enables and flags are cleared; time, alarms and memory live on the battery.
void CmosRtc::reset() {
  {
    const MutexLock lock(mutex_);
    const bool was_held = is_held();
    memory_[kRegisterA] = kAReset;
    memory_[kRegisterB] = static_cast<uint8_t>(memory_[kRegisterB] & (BBinary::kMask | B24Hours::kMask));
    memory_[kRegisterC] = 0;
    hold_or_release(was_held);
    index_ = 0;
    settled_ns_ = time_ns();
    update();
  }
  publish();
}

SavedState CmosRtc::save() const {
  const MutexLock lock(mutex_);
  CmosRtcV1 wire{};
  std::copy(memory_.begin(), memory_.end(), wire.memory);
  wire.offset_ns = offset_ns_;
  wire.held_of_day_ns = held_.of_day_ns;
  wire.held_year = static_cast<uint16_t>(held_.year);
  wire.held_month = static_cast<uint8_t>(held_.month);
  wire.held_day = static_cast<uint8_t>(held_.day);
  wire.settled_ns = settled_ns_;
  wire.index = index_;
  wire.weekday_offset = weekday_offset_;
  return save_wire(std::string(kSchema), kVersion, wire);
}

Result<void> CmosRtc::restore(const SavedState& state) {
  const auto wire = TRY(load_wire_state<CmosRtcV1>(state, kSchema, kVersion));
  using Rule = SavedField::Rule;
  TRY(check_saved_fields(kSchema, {{"register A", wire.memory[kRegisterA], kAWritable, Rule::kOnlyBits},
                                   {"register C", wire.memory[kRegisterC], 0xf0, Rule::kOnlyBits},
                                   {"register D", wire.memory[kRegisterD], 0},
                                   {"time", clock_.wall_time_ns() + wire.offset_ns, kTimeNsMax},
                                   {"held_of_day_ns", wire.held_of_day_ns, kNsPerDay - 1},
                                   {"held_year", wire.held_year - uint64_t{kYearMin}, kYearMax - kYearMin},
                                   {"held_month", wire.held_month - uint64_t{1}, 11},
                                   {"held_day", wire.held_day - uint64_t{1}, 30},
                                   {"index", wire.index, kSize - 1},
                                   {"weekday_offset", wire.weekday_offset, 6}}));
  {
    const MutexLock lock(mutex_);
    std::copy(std::begin(wire.memory), std::end(wire.memory), memory_.begin());
    offset_ns_ = wire.offset_ns;
    held_ = {.year = wire.held_year, .month = wire.held_month, .day = wire.held_day, .of_day_ns = wire.held_of_day_ns};
    index_ = wire.index;
    weekday_offset_ = wire.weekday_offset;
    settled_ns_ = std::min<uint64_t>(wire.settled_ns, time_ns());  // this host's clock may be behind
    update();
    irq_.assume(irq_.level());
  }
  publish();
  return {};
}

}  // namespace tenon
