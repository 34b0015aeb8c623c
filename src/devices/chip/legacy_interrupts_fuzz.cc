// The 8259 pair wired to an 8254 as on the board: random port accesses, pins, time, acknowledges and saved states.
#include <iterator>

#include "base/check.hh"
#include "devices/chip/i8254.hh"
#include "devices/chip/i8259.hh"
#include "vm/fake_clock.hh"
#include "vm/fuzz_input.hh"

namespace tenon {
namespace {

/// ISA IRQ 0 goes to the 8259.
struct PicSink final : InterruptSink {
  explicit PicSink(I8259Pair& target) : pic(target) {}
  void set_gsi(Gsi gsi, bool level) override { pic.set_irq(number(gsi), level); }
  void send_msi(const MsiMessage& /*message*/) override {}
  I8259Pair& pic;
};

constexpr uint16_t kPicPorts[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};
constexpr uint16_t kPitPorts[] = {0x40, 0x41, 0x42, 0x43, 0x61};

template <typename Chip>
void save_and_restore(Chip& chip, FuzzInput& input) {
  SavedState state = chip.save();
  CHECK(chip.restore(state).has_value());
  CHECK(chip.save().bytes == state.bytes);
  state.bytes[input.take_below(static_cast<uint32_t>(state.bytes.size()))] = std::byte{input.take<uint8_t>()};
  (void)chip.restore(state);
}

void run(FuzzInput input) {
  FakeClock clock;
  bool intr = false;
  I8259Pair pic;
  pic.connect_output([&intr](bool level) {
    CHECK(level != intr);  // each call is a change
    intr = level;
  });
  PicSink sink(pic);
  I8254 pit(clock, IrqLine(sink, Gsi{0}));
  bool is_restored = false;
  while (!input.is_empty()) {
    const uint8_t value = input.take<uint8_t>();
    switch (input.take_below(9)) {
      case 0:
      case 1: pic.write(kPicPorts[input.take_below(6)], value); break;
      case 2: pic.read(kPicPorts[input.take_below(6)]); break;
      case 3: pic.set_irq(value % 18, (value & 0x80) != 0); break;
      case 4: {
        const bool was_requested = intr;
        const uint8_t vector = pic.acknowledge();
        CHECK(was_requested || is_restored || (vector & 7) == 7);  // spurious
        break;
      }
      case 5: pit.write(kPitPorts[input.take_below(5)], value); break;
      case 6: pit.read(kPitPorts[input.take_below(5)]); break;
      case 7: clock.advance_ns(input.take<uint16_t>() * 16); break;
      default:
        pit.set_listening((value & 1) != 0);
        save_and_restore(pit, input);
        if ((value & 2) == 0) break;
        save_and_restore(pic, input);
        // A restored level is not published; the next change may then repeat what the listener saw last.
        is_restored = true;
        pic.connect_output([&intr](bool level) { intr = level; });
    }
  }
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
