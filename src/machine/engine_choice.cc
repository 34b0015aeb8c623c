#include "machine/engine_choice.hh"

#include <fmt/format.h>

#include "engine/interp/interp_engine.hh"
#include "engine/jit/jit_engine.hh"
#include "engine/kvm/kvm_engine.hh"
#include "machine/engine_selftest.hh"

namespace tenon {

namespace {

constexpr double kSpeedupMin = 5;

/// Empty where KVM is good enough, else why it is not.
Result<std::string> why_not_kvm(Engine& kvm) {
  const SelfTestReport report = TRY(run_engine_self_test(kvm));
  if (!report.passed()) return "KVM's self-test " + report.failure;
  const std::unique_ptr<Engine> interp = make_interp_engine();
  const SelfTestReport reference = TRY(run_engine_self_test(*interp));
  const double speedup = report.ring0_instructions_per_second / reference.ring0_instructions_per_second;
  if (speedup < kSpeedupMin)
    return fmt::format("KVM runs ring 0 at only {:.1f} times the interpreter's speed: it is not in hardware", speedup);
  return std::string();
}

Result<std::unique_ptr<Engine>> make_jit(const EngineRequest& request) {
  JitOptions options = TRY(parse_jit_options(request.options));
  options.count_instructions |= request.count_instructions;
  return make_jit_engine(options);
}

/// For where there is no KVM, and `why` is the reason.
Result<EngineChoice> choose_software(const EngineRequest& request, const std::string& why) {
  auto jit = make_jit(request);
  if (jit) return EngineChoice{std::move(*jit), why};
  if (jit.error().code() != ErrorCode::kUnsupported) return std::unexpected(jit.error());
  return EngineChoice{make_interp_engine(), why + "; " + jit.error().message()};
}

Result<EngineChoice> choose_automatically(const EngineRequest& request) {
  auto trial = make_kvm_engine();
  if (!trial) return choose_software(request, trial.error().message());
  const auto reason = why_not_kvm(**trial);
  if (!reason) return choose_software(request, reason.error().message());
  if (!reason->empty()) return choose_software(request, *reason);
  return EngineChoice{TRY(make_kvm_engine()), "KVM passed its self-test"};
}

/// KVM as asked for; where it fails its self-test the reason warns that a stock kernel will hardly run.
Result<EngineChoice> choose_kvm() {
  const std::unique_ptr<Engine> trial = TRY(make_kvm_engine());
  const std::string reason = TRY(why_not_kvm(*trial));
  return EngineChoice{TRY(make_kvm_engine()), reason.empty() ? "" : reason + "; expect trouble, or use --engine jit"};
}

}  // namespace

Result<EngineChoice> choose_engine(const EngineRequest& request) {
  TRY(parse_jit_options(request.options));  // wrong ones are never ignored
  if (request.name == "interp") return EngineChoice{make_interp_engine(), ""};
  if (request.name == "jit") return EngineChoice{TRY(make_jit(request)), ""};
  if (request.name == "kvm") return choose_kvm();
  if (request.name == "auto") return choose_automatically(request);
  return fail(ErrorCode::kInvalidArgument, fmt::format("engine \"{}\": choose auto, kvm, jit or interp", request.name));
}

}  // namespace tenon
