// One vCPU on KVM: KVM_RUN in a loop, each exit turned into a CpuIo call-out.
#pragma once

#include <linux/kvm.h>
#include <pthread.h>

#include <atomic>
#include <memory>
#include <optional>

#include "base/fd.hh"
#include "engine/engine.hh"
#include "engine/kvm/kvm_exit.hh"

namespace tenon::kvm {

class KvmVcpu final : public Vcpu {
 public:
  struct Options {
    size_t run_size_bytes = 0;     // KVM_GET_VCPU_MMAP_SIZE
    uint64_t host_tsc_offset = 0;  // guest TSC = host TSC + this, the same for every vCPU
  };
  static Result<std::unique_ptr<KvmVcpu>> create(const Fd& vm, const VcpuConfig& config, const Options& options);

  Halt run(CpuIo& io) override;
  void request_stop() override;
  x86::CpuState get_state() override;
  Result<void> set_state(const x86::CpuState& state) override;
  VcpuStats stats() const override;

 private:
  KvmVcpu(Fd fd, Mapping run_mapping) : fd_(std::move(fd)), run_mapping_(std::move(run_mapping)) {}
  kvm_run& page() { return *reinterpret_cast<kvm_run*>(run_mapping_.data()); }
  Result<void> set_cpuid(std::span<const CpuidEntry> entries);
  Result<void> set_tsc(uint64_t host_tsc_offset);

  // One overload per exit; a Halt ends run().
  std::optional<Halt> handle(const PortAccess& access, CpuIo& io);
  std::optional<Halt> handle(const MmioAccess& access, CpuIo& io);
  std::optional<Halt> handle(const MsrAccess& access, CpuIo& io);
  std::optional<Halt> handle(const Shutdown&, CpuIo& io);
  std::optional<Halt> handle(const Interrupted&, CpuIo& io);
  std::optional<Halt> handle(const Failure& failure, CpuIo& io);

  Fd fd_;
  Mapping run_mapping_;
  std::atomic<bool> stop_requested_{false};
  std::atomic<pthread_t> thread_{};  // of the run() in progress, 0 outside
  std::atomic<uint64_t> port_accesses_{0};
  std::atomic<uint64_t> mmio_accesses_{0};
};

}  // namespace tenon::kvm
