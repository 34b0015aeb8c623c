#include "engine/interp/cpu_inline.hh"
#include "engine/interp/event.hh"
#include "engine/interp/families.hh"
#include "engine/interp/host_alu.hh"
#include "engine/interp/interp_vcpu.hh"
#include "engine/x86/state_check.hh"

namespace tenon::interp {
namespace {

constexpr uint32_t kDr6SingleStep = 1u << 14;  // BS
constexpr uint64_t kDr7Enables = 0xff;         // L0-L3, G0-G3

/// Bits RFLAGS can hold (SDM Vol. 1 Figure 3-8).
constexpr uint64_t kRflagsValid = x86::kArithmeticFlags | x86::kTf | x86::kIf | x86::kDf | x86::kIopl | x86::kNt |
                                  x86::kRf | x86::kVm | x86::kAc | x86::kVif | x86::kVip | x86::kId;

bool must_step(const Cpu& cpu) {
  return (cpu.system_flags & (x86::kTf | x86::kRf)) != 0 || (cpu.state.dr7 & kDr7Enables) != 0 ||
         cpu.shadow != Cpu::Shadow::kNone;
}

/// After these the single-step trap of TF does not come: they have cleared TF themselves (SDM Vol. 3 18.3.1.4).
bool swallows_step(const Trace& trace) {
  const Step& step = trace.steps()[trace.step_count - 2];
  if (step.insn.row == nullptr) return false;
  switch (step.insn.row->op) {
    case x86::Op::kInt:
    case x86::Op::kInt3:
    case x86::Op::kInt1:
    case x86::Op::kInto:
    case x86::Op::kSyscall: return true;
    default: return false;
  }
}

void execute(Cpu& cpu, Trace& trace) {
  cpu.gpr[Cpu::kTraceRip] = cpu.rip;
  cpu.instructions += trace.instructions;
  cpu.traces->running = &trace;
  trace.steps()[0].handler(cpu, trace.steps());
}

}  // namespace

void Cpu::interpret_one() {
  if (Trace* trace = traces->find_single(*this)) execute(*this, *trace);
}

// --- State of a Cpu as a whole.

uint64_t Cpu::rflags() const { return rflags_from_ax(arithmetic_flags) | system_flags; }

void Cpu::set_rflags(uint64_t value) {
  const uint64_t before = system_flags;
  arithmetic_flags = ax_from_rflags(value);
  system_flags = (value & kRflagsValid & ~uint64_t{x86::kArithmeticFlags}) | x86::kFlagsOne;
  if (((before ^ system_flags) & x86::kAc) != 0) update_mode();
  if ((system_flags & (x86::kTf | x86::kRf)) != 0) attention |= kAttentionStep;
  if ((system_flags & x86::kIf) != 0 && interrupt_hint) attention |= kAttentionEvents;
}

void Cpu::load_state() {
  for (unsigned i = 0; i < 16; ++i) gpr[i] = state.gpr[i];
  gpr[kZeroRegister] = 0;
  rip = state.rip;
  arithmetic_flags = ax_from_rflags(state.rflags);
  system_flags = (state.rflags & kRflagsValid & ~uint64_t{x86::kArithmeticFlags}) | x86::kFlagsOne;
  shadow = state.interrupt_shadow ? Shadow::kSti : Shadow::kNone;
  has_fault = false;
  debug_hits = 0;
  interrupt_hint = true;
  vector_load_state(*this);
  update_mode();
  flush_tlb(false);
  attention = kAttentionEvents | (must_step(*this) ? kAttentionStep : 0u);
}

void Cpu::save_state() {
  for (unsigned i = 0; i < 16; ++i) state.gpr[i] = gpr[i];
  state.rip = rip;
  state.rflags = rflags();
  state.interrupt_shadow = shadow != Shadow::kNone;
  vector_save_state(*this);
}

// --- The vCPU.

InterpVcpu::InterpVcpu(const VcpuConfig& config, GuestMemory& memory, Clock& clock, Safepoint& safepoint) {
  cpu_.memory = &memory;
  cpu_.clock = &clock;
  cpu_.signal = config.signal;
  cpu_.safepoint = &safepoint;
  cpu_.traces = &traces_;
  cpu_.cpuid = config.cpuid;
  cpu_.id = config.id;
  safepoint.join(cpu_.member, *config.signal);
}

InterpVcpu::~InterpVcpu() {
  set_accelerator(nullptr);
  cpu_.safepoint->leave(cpu_.member);
  if (vector_attached_) vector_detach(cpu_);
}

Result<void> InterpVcpu::prepare() {
  TRY(cpu_.tlb.attach(*cpu_.memory));
  system_attach(cpu_);
  TRY(vector_attach(cpu_));
  vector_attached_ = true;
  cpu_.state.reset(number(cpu_.id) == 0);
  cpu_.load_state();
  return {};
}

void InterpVcpu::set_accelerator(Accelerator* accelerator) {
  CodeChanges& changes = cpu_.memory->code_watch().changes();
  if (cpu_.accelerator != nullptr) {
    cpu_.signal->set_poke(nullptr);
    changes.remove(cpu_.change_listener);
  }
  cpu_.accelerator = accelerator;
  if (accelerator == nullptr) return;
  changes.add(cpu_.change_listener, cpu_.translated.poke);
  cpu_.signal->set_poke(&cpu_.translated.poke);
  accelerator->code_context_changed(cpu_);
}

void InterpVcpu::request_stop() { cpu_.signal->raise(VcpuSignal::kStop); }

x86::CpuState InterpVcpu::get_state() {
  cpu_.save_state();
  return cpu_.state;
}

Result<void> InterpVcpu::set_state(const x86::CpuState& state) {
  TRY(x86::check_state(state));
  cpu_.state = state;
  cpu_.load_state();
  return {};
}

void InterpVcpu::publish_counters() {
  const auto publish = [](std::atomic<uint64_t>& to, uint64_t value) { to.store(value, std::memory_order_relaxed); };
  const VcpuStats& counters = cpu_.counters;
  publish(published_.instructions, cpu_.instructions + cpu_.translated.translated_instructions);
  publish(published_.port_accesses, counters.port_accesses);
  publish(published_.mmio_accesses, counters.mmio_accesses);
  publish(published_.interrupts, counters.interrupts);
  publish(published_.halts, counters.halts);
  publish(published_.tlb_misses, counters.tlb_misses);
  publish(published_.tlb_walks, counters.tlb_walks);
  publish(published_.traces_decoded, counters.traces_decoded);
  if (cpu_.accelerator != nullptr) cpu_.accelerator->publish_counters();
}

VcpuStats InterpVcpu::stats() const {
  return {.instructions = published_.instructions.load(std::memory_order_relaxed),
          .port_accesses = published_.port_accesses.load(std::memory_order_relaxed),
          .mmio_accesses = published_.mmio_accesses.load(std::memory_order_relaxed),
          .interrupts = published_.interrupts.load(std::memory_order_relaxed),
          .halts = published_.halts.load(std::memory_order_relaxed),
          .tlb_misses = published_.tlb_misses.load(std::memory_order_relaxed),
          .tlb_walks = published_.tlb_walks.load(std::memory_order_relaxed),
          .traces_decoded = published_.traces_decoded.load(std::memory_order_relaxed)};
}

Halt InterpVcpu::run(CpuIo& io) {
  cpu_.io = &io;
  halt_ = {};
  cpu_.attention |= Cpu::kAttentionEvents;
  cpu_.interrupt_hint = true;
  cpu_.translated.host_tsc_offset = cpu_.clock->host_tsc_offset().value_or(0);
  cpu_.safepoint->enter_guest(cpu_);
  loop();
  cpu_.safepoint->leave_guest(cpu_);
  traces_.running = nullptr;
  publish_counters();
  return halt_;
}

void InterpVcpu::loop() {
  const VcpuSignal& signal = *cpu_.signal;
  for (;;) {
    const uint32_t poke = cpu_.translated.poke.load(std::memory_order_relaxed);
    if ((cpu_.attention | signal.pending() | poke) != 0 || --poll_ == 0) [[unlikely]] {
      if (!service()) return;
      if ((cpu_.attention & Cpu::kAttentionStep) != 0) {
        step();
        continue;
      }
      if (cpu_.attention != 0) continue;
    }
    if (cpu_.accelerator != nullptr) {
      traces_.running = nullptr;
      if (cpu_.accelerator->run(cpu_)) continue;
    }
    Trace* trace = traces_.find_hot(cpu_);
    if (trace == nullptr) [[unlikely]] {
      trace = traces_.find(cpu_);
      if (trace == nullptr) continue;  // the fetch has faulted
    }
    execute(cpu_, *trace);
  }
}

/// Everything between two instructions. False: leave run() with halt_.
bool InterpVcpu::service() {
  // Before anything is looked at: what comes after this sets it again (VcpuSignal::set_poke(), CodeChanges).
  const bool poked = cpu_.translated.poke.load(std::memory_order_relaxed) != 0 &&
                     cpu_.translated.poke.exchange(0, std::memory_order_seq_cst) != 0;
  if (poked || poll_ == 0 || --poll_ == 0) check_timer();
  cpu_.attention &= ~uint32_t{Cpu::kAttentionEvents};
  traces_.running = nullptr;
  deliver_pending();
  take_signals();
  if (cpu_.state.activity == x86::Activity::kHalted || cpu_.state.activity == x86::Activity::kWaitForStartup) {
    if (!stopping_) sleep();
  }
  if (cpu_.state.activity == x86::Activity::kShutdown) {
    halt_ = {.reason = Halt::Reason::kTripleFault, .detail = {}};
    return false;
  }
  if (stopping_) {
    stopping_ = false;
    halt_ = {.reason = Halt::Reason::kStopped, .detail = {}};
    return false;
  }
  take_interrupts();
  take_code_changes();
  return true;
}

/// Last before guest code: what was written before an interrupt was sent is known when its handler runs.
void InterpVcpu::take_code_changes() {
  const CodeChanges& changes = cpu_.memory->code_watch().changes();
  if (cpu_.accelerator == nullptr || !changes.has_news(cpu_.change_listener)) return;
  changes.read(
      cpu_.change_listener, [&](Gpa gpa, uint64_t size_bytes) { cpu_.accelerator->code_changed(gpa, size_bytes); },
      [&] { cpu_.accelerator->any_code_changed(); });
}

/// What the last instruction left behind: its fault, or the debug traps after it.
void InterpVcpu::deliver_pending() {
  if (cpu_.has_fault) {
    cpu_.debug_hits = 0;
    deliver_fault(cpu_);
  }
  if (cpu_.debug_hits != 0 && cpu_.shadow != Cpu::Shadow::kMovSs) {
    const uint32_t hits = cpu_.debug_hits;
    cpu_.debug_hits = 0;
    if (cpu_.state.activity == x86::Activity::kHalted) cpu_.state.activity = x86::Activity::kRunning;
    deliver_debug(cpu_, hits, false);
  }
}

void InterpVcpu::take_signals() {
  const uint32_t bits = cpu_.signal->take(~0u);
  if (bits == 0) return;
  if ((bits & VcpuSignal::kFlush) != 0) cpu_.safepoint->answer_at_boundary(cpu_);
  if ((bits & VcpuSignal::kStop) != 0) stopping_ = true;
  if ((bits & VcpuSignal::kInterrupt) != 0) cpu_.interrupt_hint = true;
  if ((bits & VcpuSignal::kNmi) != 0) nmi_pending_ = true;
  if ((bits & VcpuSignal::kInit) != 0) take_init();
  if ((bits & VcpuSignal::kStartup) != 0) take_startup();
}

void InterpVcpu::check_timer() {
  poll_ = kPollTraces;
  publish_counters();
  const uint64_t deadline = cpu_.signal->deadline_ns();
  if (deadline != kNoDeadline && cpu_.clock->now_ns() >= deadline) cpu_.io->timer_expired();
}

void InterpVcpu::take_init() {
  cpu_.save_state();
  cpu_.state.init(number(cpu_.id) == 0);
  cpu_.load_state();
  nmi_pending_ = false;
  cpu_.io->init_received();
}

/// A startup IPI is heard only while waiting for it (SDM Vol. 3 9.4.3).
void InterpVcpu::take_startup() {
  if (cpu_.state.activity != x86::Activity::kWaitForStartup) return;
  cpu_.save_state();
  cpu_.state.startup(cpu_.io->startup_vector());
  cpu_.load_state();
}

void InterpVcpu::take_interrupts() {
  if (cpu_.shadow != Cpu::Shadow::kNone || cpu_.state.activity != x86::Activity::kRunning) return;
  if (nmi_pending_ && !cpu_.state.nmi_blocked) {
    nmi_pending_ = false;
    ++cpu_.counters.interrupts;
    return deliver_nmi(cpu_);
  }
  if (!cpu_.interrupt_hint || (cpu_.system_flags & x86::kIf) == 0) return;
  const int number = cpu_.io->acknowledge_interrupt();
  if (number < 0) {
    cpu_.interrupt_hint = false;
    return;
  }
  ++cpu_.counters.interrupts;
  deliver_interrupt(cpu_, static_cast<uint8_t>(number));
}

/// Whether something ends HLT (SDM Vol. 2, HLT).
bool InterpVcpu::can_wake() const {
  if (nmi_pending_ && !cpu_.state.nmi_blocked) return true;
  return (cpu_.system_flags & x86::kIf) != 0 && cpu_.interrupt_hint && cpu_.io->interrupt_pending();
}

/// Sleeps in HLT or wait-for-SIPI. Ends where the vCPU runs again or must stop.
bool InterpVcpu::sleep() {
  constexpr uint32_t kWakeUps =
      VcpuSignal::kInterrupt | VcpuSignal::kNmi | VcpuSignal::kInit | VcpuSignal::kStartup | VcpuSignal::kStop;
  ++cpu_.counters.halts;
  publish_counters();
  cpu_.shadow = Cpu::Shadow::kNone;
  while (!stopping_) {
    const x86::Activity activity = cpu_.state.activity;
    if (activity == x86::Activity::kHalted && can_wake()) cpu_.state.activity = x86::Activity::kRunning;
    if (activity == x86::Activity::kRunning || cpu_.state.activity == x86::Activity::kRunning) return true;
    cpu_.safepoint->leave_guest(cpu_);
    cpu_.signal->wait(kWakeUps, *cpu_.clock);
    cpu_.safepoint->enter_guest(cpu_);
    check_timer();
    take_signals();
  }
  return false;
}

// --- One instruction at a time.

/// DR6 bits of the enabled instruction breakpoints at rip (SDM Vol. 3 18.2.4: R/W and LEN are 0).
uint32_t InterpVcpu::instruction_breakpoints() const {
  const uint64_t dr7 = cpu_.state.dr7;
  if ((dr7 & kDr7Enables) == 0) return 0;
  const uint64_t linear = (cpu_.rip + cpu_.code_base) & cpu_.linear_mask;
  uint32_t hits = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const bool enabled = ((dr7 >> (2 * i)) & 3) != 0;
    const bool is_code = ((dr7 >> (16 + 4 * i)) & 3) == 0;
    if (enabled && is_code && cpu_.state.dr[i] == linear) hits |= 1u << i;
  }
  return hits;
}

void InterpVcpu::step() {
  if ((cpu_.system_flags & x86::kRf) == 0 && cpu_.shadow != Cpu::Shadow::kMovSs) {
    if (const uint32_t hits = instruction_breakpoints()) return deliver_debug(cpu_, hits, true);
  }
  Trace* trace = traces_.find_single(cpu_);
  if (trace == nullptr) return;
  const bool trap = (cpu_.system_flags & x86::kTf) != 0;
  cpu_.shadow = Cpu::Shadow::kNone;
  cpu_.system_flags &= ~uint64_t{x86::kRf};  // by the successful completion; a fault pushes 1 (SDM Vol. 3 18.3.1.1)
  execute(cpu_, *trace);
  if (cpu_.has_fault) return;
  if (trap && !swallows_step(*trace)) cpu_.debug_hits |= kDr6SingleStep;
  if (cpu_.debug_hits != 0 || cpu_.interrupt_hint || nmi_pending_) cpu_.attention |= Cpu::kAttentionEvents;
  if (!must_step(cpu_)) cpu_.attention &= ~uint32_t{Cpu::kAttentionStep};
}

}  // namespace tenon::interp
