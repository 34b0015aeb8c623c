// Random port accesses, pins, acknowledge cycles and saved states against the 8259 pair.
#include "devices/chip/fuzz_ports.hh"
#include "devices/chip/i8259.hh"

namespace tenon {
namespace {

constexpr uint16_t kPorts[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1};

void run(FuzzInput input) {
  Bus bus("port");
  FakeClock clock;
  I8259Pair pic;
  bool intr = false;
  bool may_repeat = false;  // after restore(), which does not publish
  pic.connect_output([&](bool level) {
    CHECK(level != intr || may_repeat);
    intr = level;
  });
  CHECK(pic.map(bus).has_value());
  while (!input.is_empty()) {
    const uint8_t choice = input.take<uint8_t>();
    if (choice % 4 == 0) {
      pic.set_irq(choice / 8 % 18, (choice & 4) != 0);
    } else if (choice % 4 == 1) {
      const bool was_requested = intr;
      const uint8_t vector = pic.acknowledge();
      CHECK(was_requested || may_repeat || (vector & 7) == 7);  // without a request: the spurious vector
    } else {
      fuzz_ports_step(input, bus, kPorts, clock, pic);
      may_repeat = true;
    }
  }
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
