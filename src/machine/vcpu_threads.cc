#include "machine/vcpu_threads.hh"

#include <string>

#include "base/thread.hh"

namespace tenon {

Result<void> VcpuThreads::create(std::vector<Vcpu> vcpus) {
  configs_ = std::move(vcpus);
  vcpus_.resize(configs_.size());
  {
    const MutexLock lock(mutex_);
    halted_in_.assign(configs_.size(), 0);
  }
  for (size_t i = 0; i < configs_.size(); ++i) threads_.emplace_back([this, i] { run_thread(i); });
  const MutexLock lock(mutex_);
  while (at_gate_ < configs_.size()) changed_.wait(mutex_);
  if (error_) return std::unexpected(*error_);
  return {};
}

void VcpuThreads::release() {
  const MutexLock lock(mutex_);
  goal_ = Goal::kRunning;
  ++generation_;
  changed_.notify_all();
}

void VcpuThreads::stop() {
  const MutexLock lock(mutex_);
  if (goal_ != Goal::kRunning) return;
  goal_ = Goal::kStopped;
  // Sticky until run() has returned once, so a thread on its way into run() comes back too.
  for (const auto& vcpu : vcpus_) {
    if (vcpu) vcpu->request_stop();
  }
  while (at_gate_ < configs_.size()) changed_.wait(mutex_);
}

void VcpuThreads::end() {
  stop();
  {
    const MutexLock lock(mutex_);
    goal_ = Goal::kEnded;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool VcpuThreads::wait_at_gate(size_t index) {
  const MutexLock lock(mutex_);
  ++at_gate_;
  changed_.notify_all();
  while (goal_ == Goal::kStopped || (goal_ == Goal::kRunning && halted_in_[index] == generation_))
    changed_.wait(mutex_);
  --at_gate_;
  return goal_ == Goal::kRunning;
}

void VcpuThreads::run_thread(size_t index) {
  const Vcpu& config = configs_[index];
  name_this_thread("vcpu" + std::to_string(index));
  auto created = engine_.create_vcpu(config.config);
  if (created) {
    vcpus_[index] = std::move(*created);
  } else {
    const MutexLock lock(mutex_);
    if (!error_)
      error_ = std::make_unique<Error>(std::move(created).error().with_context("vCPU " + std::to_string(index)));
  }
  while (wait_at_gate(index)) {
    const Halt halt = vcpus_[index]->run(*config.io);
    if (halt.reason == Halt::Reason::kStopped) continue;
    {
      const MutexLock lock(mutex_);
      halted_in_[index] = generation_;
    }
    on_halt_(config.config.id, halt);
  }
  vcpus_[index].reset();
}

}  // namespace tenon
