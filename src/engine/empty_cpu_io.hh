// EmptyCpuIo: the call-outs of a vCPU in a machine without devices. Small guests that need one port derive from it: the
// self-test, benchmarks, tests.
#pragma once

#include "engine/engine.hh"

namespace tenon {

/// Reads answer all-ones as an empty bus does, writes go nowhere, MSRs and hypercalls do not exist, nothing interrupts.
class EmptyCpuIo : public CpuIo {
 public:
  uint32_t read_port(IoPort, unsigned) override { return 0xffffffff; }
  void write_port(IoPort, unsigned, uint32_t) override {}
  uint64_t read_mmio(Gpa, unsigned) override { return ~uint64_t{0}; }
  void write_mmio(Gpa, unsigned, uint64_t) override {}
  bool read_msr(uint32_t, uint64_t&) override { return false; }
  bool write_msr(uint32_t, uint64_t) override { return false; }
  bool hypercall(std::span<uint64_t, 16>, unsigned) override { return false; }
  int acknowledge_interrupt() override { return -1; }
  bool interrupt_pending() override { return false; }
  void timer_expired() override {}
  uint8_t startup_vector() override { return 0; }
  void init_received() override {}
  uint8_t read_cr8() override { return 0; }
  void write_cr8(uint8_t) override {}
};

}  // namespace tenon
