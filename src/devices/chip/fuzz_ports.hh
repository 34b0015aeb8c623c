// What the fuzzers of port-mapped chips share: random accesses of every width at the chip's ports, random time, and
// saved states, whole and damaged.
#pragma once

#include <cstdint>
#include <span>

#include "base/check.hh"
#include "vm/bus.hh"
#include "vm/device.hh"
#include "vm/fake_clock.hh"
#include "vm/fuzz_input.hh"

namespace tenon {

/// A saved state restores to itself; a damaged one is refused, or taken and then saved and restored like any other.
inline void fuzz_saved_state(Device& device, FuzzInput& input) {
  SavedState state = device.save();
  CHECK(device.restore(state).has_value());
  CHECK(device.save().bytes == state.bytes);
  if (state.bytes.empty()) return;
  state.bytes[input.take_below(static_cast<uint32_t>(state.bytes.size()))] = std::byte{input.take<uint8_t>()};
  (void)device.restore(state);
  CHECK(device.restore(device.save()).has_value());
}

/// One random step. The caller mixes in what else its chip can do.
inline void fuzz_ports_step(FuzzInput& input, Bus& bus, std::span<const uint16_t> ports, FakeClock& clock,
                            Device& device) {
  const uint16_t port = ports[input.take_below(static_cast<uint32_t>(ports.size()))];
  switch (input.take_below(16)) {
    case 0: fuzz_saved_state(device, input); break;
    case 1: clock.advance_ns(input.take<uint16_t>()); break;
    case 2: clock.advance_ns(uint64_t{input.take<uint8_t>()} << input.take_below(30)); break;
    case 3:
      if (input.take<uint8_t>() % 16 == 0) device.reset();
      break;
    case 4:
    case 5:
    case 6:
    case 7: bus.read(port, input.take_width(4)); break;
    default: bus.write(port, input.take_width(4), input.take<uint32_t>()); break;
  }
}

}  // namespace tenon
