// Random configuration accesses by ports and ECAM, BAR accesses, interrupts and saved states against a bus with two
// bridges and two test devices.
#include "base/check.hh"
#include "devices/pci/lpc_bridge.hh"
#include "devices/pci/pci_host.hh"
#include "devices/pci/test_function.hh"
#include "vm/fuzz_input.hh"
#include "vm/recording_interrupts.hh"

namespace tenon {
namespace {

struct Board {
  Board() {
    CHECK(host.map().has_value());
    CHECK(lpc.add_to(host.bus()).has_value());
    CHECK(host.bus().add({.device = 1, .function = 0}, a).has_value());
    CHECK(host.bus().add({.device = 1, .function = 1}, b).has_value());
  }
  Bus ports{"port"};
  Bus mmio{"mmio"};
  RecordingInterrupts interrupts;
  LpcBridge lpc{0x600};
  TestFunction a, b;
  TestFunction* functions[2] = {&a, &b};
  PciHost host{ports, mmio, interrupts};
  Device* devices[4] = {&a, &b, &lpc, &host};
};

/// Half of the time an offset in the first 256 bytes of an existing function.
uint64_t ecam_offset(FuzzInput& input) {
  constexpr uint64_t kFunctions[] = {0, 1 << 15, 1 << 15 | 1 << 12, 0x1f << 15};
  if (input.take<uint8_t>() % 8 == 0) return input.take<uint32_t>() % pci::kEcamSize;
  return kFunctions[input.take_below(4)] +
         (input.take<uint8_t>() % 2 == 0 ? input.take<uint8_t>() : input.take_below(0x80));
}

/// Values that BARs and messages like.
uint64_t value(FuzzInput& input) {
  constexpr uint64_t kValues[] = {0, ~uint64_t{0}, 0xfee00000, 0xc0000000, 0xb0000000, 0xc000, 7, 0x8001};
  return input.take<uint8_t>() % 2 == 0 ? kValues[input.take_below(8)] : input.take<uint64_t>();
}

void step(Board& board, FuzzInput& input) {
  TestFunction& function = *board.functions[input.take_below(2)];
  switch (input.take_below(10)) {
    case 0:
    case 1:
    case 2: board.mmio.write(pci::kEcamBase + ecam_offset(input), input.take_width(8), value(input)); break;
    case 3: board.mmio.read(pci::kEcamBase + ecam_offset(input), input.take_width(8)); break;
    case 4: board.ports.write(0xcf8 + input.take_below(8), input.take_width(4), value(input)); break;
    case 5: board.ports.read(0xcf8 + input.take_below(8), input.take_width(4)); break;
    case 6: board.mmio.write(0xc0000000 + input.take_below(0x5000), input.take_width(8), value(input)); break;
    case 7:
      function.notify(input.take<uint8_t>());
      function.set_intx(input.take<uint8_t>() & 1);
      board.interrupts.messages.clear();
      break;
    case 8:
      if (input.take<uint8_t>() % 16 == 0) board.devices[input.take_below(4)]->reset();
      break;
    default: {
      if (input.take<uint8_t>() % 4 != 0) break;  // by far the slowest step
      Device& device = *board.devices[input.take_below(4)];
      SavedState state = device.save();
      CHECK(device.restore(state).has_value());
      CHECK(device.save().bytes == state.bytes);
      state.bytes[input.take_below(static_cast<uint32_t>(state.bytes.size()))] = std::byte{input.take<uint8_t>()};
      (void)device.restore(state);
    }
  }
}

void run(FuzzInput input) {
  Board board;
  while (!input.is_empty()) step(board, input);
  // After a reset the bus is as new, whatever happened.
  for (Device* device : board.devices) device->reset();
  CHECK((board.mmio.read(pci::kEcamBase, 4) & 0xffffffff) == 0x29c08086);
  CHECK((board.mmio.read(pci::kEcamBase + (1 << 15), 4) & 0xffffffff) == 0x56781234);
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
