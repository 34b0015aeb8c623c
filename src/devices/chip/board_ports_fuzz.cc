// The chips that sit on fixed ports, mapped on one port bus as on the board: random accesses of every width, time, host
// events and saved states.
#include <vector>

#include <iterator>

#include "base/check.hh"
#include "devices/chip/acpi_pm.hh"
#include "devices/chip/cmos_rtc.hh"
#include "devices/chip/debug_exit.hh"
#include "devices/chip/i8042.hh"
#include "devices/chip/post_code.hh"
#include "devices/chip/reset_control.hh"
#include "vm/fake_clock.hh"
#include "vm/fuzz_input.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

struct Board {
  Board() {
    CHECK(acpi.map(ports).has_value());
    CHECK(rtc.map(ports).has_value());
    CHECK(keyboard.map(ports).has_value());
    CHECK(post.map(ports).has_value());
    CHECK(reset.map(ports).has_value());
    CHECK(exit.map(ports).has_value());
  }
  Bus ports{"port"};
  FakeClock clock;
  RecordingInterrupts interrupts;
  unsigned events = 0;
  AcpiPm acpi{clock, IrqLine(interrupts, Gsi{9}), [this] { ++events; }};
  CmosRtc rtc{clock, IrqLine(interrupts, Gsi{8})};
  I8042 keyboard{IrqLine(interrupts, Gsi{1}), [this] { ++events; }};
  PostCode post;
  ResetControl reset{[this] { ++events; }};
  DebugExit exit{[this](uint32_t /*value*/) { ++events; }};
  Device* devices[6] = {&acpi, &rtc, &keyboard, &post, &reset, &exit};
};

constexpr uint16_t kPorts[] = {0x60, 0x64,  0x70, 0x71,  0x71,  0x71,  0x71,  0x80,  0x8f,  0x92,  0xb2,
                               0xb3, 0xcf9, 0xf4, 0x600, 0x601, 0x602, 0x604, 0x605, 0x608, 0x620, 0x622};

void save_and_restore(Device& device, FuzzInput& input) {
  SavedState state = device.save();
  CHECK(device.restore(state).has_value());
  if (state.bytes.empty()) return;
  state.bytes[input.take_below(static_cast<uint32_t>(state.bytes.size()))] = std::byte{input.take<uint8_t>()};
  (void)device.restore(state);
  // Whatever was taken can be saved and taken again.
  CHECK(device.restore(device.save()).has_value());
}

void run(FuzzInput input) {
  Board board;
  while (!input.is_empty()) {
    const uint16_t port = kPorts[input.take_below(std::size(kPorts))];
    switch (input.take_below(8)) {
      case 0:
      case 1:
      case 2: board.ports.write(port, input.take_width(4), input.take<uint32_t>()); break;
      case 3:
      case 4: board.ports.read(port, input.take_width(4)); break;
      case 5: board.clock.advance_ns(uint64_t{input.take<uint16_t>()} << input.take_below(20)); break;
      case 6:
        board.acpi.press_power_button();
        board.acpi.raise_event(input.take<uint8_t>());
        break;
      default: save_and_restore(*board.devices[input.take_below(6)], input); break;
    }
  }
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
