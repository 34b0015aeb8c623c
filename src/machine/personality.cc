#include "machine/personality.hh"

#include "machine/personality_kvm.hh"

namespace tenon {

namespace {

/// Bare metal: no leaves, no MSRs, VMCALL is an invalid instruction.
class NoPersonality final : public Personality {
 public:
  std::string_view name() const override { return "personality_none"; }
  void reset() override {}
  SavedState save() const override { return {.schema = "personality_none", .version = 1, .bytes = {}}; }
  Result<void> restore(const SavedState& state) override {
    if (state.schema != "personality_none" || !state.bytes.empty())
      return fail(ErrorCode::kCorrupt, "saved state of personality none: found " + state.schema);
    return {};
  }
};

}  // namespace

std::unique_ptr<Personality> make_personality(PersonalityKind kind, const PersonalityConfig& config) {
  if (kind == PersonalityKind::kKvm) return std::make_unique<KvmPersonality>(config);
  return std::make_unique<NoPersonality>();
}

}  // namespace tenon
