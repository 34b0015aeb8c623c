// Random port accesses, time and saved states against the CMOS clock.
#include "devices/chip/cmos_rtc.hh"
#include "devices/chip/fuzz_ports.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

constexpr uint16_t kPorts[] = {0x70, 0x71, 0x71};

uint8_t read(CmosRtc& rtc, uint8_t index) {
  rtc.write(0x70, index);
  return rtc.read(0x71);
}

void run(FuzzInput input) {
  Bus bus("port");
  FakeClock clock;
  RecordingInterrupts interrupts;
  CmosRtc rtc(clock, IrqLine(interrupts, Gsi{8}));
  CHECK(rtc.map(bus).has_value());
  while (!input.is_empty()) fuzz_ports_step(input, bus, kPorts, clock, rtc);
  // Whatever was written, the registers show a date that exists.
  rtc.write(0x70, 0x0b);
  rtc.write(0x71, 0x06);  // running, binary, 24 hours
  CHECK(read(rtc, 0) < 60);
  CHECK(read(rtc, 2) < 60);
  CHECK(read(rtc, 4) < 24);
  CHECK(read(rtc, 6) >= 1 && read(rtc, 6) <= 7);
  CHECK(read(rtc, 7) >= 1 && read(rtc, 7) <= 31);
  CHECK(read(rtc, 8) >= 1 && read(rtc, 8) <= 12);
  CHECK(read(rtc, 9) < 100);
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
