// What the vector and x87 handler files share: gates, memory operands, the x87/MMX view of VectorState::fx.
#pragma once

#include <cstdint>
#include <cstring>

#include "engine/interp/cpu_inline.hh"
#include "engine/interp/vector_thunk.hh"

namespace tenon::interp {

// Parts of the vector family, in the order in which vector_handler() asks them.
Handler vector_move_handler(const Insn& insn);                       // vector_move.cc
Handler vector_masked_handler(const Insn& insn);                     // vector_masked.cc
Handler x87_control_handler(const Insn& insn);                       // x87_control.cc
Handler x87_handler(const Insn& insn, Cpu& cpu, uint64_t& scratch);  // x87.cc
Handler xsave_handler(const Insn& insn);                             // xsave.cc

/// VectorState::fx by the layout of FXSAVE64 (SDM Vol. 1 10.5.1).
struct Fx {
  enum : unsigned {
    kControl = 0,
    kStatus = 2,
    kTags = 4,
    kOpcode = 6,
    kIp = 8,
    kDp = 16,
    kRegisters = 32,
    kRegisterBytes = 16
  };
  enum : uint16_t {
    kErrorFlags = 0x3f,
    kErrorsThatStopStores = 0x1f,
    kErrorSummary = 1 << 7,
    kTop = 7 << 11,
    kBusy = 1 << 15,
    kInitialControl = 0x37f,
  };
};

template <typename T>
inline T fx_get(const VectorState& state, unsigned at) {
  T value;
  std::memcpy(&value, state.fx + at, sizeof value);
  return value;
}
template <typename T>
inline void fx_set(VectorState& state, unsigned at, T value) {
  std::memcpy(state.fx + at, &value, sizeof value);
}
inline unsigned fx_top(const VectorState& state) { return (fx_get<uint16_t>(state, Fx::kStatus) >> 11) & 7u; }
inline uint8_t* fx_register(VectorState& state, unsigned slot) {
  return state.fx + Fx::kRegisters + Fx::kRegisterBytes * slot;
}

/// Turns the register slots, which are in stack order, for a TOP that changes while the registers stay where they are.
void fx_turn(VectorState& state, unsigned old_top, unsigned new_top);
/// Makes TOP 0, so that slot n is physical register n, which is MMn.
void fx_reset_top(VectorState& state);
/// Unmasked exception flags: those that make the next waiting instruction raise #MF.
inline unsigned fx_pending_errors(const VectorState& state) {
  return fx_get<uint16_t>(state, Fx::kStatus) & ~unsigned{fx_get<uint16_t>(state, Fx::kControl)} & Fx::kErrorFlags;
}
/// Writes control and status word as a processor holds them: reserved bits fixed, ES and B derived (SDM Vol.
/// 1 8.1.3.3).
void fx_set_control_status(VectorState& state, uint16_t control, uint16_t status);
/// FNINIT: the registers keep their contents (SDM Vol. 1 8.1.3).
void fx_init(VectorState& state);

/// CR0.EM and CR0.TS; for a waiting instruction also pending exceptions. False with #NM or #MF raised.
inline bool x87_gate_open(Cpu& cpu, bool waiting) {
  if ((cpu.state.cr0 & (x86::kCr0Em | x86::kCr0Ts)) != 0) [[unlikely]]
    return cpu.raise(x86::kDeviceNotAvailable);
  if (waiting && fx_pending_errors(cpu.vector) != 0) [[unlikely]]
    return cpu.raise(x86::kX87Error);
  return true;
}

/// Slow half of gate_open(): raises #UD or #NM (or #MF for MMX) unless the gate is open after all.
bool gate_open_slow(Cpu& cpu, Gate gate);

inline bool gate_open(Cpu& cpu, Gate gate) {
  const uint64_t cr0 = cpu.state.cr0, cr4 = cpu.state.cr4;
  if (gate == Gate::kSse) {
    const bool closed = (cr0 & (x86::kCr0Em | x86::kCr0Ts)) != 0 || (cr4 & x86::kCr4Osfxsr) == 0;
    if (!closed) [[likely]]
      return true;
  } else if (gate == Gate::kAvx) {
    const bool open = (cr0 & (x86::kCr0Ts | x86::kCr0Pe)) == x86::kCr0Pe && (cr4 & x86::kCr4Osxsave) != 0 &&
                      (cpu.state.xcr0 & 6) == 6 && (cpu.system_flags & x86::kVm) == 0;
    if (open) [[likely]]
      return true;
  }
  return gate_open_slow(cpu, gate);
}

/// A 16- or 32-byte access to guest RAM as one host instruction.
typedef long long Bytes16 __attribute__((vector_size(16), aligned(1), may_alias));

/// Copies an operand of 1 to 32 bytes with the host accesses a processor would make.
TENON_GUEST_ACCESS inline void copy_operand(void* to, const void* from, unsigned size_bytes) {
  switch (size_bytes) {
    case 16: *static_cast<Bytes16*>(to) = *static_cast<const Bytes16*>(from); return;
    case 32:
      static_cast<Bytes16*>(to)[0] = static_cast<const Bytes16*>(from)[0];
      static_cast<Bytes16*>(to)[1] = static_cast<const Bytes16*>(from)[1];
      return;
    case 8: store_host<uint64_t>(to, load_host<uint64_t>(from)); return;
    case 4: store_host<uint32_t>(to, load_host<uint32_t>(from)); return;
    case 2: store_host<uint16_t>(to, load_host<uint16_t>(from)); return;
    case 1: store_host<uint8_t>(to, load_host<uint8_t>(from)); return;
    default: copy_host(to, from, size_bytes); return;
  }
}

/// The offset of a part of an operand wraps at the address size.
inline uint64_t cut_to_address_size(const Insn& insn, uint64_t offset) {
  if (insn.address_size == 8) return offset;
  return insn.address_size == 4 ? static_cast<uint32_t>(offset) : static_cast<uint16_t>(offset);
}

inline SegmentIndex operand_segment(const Insn& insn) { return static_cast<SegmentIndex>(insn.segment); }

inline bool load_vector(Cpu& cpu, SegmentIndex segment, uint64_t offset, void* out, unsigned size_bytes) {
  const void* host = cpu.try_host(segment, offset, size_bytes, Access::kRead);
  if (host == nullptr) [[unlikely]]
    return cpu.load_bytes(segment, offset, out, size_bytes);
  copy_operand(out, host, size_bytes);
  return true;
}

inline bool store_vector(Cpu& cpu, SegmentIndex segment, uint64_t offset, const void* bytes, unsigned size_bytes) {
  void* host = cpu.try_host(segment, offset, size_bytes, Access::kWrite);
  if (host == nullptr) [[unlikely]]
    return cpu.store_bytes(segment, offset, bytes, size_bytes);
  copy_operand(host, bytes, size_bytes);
  return true;
}

/// #GP(0) unless the linear address of segment:offset is a multiple of `alignment` (SDM Vol. 2 2.4, classes 1, 4 and
/// others).
inline bool check_aligned(Cpu& cpu, SegmentIndex segment, uint64_t offset, unsigned alignment) {
  if (((cpu.window[segment].base + offset) & (alignment - 1)) == 0) [[likely]]
    return true;
  return cpu.raise(x86::kGeneralProtection, 0);
}

/// Enters MMX state for the instruction that is about to complete: TOP = 0, all tags valid (SDM Vol. 1 9.5.1).
inline void enter_mmx(VectorState& state) {
  if ((fx_get<uint16_t>(state, Fx::kStatus) & Fx::kTop) != 0) fx_reset_top(state);
  state.fx[Fx::kTags] = 0xff;
}

}  // namespace tenon::interp
