// The vector family: which handler runs an instruction, and the handlers that run a plan of VectorThunks.
//
// Source: Intel SDM Vol. 2 2.4 (exception classes), Vol. 1 chapters 9 to 14, rev. 325383-080.
// Deviation: a pending x87 exception always raises #MF; with CR0.NE = 0 a PC would signal IRQ13 instead (SDM Vol.
// 1 8.7.2).

#include "engine/interp/vector.hh"

#include "engine/interp/families.hh"
#include "engine/interp/memory.hh"

namespace tenon::interp {

namespace {

using x86::Op;

const VectorPlan& plan_of(const Step* step) { return *reinterpret_cast<const VectorPlan*>(step->scratch); }

void* operand_at(Cpu& cpu, Place place, unsigned number) {
  switch (place) {
    case Place::kXmm: return cpu.vector.ymm[number];
    case Place::kMmx: return fx_register(cpu.vector, number & 7u);
    case Place::kGpr: return &cpu.gpr[number];
    case Place::kMemory: return cpu.vector.memory;
    case Place::kNone: break;
  }
  return nullptr;
}

/// #XM, or #UD where the system has not said that it handles it (SDM Vol. 3 6.15, interrupt 19).
bool raise_simd_error(Cpu& cpu) {
  return cpu.raise((cpu.state.cr4 & x86::kCr4Osxmmexcpt) != 0 ? x86::kSimdError : x86::kInvalidOpcode);
}

/// Calls the thunk and takes over flags and MMX exponents. False after an unmasked exception.
bool run_plan(Cpu& cpu, const Insn& insn, const VectorPlan& plan) {
  VectorState& state = cpu.vector;
  if (plan.uses_mmx()) enter_mmx(state);
  const unsigned is4 = static_cast<unsigned>(insn.immediate >> 4) & (cpu.in_long_mode ? 15u : 7u);
  void* reg = operand_at(cpu, plan.reg, insn.reg);
  void* rm = operand_at(cpu, plan.rm, insn.rm);
  const uint32_t flags = plan.code(reg, rm, state.ymm[insn.vvvv & 15u], state.ymm[is4], &state, cpu.gpr);
  if (plan.may_trap && flags == VectorPlan::kTrapped) [[unlikely]]
    return raise_simd_error(cpu);
  if (plan.writes_flags) cpu.arithmetic_flags = static_cast<uint16_t>(flags);
  if (plan.writes_mmx_reg) std::memset(static_cast<uint8_t*>(reg) + 8, 0xff, 2);
  if (plan.writes_mmx_rm) std::memset(static_cast<uint8_t*>(rm) + 8, 0xff, 2);
  return true;
}

void run_register_form(Cpu& cpu, const Step* step) {
  const VectorPlan& plan = plan_of(step);
  if (!gate_open(cpu, plan.gate) || !run_plan(cpu, step->insn, plan)) [[unlikely]]
    return cpu.fault(step);
  return next(cpu, step);
}

/// The conversions of half floats raise no #AC (SDM Vol. 2 2.4, exception class 11).
bool ignores_alignment(const Insn& insn) { return insn.row->op == Op::kVcvtph2ps || insn.row->op == Op::kVcvtps2ph; }

bool load_plan_operand(Cpu& cpu, const Insn& insn, uint64_t offset, unsigned size_bytes) {
  const SegmentIndex segment = operand_segment(insn);
  const void* host = cpu.try_host(segment, offset, size_bytes, Access::kRead);
  if (host != nullptr) [[likely]] {
    copy_operand(cpu.vector.memory, host, size_bytes);
    return true;
  }
  if (!ignores_alignment(insn)) return cpu.load_bytes(segment, offset, cpu.vector.memory, size_bytes);
  const AlignmentCheckOff off(cpu);
  return cpu.load_bytes(segment, offset, cpu.vector.memory, size_bytes);
}

bool store_plan_operand(Cpu& cpu, const Insn& insn, uint64_t offset, unsigned size_bytes) {
  const SegmentIndex segment = operand_segment(insn);
  if (!ignores_alignment(insn)) return store_vector(cpu, segment, offset, cpu.vector.memory, size_bytes);
  const AlignmentCheckOff off(cpu);
  return store_vector(cpu, segment, offset, cpu.vector.memory, size_bytes);
}

void run_load_form(Cpu& cpu, const Step* step) {
  const VectorPlan& plan = plan_of(step);
  if (!gate_open(cpu, plan.gate)) [[unlikely]]
    return cpu.fault(step);
  const SegmentIndex segment = operand_segment(step->insn);
  const uint64_t offset = cpu.effective_offset(step);
  if (plan.aligned && !check_aligned(cpu, segment, offset, plan.memory_bytes)) [[unlikely]]
    return cpu.fault(step);
  if (!load_plan_operand(cpu, step->insn, offset, plan.memory_bytes)) [[unlikely]]
    return cpu.fault(step);
  if (!run_plan(cpu, step->insn, plan)) [[unlikely]]
    return cpu.fault(step);
  return next(cpu, step);
}

/// The result is computed before the store is tried, so an exception of the computation comes first. If the store then
/// faults, the tags are put back; TOP stays 0 and MXCSR keeps its new flags, as on current CPUs.
void run_store_form(Cpu& cpu, const Step* step) {
  const VectorPlan& plan = plan_of(step);
  VectorState& state = cpu.vector;
  if (!gate_open(cpu, plan.gate)) [[unlikely]]
    return cpu.fault(step);
  const SegmentIndex segment = operand_segment(step->insn);
  const uint64_t offset = cpu.effective_offset(step);
  if (plan.aligned && !check_aligned(cpu, segment, offset, plan.memory_bytes)) [[unlikely]]
    return cpu.fault(step);
  const uint8_t tags = state.fx[Fx::kTags];
  if (!run_plan(cpu, step->insn, plan)) [[unlikely]]
    return cpu.fault(step);
  if (!store_plan_operand(cpu, step->insn, offset, plan.memory_bytes)) [[unlikely]] {
    state.fx[Fx::kTags] = tags;
    return cpu.fault(step);
  }
  return next(cpu, step);
}

Handler plan_handler(const Insn& insn, Cpu& cpu, uint64_t& scratch) {
  const VectorPlan* plan = cpu.thunks->plan(insn, cpu.in_long_mode);
  if (plan == nullptr) return nullptr;
  scratch = reinterpret_cast<uint64_t>(plan);
  if (!insn.is_memory) return run_register_form;
  return plan->writes_memory ? run_store_form : run_load_form;
}

bool is_simd(const Insn& insn) { return (insn.row->flags & (x86::kMmx | x86::kSse | x86::kAvxState)) != 0; }

}  // namespace

bool gate_open_slow(Cpu& cpu, Gate gate) {
  const uint64_t cr0 = cpu.state.cr0, cr4 = cpu.state.cr4;
  if (gate == Gate::kAvx) {
    const bool real = (cr0 & x86::kCr0Pe) == 0 || (cpu.system_flags & x86::kVm) != 0;
    if (real || (cr4 & x86::kCr4Osxsave) == 0 || (cpu.state.xcr0 & 6) != 6) return cpu.raise(x86::kInvalidOpcode);
  } else {
    const bool needs_osfxsr = gate != Gate::kMmx;
    if ((cr0 & x86::kCr0Em) != 0 || (needs_osfxsr && (cr4 & x86::kCr4Osfxsr) == 0))
      return cpu.raise(x86::kInvalidOpcode);
  }
  if ((cr0 & x86::kCr0Ts) != 0) return cpu.raise(x86::kDeviceNotAvailable);
  const bool uses_x87 = gate == Gate::kMmx || gate == Gate::kSseMmx;
  if (uses_x87 && fx_pending_errors(cpu.vector) != 0) return cpu.raise(x86::kX87Error);
  return true;
}

Handler vector_handler(const Insn& insn, Cpu& cpu, uint64_t& scratch) {
  if (Handler handler = xsave_handler(insn)) return handler;
  if ((insn.row->flags & x86::kX87) != 0 || insn.row->op == Op::kFwait) {
    if (Handler handler = x87_control_handler(insn)) return handler;
    return x87_handler(insn, cpu, scratch);
  }
  if (Handler handler = vector_masked_handler(insn)) return handler;
  if (Handler handler = vector_move_handler(insn)) return handler;
  return is_simd(insn) ? plan_handler(insn, cpu, scratch) : nullptr;
}

Result<void> vector_attach(Cpu& cpu) {
  cpu.thunks = TRY(VectorThunks::shared());
  vector_load_state(cpu);  // the FXSAVE image that x87 thunks load must be a valid one from the start
  return {};
}

void vector_detach(Cpu& cpu) { cpu.thunks = nullptr; }

}  // namespace tenon::interp
