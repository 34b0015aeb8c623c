// FakeEngine: an engine whose vCPUs run a C++ function instead of guest code, for tests of board and machine.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "engine/engine.hh"
#include "engine/x86/cpuid.hh"

namespace tenon {

/// What a vCPU "executes" each time it is run: call-outs on `io`, then how it halts. `stop` turns true on
/// request_stop().
using FakeGuest = std::function<Halt(VcpuId id, CpuIo& io, const std::atomic<bool>& stop)>;

/// Waits for a stop, as a guest in HLT does.
inline Halt fake_idle(const std::atomic<bool>& stop) {
  stop.wait(false);
  return {};
}

class FakeVcpu final : public Vcpu {
 public:
  FakeVcpu(VcpuId id, const FakeGuest& guest) : id_(id), guest_(guest) {}

  Halt run(CpuIo& io) override {
    Halt halt = stop_ ? Halt{} : guest_(id_, io, stop_);
    stop_ = false;
    return halt;
  }
  void request_stop() override {
    stop_ = true;
    stop_.notify_all();
  }
  x86::CpuState get_state() override { return state_; }
  Result<void> set_state(const x86::CpuState& state) override {
    state_ = state;
    return {};
  }
  VcpuStats stats() const override { return {}; }

 private:
  const VcpuId id_;
  const FakeGuest& guest_;
  std::atomic<bool> stop_{false};
  x86::CpuState state_;
};

class FakeEngine final : public Engine {
 public:
  explicit FakeEngine(FakeGuest guest, InterruptSink* in_kernel = nullptr)
      : guest_(std::move(guest)), in_kernel_(in_kernel) {}

  std::string_view name() const override { return "fake"; }
  Result<std::vector<CpuidEntry>> supported_cpuid() const override { return x86::software_engine_cpuid(); }
  InterruptSink* in_kernel_interrupts() override { return in_kernel_; }
  Result<void> attach(GuestMemory&, Clock&) override { return {}; }
  Result<std::unique_ptr<Vcpu>> create_vcpu(const VcpuConfig& config) override {
    if (number(config.id) == failing_vcpu) return fail(ErrorCode::kNoMemory, "no memory for the vCPU");
    return std::make_unique<FakeVcpu>(config.id, guest_);
  }

  uint32_t failing_vcpu = ~0u;  // create_vcpu() of this one fails

 private:
  const FakeGuest guest_;
  InterruptSink* const in_kernel_;
};

}  // namespace tenon
