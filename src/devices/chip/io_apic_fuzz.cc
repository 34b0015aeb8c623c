// Random register accesses, pins, EOIs and saved states against the I/O APIC in front of one local APIC.
#include "devices/chip/fuzz_ports.hh"
#include "devices/chip/io_apic.hh"
#include "devices/chip/local_apic.hh"

namespace tenon {
namespace {

void run(FuzzInput input) {
  FakeClock clock;
  VcpuSignal signal;
  ApicBus bus(1);
  LocalApic local({.id = VcpuId{0}, .is_bootstrap = true}, signal, clock, bus);
  local.set_virtual_wire_mode();
  IoApic io_apic(bus);
  constexpr uint64_t kOffsets[] = {0x00, 0x10, 0x10, 0x40};
  while (!input.is_empty()) {
    const uint64_t offset = kOffsets[input.take_below(4)] + input.take_below(16) / 13;  // mostly aligned
    switch (input.take_below(8)) {
      case 0: fuzz_saved_state(io_apic, input); break;
      case 1: {
        uint32_t value = static_cast<uint32_t>(io_apic.bus_read(offset, 4));
        io_apic.bus_write(offset, 4, value ^ (1u << input.take_below(32)));
        break;
      }
      case 2: io_apic.bus_read(offset, input.take_width(8)); break;
      case 3:
      case 4: io_apic.bus_write(offset, input.take_width(8), input.take<uint64_t>()); break;
      case 5:
        if (local.acknowledge_interrupt() >= 0) local.write_mmio(Gpa(apic::kDefaultBase + apic::kEoi), 4, 0);
        break;
      default: io_apic.set_pin(input.take_below(26), (input.take<uint8_t>() & 1) != 0); break;
    }
  }
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
