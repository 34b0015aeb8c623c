#include "devices/chip/i8042.hh"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/bits.hh"

namespace tenon {
namespace {

constexpr uint16_t kDataPort = 0x60;
constexpr uint16_t kCommandPort = 0x64;
constexpr uint16_t kFastA20Port = 0x92;

// "Status Register".
constexpr uint8_t kStatusOutputFull = 0x01, kStatusSystem = 0x04, kStatusCommand = 0x08, kStatusUnlocked = 0x10,
                  kStatusTimeOut = 0x40;

// "Controller Command Byte".
using KeyboardInterrupt = Bit<0>;
using SystemFlag = Bit<2>;
using KeyboardDisable = Bit<4>;
using AuxiliaryDisable = Bit<5>;

// "System/Controller Commands" (port 0x64).
enum Command : uint8_t {
  kReadMemory = 0x20,
  kWriteMemory = 0x60,
  kDisableAuxiliary = 0xa7,
  kEnableAuxiliary = 0xa8,
  kTestAuxiliary = 0xa9,
  kSelfTest = 0xaa,
  kTestKeyboard = 0xab,
  kDisableKeyboard = 0xad,
  kEnableKeyboard = 0xae,
  kReadInputPort = 0xc0,
  kReadOutputPort = 0xd0,
  kWriteOutputPort = 0xd1,
  kLoopKeyboard = 0xd2,
  kLoopAuxiliary = 0xd3,
  kWriteAuxiliary = 0xd4,
  kDisableA20 = 0xdd,
  kEnableA20 = 0xdf,
  kPulseFirst = 0xf0,
};

constexpr uint8_t kSelfTestPassed = 0x55;
constexpr uint8_t kInterfaceGood = 0x00;
constexpr uint8_t kClockLineLow = 0x01;  // interface test error: what a missing auxiliary port looks like
constexpr uint8_t kResend = 0xfe;        // what the controller answers when the keyboard did not
constexpr uint8_t kInputPortUnlocked = 0x80;

// "Output Port": bit 0 low holds the processor in reset, bit 1 is A20.
using OutputNotReset = Bit<0>;
using OutputA20 = Bit<1>;

// Port 0x92 (ICH9 13.7.4).
using FastInit = Bit<0>;
using FastA20 = Bit<1>;

constexpr std::string_view kSchema = "i8042";
constexpr uint32_t kVersion = 1;

struct I8042V1 {
  uint8_t memory[32];       // 0
  uint8_t output;           // 32
  uint8_t is_output_full;   // 33
  uint8_t is_time_out;      // 34
  uint8_t was_command;      // 35
  uint8_t pending_command;  // 36
  uint8_t is_a20_enabled;   // 37
};
static_assert(sizeof(I8042V1) == 38);

bool takes_data(uint8_t command) {
  return (command & 0xe0) == kWriteMemory || (command >= kWriteOutputPort && command <= kWriteAuxiliary);
}

}  // namespace

I8042::I8042(IrqLine irq, std::function<void()> request_reset) : request_reset_(std::move(request_reset)), irq_(irq) {
  reset();
}

Result<void> I8042::map(Bus& ports) {
  TRY(data_window_.map(ports, kDataPort, 1, "i8042 data"));
  TRY(command_window_.map(ports, kCommandPort, 1, "i8042 command"));
  return fast_a20_window_.map(ports, kFastA20Port, 1, "fast a20");
}

void I8042::answer(uint8_t value) {
  output_ = value;
  is_output_full_ = true;
  is_time_out_ = false;
}

/// "Status Register", bit 6: a transmission that the device never acknowledged leaves 0xfe in the output buffer.
void I8042::answer_time_out() {
  answer(kResend);
  is_time_out_ = true;
}

void I8042::update_pin() { irq_.note(is_output_full_ && KeyboardInterrupt::test(memory_[0])); }

uint8_t I8042::status() const {
  return static_cast<uint8_t>((is_output_full_ ? kStatusOutputFull : 0) |
                              (SystemFlag::test(memory_[0]) ? kStatusSystem : 0) | (was_command_ ? kStatusCommand : 0) |
                              kStatusUnlocked | (is_time_out_ ? kStatusTimeOut : 0));
}

uint8_t I8042::read_byte(uint16_t port) {
  uint8_t value = 0;
  {
    const MutexLock lock(mutex_);
    if (port == kCommandPort) return status();
    if (port == kFastA20Port) return static_cast<uint8_t>(FastA20::make(is_a20_enabled_));
    value = output_;
    is_output_full_ = is_time_out_ = false;
    update_pin();
  }
  irq_.publish();
  return value;
}

void I8042::write_byte(uint16_t port, uint8_t value) {
  bool resets = false;
  {
    const MutexLock lock(mutex_);
    resets = write_locked(port, value);
    update_pin();
  }
  irq_.publish();
  if (resets && request_reset_) request_reset_();
}

bool I8042::write_locked(uint16_t port, uint8_t value) {
  if (port == kFastA20Port) {
    is_a20_enabled_ = FastA20::test(value);
    return FastInit::test(value);
  }
  was_command_ = port == kCommandPort;
  return port == kCommandPort ? write_command(value) : write_data(value);
}

bool I8042::write_command(uint8_t command) {
  pending_command_ = takes_data(command) ? command : 0;
  if (pending_command_ != 0) return false;
  if ((command & 0xe0) == kReadMemory) {
    answer(memory_[command & 0x1f]);
    return false;
  }
  // "Pulse Output Port": bits 3:0 that are zero are pulsed; bit 0 is the processor's reset.
  if (command >= kPulseFirst) return !OutputNotReset::test(command);
  switch (command) {
    case kDisableAuxiliary: memory_[0] = AuxiliaryDisable::set(memory_[0], 1); break;
    case kEnableAuxiliary: memory_[0] = AuxiliaryDisable::set(memory_[0], 0); break;
    case kTestAuxiliary: answer(kClockLineLow); break;
    case kSelfTest:
      memory_[0] = SystemFlag::set(memory_[0], 1);
      answer(kSelfTestPassed);
      break;
    case kTestKeyboard: answer(kInterfaceGood); break;
    case kDisableKeyboard: memory_[0] = KeyboardDisable::set(memory_[0], 1); break;
    case kEnableKeyboard: memory_[0] = KeyboardDisable::set(memory_[0], 0); break;
    case kReadInputPort: answer(kInputPortUnlocked); break;
    case kReadOutputPort:
      answer(static_cast<uint8_t>(0xcc | OutputNotReset::kMask | OutputA20::make(is_a20_enabled_)));
      break;
    case kDisableA20: is_a20_enabled_ = false; break;
    case kEnableA20: is_a20_enabled_ = true; break;
    default: break;
  }
  return false;
}

bool I8042::write_data(uint8_t value) {
  const uint8_t command = std::exchange(pending_command_, uint8_t{0});
  if (command == 0) {  // for the keyboard, which is not there; sending to it enables its interface again
    memory_[0] = KeyboardDisable::set(memory_[0], 0);
    answer_time_out();
    return false;
  }
  if ((command & 0xe0) == kWriteMemory) {
    memory_[command & 0x1f] = value;
    return false;
  }
  switch (command) {
    case kWriteOutputPort: return write_output_port(value);
    case kLoopKeyboard: answer(value); return false;
    default: answer_time_out(); return false;  // auxiliary port: there is none
  }
}

bool I8042::write_output_port(uint8_t value) {
  is_a20_enabled_ = OutputA20::test(value);
  return !OutputNotReset::test(value);
}

void I8042::reset() {
  {
    const MutexLock lock(mutex_);
    memory_.fill(0);
    // What firmware leaves behind: translation on, system flag set, auxiliary interface disabled, interrupts off.
    memory_[0] = 0x64;
    output_ = 0;
    is_output_full_ = is_time_out_ = was_command_ = false;
    pending_command_ = 0;
    is_a20_enabled_ = true;
    update_pin();
  }
  irq_.publish();
}

SavedState I8042::save() const {
  const MutexLock lock(mutex_);
  I8042V1 wire{};
  std::copy(memory_.begin(), memory_.end(), wire.memory);
  wire.output = output_;
  wire.is_output_full = is_output_full_;
  wire.is_time_out = is_time_out_;
  wire.was_command = was_command_;
  wire.pending_command = pending_command_;
  wire.is_a20_enabled = is_a20_enabled_;
  return save_wire(std::string(kSchema), kVersion, wire);
}

Result<void> I8042::restore(const SavedState& state) {
  const auto wire = TRY(load_wire_state<I8042V1>(state, kSchema, kVersion));
  const bool is_pending_good = wire.pending_command == 0 || takes_data(wire.pending_command);
  TRY(check_saved_fields(kSchema, {{"is_output_full", wire.is_output_full, 1},
                                   {"is_time_out", wire.is_time_out, wire.is_output_full},
                                   {"was_command", wire.was_command, 1},
                                   {"pending_command takes no data", is_pending_good ? 0u : 1u, 0},
                                   {"is_a20_enabled", wire.is_a20_enabled, 1}}));
  const MutexLock lock(mutex_);
  std::copy(std::begin(wire.memory), std::end(wire.memory), memory_.begin());
  output_ = wire.output;
  is_output_full_ = wire.is_output_full != 0;
  is_time_out_ = wire.is_time_out != 0;
  was_command_ = wire.was_command != 0;
  pending_command_ = wire.pending_command;
  is_a20_enabled_ = wire.is_a20_enabled != 0;
  update_pin();
  irq_.assume(irq_.level());
  return {};
}

}  // namespace tenon
