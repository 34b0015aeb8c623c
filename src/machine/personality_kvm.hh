// Personality "kvm": what Linux's KVM_GUEST code and other KVM-aware guests look for. Clock pages, PV EOI, frequencies.
//
// Source: Linux Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst.
// The idea: guest time and guest TSC advance together from a common zero (vm/clock.hh) and stand still together, so one
// pair (tsc_timestamp, system_time) is right for ever and the same on all vCPUs; the page is written when the guest
// registers it and when its TSC offset changes, never periodically. That makes the clock stable across vCPUs.
// Scaling: no work per vCPU beyond those writes.
//
// Not implemented: steal time, asynchronous page faults, PV TLB flush, PV IPIs and PV spinlocks: their bits are clear.
#pragma once

#include <atomic>
#include <vector>

#include "machine/personality.hh"
#include "spec/kvm_pv.hh"

namespace tenon {

class KvmPersonality final : public Personality {
 public:
  explicit KvmPersonality(const PersonalityConfig& config);

  std::vector<CpuidEntry> cpuid() const override;
  bool read_msr(VcpuId vcpu, uint32_t index, uint64_t& value) override;
  bool write_msr(VcpuId vcpu, uint32_t index, uint64_t value) override;
  bool hypercall(std::span<uint64_t, 16> gpr, unsigned cpl) override;
  bool has_pv_eoi() const override { return config_.has_own_local_apics; }
  void tsc_offset_changed(VcpuId vcpu, uint64_t offset) override;

  std::string_view name() const override { return "personality_kvm"; }
  void reset() override;
  SavedState save() const override;
  Result<void> restore(const SavedState& state) override;

 private:
  /// Touched by its vCPU's thread only.
  struct VcpuClock {
    uint64_t system_time_msr = 0;
    uint64_t tsc_offset = 0;
    uint32_t version = 0;  // even
  };

  void write_wall_clock(Gpa page);
  void write_vcpu_time(VcpuClock& vcpu);

  const PersonalityConfig config_;
  std::vector<VcpuClock> vcpus_;
  // The wall clock is one for the machine; the guest writes it from one vCPU at a time, others read stale values at
  // worst.
  std::atomic<uint64_t> wall_clock_msr_{0};
  uint32_t tsc_to_system_mul_ = 0;
  int8_t tsc_shift_ = 0;
};

}  // namespace tenon
