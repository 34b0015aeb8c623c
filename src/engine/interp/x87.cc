// x87 instructions that compute, as host thunks (vector_thunk.hh).
//
// The handler does what the thunk cannot: gates, the memory operand, and the instruction and operand pointers, in which
// the host has put addresses of ours. They are marked before the thunk runs; what the host has changed afterwards gets
// the guest's value. So FIP, FDP and FOP change exactly when the host CPU changes them (on current ones FDP and FOP
// only at an unmasked exception: CPUID.7.EBX[6]), and FCS and FDS are 0 (CPUID.7.EBX[13]).
//
// Source: Intel SDM Vol. 1 chapter 8, rev. 325383-080.
// Deviation: CR0.NE = 0 raises #MF as CR0.NE = 1 does; there is no FERR# pin and no IRQ13.

#include "engine/interp/vector.hh"

namespace tenon::interp {

namespace {

const X87Plan& plan_of(const Step* step) { return *reinterpret_cast<const X87Plan*>(step->scratch); }

/// Control words, pointers and data registers in VectorState::fx.
constexpr unsigned kFxUsedBytes = Fx::kRegisters + 8 * Fx::kRegisterBytes;

/// FIP, FDP and FOP of the guest while the host's are in VectorState::fx. The marks are values no thunk can produce: 1
/// is no code address, DF FF is no instruction.
struct Pointers {
  static constexpr uint64_t kAddressMark = 1;
  static constexpr uint16_t kOpcodeMark = 0x7ff;
  uint64_t ip, dp;
  uint16_t opcode;
};

Pointers mark_pointers(VectorState& state) {
  const Pointers old{fx_get<uint64_t>(state, Fx::kIp), fx_get<uint64_t>(state, Fx::kDp),
                     fx_get<uint16_t>(state, Fx::kOpcode)};
  fx_set<uint64_t>(state, Fx::kIp, Pointers::kAddressMark);
  fx_set<uint64_t>(state, Fx::kDp, Pointers::kAddressMark);
  fx_set<uint16_t>(state, Fx::kOpcode, Pointers::kOpcodeMark);
  return old;
}

/// FOP: the low three bits of the first opcode byte and ModRM (SDM Vol. 1 8.1.9).
uint16_t opcode_register(const Insn& insn) { return static_cast<uint16_t>((insn.opcode & 7u) << 8 | insn.modrm); }

void set_pointers(VectorState& state, const Pointers& old, const Insn& insn, uint64_t ip, uint64_t operand_offset) {
  const bool ip_changed = fx_get<uint64_t>(state, Fx::kIp) != Pointers::kAddressMark;
  const bool dp_changed = fx_get<uint64_t>(state, Fx::kDp) != Pointers::kAddressMark;
  const bool opcode_changed = fx_get<uint16_t>(state, Fx::kOpcode) != Pointers::kOpcodeMark;
  fx_set<uint64_t>(state, Fx::kIp, ip_changed ? ip : old.ip);
  fx_set<uint64_t>(state, Fx::kDp, dp_changed ? operand_offset : old.dp);
  fx_set<uint16_t>(state, Fx::kOpcode, opcode_changed ? opcode_register(insn) : old.opcode);
}

/// An 80-bit operand is written as processors write it, 8 bytes and then 2: where only the second access faults, the
/// first has happened.
bool store_x87(Cpu& cpu, SegmentIndex segment, uint64_t offset, const uint8_t* bytes, unsigned size_bytes) {
  if (size_bytes != 10) return store_vector(cpu, segment, offset, bytes, size_bytes);
  return store_vector(cpu, segment, offset, bytes, 8) && store_vector(cpu, segment, offset + 8, bytes + 8, 2);
}

void run_x87(Cpu& cpu, const Step* step) {
  const X87Plan& plan = plan_of(step);
  const Insn& insn = step->insn;
  VectorState& state = cpu.vector;
  if (!x87_gate_open(cpu, true)) [[unlikely]]
    return cpu.fault(step);
  const SegmentIndex segment = operand_segment(insn);
  const uint64_t offset = insn.is_memory ? cpu.effective_offset(step) : 0;
  uint8_t before[kFxUsedBytes];
  if (plan.writes_memory) {
    std::memcpy(before, state.fx, sizeof before);
  } else if (insn.is_memory && !load_vector(cpu, segment, offset, state.memory, plan.memory_bytes)) [[unlikely]] {
    return cpu.fault(step);
  }
  const Pointers old = mark_pointers(state);
  const uint32_t flags = plan.code(nullptr, state.memory, cpu.arithmetic_flags, nullptr, &state, nullptr);
  set_pointers(state, old, insn, cpu.this_rip(step), offset);
  if (plan.uses_flags) cpu.arithmetic_flags = static_cast<uint16_t>(flags);
  // A store whose invalid operand, overflow or underflow exception is unmasked does not happen; one that is only
  // inexact does (SDM Vol. 1 8.5).
  if (plan.writes_memory && (fx_pending_errors(state) & Fx::kErrorsThatStopStores) == 0 &&
      !store_x87(cpu, segment, offset, state.memory, plan.memory_bytes)) [[unlikely]] {
    std::memcpy(state.fx, before, sizeof before);
    return cpu.fault(step);
  }
  return next(cpu, step);
}

}  // namespace

Handler x87_handler(const Insn& insn, Cpu& cpu, uint64_t& scratch) {
  const X87Plan* plan = cpu.thunks->x87_plan(insn);
  if (plan == nullptr) return nullptr;
  scratch = reinterpret_cast<uint64_t>(plan);
  return run_x87;
}

}  // namespace tenon::interp
