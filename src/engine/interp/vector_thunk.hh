// VectorThunks: each SIMD and x87 instruction as a small host function around the host's own instruction.
//
// The idea: a guest ADDPS becomes "load the guest's operands into host registers, ADDPS, store the result". Nothing of
// what the instruction computes is written again, so results, flags and rounding are the host CPU's to the bit.
// Operands are passed as pointers to where the guest's values are (VectorState::ymm, Cpu::gpr, the copied memory
// operand), and the thunk always uses the same host registers. So a thunk depends on the opcode, the prefixes that
// select it, the register or memory form and the immediate, never on guest register numbers or addresses: their number
// has a bound that no guest can exceed, and they are made once for the whole process.
//
// Code layout (System V ABI; a leaf that does not move RSP):
//   in     rdi = ModRM.reg operand, rsi = ModRM.rm operand or memory buffer, rdx = VEX.vvvv operand, rcx = imm8[7:4]
//          operand, r8 = VectorState, r9 = general registers
//   uses   xmm/mm 1, 2, 3, 4 for those four operands, xmm0 for an implicit XMM0, rax for a general register operand
//   out    eax = flags in the form of Cpu::arithmetic_flags where the instruction writes them, kTrapped after an
//          unmasked SIMD exception: nothing is then written but VectorState::mxcsr
// Legacy SSE loads and stores 16 bytes, so the upper YMM half in memory stays; VEX stores 32, so what the instruction
// has zeroed is zero. VZEROUPPER and EMMS leave the registers as the ABI wants them.
//
// MXCSR. Loading it costs more than all the rest, so an instruction that uses it goes one of two ways. Where the
// guest's masks and modes are the host's (1F80H: nearly always) it runs with the host's MXCSR, whose sticky flags mean
// nothing to us; if afterwards no flag is set there that the guest has not set already, the guest's MXCSR is right as
// it is. In all other cases it runs (again: its operands are still in memory) with the guest's own MXCSR, which is then
// stored, and the host's is put back with its flags clear. Tenon's own code runs with MXCSR = 1F80H and looks at no
// flag.
//
// x87 thunks load the whole x87 state with FXRSTOR and save it with FXSAVE. They do not trap: an unmasked x87 exception
// stays pending in the status word, and the next waiting instruction's handler raises it (SDM Vol. 1 8.7).
//
// Threads: plan() and x87_plan() take a lock; plans never change or move, and their code runs on any thread.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.hh"
#include "engine/interp/cpu.hh"

namespace tenon::interp {

/// Where an operand of a plan is.
enum class Place : uint8_t {
  kNone,
  kXmm,     // VectorState::ymm
  kMmx,     // mantissa of the x87 register in VectorState::fx
  kGpr,     // Cpu::gpr
  kMemory,  // VectorState::memory
};

/// What CR0, CR4 and XCR0 must allow for the instruction (SDM Vol. 2 2.4, Vol. 3 2.5).
enum class Gate : uint8_t { kMmx, kSse, kSseMmx, kAvx };

struct VectorPlan {
  using Code = uint32_t (*)(void* reg, void* rm, void* vvvv, void* is4, VectorState* state, uint64_t* gpr);
  static constexpr uint32_t kTrapped = 0xffffffff;

  Code code = nullptr;
  Gate gate = Gate::kSse;
  Place reg = Place::kNone;
  Place rm = Place::kNone;
  uint8_t memory_bytes = 0;    // size of the memory operand
  bool writes_memory = false;  // it is the destination
  bool aligned = false;        // #GP(0) unless it is aligned to its size
  bool may_trap = false;       // the result says kTrapped or not; else only writes_flags gives it a meaning
  bool writes_flags = false;
  bool writes_mmx_reg = false;  // bits 79:64 of the x87 register become ones (SDM Vol. 1 9.2)
  bool writes_mmx_rm = false;

  bool uses_mmx() const { return reg == Place::kMmx || rm == Place::kMmx; }
};

/// An x87 instruction. Where it uses flags, they go in through rdx (in place of a pointer) and come out in eax.
struct X87Plan {
  using Code = uint32_t (*)(void*, void* memory, uint64_t flags, void*, VectorState* state, uint64_t*);
  Code code = nullptr;
  uint8_t memory_bytes = 0;
  bool writes_memory = false;
  bool uses_flags = false;  // FCMOVcc reads them, FCOMI writes them unless its unmasked exception stops it
};

class VectorThunks {
 public:
  /// The process's thunks, made at the first call.
  static Result<VectorThunks*> shared();
  ~VectorThunks();

  /// The plan of a SIMD instruction; nullptr when code memory is full (see kCodeBytes). `long_mode`: 64-bit code.
  const VectorPlan* plan(const Insn& insn, bool long_mode);
  /// The plan of an x87 instruction that computes (not of the control instructions in x87_control.cc).
  const X87Plan* x87_plan(const Insn& insn);

 private:
  struct Impl;
  explicit VectorThunks(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tenon::interp
