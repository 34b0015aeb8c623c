#include "devices/chip/i8254.hh"

#include <algorithm>

#include "base/bits.hh"
#include "base/byte_order.hh"

namespace tenon {
namespace {

constexpr uint16_t kChannel0 = 0x40;
constexpr uint16_t kControl = 0x43;
constexpr uint16_t kPort61 = 0x61;

// "Control Word Format", Figure 7; "Read-Back Command", Figure 10.
using ControlSelect = Bits<7, 6>;
using ControlBytes = Bits<5, 4>;
using ControlMode = Bits<3, 1>;
using ControlBcd = Bit<0>;
constexpr unsigned kSelectReadBack = 3;
using ReadBackNoCount = Bit<5>;
using ReadBackNoStatus = Bit<4>;
using ReadBackChannels = Bits<3, 1>;

// "Status Byte", Figure 11.
using StatusOutput = Bit<7>;
using StatusNull = Bit<6>;
using StatusBytes = Bits<5, 4>;
using StatusMode = Bits<3, 1>;
using StatusBcd = Bit<0>;

// Port 0x61 (ICH9 13.7.1).
using Port61Gate2 = Bit<0>;
using Port61Refresh = Bit<4>;
using Port61Output2 = Bit<5>;
constexpr uint8_t kPort61Writable = 0x0f;
constexpr uint64_t kRefreshToggleNs = 15'085;  // one refresh cycle of the PC

constexpr uint32_t kBinaryModulus = 0x10000;
constexpr uint32_t kBcdModulus = 10000;

uint64_t ns_to_ticks(uint64_t ns) { return scale(ns, I8254::kFrequencyHz, kNanosecondsPerSecond); }
/// The first nanosecond at which ns_to_ticks() gives `ticks`.
uint64_t ticks_to_ns(uint64_t ticks) {
  const uint64_t ns = scale(ticks, kNanosecondsPerSecond, I8254::kFrequencyHz);
  return ns_to_ticks(ns) < ticks ? ns + 1 : ns;
}

uint16_t to_bcd(uint32_t value) {
  return static_cast<uint16_t>(value % 10 | value / 10 % 10 << 4 | value / 100 % 10 << 8 | value / 1000 % 10 << 12);
}
/// Digits above 9 count as what they weigh; the guest may write any.
uint32_t from_bcd(uint16_t value) {
  return (value & 0xfu) + (value >> 4 & 0xfu) * 10 + (value >> 8 & 0xfu) * 100 + (value >> 12 & 0xfu) * 1000;
}

constexpr std::string_view kSchema = "i8254";
constexpr uint32_t kVersion = 1;

struct ChannelV1 {
  le64 start_ns;         // 0
  le64 frozen_ticks;     // 8
  le32 reload;           // 16
  le32 period;           // 20
  le16 count_latch;      // 24
  uint8_t low_written;   // 26
  uint8_t status_latch;  // 27
  uint8_t mode;          // 28
  uint8_t bytes;         // 29
  uint8_t flags;         // 30, see kFlag*
};
struct I8254V1 {
  ChannelV1 channels[3];
  uint8_t port_61;
};
static_assert(sizeof(I8254V1) == 94);

constexpr uint8_t kFlagBcd = 1, kFlagNull = 2, kFlagCounting = 4, kFlagStarted = 8, kFlagWritesHigh = 16,
                  kFlagReadsHigh = 32, kFlagCountLatch = 64, kFlagStatusLatch = 128;

}  // namespace

// One channel.

uint64_t I8254::Channel::ticks(uint64_t now_ns) const {
  if (!is_counting) return frozen_ticks;
  return now_ns > start_ns ? ns_to_ticks(now_ns - start_ns) : 0;
}

/// "Mode Definitions": the OUT pin.
bool I8254::Channel::output(uint64_t now_ns) const {
  if (!is_started) return mode != 0;
  const uint64_t elapsed = ticks(now_ns);
  switch (mode) {
    case 0: return elapsed >= period;
    case 1: return elapsed >= period;
    case 2: return !gate || elapsed % period != period - 1;
    case 3: return !gate || elapsed % period < (period + 1) / 2;
    default: return elapsed != period;  // 4 and 5: low for one clock at terminal count
  }
}

/// The counting element. Modes 2 and 3 reload; the others go on from the modulus after zero.
uint16_t I8254::Channel::count(uint64_t now_ns) const {
  const uint32_t modulus = is_bcd ? kBcdModulus : kBinaryModulus;
  uint64_t value = reload;
  if (is_started) {
    const uint64_t elapsed = ticks(now_ns);
    if (mode == 2) {
      value = period - elapsed % period;
    } else if (mode == 3) {  // counts down by two, twice a period; odd counts spend the extra tick in the first half
      const uint64_t first_half = (period + 1) / 2;
      const uint64_t phase = elapsed % period;
      const uint64_t even = period & ~1u;
      value = even - 2 * (phase < first_half ? std::min<uint64_t>(phase, even / 2) : phase - first_half);
    } else {
      value = period + (modulus - elapsed % modulus);
    }
  }
  value %= modulus;
  return is_bcd ? to_bcd(static_cast<uint32_t>(value)) : static_cast<uint16_t>(value);
}

uint8_t I8254::Channel::status(uint64_t now_ns) const {
  return static_cast<uint8_t>(StatusOutput::make(output(now_ns)) | StatusNull::make(is_null) |
                              StatusBytes::make(static_cast<uint8_t>(bytes)) | StatusMode::make(mode) |
                              StatusBcd::make(is_bcd));
}

void I8254::Channel::write_control(uint8_t value) {
  const auto raw_mode = static_cast<uint8_t>(ControlMode::get(value));
  mode = raw_mode > 5 ? raw_mode - 4 : raw_mode;  // "Control Word Format": x10 is mode 2, x11 mode 3
  bytes = static_cast<Bytes>(ControlBytes::get(value));
  is_bcd = ControlBcd::test(value);
  is_null = true;
  is_counting = is_started = false;
  writes_high_next = reads_high_next = false;
  has_count_latch = has_status_latch = false;
  frozen_ticks = 0;
  reload = period = 0;
}

void I8254::Channel::write_count(uint8_t value, uint64_t now_ns) {
  switch (bytes) {
    case Bytes::kLow: return load(value, now_ns);
    case Bytes::kHigh: return load(static_cast<uint16_t>(value << 8), now_ns);
    case Bytes::kBoth: break;
  }
  if (writes_high_next) {
    writes_high_next = false;
    return load(static_cast<uint16_t>(value << 8 | low_written), now_ns);
  }
  low_written = value;
  writes_high_next = true;
  if (mode == 0) {  // "Mode 0": the first byte disables counting, OUT goes low
    is_counting = is_started = false;
    frozen_ticks = 0;
  }
}

void I8254::Channel::load(uint16_t count, uint64_t now_ns) {
  const uint32_t modulus = is_bcd ? kBcdModulus : kBinaryModulus;
  const uint32_t value = (is_bcd ? from_bcd(count) : count) % modulus;
  reload = value == 0 ? modulus : value;  // "Operation": 0 is the largest count
  is_null = true;
  if (mode != 1 && mode != 5) start(now_ns);  // those two wait for the gate
}

void I8254::Channel::start(uint64_t now_ns) {
  if (reload == 0) return;
  period = reload;
  is_null = false;
  is_started = true;
  frozen_ticks = 0;
  start_ns = now_ns;
  is_counting = gate || mode == 1 || mode == 5;
}

/// "Gate Operations Summary", Figure 18.
void I8254::Channel::set_gate(bool level, uint64_t now_ns) {
  if (level == gate) return;
  const uint64_t elapsed = ticks(now_ns);
  gate = level;
  switch (mode) {
    case 1:
    case 5:
      if (level) start(now_ns);
      return;
    case 2:
    case 3:
      if (level && is_started) return start(now_ns);
      is_counting = false;
      frozen_ticks = 0;
      return;
    default:
      if (!is_started) return;
      is_counting = level;
      frozen_ticks = elapsed;
      start_ns = now_ns - std::min(now_ns, ticks_to_ns(elapsed));
  }
}

void I8254::Channel::latch_count(uint64_t now_ns) {
  if (has_count_latch) return;  // "Counter Latch Command": later ones are ignored until it is read
  count_latch = count(now_ns);
  has_count_latch = true;
}

uint8_t I8254::Channel::read(uint64_t now_ns) {
  if (has_status_latch) {  // "Read-Back Command": status comes first
    has_status_latch = false;
    return status_latch;
  }
  const uint16_t value = has_count_latch ? count_latch : count(now_ns);
  const bool is_high = bytes == Bytes::kHigh || (bytes == Bytes::kBoth && reads_high_next);
  if (bytes == Bytes::kBoth) reads_high_next = !reads_high_next;
  if (bytes != Bytes::kBoth || !reads_high_next) has_count_latch = false;
  return static_cast<uint8_t>(is_high ? value >> 8 : value);
}

/// The next rising edge of OUT after `now_ns`.
uint64_t I8254::Channel::next_edge_ns(uint64_t now_ns) const {
  if (!is_started || !is_counting) return kNoDeadline;
  const uint64_t elapsed = ticks(now_ns);
  switch (mode) {
    case 2:
    case 3: return start_ns + ticks_to_ns((elapsed / period + 1) * period);
    case 0: return elapsed < period ? start_ns + ticks_to_ns(period) : kNoDeadline;
    case 4: return elapsed <= period ? start_ns + ticks_to_ns(uint64_t{period} + 1) : kNoDeadline;
    default: return kNoDeadline;  // 1 and 5: channel 0's gate is tied high, so nothing triggers them
  }
}

// The chip.

I8254::I8254(Clock& clock, IrqLine irq) : clock_(clock), irq_(irq), timer_(clock, [this] { on_timer(); }) { reset(); }

Result<void> I8254::map(Bus& ports) {
  TRY(window_.map(ports, kChannel0, 4, "i8254"));
  return port_61_window_.map(ports, kPort61, 1, "port 61");
}

void I8254::publish() {
  irq_.publish();
  timer_.publish();
}

void I8254::update_irq(uint64_t now_ns) {
  const Channel& channel = channels_[0];
  irq_.note(channel.output(now_ns));
  edge_ns_ = is_listening_ ? channel.next_edge_ns(now_ns) : kNoDeadline;
  timer_.note(edge_ns_);
}

void I8254::on_timer() {
  {
    const MutexLock lock(mutex_);
    const uint64_t now_ns = clock_.now_ns();
    if (edge_ns_ != kNoDeadline && now_ns >= edge_ns_) {
      irq_.note(false);
      irq_.note(true);
      edge_ns_ = channels_[0].next_edge_ns(now_ns);
      if (edge_ns_ != kNoDeadline) edge_ns_ = std::max(edge_ns_, now_ns + kEdgeSpacingNsMin);
    }
    timer_.note(edge_ns_);  // also where it was reprogrammed while the callback was on its way
  }
  publish();
}

void I8254::set_listening(bool is_listening) {
  {
    const MutexLock lock(mutex_);
    if (is_listening_ == is_listening) return;
    is_listening_ = is_listening;
    update_irq(clock_.now_ns());
  }
  publish();
}

uint8_t I8254::read_byte(uint16_t port) {
  const MutexLock lock(mutex_);
  const uint64_t now_ns = clock_.now_ns();
  if (port == kPort61) return read_port_61(now_ns);
  if (port == kControl) return 0xff;  // "Read Operations": the control word register cannot be read
  return channels_[(port - kChannel0) & 3].read(now_ns);
}

void I8254::write_byte(uint16_t port, uint8_t value) {
  {
    const MutexLock lock(mutex_);
    const uint64_t now_ns = clock_.now_ns();
    if (port == kPort61) {
      port_61_ = value & kPort61Writable;
      channels_[2].set_gate(Port61Gate2::test(value), now_ns);
      return;
    }
    if (port == kControl) {
      write_control(value, now_ns);
    } else {
      channels_[(port - kChannel0) & 3].write_count(value, now_ns);
    }
    const bool touches_channel_0 = port == kChannel0 || (port == kControl && ControlSelect::get(value) == 0);
    if (!touches_channel_0) return;
    update_irq(now_ns);
  }
  publish();
}

void I8254::write_control(uint8_t value, uint64_t now_ns) {
  const auto select = static_cast<unsigned>(ControlSelect::get(value));
  if (select == kSelectReadBack) {
    for (unsigned i = 0; i < 3; ++i) {
      if ((ReadBackChannels::get(value) >> i & 1) == 0) continue;
      Channel& channel = channels_[i];
      if (!ReadBackNoCount::test(value)) channel.latch_count(now_ns);
      if (!ReadBackNoStatus::test(value) && !channel.has_status_latch) {
        channel.status_latch = channel.status(now_ns);
        channel.has_status_latch = true;
      }
    }
    return;
  }
  if (ControlBytes::get(value) == 0) return channels_[select].latch_count(now_ns);
  channels_[select].write_control(value);
}

uint8_t I8254::read_port_61(uint64_t now_ns) const {
  return static_cast<uint8_t>(port_61_ | Port61Refresh::make(now_ns / kRefreshToggleNs & 1) |
                              Port61Output2::make(channels_[2].output(now_ns)));
}

void I8254::reset() {
  {
    const MutexLock lock(mutex_);
    channels_.fill(Channel{});
    channels_[2].gate = false;
    port_61_ = 0;
    // The data sheet leaves the state open until a control word; nothing counts and IRQ 0 stays low.
    channels_[0].mode = 0;
    edge_ns_ = kNoDeadline;
    irq_.note(false);
    timer_.note(kNoDeadline);
  }
  publish();
}

SavedState I8254::save() const {
  const MutexLock lock(mutex_);
  I8254V1 wire{};
  const auto flag = [](bool value, uint8_t bit) { return value ? bit : uint8_t{0}; };
  for (size_t i = 0; i < 3; ++i) {
    const Channel& channel = channels_[i];
    wire.channels[i] = {
        .start_ns = channel.start_ns,
        .frozen_ticks = channel.frozen_ticks,
        .reload = channel.reload,
        .period = channel.period,
        .count_latch = channel.count_latch,
        .low_written = channel.low_written,
        .status_latch = channel.status_latch,
        .mode = channel.mode,
        .bytes = static_cast<uint8_t>(channel.bytes),
        .flags = static_cast<uint8_t>(
            flag(channel.is_bcd, kFlagBcd) | flag(channel.is_null, kFlagNull) |
            flag(channel.is_counting, kFlagCounting) | flag(channel.is_started, kFlagStarted) |
            flag(channel.writes_high_next, kFlagWritesHigh) | flag(channel.reads_high_next, kFlagReadsHigh) |
            flag(channel.has_count_latch, kFlagCountLatch) | flag(channel.has_status_latch, kFlagStatusLatch))};
  }
  wire.port_61 = port_61_;
  return save_wire(std::string(kSchema), kVersion, wire);
}

Result<void> I8254::restore(const SavedState& state) {
  const auto wire = TRY(load_wire_state<I8254V1>(state, kSchema, kVersion));
  TRY(check_saved_fields(kSchema, {{"port_61", wire.port_61, kPort61Writable}}));
  const uint64_t now_ns = clock_.now_ns();
  for (const ChannelV1& saved : wire.channels) {
    // A started channel divides by its period; BCD counts are at most their modulus.
    const bool is_started = (saved.flags & kFlagStarted) != 0;
    const bool is_counting = (saved.flags & kFlagCounting) != 0;
    const uint32_t modulus = (saved.flags & kFlagBcd) != 0 ? kBcdModulus : kBinaryModulus;
    TRY(check_saved_fields(kSchema, {{"reload", saved.reload, modulus},
                                     {"period", saved.period, modulus},
                                     {"period of a started channel", is_started && saved.period == 0 ? 1u : 0u, 0},
                                     {"counting without a start", is_counting && !is_started ? 1u : 0u, 0},
                                     {"start_ns", saved.start_ns, now_ns},
                                     {"frozen_ticks", saved.frozen_ticks, ns_to_ticks(now_ns) + 1},
                                     {"mode", saved.mode, 5},
                                     {"bytes less one", uint64_t{saved.bytes} - 1, 2}}));
  }
  {
    const MutexLock lock(mutex_);
    port_61_ = wire.port_61;
    for (size_t i = 0; i < 3; ++i) {
      const ChannelV1& saved = wire.channels[i];
      const auto flag = [&saved](uint8_t bit) { return (saved.flags & bit) != 0; };
      channels_[i] = Channel{.mode = saved.mode,
                             .bytes = static_cast<Bytes>(saved.bytes),
                             .is_bcd = flag(kFlagBcd),
                             .gate = i != 2 || Port61Gate2::test(wire.port_61),
                             .is_null = flag(kFlagNull),
                             .is_counting = flag(kFlagCounting),
                             .is_started = flag(kFlagStarted),
                             .writes_high_next = flag(kFlagWritesHigh),
                             .reads_high_next = flag(kFlagReadsHigh),
                             .has_count_latch = flag(kFlagCountLatch),
                             .has_status_latch = flag(kFlagStatusLatch),
                             .low_written = saved.low_written,
                             .status_latch = saved.status_latch,
                             .count_latch = saved.count_latch,
                             .reload = saved.reload,
                             .period = saved.period,
                             .start_ns = saved.start_ns,
                             .frozen_ticks = saved.frozen_ticks};
    }
    update_irq(now_ns);
    irq_.assume(irq_.level());
  }
  publish();
  return {};
}

}  // namespace tenon
