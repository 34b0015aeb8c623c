// A bare machine for tests of the interpreter: memory, a clock that stands still, scripted call-outs, and code written
// as assembler text in the test itself.
//
// GUEST_CODE(name, "16"|"32"|"64", text) assembles Intel-syntax text into `name` (a std::span). A guest ends with
// `out 0xf4, al` (DONE below); whatever it leaves in registers and memory is what the test looks at.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/result.hh"
#include "engine/interp/interp_vcpu.hh"
#include "engine/x86/cpuid.hh"
#include "vm/fake_clock.hh"

#define GUEST_CODE(name, bits, text)                                                                          \
  asm(".pushsection .rodata\n.intel_syntax noprefix\n.code" bits "\nguest_" #name ":\n" text "\nguest_" #name \
      "_end:\n.code64\n.att_syntax prefix\n.popsection\n");                                                   \
  extern "C" const uint8_t guest_##name[], guest_##name##_end[];                                              \
  static const std::span<const uint8_t> name(guest_##name, guest_##name##_end)

#define DONE "\nout 0xf4, al\n9999: jmp 9999b\n"

namespace tenon::interp {

class TestIo : public CpuIo {
 public:
  uint32_t read_port(IoPort port, unsigned) override { return port_values[number(port)]; }
  void write_port(IoPort port, unsigned, uint32_t value) override {
    if (number(port) == 0xf4) return signal->raise(VcpuSignal::kStop);
    port_writes.push_back({number(port), value});
    if (on_port) on_port(number(port), value);
  }
  uint64_t read_mmio(Gpa gpa, unsigned) override { return gpa.value() ^ 0x5555; }
  void write_mmio(Gpa gpa, unsigned size_bytes, uint64_t value) override {
    mmio_writes.push_back({gpa.value(), size_bytes, value});
  }
  bool read_msr(uint32_t, uint64_t&) override { return false; }
  bool write_msr(uint32_t, uint64_t) override { return false; }
  bool hypercall(std::span<uint64_t, 16>, unsigned) override { return false; }
  int acknowledge_interrupt() override { return interrupt.exchange(-1); }
  bool interrupt_pending() override { return interrupt.load() >= 0; }
  void timer_expired() override {
    ++timer_expirations;
    signal->set_deadline_ns(kNoDeadline);
  }
  uint8_t startup_vector() override { return 8; }
  void init_received() override { ++inits; }
  uint8_t read_cr8() override { return 0; }
  void write_cr8(uint8_t) override {}

  struct PortWrite {
    uint16_t port;
    uint32_t value;
    bool operator==(const PortWrite&) const = default;
  };
  struct MmioWrite {
    uint64_t gpa;
    unsigned size_bytes;
    uint64_t value;
  };
  VcpuSignal* signal = nullptr;
  std::map<uint16_t, uint32_t> port_values;
  std::vector<PortWrite> port_writes;
  std::vector<MmioWrite> mmio_writes;
  std::function<void(uint16_t, uint32_t)> on_port;
  std::atomic<int> interrupt{-1};
  unsigned timer_expirations = 0;
  unsigned inits = 0;
};

/// One vCPU with 4 MiB of RAM at 0. 64-bit guests run at CPL 0 with the first 4 MiB identity-mapped by 4-KiB pages.
class TestMachine {
 public:
  static constexpr uint64_t kRamSize = 4 << 20;
  static constexpr uint64_t kCode = 0x10000;
  static constexpr uint64_t kData = 0x20000;
  static constexpr uint64_t kStack = 0x30000;  // grows down
  static constexpr uint64_t kIdt = 0x1000;
  static constexpr uint64_t kGdt = 0x2000;
  static constexpr uint64_t kTss = 0x3000;
  static constexpr uint64_t kHandlers = 0x4000;  // 16 bytes each: see catch_exceptions()
  static constexpr uint64_t kPageTables = 0x100000;

  TestMachine() {
    EXPECT_TRUE(memory.add({Gpa(0), kRamSize}, ExtentKind::kPrivate, "test"));
    cpuid = *x86::software_engine_cpuid();
    vcpu = std::make_unique<InterpVcpu>(VcpuConfig{.id = VcpuId{0}, .cpuid = cpuid, .signal = &signal}, memory, clock,
                                        safepoint);
    EXPECT_TRUE(vcpu->prepare());
    io.signal = &signal;
  }

  template <typename T>
  void poke(uint64_t gpa, T value) {
    EXPECT_TRUE(memory.write_object(Gpa(gpa), value));
  }
  template <typename T>
  T peek(uint64_t gpa) const {
    T value{};
    EXPECT_TRUE(memory.read_object(Gpa(gpa), value));
    return value;
  }
  void load(uint64_t gpa, std::span<const uint8_t> code) { EXPECT_TRUE(memory.write(Gpa(gpa), std::as_bytes(code))); }

  /// 64-bit code at kCode, CPL 0, paging on.
  void enter_64(std::span<const uint8_t> code, uint64_t at = kCode) {
    load(at, code);
    make_tables();
    state = flat_state(at);
    state.segments[x86::kCs].attributes = 0xa09b;  // L
    state.cr0 |= x86::kCr0Pg;
    state.cr3 = kPageTables;
    state.cr4 = x86::kCr4Pae | x86::kCr4Osfxsr | x86::kCr4Osxmmexcpt;
    state.efer = x86::kEferLme | x86::kEferLma | x86::kEferSce | x86::kEferNxe;
  }
  /// 32-bit flat protected mode without paging.
  void enter_32(std::span<const uint8_t> code, uint64_t at = kCode) {
    load(at, code);
    make_tables();
    state = flat_state(at);
  }
  /// Real mode, all segments based at 0 (IP = kRealCode).
  static constexpr uint64_t kRealCode = 0x8000;
  void enter_16(std::span<const uint8_t> code, uint64_t at = kRealCode) {
    load(at, code);
    state = vcpu->get_state();
    state.rip = at;
    state.cr0 = x86::kCr0Et | x86::kCr0Ne;
    for (x86::Segment& segment : state.segments) {
      segment.base = 0;
      segment.selector = 0;
    }
    state.gpr[x86::kRsp] = 0x7000;
    state.activity = x86::Activity::kRunning;
  }

  Halt run() {
    const Result<void> set = vcpu->set_state(state);
    EXPECT_TRUE(set) << set.error().message();
    return resume();
  }
  Halt resume() {
    Halt halt = vcpu->run(io);
    state = vcpu->get_state();
    return halt;
  }
  void run_to_done() {
    const Halt halt = run();
    EXPECT_EQ(halt.reason, Halt::Reason::kStopped) << halt.detail << " rip " << std::hex << state.rip;
  }
  void set_page(uint64_t linear, uint64_t entry) {
    poke<uint64_t>(kPageTables + 0x3000 + linear / kPageSize * 8, entry);
  }
  void set_gate_64(unsigned vector, uint64_t handler, unsigned dpl = 0, unsigned type = 14) {
    poke<uint64_t>(kIdt + vector * 16, (handler & 0xffff) | uint64_t{0x08} << 16 |
                                           uint64_t{0x80 | dpl << 5 | type} << 40 | (handler >> 16 & 0xffff) << 48);
    poke<uint64_t>(kIdt + vector * 16 + 8, handler >> 32);
  }
  uint64_t gpr(x86::GprIndex index) const { return state.gpr[index]; }

  GuestMemory memory;
  FakeClock clock;
  VcpuSignal signal;
  Safepoint safepoint;
  TestIo io;
  std::vector<CpuidEntry> cpuid;
  std::unique_ptr<InterpVcpu> vcpu;
  x86::CpuState state;

 private:
  void make_tables() {
    poke<uint64_t>(kGdt + 0x08, 0x00af9b000000ffff);  // 64-bit code
    poke<uint64_t>(kGdt + 0x10, 0x00cf93000000ffff);  // data
    poke<uint64_t>(kGdt + 0x18, 0x00cff3000000ffff);  // user data
    poke<uint64_t>(kGdt + 0x20, 0x00affb000000ffff);  // user 64-bit code
    poke<uint64_t>(kGdt + 0x28, 0x00cf9b000000ffff);  // 32-bit code
    poke<uint64_t>(kPageTables, (kPageTables + 0x1000) | 7);
    poke<uint64_t>(kPageTables + 0x1000, (kPageTables + 0x2000) | 7);
    for (uint64_t i = 0; i < 2; ++i)
      poke<uint64_t>(kPageTables + 0x2000 + 8 * i, (kPageTables + 0x3000 + 0x1000 * i) | 7);
    for (uint64_t page = 0; page < 1024; ++page) set_page(page * kPageSize, page * kPageSize | 7);
    poke<uint64_t>(kTss + 4, kStack);  // RSP0
  }
  x86::CpuState flat_state(uint64_t rip) {
    x86::CpuState flat = vcpu->get_state();
    flat.rip = rip;
    flat.rflags = x86::kFlagsOne;
    flat.cr0 = x86::kCr0Pe | x86::kCr0Et | x86::kCr0Ne | x86::kCr0Wp;
    for (x86::Segment& segment : flat.segments)
      segment = {.base = 0, .limit = 0xffffffff, .attributes = 0xc093, .selector = 0x10};
    flat.segments[x86::kCs] = {.base = 0, .limit = 0xffffffff, .attributes = 0xc09b, .selector = 0x08};
    flat.tr = {.base = kTss, .limit = 0x67, .attributes = 0x8b, .selector = 0x30};
    flat.gdtr = {.base = kGdt, .limit = 0x3f};
    flat.idtr = {.base = kIdt, .limit = 0xfff};
    flat.gpr[x86::kRsp] = kStack;
    flat.activity = x86::Activity::kRunning;
    return flat;
  }
};

}  // namespace tenon::interp
