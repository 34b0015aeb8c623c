// Random port accesses and saved states against the reset control register, debug exit and POST code ports.
#include "devices/chip/debug_exit.hh"
#include "devices/chip/fuzz_ports.hh"
#include "devices/chip/post_code.hh"
#include "devices/chip/reset_control.hh"

namespace tenon {
namespace {

constexpr uint16_t kPorts[] = {0x80, 0x81, 0x8c, 0x8f, 0xf4, 0xf5, 0xf7, 0xcf9};

void run(FuzzInput input) {
  Bus bus("port");
  FakeClock clock;
  unsigned events = 0;
  ResetControl reset([&events] { ++events; });
  DebugExit exit([&events](uint32_t /*value*/) { ++events; });
  PostCode post;
  CHECK(reset.map(bus).has_value());
  CHECK(exit.map(bus).has_value());
  CHECK(post.map(bus).has_value());
  Device* devices[] = {&reset, &exit, &post};
  while (!input.is_empty()) fuzz_ports_step(input, bus, kPorts, clock, *devices[input.take_below(3)]);
  bus.write(0x80, 1, 0x5a);
  CHECK(post.code() == 0x5a);
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
