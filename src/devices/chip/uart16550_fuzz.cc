// Random register accesses, host input, time and saved states against the UART.
#include <iterator>

#include "base/check.hh"
#include "devices/chip/uart16550.hh"
#include "vm/fake_clock.hh"
#include "vm/fuzz_input.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

struct CountingSink final : ByteSink {
  void write(std::span<const uint8_t> bytes) override {
    CHECK(!bytes.empty());
    count += bytes.size();
  }
  size_t count = 0;
};

void run(FuzzInput input) {
  FakeClock clock;
  RecordingInterrupts interrupts;
  CountingSink sink;
  Uart16550 uart("uart0", clock, IrqLine(interrupts, Gsi{4}), sink);
  unsigned rooms = 0;
  uart.on_room([&rooms] { ++rooms; });
  uint8_t bytes[40] = {};
  while (!input.is_empty()) {
    switch (input.take_below(8)) {
      case 0:
      case 1:
      case 2: uart.write(input.take_below(8), input.take<uint8_t>()); break;
      case 3:
      case 4: uart.read(input.take_below(8)); break;
      case 5: CHECK(uart.offer({bytes, input.take_below(sizeof bytes)}) <= 16); break;
      case 6: clock.advance_ns(input.take<uint32_t>()); break;
      default: {
        SavedState state = uart.save();
        CHECK(uart.restore(state).has_value());
        state.bytes[input.take_below(static_cast<uint32_t>(state.bytes.size()))] = std::byte{input.take<uint8_t>()};
        (void)uart.restore(state);
      }
    }
  }
  uart.halt();
  uart.write(3, 0);  // DLAB off
  uart.write(4, 0);  // loop off
  const size_t before = sink.count;
  uart.write(0, 'x');
  uart.halt();
  CHECK(sink.count == before + 1);
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
