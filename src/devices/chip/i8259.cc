#include "devices/chip/i8259.hh"

#include <iterator>

#include "base/bits.hh"

namespace tenon {
namespace {

constexpr uint16_t kMasterCommand = 0x20;
constexpr uint16_t kMasterData = 0x21;
constexpr uint16_t kSlaveCommand = 0xa0;
constexpr uint16_t kSlaveData = 0xa1;
constexpr uint16_t kMasterElcr = 0x4d0;
constexpr uint16_t kSlaveElcr = 0x4d1;
constexpr unsigned kCascade = 2;
constexpr unsigned kSpurious = 7;

// 82371SB 2.5.4: IRQ 0, 1, 2, 8 and 13 are always edge-triggered.
constexpr uint8_t kMasterElcrWritable = 0xf8;
constexpr uint8_t kSlaveElcrWritable = 0xde;

// ICW1 and OCW3 share a port; "Initialization Command Words", Figure 7, and "Operation Command Words", Figure 8.
using IsIcw1 = Bit<4>;
using Icw1WantsIcw4 = Bit<0>;
using Icw1Single = Bit<1>;
using IsOcw3 = Bit<3>;
using Ocw3ReadRegister = Bits<1, 0>;
using Ocw3Poll = Bit<2>;
using Ocw3SpecialMask = Bits<6, 5>;
using Ocw2Command = Bits<7, 5>;
using Ocw2Input = Bits<2, 0>;
using Icw2Base = Bits<7, 3>;
using Icw4AutoEoi = Bit<1>;
using Icw4SpecialFullyNested = Bit<4>;

constexpr std::string_view kSchema = "i8259";
constexpr uint32_t kVersion = 1;

struct ChipV1 {
  uint8_t irr, isr, imr, lines, elcr, vector_base, lowest_priority, expects;  // 0-7
  uint8_t flags;                                                              // 8, see kFlag*
};
struct I8259V1 {
  ChipV1 chips[2];  // master, slave
};
static_assert(sizeof(I8259V1) == 18);

constexpr uint8_t kFlagWantsIcw4 = 1, kFlagSingle = 2, kFlagAutoEoi = 4, kFlagRotates = 8, kFlagSpecialMask = 16,
                  kFlagSpecialFullyNested = 32, kFlagPolls = 64, kFlagReadsIsr = 128;

}  // namespace

// One chip.

int I8259Pair::Chip::highest(uint8_t inputs) const {
  for (unsigned step = 1; step <= 8; ++step) {
    const unsigned input = (lowest_priority + step) & 7;
    if ((inputs >> input & 1) != 0) return static_cast<int>(input);
  }
  return -1;
}

/// The input to be served now, or -1: "Fully Nested Mode", "Special Mask Mode", "Special Fully Nested Mode".
int I8259Pair::Chip::request() const {
  const int wanted = highest(irr & static_cast<uint8_t>(~imr));
  if (wanted < 0) return -1;
  uint8_t in_service = isr;
  if (special_mask) in_service &= static_cast<uint8_t>(~imr);  // masked inputs no longer hold back lower ones
  if (special_fully_nested) in_service &= static_cast<uint8_t>(~(1u << kCascade));
  const int serving = highest(in_service);
  if (serving >= 0 && priority(static_cast<unsigned>(serving)) <= priority(static_cast<unsigned>(wanted))) return -1;
  return wanted;
}

void I8259Pair::Chip::set_input(unsigned input, bool level) {
  const auto bit = static_cast<uint8_t>(1u << input);
  const bool was_high = (lines & bit) != 0;
  lines = static_cast<uint8_t>(level ? lines | bit : lines & ~bit);
  if ((elcr & bit) != 0) {
    irr = static_cast<uint8_t>(level ? irr | bit : irr & ~bit);
  } else if (level && !was_high) {
    irr |= bit;
  }
}

/// The second INTA pulse ("Interrupt Sequence").
void I8259Pair::Chip::accept(unsigned input) {
  const auto bit = static_cast<uint8_t>(1u << input);
  if ((elcr & bit) == 0) irr &= static_cast<uint8_t>(~bit);
  isr |= bit;
  if (auto_eoi) end(input, rotates_on_auto_eoi);
}

void I8259Pair::Chip::end(unsigned input, bool rotates) {
  isr &= static_cast<uint8_t>(~(1u << input));
  if (rotates) lowest_priority = static_cast<uint8_t>(input);
}

void I8259Pair::Chip::write_command(uint8_t value) {
  if (IsIcw1::test(value)) {
    // "Initialization Command Words": the edge sense circuit, IMR, ISR, priorities and special mask are cleared.
    irr &= elcr;
    isr = imr = 0;
    lowest_priority = 7;
    special_mask = special_fully_nested = auto_eoi = rotates_on_auto_eoi = false;
    polls = reads_isr = false;
    wants_icw4 = Icw1WantsIcw4::test(value);
    is_single = Icw1Single::test(value);
    expects = Expects::kIcw2;
  } else if (IsOcw3::test(value)) {
    if (Ocw3Poll::test(value)) polls = true;
    if (Ocw3ReadRegister::get(value) >= 2) reads_isr = Ocw3ReadRegister::get(value) == 3;
    if (Ocw3SpecialMask::get(value) >= 2) special_mask = Ocw3SpecialMask::get(value) == 3;
  } else {
    write_ocw2(value);
  }
}

/// Figure 8, OCW2: EOI and rotation commands.
void I8259Pair::Chip::write_ocw2(uint8_t value) {
  enum Command : unsigned {
    kRotateAutoEoiClear = 0,
    kEoi = 1,
    kNothing = 2,
    kSpecificEoi = 3,
    kRotateAutoEoiSet = 4,
    kRotateEoi = 5,
    kSetPriority = 6,
    kRotateSpecificEoi = 7,
  };
  const auto named = static_cast<unsigned>(Ocw2Input::get(value));
  const auto command = static_cast<unsigned>(Ocw2Command::get(value));
  switch (command) {
    case kRotateAutoEoiClear: rotates_on_auto_eoi = false; return;
    case kRotateAutoEoiSet: rotates_on_auto_eoi = true; return;
    case kEoi:
    case kRotateEoi: {
      // "Special Mask Mode": a non-specific EOI does not clear an ISR bit that is masked.
      const int serving = highest(special_mask ? isr & static_cast<uint8_t>(~imr) : isr);
      if (serving >= 0) end(static_cast<unsigned>(serving), command == kRotateEoi);
      return;
    }
    case kSpecificEoi:
    case kRotateSpecificEoi: return end(named, command == kRotateSpecificEoi);
    case kSetPriority: lowest_priority = static_cast<uint8_t>(named); return;
    default: return;
  }
}

void I8259Pair::Chip::write_data(uint8_t value) {
  switch (expects) {
    case Expects::kNothing: imr = value; return;
    case Expects::kIcw2:
      vector_base = static_cast<uint8_t>(value & Icw2Base::kMask);
      expects = !is_single ? Expects::kIcw3 : wants_icw4 ? Expects::kIcw4 : Expects::kNothing;
      return;
    case Expects::kIcw3: expects = wants_icw4 ? Expects::kIcw4 : Expects::kNothing; return;
    case Expects::kIcw4:
      special_fully_nested = Icw4SpecialFullyNested::test(value);
      auto_eoi = Icw4AutoEoi::test(value);
      expects = Expects::kNothing;
      return;
  }
}

// The pair.

I8259Pair::I8259Pair() { reset(); }

Result<void> I8259Pair::map(Bus& ports) {
  TRY(master_window_.map(ports, kMasterCommand, 2, "i8259 master"));
  TRY(slave_window_.map(ports, kSlaveCommand, 2, "i8259 slave"));
  return elcr_window_.map(ports, kMasterElcr, 2, "i8259 elcr");
}

/// The slave's output is the master's input 2; it falls and rises again for each new request.
void I8259Pair::update_outputs() {
  master_.set_input(kCascade, slave_.request() >= 0);
  if (slave_.request() < 0) master_.irr &= static_cast<uint8_t>(~(1u << kCascade));
  output_.note(master_.request() >= 0);
}

void I8259Pair::set_irq(unsigned irq, bool level) {
  if (irq >= kIrqCount || irq == kCascade) return;
  {
    const MutexLock lock(mutex_);
    (irq < 8 ? master_ : slave_).set_input(irq & 7, level);
    update_outputs();
  }
  output_.publish();
}

uint8_t I8259Pair::acknowledge() {
  uint8_t vector = 0;
  {
    const MutexLock lock(mutex_);
    const int input = master_.request();
    if (input < 0) {
      vector = master_.vector_base | kSpurious;  // "Interrupt Sequence": no request at INTA gives IR7, no ISR bit
    } else {
      master_.accept(static_cast<unsigned>(input));
      vector = static_cast<uint8_t>(master_.vector_base | input);
    }
    if (input == static_cast<int>(kCascade)) {
      const int slave_input = slave_.request();
      vector = static_cast<uint8_t>(slave_.vector_base | (slave_input < 0 ? static_cast<int>(kSpurious) : slave_input));
      if (slave_input >= 0) slave_.accept(static_cast<unsigned>(slave_input));
      // A further request of the slave is a new edge on the cascade.
      master_.lines &= static_cast<uint8_t>(~(1u << kCascade));
    }
    update_outputs();
  }
  output_.publish();
  return vector;
}

bool I8259Pair::is_masked(unsigned irq) const {
  const MutexLock lock(mutex_);
  if (irq >= kIrqCount) return true;
  if (irq < 8) return (master_.imr >> irq & 1) != 0;
  return (slave_.imr >> (irq & 7) & 1) != 0 || (master_.imr >> kCascade & 1) != 0;
}

uint8_t I8259Pair::read_byte(uint16_t port) {
  uint8_t value = 0;
  {
    const MutexLock lock(mutex_);
    value = read_locked(port);
    update_outputs();
  }
  output_.publish();
  return value;
}

void I8259Pair::write_byte(uint16_t port, uint8_t value) {
  {
    const MutexLock lock(mutex_);
    write_locked(port, value);
    update_outputs();
  }
  output_.publish();
  const bool may_change_mask = port != kMasterElcr && port != kSlaveElcr;
  if (may_change_mask && mask_listener_) mask_listener_();
}

uint8_t I8259Pair::read_locked(uint16_t port) {
  if (port == kMasterElcr) return master_.elcr;
  if (port == kSlaveElcr) return slave_.elcr;
  Chip& chip = port < kSlaveCommand ? master_ : slave_;
  if (chip.polls) return poll(chip);  // "Poll Command": the next read of either port
  if (port == kMasterData || port == kSlaveData) return chip.imr;
  return chip.reads_isr ? chip.isr : chip.irr;
}

/// "Poll Command": the read is the acknowledge; bit 7 says whether there was a request, 2:0 which.
uint8_t I8259Pair::poll(Chip& chip) {
  chip.polls = false;
  const int input = chip.request();
  if (input < 0) return 0;
  chip.accept(static_cast<unsigned>(input));
  return static_cast<uint8_t>(0x80 | input);
}

void I8259Pair::write_locked(uint16_t port, uint8_t value) {
  switch (port) {
    case kMasterCommand: return master_.write_command(value);
    case kMasterData: return master_.write_data(value);
    case kSlaveCommand: return slave_.write_command(value);
    case kSlaveData: return slave_.write_data(value);
    case kMasterElcr: master_.elcr = value & kMasterElcrWritable; return;
    case kSlaveElcr: slave_.elcr = value & kSlaveElcrWritable; return;
    default: return;
  }
}

void I8259Pair::reset() {
  {
    const MutexLock lock(mutex_);
    for (Chip* chip : {&master_, &slave_}) {
      const uint8_t lines = chip->lines;
      *chip = Chip{};
      chip->lines = lines;
      chip->imr = 0xff;  // the data sheet leaves it open before ICW1; masked is what firmware leaves behind
    }
    master_.lines &= static_cast<uint8_t>(~(1u << kCascade));
    update_outputs();
  }
  output_.publish();
}

SavedState I8259Pair::save() const {
  const MutexLock lock(mutex_);
  I8259V1 wire{};
  const Chip* chips[2] = {&master_, &slave_};
  for (size_t i = 0; i < 2; ++i) {
    const Chip& chip = *chips[i];
    const auto flag = [](bool value, uint8_t bit) { return value ? bit : uint8_t{0}; };
    wire.chips[i] = {
        .irr = chip.irr,
        .isr = chip.isr,
        .imr = chip.imr,
        .lines = chip.lines,
        .elcr = chip.elcr,
        .vector_base = chip.vector_base,
        .lowest_priority = chip.lowest_priority,
        .expects = static_cast<uint8_t>(chip.expects),
        .flags = static_cast<uint8_t>(flag(chip.wants_icw4, kFlagWantsIcw4) | flag(chip.is_single, kFlagSingle) |
                                      flag(chip.auto_eoi, kFlagAutoEoi) | flag(chip.rotates_on_auto_eoi, kFlagRotates) |
                                      flag(chip.special_mask, kFlagSpecialMask) |
                                      flag(chip.special_fully_nested, kFlagSpecialFullyNested) |
                                      flag(chip.polls, kFlagPolls) | flag(chip.reads_isr, kFlagReadsIsr))};
  }
  return save_wire(std::string(kSchema), kVersion, wire);
}

Result<void> I8259Pair::restore(const SavedState& state) {
  const auto wire = TRY(load_wire_state<I8259V1>(state, kSchema, kVersion));
  using Rule = SavedField::Rule;
  for (size_t i = 0; i < 2; ++i) {
    const ChipV1& chip = wire.chips[i];
    TRY(check_saved_fields(kSchema,
                           {{"elcr", chip.elcr, i == 0 ? kMasterElcrWritable : kSlaveElcrWritable, Rule::kOnlyBits},
                            {"vector_base", chip.vector_base, Icw2Base::kMask, Rule::kOnlyBits},
                            {"lowest_priority", chip.lowest_priority, 7},
                            {"expects", chip.expects, static_cast<uint64_t>(Expects::kIcw4)}}));
  }
  const MutexLock lock(mutex_);
  Chip* chips[2] = {&master_, &slave_};
  for (size_t i = 0; i < 2; ++i) {
    const ChipV1& saved = wire.chips[i];
    *chips[i] = Chip{.irr = saved.irr,
                     .isr = saved.isr,
                     .imr = saved.imr,
                     .lines = saved.lines,
                     .elcr = saved.elcr,
                     .vector_base = saved.vector_base,
                     .lowest_priority = saved.lowest_priority,
                     .expects = static_cast<Expects>(saved.expects),
                     .wants_icw4 = (saved.flags & kFlagWantsIcw4) != 0,
                     .is_single = (saved.flags & kFlagSingle) != 0,
                     .auto_eoi = (saved.flags & kFlagAutoEoi) != 0,
                     .rotates_on_auto_eoi = (saved.flags & kFlagRotates) != 0,
                     .special_mask = (saved.flags & kFlagSpecialMask) != 0,
                     .special_fully_nested = (saved.flags & kFlagSpecialFullyNested) != 0,
                     .polls = (saved.flags & kFlagPolls) != 0,
                     .reads_isr = (saved.flags & kFlagReadsIsr) != 0};
  }
  output_.assume(master_.request() >= 0);
  return {};
}

}  // namespace tenon
