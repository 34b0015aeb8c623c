// Random MMIO, MSR, MSI, pin, time and saved-state traffic against three local APICs on one bus, with an I/O APIC.
#include <iterator>

#include "base/check.hh"
#include "devices/chip/io_apic.hh"
#include "devices/chip/local_apic.hh"
#include "vm/fake_clock.hh"
#include "vm/fuzz_input.hh"

namespace tenon {
namespace {

struct Board {
  Board() {
    CHECK(memory.add({Gpa(0), 0x200000}, ExtentKind::kPrivate, "ram").has_value());
    for (LocalApic* apic : apics) apic->enable_pv_eoi(memory);
    apics[0]->connect_external([] { return uint8_t{0x20}; });
    for (LocalApic* apic : apics) apic->set_virtual_wire_mode();
  }
  FakeClock clock;
  GuestMemory memory;
  ApicBus bus{300};
  VcpuSignal signals[3];
  LocalApic a{{.id = VcpuId{0}, .is_bootstrap = true}, signals[0], clock, bus};
  LocalApic b{{.id = VcpuId{1}}, signals[1], clock, bus};
  LocalApic c{{.id = VcpuId{299}}, signals[2], clock, bus};
  LocalApic* apics[3] = {&a, &b, &c};
  IoApic io_apic{bus};
};

constexpr uint32_t kMsrs[] = {apic::kMsrApicBase,
                              apic::kMsrTscDeadline,
                              kvm_pv::kMsrPvEoi,
                              0x808,
                              0x80b,
                              0x80f,
                              0x828,
                              0x830,
                              0x832,
                              0x838,
                              0x83e,
                              0x83f};

void access_registers(Board& board, LocalApic& apic, FuzzInput& input) {
  const auto offset = input.take<uint16_t>() & (input.take<uint8_t>() % 4 == 0 ? 0xfffu : 0x3f0u);
  const Gpa gpa(apic::kDefaultBase + offset);
  uint64_t value = input.take<uint32_t>();
  switch (input.take_below(6)) {
    case 0: apic.read_mmio(gpa, input.take_width(8)); break;
    case 1: apic.write_mmio(gpa, input.take_width(8), value); break;
    case 2: apic.write_msr(kMsrs[input.take_below(std::size(kMsrs))], input.take<uint64_t>()); break;
    case 3: apic.write_msr(0x800 + input.take<uint8_t>(), value); break;
    case 4: apic.read_msr(0x800 + input.take<uint8_t>(), value); break;
    // Legal changes of mode, which random values would rarely find.
    default: apic.write_msr(apic::kMsrApicBase, apic::kDefaultBase | (value & 0xc00)); break;
  }
  (void)board;
}

void deliver(Board& board, FuzzInput& input) {
  switch (input.take_below(4)) {
    case 0:
      board.bus.send_msi({.address = 0xfee00000 | input.take<uint32_t>() % 0x100000, .data = input.take<uint32_t>()});
      break;
    case 1: board.io_apic.set_pin(input.take_below(26), input.take<uint8_t>() & 1); break;
    case 2: board.io_apic.bus_write(input.take_below(5) * 16, input.take_width(8), input.take<uint64_t>()); break;
    default:
      board.apics[0]->set_lint(input.take<uint8_t>() & 1 ? LocalApic::Lint::kLint0 : LocalApic::Lint::kLint1,
                               input.take<uint8_t>() & 1);
  }
}

void run_vcpu(Board& board, unsigned index, FuzzInput& input) {
  LocalApic& apic = *board.apics[index];
  VcpuSignal& signal = board.signals[index];
  if (board.clock.now_ns() >= signal.deadline_ns()) apic.timer_expired();
  if ((signal.take(VcpuSignal::kInit) & VcpuSignal::kInit) != 0) apic.init_received();
  const bool is_pending = apic.interrupt_pending();
  // The contract with the engine: whenever a vector could be delivered, the signal says so.
  if (is_pending) CHECK((signal.take(VcpuSignal::kInterrupt) & VcpuSignal::kInterrupt) != 0);
  const int vector = apic.acknowledge_interrupt();
  CHECK(is_pending == (vector >= 0));
  CHECK(vector == -1 || vector >= 16);
  if (input.take<uint8_t>() & 1) apic.write_cr8(input.take<uint8_t>() & 15);
}

void save_and_restore(Board& board, unsigned index, FuzzInput& input) {
  SavedState state = board.apics[index]->save();
  CHECK(board.apics[index]->restore(state).has_value());
  CHECK(board.apics[index]->save().bytes == state.bytes);
  state.bytes[input.take_below(static_cast<uint32_t>(state.bytes.size()))] = std::byte{input.take<uint8_t>()};
  (void)board.apics[index]->restore(state);
  SavedState pins = board.io_apic.save();
  CHECK(board.io_apic.restore(pins).has_value());
  pins.bytes[input.take_below(static_cast<uint32_t>(pins.bytes.size()))] = std::byte{input.take<uint8_t>()};
  (void)board.io_apic.restore(pins);
}

void run(FuzzInput input) {
  Board board;
  while (!input.is_empty()) {
    const unsigned index = input.take_below(3);
    switch (input.take_below(8)) {
      case 0:
      case 1:
      case 2: access_registers(board, *board.apics[index], input); break;
      case 3: deliver(board, input); break;
      case 4: board.clock.advance_ns(input.take<uint16_t>()); break;
      case 5: save_and_restore(board, index, input); break;
      default: run_vcpu(board, index, input); break;
    }
  }
}

}  // namespace
}  // namespace tenon

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tenon::run(tenon::FuzzInput(data, size));
  return 0;
}
