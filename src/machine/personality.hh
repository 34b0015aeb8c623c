// Personality: the hypervisor that a guest finds. One a VM; it supplies CPUID leaves, MSRs, hypercalls and clock pages.
//
// The board, the devices and the engine do not know which one runs. MSR and hypercall hooks come from the vCPU's own
// thread; everything else while the vCPUs are stopped.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "engine/engine.hh"
#include "vm/clock.hh"
#include "vm/device.hh"
#include "vm/guest_memory.hh"

namespace tenon {

enum class PersonalityKind : uint8_t { kNone, kKvm };

struct PersonalityConfig {
  GuestMemory* memory = nullptr;  // outlives the personality
  Clock* clock = nullptr;         // outlives it too
  uint32_t vcpus = 1;
  uint64_t apic_timer_hz = 0;
  bool has_own_local_apics = true;  // false where the engine brings in-kernel interrupt controllers
};

class Personality : public Device {
 public:
  /// The hypervisor leaves 0x40000000 and up; empty: the guest sees bare metal and CPUID.1:ECX[31] stays clear.
  virtual std::vector<CpuidEntry> cpuid() const { return {}; }

  /// False: not an MSR of this personality.
  virtual bool read_msr(VcpuId, uint32_t /*index*/, uint64_t& /*value*/) { return false; }
  virtual bool write_msr(VcpuId, uint32_t /*index*/, uint64_t /*value*/) { return false; }

  /// VMCALL/VMMCALL; false raises #UD.
  virtual bool hypercall(std::span<uint64_t, 16> /*gpr*/, unsigned /*cpl*/) { return false; }

  /// Whether the board enables PV EOI in its local APICs.
  virtual bool has_pv_eoi() const { return false; }

  /// Guest TSC = Clock::now_tsc() + `offset` from now on, on this vCPU. Called on its thread.
  virtual void tsc_offset_changed(VcpuId, uint64_t /*offset*/) {}
};

std::unique_ptr<Personality> make_personality(PersonalityKind kind, const PersonalityConfig& config);

}  // namespace tenon
