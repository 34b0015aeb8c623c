// Cpu: the interpreter's working state of one vCPU and the contract between its handler families.
//
// The idea: guest code is decoded once into traces (straight runs of Steps inside one physical page); each Step's handler
// does its instruction and tail-calls the next. A handler that faults or must leave returns instead, and the run loop in
// run_loop.cc delivers the exception. There are no C++ exceptions and no longjmp: `if (!cpu.load(...)) return cpu.fault(step)`.
//
// Arithmetic flags are kept as LAHF and SETO leave them in AX (AH = SF ZF - AF - PF - CF, AL = OF), because arithmetic
// runs as the host's own instruction (host_alu.hh) and these are its two cheapest ways out of and back into RFLAGS.
// Vector and x87 registers live in `vector` in the layout that the host thunks (vector_thunk.cc) load and store.
#pragma once

#include <cstdint>
#include <cstring>

#include "engine/engine.hh"
#include "engine/x86/cpu_state.hh"
#include "engine/x86/insn.hh"

namespace tenon::interp {

using x86::Insn;
using x86::SegmentIndex;

class Cpu;
struct Step;

/// Executes one instruction and tail-calls the next step's handler with `return next(cpu, step)`; returns plainly to leave
/// the trace (fault, branch out, end of trace).
using Handler = void (*)(Cpu& cpu, const Step* step);

struct Step {
  Handler handler = nullptr;
  Insn insn;
  uint16_t offset = 0;  // of this instruction from the trace's first byte; offset + insn.length is the next one's
};

inline void next(Cpu& cpu, const Step* step) { return step[1].handler(cpu, step + 1); }

enum class Access : uint8_t { kRead, kWrite, kExecute };
/// Who asks, for paging: the CPL's own rights, or an implicit supervisor access to GDT, LDT, IDT or TSS (SDM Vol. 3 4.6.1).
enum class Privilege : uint8_t { kCurrent, kSupervisor };

/// The exception a failed operation wants delivered.
struct Fault {
  uint8_t vector = 0;
  bool has_error_code = false;
  uint32_t error_code = 0;
};

/// One L1 soft-TLB line. tag = linear page | generation (12 bits), so that a flush is an increment.
struct TlbEntry {
  uint64_t tag = ~uint64_t{0};
  uint64_t addend = 0;  // host address = linear + addend
};

/// Guest vector and x87 state in the form the thunks use.
struct alignas(64) VectorState {
  uint8_t ymm[16][32];         // XMM low half, YMM high half
  alignas(16) uint8_t fx[512]; // FXSAVE64 image: x87 registers and control words; its XMM part is unused
  uint32_t mxcsr;
  alignas(64) uint8_t memory[64];  // memory operand of the running instruction, copied in and out by the handler
};

class alignas(64) Cpu {
 public:
  static constexpr unsigned kTlbEntries = 1024;
  /// TLB sets by who asks: CPL 3; CPL 0-2 that may not touch user pages (CR4.SMAP and not AC); CPL 0-2 that may.
  enum TlbMode : uint8_t { kTlbUser, kTlbSupervisor, kTlbSupervisorUser, kTlbModes };

  // --- Hot state, used by every handler.
  uint64_t gpr[16];
  uint64_t trace_rip;          // RIP of the running trace's first instruction
  uint64_t rip;                // valid outside traces and after leave(): the next instruction
  uint16_t arithmetic_flags;   // AX form, see above
  bool in_long_mode;           // CS.L with EFER.LMA: 64-bit code
  uint8_t cpl;
  TlbMode tlb_mode;            // for Privilege::kCurrent
  uint8_t stack_address_size;  // 2, 4 or 8 (SS.B, or 8 in 64-bit mode)
  bool has_fault;
  Fault pending_fault;
  uint64_t tlb_generation;     // low 12 bits go into tags
  uint64_t system_flags;       // RFLAGS without the arithmetic bits: DF, IF, TF, AC, ... and the always-one bit
  TlbEntry tlb[kTlbModes][2][kTlbEntries];  // [mode][Access::kRead or kWrite]

  // --- The rest of the architectural state. gpr, rip, arithmetic flags and xsave of `state` are stale while running.
  x86::CpuState state;
  VectorState vector;

  // --- Memory (memory.cc). All return false with pending_fault set when the access faults; nothing is then changed.

  /// Reads T at segment:offset for the running step: segment checks, translation, MMIO call-out, page crossing.
  template <typename T>
  bool load(SegmentIndex segment, uint64_t offset, T& out);
  template <typename T>
  bool store(SegmentIndex segment, uint64_t offset, T value);
  /// Host pointer for a read-modify-write of `size_bytes` at segment:offset: both rights are checked, A and D are set. For
  /// MMIO, page-crossing or watched pages it points to `rmw_buffer` and finish_rmw() completes the write; call that
  /// after the modification in every case. nullptr on fault. `locked` makes page-crossing operands stop the world.
  void* begin_rmw(SegmentIndex segment, uint64_t offset, unsigned size_bytes, bool locked);
  void finish_rmw();
  /// Any length up to 4096; for FXSAVE, XSAVE, vectors, string chunks. Checked in full before the first byte moves.
  bool load_bytes(SegmentIndex segment, uint64_t offset, void* out, unsigned size_bytes);
  bool store_bytes(SegmentIndex segment, uint64_t offset, const void* bytes, unsigned size_bytes);
  /// Checks that a later store of `size_bytes` will succeed (rights, limits, A/D set), for instructions with several writes.
  bool probe_store(SegmentIndex segment, uint64_t offset, unsigned size_bytes);
  /// System-structure access at a linear address (descriptors, TSS, IDT) with the given privilege.
  template <typename T>
  bool load_linear(uint64_t linear, T& out, Privilege privilege);
  template <typename T>
  bool store_linear(uint64_t linear, T value, Privilege privilege);
  /// segment:offset to linear with limit, type and canonical checks for `size_bytes`; #GP or #SS otherwise.
  bool linear_address(SegmentIndex segment, uint64_t offset, unsigned size_bytes, Access access, uint64_t& linear);
  void flush_tlb();                      // all non-global and global translations
  void flush_tlb_page(uint64_t linear);
  /// Recomputes cpl, in_long_mode, tlb_mode, stack_address_size after CR0/CR4/EFER/CS/SS/AC changed.
  void update_mode();

  // --- Registers.
  uint64_t rflags() const;                 // assembled
  void set_rflags(uint64_t value);         // split; no permission checks
  template <typename T>
  T reg(unsigned number) const;            // uint8_t here means the low byte; see reg8()
  /// 8-bit register as the instruction encodes it: 4-7 are AH CH DH BH without REX (SDM Vol. 2 3.1.1.1).
  uint8_t reg8(const Insn& insn, unsigned number) const;
  void set_reg8(const Insn& insn, unsigned number, uint8_t value);
  /// 16-bit writes keep the upper bits, 32-bit writes clear bits 63:32 (SDM Vol. 1 3.4.1.1).
  template <typename T>
  void set_reg(unsigned number, T value);
  /// Offset of the memory operand, cut to the address size.
  uint64_t effective_offset(const Step* step) const;

  // --- Faults and leaving.
  bool raise(x86::Vector vector);                       // returns false, for `return cpu.raise(...)`
  bool raise(x86::Vector vector, uint32_t error_code);
  /// Leaves the trace because pending_fault is set: rip = the faulting instruction.
  void fault(const Step* step);
  /// Leaves the trace after completing `step`, at its next instruction (mode change, STI, HLT, I/O that raised a stop...).
  void leave_after(const Step* step);
  /// Leaves the trace with rip = `target` (already cut to the operand size); canonical and limit checks are the caller's.
  void leave_to(uint64_t target);
  uint64_t next_rip(const Step* step) const { return trace_rip + step->offset + step->insn.length; }
};

}  // namespace tenon::interp
