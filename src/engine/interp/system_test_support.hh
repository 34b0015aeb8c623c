// For tests of memory, events, far transfers and system instructions: descriptors, gates, and direct calls on a Cpu.
#pragma once

#include "engine/interp/cpu_inline.hh"
#include "engine/interp/interp_test_support.hh"

namespace tenon::interp {

/// A code, data or system descriptor; `attributes` as in x86::Segment (access byte in [7:0], flags in [15:12]).
constexpr uint64_t make_descriptor(uint64_t base, uint64_t limit, uint64_t attributes) {
  return (limit & 0xffff) | (base & 0xffffff) << 16 | (attributes & 0xff) << 40 | (limit >> 16 & 0xf) << 48 |
         (attributes >> 12 & 0xf) << 52 | (base >> 24 & 0xff) << 56;
}

/// An 8-byte gate. `access`: P, DPL, type.
constexpr uint64_t make_gate(uint16_t selector, uint32_t offset, uint64_t access, uint64_t parameters = 0) {
  return (offset & 0xffff) | uint64_t{selector} << 16 | parameters << 32 | access << 40 | uint64_t{offset >> 16} << 48;
}

/// Puts machine.state into the vCPU and returns its Cpu, ready for direct calls.
inline Cpu& prepare(TestMachine& machine) {
  const Result<void> set = machine.vcpu->set_state(machine.state);
  EXPECT_TRUE(set) << set.error().message();
  Cpu& cpu = machine.vcpu->cpu();
  cpu.io = &machine.io;
  return cpu;
}

inline void clear_fault(Cpu& cpu) {
  cpu.has_fault = false;
  cpu.attention &= ~Cpu::kAttentionFault;
}

/// Expects a pending fault and takes it away.
inline void expect_fault(Cpu& cpu, unsigned vector, int64_t error_code = -1) {
  ASSERT_TRUE(cpu.has_fault);
  EXPECT_EQ(cpu.pending_fault.vector, vector);
  EXPECT_EQ(cpu.pending_fault.has_error_code, error_code >= 0);
  if (error_code >= 0) {
    EXPECT_EQ(cpu.pending_fault.error_code, static_cast<uint32_t>(error_code));
  }
  clear_fault(cpu);
}

}  // namespace tenon::interp
