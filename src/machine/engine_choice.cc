#include "machine/engine_choice.hh"

#include <fmt/format.h>

#include "engine/interp/interp_engine.hh"
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

Result<EngineChoice> choose_automatically() {
  auto trial = make_kvm_engine();
  if (!trial) return EngineChoice{make_interp_engine(), trial.error().message()};
  const auto reason = why_not_kvm(**trial);
  if (!reason) return EngineChoice{make_interp_engine(), reason.error().message()};
  if (!reason->empty()) return EngineChoice{make_interp_engine(), *reason};
  return EngineChoice{TRY(make_kvm_engine()), "KVM passed its self-test"};
}

/// KVM as asked for; where it fails its self-test the reason warns that a stock kernel will hardly run.
Result<EngineChoice> choose_kvm() {
  const std::unique_ptr<Engine> trial = TRY(make_kvm_engine());
  const std::string reason = TRY(why_not_kvm(*trial));
  return EngineChoice{TRY(make_kvm_engine()),
                      reason.empty() ? "" : reason + "; expect trouble, or use --engine interp"};
}

}  // namespace

Result<EngineChoice> choose_engine(std::string_view name) {
  if (name == "interp") return EngineChoice{make_interp_engine(), ""};
  if (name == "kvm") return choose_kvm();
  if (name == "auto") return choose_automatically();
  return fail(ErrorCode::kInvalidArgument, fmt::format("engine \"{}\": choose auto, kvm or interp", name));
}

}  // namespace tenon
