// Random port accesses, time and saved states against the 8254 and port 0x61.
#include <iterator>

#include "devices/chip/fuzz_ports.hh"
#include "devices/chip/i8254.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

constexpr uint16_t kPorts[] = {0x40, 0x41, 0x42, 0x43, 0x43, 0x61};

/// Time steps are small, since a short period fires every kEdgeSpacingNsMin.
void run(FuzzInput input) {
  Bus bus("port");
  FakeClock clock;
  RecordingInterrupts interrupts;
  I8254 pit(clock, IrqLine(interrupts, Gsi{0}));
  CHECK(pit.map(bus).has_value());
  while (!input.is_empty()) {
    const uint16_t port = kPorts[input.take_below(std::size(kPorts))];
    switch (input.take_below(8)) {
      case 0: fuzz_saved_state(pit, input); break;
      case 1: clock.advance_ns(uint64_t{input.take<uint16_t>()} << input.take_below(6)); break;
      case 2: {
        pit.set_listening((input.take<uint8_t>() & 1) != 0);
        const unsigned before = interrupts.rises(0);
        clock.advance_ns(1'000'000);
        CHECK(interrupts.rises(0) - before <= 1'000'000 / I8254::kEdgeSpacingNsMin + 1);
        break;
      }
      case 3:
      case 4: bus.read(port, input.take_width(4)); break;
      default: bus.write(port, input.take_width(4), input.take<uint32_t>()); break;
    }
  }
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
