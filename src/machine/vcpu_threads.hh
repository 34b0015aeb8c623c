// VcpuThreads: one host thread a vCPU, named "vcpu0" and so on, and the gate that stops and releases them together.
//
// A thread creates its Vcpu, waits at the gate, runs, and comes back to the gate when asked or when its guest halted
// for good. All methods are for one controlling thread (the machine's), never a vCPU thread. Scaling: the gate's lock
// is taken only at stop and go, never while guests run.
#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/mutex.hh"
#include "base/result.hh"
#include "engine/engine.hh"

namespace tenon {

class VcpuThreads {
 public:
  /// Told when a vCPU's run() ended other than by a stop, on that vCPU's thread, which then waits at the gate until the
  /// next release().
  using HaltListener = std::function<void(VcpuId, const Halt&)>;

  struct Vcpu {
    VcpuConfig config;
    CpuIo* io = nullptr;  // outlives the threads
  };

  /// `engine` outlives the threads.
  VcpuThreads(Engine& engine, HaltListener on_halt) : engine_(engine), on_halt_(std::move(on_halt)) {}
  ~VcpuThreads() { end(); }
  VcpuThreads(const VcpuThreads&) = delete;
  VcpuThreads& operator=(const VcpuThreads&) = delete;

  /// Starts the threads and waits until each has created its vCPU; they wait at the gate. The first error, where one
  /// could not; end() then.
  Result<void> create(std::vector<Vcpu> vcpus);

  /// Lets all vCPUs run.
  void release();
  /// Brings all vCPUs to the gate; returns when they are there.
  void stop();
  /// Stops, destroys the vCPUs on their own threads and joins. Nothing may follow.
  void end();

  /// Only while stopped.
  Result<void> set_state(VcpuId id, const x86::CpuState& state) { return vcpus_[number(id)]->set_state(state); }
  x86::CpuState get_state(VcpuId id) { return vcpus_[number(id)]->get_state(); }
  /// Any time between create() and end().
  VcpuStats stats(VcpuId id) const { return vcpus_[number(id)]->stats(); }

 private:
  enum class Goal : uint8_t { kStopped, kRunning, kEnded };

  void run_thread(size_t index);
  /// Waits for the gate to open; false where the thread shall end.
  bool wait_at_gate(size_t index);

  Engine& engine_;
  const HaltListener on_halt_;
  std::vector<Vcpu> configs_;
  std::vector<std::unique_ptr<tenon::Vcpu>> vcpus_;  // each written by its own thread before create() returns
  std::vector<std::thread> threads_;

  Mutex mutex_;
  Condition changed_;
  // All by the controlling thread and the vCPU threads under mutex_.
  Goal goal_ TENON_GUARDED_BY(mutex_) = Goal::kStopped;
  uint64_t generation_ TENON_GUARDED_BY(mutex_) = 0;  // of release(); a halted vCPU waits for the next one
  size_t at_gate_ TENON_GUARDED_BY(mutex_) = 0;
  std::vector<uint64_t> halted_in_
      TENON_GUARDED_BY(mutex_);  // generation in which the vCPU halted for good, 0 for none
  std::unique_ptr<Error> error_ TENON_GUARDED_BY(mutex_);
};

}  // namespace tenon
