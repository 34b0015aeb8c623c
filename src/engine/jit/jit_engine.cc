#include "engine/jit/jit_engine.hh"

#include "engine/interp/interp_vcpu.hh"
#include "engine/jit/fault_injection.hh"
#include "engine/jit/runner.hh"
#include "engine/x86/cpuid.hh"

namespace tenon {

namespace {

constexpr uint64_t kSeedStep = 1000003;  // so that vCPUs draw different faults

class JitVcpu final : public Vcpu {
 public:
  JitVcpu(const VcpuConfig& config, GuestMemory& memory, Clock& clock, interp::Safepoint& safepoint)
      : interpreter_(config, memory, clock, safepoint) {}
  ~JitVcpu() override { interpreter_.set_accelerator(nullptr); }

  Result<void> prepare(const jit::RunnerOptions& options, std::optional<uint64_t> fault_seed) {
    TRY(interpreter_.prepare());
    runner_ = TRY(jit::Runner::create(interpreter_.cpu(), options));
    if (options.translator.lockstep) runner_->start_lockstep();
    if (fault_seed) runner_->start_fault_injection(*fault_seed + number(interpreter_.cpu().id) * kSeedStep);
    interpreter_.set_accelerator(runner_.get());
    return {};
  }

  Halt run(CpuIo& io) override {
    const Result<void> prepared = runner_->prepare_thread();
    if (!prepared) return {.reason = Halt::Reason::kError, .detail = prepared.error().message()};
    Halt halt = interpreter_.run(io);
    if (const std::string* failure = runner_->failure()) return {.reason = Halt::Reason::kError, .detail = *failure};
    return halt;
  }

  void request_stop() override { interpreter_.request_stop(); }
  x86::CpuState get_state() override { return interpreter_.get_state(); }
  Result<void> set_state(const x86::CpuState& state) override { return interpreter_.set_state(state); }
  VcpuStats stats() const override {
    VcpuStats stats = interpreter_.stats();
    runner_->add_to(stats);
    return stats;
  }

 private:
  interp::InterpVcpu interpreter_;
  std::unique_ptr<jit::Runner> runner_;
};

class JitEngine final : public Engine {
 public:
  explicit JitEngine(const JitOptions& options) {
    options_.cache_bytes = options.cache_bytes;
    options_.translator.strict_flags = options.strict_flags;
    options_.translator.count_instructions = options.count_instructions;
    options_.translator.strict_flags |= options.lockstep;
    options_.translator.lockstep = options.lockstep;
    if (options.fault_injection) inject_faults(*options.fault_injection);
  }

  void inject_faults(uint64_t seed) {
    fault_seed_ = seed;
    const jit::FaultInjection::Shape shape = jit::FaultInjection::shape(seed);
    options_.cache_bytes = shape.cache_bytes;
    options_.translator.strict_flags |= shape.strict_flags;
    if (shape.insns_max != 0) options_.translator.insns_max = shape.insns_max;
  }

  std::string_view name() const override { return "jit"; }
  /// Without SMAP: each CLAC and STAC would be a change of mode, with code of its own.
  Result<std::vector<CpuidEntry>> supported_cpuid() const override {
    constexpr uint32_t kSmap = 1u << 20;  // CPUID.7.0:EBX
    std::vector<CpuidEntry> table = TRY(x86::software_engine_cpuid());
    for (CpuidEntry& entry : table) {
      if (entry.leaf == 7 && entry.subleaf == 0) entry.result.ebx &= ~kSmap;
    }
    return table;
  }

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
    auto vcpu = std::make_unique<JitVcpu>(config, *memory_, *clock_, safepoint_);
    TRY(vcpu->prepare(options_, fault_seed_));
    return vcpu;
  }

 private:
  jit::RunnerOptions options_;
  std::optional<uint64_t> fault_seed_;
  GuestMemory* memory_ = nullptr;
  Clock* clock_ = nullptr;
  interp::Safepoint safepoint_;  // outlives the vCPUs: they are destroyed before their engine
};

}  // namespace

Result<std::unique_ptr<Engine>> make_jit_engine(const JitOptions& options) {
  TRY(jit::check_host_cpu());
  return std::make_unique<JitEngine>(options);
}

}  // namespace tenon
