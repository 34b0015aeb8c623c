#include "engine/interp/interp_engine.hh"

#include "engine/interp/interp_vcpu.hh"
#include "engine/x86/cpuid.hh"

namespace tenon {
namespace {

class InterpEngine final : public Engine {
 public:
  std::string_view name() const override { return "interp"; }

  Result<std::vector<CpuidEntry>> supported_cpuid() const override { return x86::software_engine_cpuid(); }

  Result<void> attach(GuestMemory& memory, Clock& clock) override {
    memory_ = &memory;
    clock_ = &clock;
    return {};
  }

  Result<std::unique_ptr<Vcpu>> create_vcpu(const VcpuConfig& config) override {
    if (memory_ == nullptr)
      return fail(ErrorCode::kInvalidArgument, "create_vcpu before attach: attach guest memory first");
    if (config.signal == nullptr)
      return fail(ErrorCode::kInvalidArgument, "create_vcpu without a VcpuSignal: give one");
    auto vcpu = std::make_unique<interp::InterpVcpu>(config, *memory_, *clock_, safepoint_);
    TRY(vcpu->prepare());
    return vcpu;
  }

 private:
  GuestMemory* memory_ = nullptr;
  Clock* clock_ = nullptr;
  interp::Safepoint safepoint_;  // outlives the vCPUs: they are destroyed before their engine
};

}  // namespace

std::unique_ptr<Engine> make_interp_engine() { return std::make_unique<InterpEngine>(); }

}  // namespace tenon
