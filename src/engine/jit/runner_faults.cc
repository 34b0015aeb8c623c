// Fault injection in the runner: before a look-up, what is remembered may be forgotten.
#include "engine/jit/fault_injection.hh"
#include "engine/jit/runner.hh"

namespace tenon::jit {

void Runner::start_fault_injection(uint64_t seed) { faults_ = std::make_unique<FaultInjection>(seed, state_.poke); }

void Runner::inject_faults(uint64_t rip) {
  const FaultInjection::Faults faults = faults_->next();
  if (faults.refills_to_failure != 0) state_.refills_to_failure = faults.refills_to_failure;
  if (faults.flush_tlb) cpu_.flush_tlb(false);
  if (faults.drop_page) {
    if (const RememberedCode::Line* line = fetch(rip)) cache_->invalidate(line->gpa_page, ~uint64_t{0});
  }
  if (faults.drop_code) cache_->invalidate_all();
  if (faults.unlink) cache_->unlink_global();
  if (faults.drop_indirect) remembered_.forget_addresses();
  if (faults.reset_return_stack) thread_->reset_return_stack();
  drop_after_removal();
}

}  // namespace tenon::jit
