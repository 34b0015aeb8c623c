// InterpVcpu: one interpreted vCPU: the run loop around traces, and the events between instructions.
//
// Order at an instruction boundary (SDM Vol. 3 Table 6-2): the fault of the last instruction, debug traps, INIT, NMI,
// interrupts, instruction breakpoints, then the fetch. Interrupts wait out shadows (STI, MOV SS: 6.8.3).
// TF, RF, an armed DR7 and shadows make the loop run single-instruction traces; everything else runs whole traces and
// looks for events between them, at most 32 instructions late. Where there is an Accelerator it runs translated code in
// place of traces and comes back when TranslatedState::poke tells it to, which every cause of a look here sets.
#pragma once

#include <atomic>
#include <memory>

#include "engine/engine.hh"
#include "engine/interp/trace_cache.hh"

namespace tenon::interp {

class InterpVcpu final : public Vcpu {
 public:
  InterpVcpu(const VcpuConfig& config, GuestMemory& memory, Clock& clock, Safepoint& safepoint);
  ~InterpVcpu() override;
  /// After construction, once: features and vector thunks; state after RESET.
  Result<void> prepare();
  /// Lets `accelerator` run in place of traces from now on, or nothing again (nullptr; before `accelerator` dies). The
  /// vCPU's thread, while run() is not running.
  void set_accelerator(Accelerator* accelerator);

  Halt run(CpuIo& io) override;
  void request_stop() override;
  x86::CpuState get_state() override;
  Result<void> set_state(const x86::CpuState& state) override;
  VcpuStats stats() const override;

  /// For unit tests of handlers.
  Cpu& cpu() { return cpu_; }

 private:
  static constexpr uint32_t kPollTraces = 256;  // between looks at the APIC timer's deadline

  void loop();
  bool service();
  void take_code_changes();
  void deliver_pending();
  void take_signals();
  void check_timer();
  void take_interrupts();
  bool sleep();
  bool can_wake() const;
  void take_init();
  void take_startup();
  void step();
  uint32_t instruction_breakpoints() const;
  void publish_counters();

  Cpu cpu_{};
  TraceCache traces_;
  uint32_t poll_ = kPollTraces;
  bool stopping_ = false;
  bool nmi_pending_ = false;
  bool vector_attached_ = false;
  Halt halt_;

  struct PublishedStats {
    std::atomic<uint64_t> instructions{0}, port_accesses{0}, mmio_accesses{0}, interrupts{0}, halts{0}, tlb_misses{0},
        tlb_walks{0}, traces_decoded{0};
  } published_;  // written by the vCPU thread now and then, read by stats()
};

}  // namespace tenon::interp
