// Random port accesses, events, time and saved states against the ACPI power management block.
#include "devices/chip/acpi_pm.hh"
#include "devices/chip/fuzz_ports.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

constexpr uint16_t kPorts[] = {0xb2, 0xb3, 0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x608, 0x60a, 0x620, 0x622};

void run(FuzzInput input) {
  Bus bus("port");
  FakeClock clock;
  RecordingInterrupts interrupts;
  unsigned power_offs = 0;
  AcpiPm pm(clock, IrqLine(interrupts, Gsi{9}), [&power_offs] { ++power_offs; });
  CHECK(pm.map(bus).has_value());
  while (!input.is_empty()) {
    const uint8_t choice = input.take<uint8_t>();
    if (choice == 0) pm.press_power_button();
    if (choice == 1) pm.raise_event(input.take<uint8_t>());
    if (choice > 1) fuzz_ports_step(input, bus, kPorts, clock, pm);
  }
  // Outside ACPI mode there is no SCI, whatever is set and enabled.
  pm.reset();
  pm.press_power_button();
  bus.write(AcpiPm::kPm1EventPort + 2, 2, 0xffff);
  pm.write_smi(0, AcpiPm::kAcpiDisable);
  CHECK((bus.read(AcpiPm::kPm1ControlPort, 2) & 1) == 0);
  const unsigned rises = interrupts.rises(9);
  pm.press_power_button();
  CHECK(interrupts.rises(9) == rises);
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
