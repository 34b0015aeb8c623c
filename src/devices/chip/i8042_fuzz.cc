// Random port accesses and saved states against the 8042.
#include "devices/chip/fuzz_ports.hh"
#include "devices/chip/i8042.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

constexpr uint16_t kPorts[] = {0x60, 0x64, 0x64, 0x92};

void run(FuzzInput input) {
  Bus bus("port");
  FakeClock clock;
  RecordingInterrupts interrupts;
  unsigned resets = 0;
  I8042 controller(IrqLine(interrupts, Gsi{1}), [&resets] { ++resets; });
  CHECK(controller.map(bus).has_value());
  while (!input.is_empty()) {
    fuzz_ports_step(input, bus, kPorts, clock, controller);
    CHECK((controller.read(0x64) & 0x02) == 0);  // it is always ready for the next byte
  }
  controller.write(0x64, 0xaa);
  CHECK(controller.read(0x60) == 0x55);  // and always answers its self-test
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
