#include "devices/chip/uart16550.hh"

#include <algorithm>

#include "base/bits.hh"

namespace tenon {
namespace {

// Register offsets, PC16550D Table II. With LCR.DLAB set, 0 and 1 are the divisor latch.
enum Register : unsigned { kRbrThr = 0, kIer = 1, kIirFcr = 2, kLcr = 3, kMcr = 4, kLsr = 5, kMsr = 6, kScr = 7 };

// IER, PC16550D 8.5.
using IerReceived = Bit<0>;
using IerThre = Bit<1>;
using IerLineStatus = Bit<2>;
using IerModemStatus = Bit<3>;
constexpr uint8_t kIerWritable = 0x0f;

// FCR, PC16550D 8.4.
using FcrEnable = Bit<0>;
using FcrClearReceiver = Bit<1>;
using FcrTrigger = Bits<7, 6>;
constexpr uint8_t kFcrKept = 0xc9;  // enable, DMA mode, trigger; the clear bits clear themselves
constexpr std::array<uint8_t, 4> kTriggerLevels = {1, 4, 8, 14};

// IIR values in priority order, PC16550D Table IV.
constexpr uint8_t kSourceNone = 0x01;
constexpr uint8_t kSourceLineStatus = 0x06;
constexpr uint8_t kSourceReceived = 0x04;
constexpr uint8_t kSourceTimeout = 0x0c;
constexpr uint8_t kSourceThre = 0x02;
constexpr uint8_t kSourceModemStatus = 0x00;
constexpr uint8_t kIirFifosEnabled = 0xc0;

using LcrDlab = Bit<7>;

// MCR, PC16550D 8.7.
using McrDtr = Bit<0>;
using McrRts = Bit<1>;
using McrOut1 = Bit<2>;
using McrOut2 = Bit<3>;
using McrLoop = Bit<4>;
constexpr uint8_t kMcrWritable = 0x1f;

// LSR, PC16550D 8.3.
constexpr uint8_t kLsrDataReady = 0x01;
constexpr uint8_t kLsrOverrun = 0x02;
constexpr uint8_t kLsrThre = 0x20;
constexpr uint8_t kLsrTemt = 0x40;

// MSR, PC16550D 8.8: four deltas below four lines.
constexpr uint8_t kMsrCts = 0x10;
constexpr uint8_t kMsrDsr = 0x20;
constexpr uint8_t kMsrRi = 0x40;
constexpr uint8_t kMsrDcd = 0x80;
constexpr uint8_t kMsrDeltas = 0x0f;
constexpr uint8_t kMsrLines = 0xf0;
/// Our cable: the other end is always there and always ready.
constexpr uint8_t kMsrConnected = kMsrCts | kMsrDsr | kMsrDcd;

constexpr std::string_view kSchema = "uart16550";
constexpr uint32_t kVersion = 1;

struct Uart16550V1 {
  le16 divisor;          // 0
  uint8_t ier;           // 2
  uint8_t fcr;           // 3
  uint8_t lcr;           // 4
  uint8_t mcr;           // 5
  uint8_t lsr_errors;    // 6
  uint8_t msr;           // 7
  uint8_t scr;           // 8
  uint8_t thre_pending;  // 9
  uint8_t fifo_count;    // 10
  uint8_t fifo[16];      // 11, oldest first
};
static_assert(sizeof(Uart16550V1) == 27);

}  // namespace

Uart16550::Uart16550(std::string name, Clock& clock, IrqLine irq, ByteSink& sink)
    : name_(std::move(name)),
      clock_(clock),
      sink_(sink),
      pin_(irq),
      flush_timer_(clock.make_timer([this] { flush(); })) {
  transmit_.reserve(kTransmitBufferSize + kFifoSize);
  outgoing_.reserve(kTransmitBufferSize + kFifoSize);
  const MutexLock lock(mutex_);
  reset_registers();
}

uint8_t Uart16550::read(unsigned offset) {
  Action action;
  uint8_t value = 0;
  {
    const MutexLock lock(mutex_);
    value = read_locked(offset, action);
    update_pin();
  }
  perform(action);
  return value;
}

void Uart16550::write(unsigned offset, uint8_t value) {
  Action action;
  {
    const MutexLock lock(mutex_);
    write_locked(offset, value, action);
    update_pin();
  }
  perform(action);
}

void Uart16550::perform(const Action& action) {
  pin_.publish();
  if (action.arm_timer) flush_timer_->arm(clock_.now_ns() + kFlushDelayNs);
  if (action.flush) flush();
  if (action.tell_room && on_room_) on_room_();
}

uint8_t Uart16550::read_locked(unsigned offset, Action& action) {
  const bool dlab = LcrDlab::test(lcr_);
  switch (offset) {
    case kRbrThr: return dlab ? static_cast<uint8_t>(divisor_) : read_rbr(action);
    case kIer: return dlab ? static_cast<uint8_t>(divisor_ >> 8) : ier_;
    case kIirFcr: return read_iir();
    case kLcr: return lcr_;
    case kMcr: return mcr_;
    case kLsr: return read_lsr();
    case kMsr: return read_msr();
    case kScr: return scr_;
    default: return 0xff;
  }
}

void Uart16550::write_locked(unsigned offset, uint8_t value, Action& action) {
  const bool dlab = LcrDlab::test(lcr_);
  switch (offset) {
    case kRbrThr:
      if (dlab) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0xff00) | value);
      } else {
        write_thr(value, action);
      }
      return;
    case kIer:
      if (dlab) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0x00ff) | value << 8);
      } else {
        write_ier(value, action);
      }
      return;
    case kIirFcr: return write_fcr(value, action);
    case kLcr: lcr_ = value; return;
    case kMcr: return write_mcr(value, action);
    case kScr: scr_ = value; return;
    default: return;  // LSR and MSR are for reading (PC16550D 8.3: writing LSR is for factory testing)
  }
}

uint8_t Uart16550::read_rbr(Action& action) {
  if (fifo_count_ == 0) return 0;
  const uint8_t value = fifo_[fifo_head_];
  fifo_head_ = static_cast<uint8_t>((fifo_head_ + 1) % kFifoSize);
  --fifo_count_;
  if (fifo_count_ == 0) check_room(action);  // a whole FIFO at a time, so that input costs few wake-ups
  return value;
}

/// PC16550D Table IV: reading IIR clears the THRE interrupt where that is the source it reports.
uint8_t Uart16550::read_iir() {
  const uint8_t source = interrupt_source();
  if (source == kSourceThre) thre_pending_ = false;
  return source | (FcrEnable::test(fcr_) ? kIirFifosEnabled : 0);
}

uint8_t Uart16550::read_lsr() {
  uint8_t value = lsr_errors_;
  if (fifo_count_ > 0) value |= kLsrDataReady;
  if (transmit_.size() < kTransmitBufferSize) value |= kLsrThre | kLsrTemt;
  lsr_errors_ = 0;  // PC16550D 8.3: the error bits are cleared by the read
  return value;
}

uint8_t Uart16550::read_msr() {
  const uint8_t value = msr_;
  msr_ &= kMsrLines;
  return value;
}

void Uart16550::write_thr(uint8_t value, Action& action) {
  thre_pending_ = false;
  if (McrLoop::test(mcr_)) {
    push_received(value);
    thre_pending_ = true;
    return;
  }
  // A driver that has seen THRE fills the whole FIFO without looking again (PC16550D 8.6, FIFO operation), so that much
  // is taken beyond the size at which THRE goes. What comes after that is lost, as with a THR that was not empty.
  if (transmit_.size() < kTransmitBufferSize + kFifoSize) {
    transmit_.push_back(value);
    action.arm_timer = transmit_.size() == 1;
  }
  action.flush = transmit_.size() >= kTransmitBufferSize;
  thre_pending_ = !action.flush;
}

void Uart16550::write_ier(uint8_t value, Action& action) {
  const bool thre_was_enabled = IerThre::test(ier_);
  ier_ = value & kIerWritable;
  // Enabling the THRE interrupt with an empty THR raises it at once; drivers depend on that to start sending.
  if (!thre_was_enabled && IerThre::test(ier_) && transmit_.size() < kTransmitBufferSize) thre_pending_ = true;
  check_room(action);
}

void Uart16550::write_fcr(uint8_t value, Action& action) {
  const bool toggles = FcrEnable::test(value) != FcrEnable::test(fcr_);
  // PC16550D 8.4: changing bit 0 clears both FIFOs; other bits are only programmed when bit 0 is written as one.
  if (toggles || (FcrEnable::test(value) && FcrClearReceiver::test(value))) clear_received(action);
  fcr_ = FcrEnable::test(value) ? value & kFcrKept : 0;
}

void Uart16550::write_mcr(uint8_t value, Action& action) {
  mcr_ = value & kMcrWritable;
  uint8_t lines = kMsrConnected;
  if (McrLoop::test(mcr_)) {  // PC16550D 8.7: the outputs are looped back to the inputs
    lines = static_cast<uint8_t>((McrRts::test(mcr_) ? kMsrCts : 0) | (McrDtr::test(mcr_) ? kMsrDsr : 0) |
                                 (McrOut1::test(mcr_) ? kMsrRi : 0) | (McrOut2::test(mcr_) ? kMsrDcd : 0));
  }
  set_modem_status(lines);
  check_room(action);
}

void Uart16550::set_modem_status(uint8_t lines) {
  const auto changed = static_cast<uint8_t>((msr_ ^ lines) & kMsrLines);
  auto deltas = static_cast<uint8_t>(changed >> 4);
  if ((lines & kMsrRi) != 0) deltas &= static_cast<uint8_t>(~0x04u);  // TERI only reports the trailing edge of RI
  msr_ = static_cast<uint8_t>(lines | (msr_ & kMsrDeltas) | deltas);
}

void Uart16550::push_received(uint8_t value) {
  const size_t capacity = FcrEnable::test(fcr_) ? kFifoSize : 1;
  if (fifo_count_ >= capacity) {
    lsr_errors_ |= kLsrOverrun;
    // PC16550D 8.3: in FIFO mode the new character is lost; without FIFO it overwrites RBR.
    if (capacity == 1) fifo_[fifo_head_] = value;
    return;
  }
  fifo_[(fifo_head_ + fifo_count_) % kFifoSize] = value;
  ++fifo_count_;
}

void Uart16550::clear_received(Action& action) {
  fifo_head_ = 0;
  fifo_count_ = 0;
  check_room(action);
}

size_t Uart16550::room() const {
  const bool is_listening = McrRts::test(mcr_) || IerReceived::test(ier_);
  if (!is_listening || McrLoop::test(mcr_) || is_paused_) return 0;
  const size_t capacity = FcrEnable::test(fcr_) ? kFifoSize : 1;
  return capacity > fifo_count_ ? capacity - fifo_count_ : 0;
}

void Uart16550::check_room(Action& action) {
  if (!has_refused_ || room() == 0) return;
  has_refused_ = false;
  action.tell_room = true;
}

uint8_t Uart16550::interrupt_source() const {
  if (IerLineStatus::test(ier_) && lsr_errors_ != 0) return kSourceLineStatus;
  if (IerReceived::test(ier_) && fifo_count_ > 0) {
    const bool is_fifo = FcrEnable::test(fcr_);
    const bool at_trigger = !is_fifo || fifo_count_ >= kTriggerLevels[FcrTrigger::get(fcr_)];
    return at_trigger ? kSourceReceived : kSourceTimeout;
  }
  if (IerThre::test(ier_) && thre_pending_) return kSourceThre;
  if (IerModemStatus::test(ier_) && (msr_ & kMsrDeltas) != 0) return kSourceModemStatus;
  return kSourceNone;
}

/// OUT2 drives the PC's interrupt buffer; in loop mode it is forced inactive (PC16550D 8.7), but drivers that probe
/// their IRQ in loop mode expect it to pass, and real PC chip sets let it.
void Uart16550::update_pin() { pin_.note(McrOut2::test(mcr_) && interrupt_source() != kSourceNone); }

size_t Uart16550::offer(std::span<const uint8_t> bytes) {
  size_t taken = 0;
  {
    const MutexLock lock(mutex_);
    taken = std::min(bytes.size(), room());
    for (const uint8_t byte : bytes.first(taken)) push_received(byte);
    if (taken < bytes.size()) has_refused_ = true;
    update_pin();
  }
  pin_.publish();
  return taken;
}

void Uart16550::on_room(std::function<void()> callback) { on_room_ = std::move(callback); }

void Uart16550::flush() {
  mutex_.lock();
  while (!is_flushing_ && !transmit_.empty()) {
    is_flushing_ = true;
    const bool was_full = transmit_.size() >= kTransmitBufferSize;
    outgoing_.clear();
    outgoing_.swap(transmit_);
    if (was_full) thre_pending_ = true;
    update_pin();
    mutex_.unlock();
    sink_.write(outgoing_);
    mutex_.lock();
    is_flushing_ = false;
  }
  mutex_.unlock();
  pin_.publish();
}

void Uart16550::pause() {
  {
    const MutexLock lock(mutex_);
    is_paused_ = true;
  }
  flush();
}

void Uart16550::resume() {
  Action action;
  {
    const MutexLock lock(mutex_);
    is_paused_ = false;
    check_room(action);
  }
  perform(action);
}

void Uart16550::reset_registers() {
  divisor_ = 1;
  ier_ = fcr_ = lcr_ = mcr_ = lsr_errors_ = scr_ = 0;  // PC16550D Table I
  msr_ = kMsrConnected;
  thre_pending_ = false;
  fifo_head_ = fifo_count_ = 0;
  update_pin();
}

void Uart16550::reset() {
  {
    const MutexLock lock(mutex_);
    reset_registers();
  }
  pin_.publish();
  flush();
}

SavedState Uart16550::save() const {
  const MutexLock lock(mutex_);
  Uart16550V1 wire{.divisor = divisor_,
                   .ier = ier_,
                   .fcr = fcr_,
                   .lcr = lcr_,
                   .mcr = mcr_,
                   .lsr_errors = lsr_errors_,
                   .msr = msr_,
                   .scr = scr_,
                   .thre_pending = thre_pending_,
                   .fifo_count = fifo_count_,
                   .fifo = {}};
  for (size_t i = 0; i < fifo_count_; ++i) wire.fifo[i] = fifo_[(fifo_head_ + i) % kFifoSize];
  return save_wire(std::string(kSchema), kVersion, wire);
}

Result<void> Uart16550::restore(const SavedState& state) {
  const auto wire = TRY(load_wire_state<Uart16550V1>(state, kSchema, kVersion));
  const size_t capacity = FcrEnable::test(wire.fcr) ? kFifoSize : 1;
  using Rule = SavedField::Rule;
  TRY(check_saved_fields(kSchema, {{"ier", wire.ier, kIerWritable, Rule::kOnlyBits},
                                   {"fcr", wire.fcr, kFcrKept, Rule::kOnlyBits},
                                   {"mcr", wire.mcr, kMcrWritable, Rule::kOnlyBits},
                                   {"lsr_errors", wire.lsr_errors, kLsrOverrun, Rule::kOnlyBits},
                                   {"thre_pending", wire.thre_pending, 1},
                                   {"fifo_count", wire.fifo_count, capacity}}));
  const MutexLock lock(mutex_);
  divisor_ = wire.divisor;
  ier_ = wire.ier;
  fcr_ = wire.fcr;
  lcr_ = wire.lcr;
  mcr_ = wire.mcr;
  lsr_errors_ = wire.lsr_errors;
  msr_ = wire.msr;
  scr_ = wire.scr;
  thre_pending_ = wire.thre_pending != 0;
  fifo_head_ = 0;
  fifo_count_ = wire.fifo_count;
  std::copy(std::begin(wire.fifo), std::end(wire.fifo), fifo_.begin());
  update_pin();
  pin_.assume(pin_.level());
  return {};
}

}  // namespace tenon
