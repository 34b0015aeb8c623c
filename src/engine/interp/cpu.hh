// Cpu: the interpreter's working state of one vCPU and the contract between its handler families.
//
// The idea: guest code is decoded once into traces (straight runs of Steps inside one physical page); each Step's
// handler does its instruction and tail-calls the next. A handler that faults or must leave returns instead, and the
// run loop in run_loop.cc delivers the exception. There are no C++ exceptions and no longjmp: `if (!cpu.load(...))
// return cpu.fault(step)`. One instruction has one commit point: registers change only after the last thing that can
// fault.
//
// Arithmetic flags are kept as LAHF and SETO leave them in AX (AH = SF ZF - AF - PF - CF, AL = OF), because arithmetic
// runs as the host's own instruction (host_alu.hh) and these are its two cheapest ways out of and back into RFLAGS.
// Vector and x87 registers live in `vector` in the layout that the host thunks load and store.
//
// Who implements what: soft_tlb.hh what is remembered of page tables; memory.cc the slow paths of memory access;
// segment.cc update_mode(); trace_cache.cc everything about code; run_loop.cc the rest of what is not inline. Inline
// bodies are in cpu_inline.hh, which handler files include. Threads: a Cpu belongs to its vCPU's thread; other threads
// reach it only through VcpuSignal and Safepoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

#include "engine/engine.hh"
#include "engine/interp/accelerator.hh"
#include "engine/interp/safepoint.hh"
#include "engine/interp/soft_tlb.hh"
#include "engine/x86/cpu_state.hh"
#include "engine/x86/cpuid.hh"
#include "engine/x86/insn.hh"
#include "engine/x86/paging.hh"

namespace tenon::interp {

using x86::Insn;
using x86::SegmentIndex;

class Cpu;
class TraceCache;
class VectorThunks;
class WriteLog;
struct Step;

/// Executes one instruction and tail-calls the next step's handler with `return next(cpu, step)`; returns plainly to
/// leave the trace (fault, branch out, end of trace).
using Handler = void (*)(Cpu& cpu, const Step* step);

struct alignas(64) Step {
  Handler handler = nullptr;
  /// As decoded, but prepared for effective_offset(): base and index are always valid numbers into Cpu::gpr
  /// (kZeroRegister where there is none, kTraceRip with an adjusted displacement for RIP-relative operands).
  Insn insn;
  uint16_t offset = 0;     // of this instruction from the trace's first byte; offset + insn.length is the next one's
  uint16_t remaining = 0;  // instructions of the trace after this one: leaving here takes them off the count
  uint64_t scratch = 0;    // for the family that owns the handler, set when the trace is built (vector: the thunk)
};
static_assert(sizeof(Step) == 64);

inline void next(Cpu& cpu, const Step* step) { return step[1].handler(cpu, step + 1); }

enum class Access : uint8_t { kRead, kWrite, kExecute };
/// Who asks, for paging: the CPL's own rights, or an implicit supervisor access to GDT, LDT, IDT or TSS (SDM
/// Vol. 3 4.6.1).
enum class Privilege : uint8_t { kCurrent, kSupervisor };

/// The exception a failed operation wants delivered.
struct Fault {
  uint8_t vector = 0;
  bool has_error_code = false;
  uint32_t error_code = 0;
};

/// What the inline path needs of a segment register: linear = base + offset is allowed without further checks where
/// offset + size <= end. In 64-bit mode `base` is 0 but for FS and GS and the ends are 2^64 - 1; the ends are 0 where
/// only the slow path can tell (null, expand-down, execute-only). Kept by update_mode().
struct SegmentWindow {
  uint64_t base = 0;
  uint64_t read_end = 0;
  uint64_t write_end = 0;
};

/// Guest vector and x87 state in the form the thunks use.
struct alignas(64) VectorState {
  uint8_t ymm[16][32];          // XMM low half, YMM high half
  alignas(64) uint8_t fx[512];  // FXSAVE64 image: x87 registers and control words; its XMM part is unused
  uint8_t fx_header[64];        // of XSAVE, for translated code (jit/stubs.cc), which keeps `fx` with XSAVE and XRSTOR
  uint32_t mxcsr;
  alignas(64) uint8_t memory[64];  // memory operand of the running instruction, copied in and out by the handler
};

/// A page of guest code translated for fetching.
struct Translation {
  Gpa gpa;              // of the byte asked for
  bool global = false;  // survives CR3 loads (PTE.G with CR4.PGE)
};

class alignas(64) Cpu {
 public:
  using TlbMode = interp::TlbMode;  // which tables of the soft TLB answer for Privilege::kCurrent
  using enum interp::TlbMode;
  static constexpr unsigned kZeroRegister = 16;  // gpr[16] is always 0
  static constexpr unsigned kTraceRip = 17;      // RIP (offset in CS) of the running trace's first instruction
  static constexpr unsigned kConstant = 18;  // set by the trace builder's helper step where a displacement is too long

  /// Reasons for the run loop to look before it enters the next trace.
  enum Attention : uint32_t {
    kAttentionFault = 1u << 0,   // pending_fault is to be delivered
    kAttentionEvents = 1u << 1,  // IF, CR8, activity, NMI blocking... changed: look for interrupts
    kAttentionStep = 1u << 2,    // one instruction at a time: TF, RF, DR7 or a shadow is in force
  };
  /// Interrupts wait for one more instruction after STI; interrupts and #DB after MOV SS and POP SS (SDM Vol. 3 6.8.3).
  enum class Shadow : uint8_t { kNone, kSti, kMovSs };

  // --- Hot state, used by every handler.
  uint64_t gpr[19];           // 16 general registers, zero, trace RIP, constant
  uint64_t rip;               // valid outside traces and after leave: offset in CS of the next instruction
  uint16_t arithmetic_flags;  // AX form, see above
  bool in_long_mode;          // CS.L with EFER.LMA: 64-bit code
  uint8_t cpl;
  TlbMode tlb_mode;            // for Privilege::kCurrent
  uint8_t stack_address_size;  // 2, 4 or 8 (SS.B, or 8 in 64-bit mode)
  x86::CodeSize code_size;
  bool has_fault;         // pending_fault is set; with kAttentionFault
  uint32_t attention;     // Attention bits
  TlbEntry* tlb_read;     // tlb.table(tlb_mode, false)
  TlbEntry* tlb_write;    // tlb.table(tlb_mode, true)
  uint64_t linear_mask;   // 2^64 - 1 in 64-bit mode, else 2^32 - 1
  uint64_t system_flags;  // RFLAGS without the arithmetic bits: DF, IF, TF, AC, ... and the always-one bit
  uint64_t code_base;     // CS base, 0 in 64-bit mode
  uint64_t instructions;  // retired, counted by trace
  SegmentWindow window[x86::kSegmentCount];
  Fault pending_fault;
  TranslatedState translated;
  SoftTlb tlb;  // attach() before anything else

  // --- The rest of the architectural state. gpr, rip, rflags, interrupt_shadow and xsave of `state` are stale while
  // running (run loop: save_state(), load_state()); everything else is authoritative there.
  x86::CpuState state;
  VectorState vector;
  Shadow shadow;
  uint32_t pauses;      // PAUSE executed: every so often it yields the host CPU
  bool interrupt_hint;  // an interrupt may be waiting in the local APIC that IF = 0 or a shadow holds back
  uint32_t debug_hits;  // DR6 bits B0-B3, BD, BT gathered by the running instruction: #DB trap after it

  // --- Fixed at creation (io: at run()).
  CpuIo* io;
  GuestMemory* memory;
  Clock* clock;
  VcpuSignal* signal;
  Safepoint* safepoint;  // of the VM
  Safepoint::Member member;
  TraceCache* traces;
  Accelerator* accelerator;               // InterpVcpu::set_accelerator(); nullptr: none
  CodeChanges::Listener change_listener;  // where there is one
  VectorThunks* thunks;                   // vector_attach()
  std::span<const CpuidEntry> cpuid;
  x86::CpuLimits limits;     // what `cpuid` allows in control registers; set by system_attach()
  x86::PagingMode paging;    // of `state`, kept by update_mode() and flush_tlb()
  x86::FeatureSet features;  // what the trace builder lets through; set by system_attach()
  VcpuId id;
  WriteLog* write_log;  // nullptr but while a block runs that may be undone (write_log.hh)
  VcpuStats counters;
  void* rmw_host;  // begin_rmw()/finish_rmw() scratch, memory.cc's
  alignas(64) uint8_t rmw_buffer[64];
  struct Rmw {
    SegmentIndex segment;
    uint64_t offset;
    unsigned size_bytes;
    uint64_t gpa[2];
    uint8_t kind;
  } rmw;

  // --- Memory. All return false with pending_fault set when the access faults; nothing is then changed.

  /// Reads T (1, 2, 4 or 8 bytes) at segment:offset for the running step: segment checks, translation, MMIO call-out,
  /// page crossing. `offset` is already cut to the address size.
  template <typename T>
  bool load(SegmentIndex segment, uint64_t offset, T& out);
  template <typename T>
  bool store(SegmentIndex segment, uint64_t offset, T value);
  /// The same in 64-bit mode through ES, CS, SS or DS, where no segment check is left: the handlers of 64-bit code.
  template <typename T>
  bool load_flat(SegmentIndex segment, uint64_t linear, T& out);
  template <typename T>
  bool store_flat(SegmentIndex segment, uint64_t linear, T value);
  /// Host address of segment:offset where the TLB has it and it does not cross a page, or nullptr (not a fault: use the
  /// slow way).
  void* try_host(SegmentIndex segment, uint64_t offset, unsigned size_bytes, Access access);

  // memory.cc:
  bool load_slow(SegmentIndex segment, uint64_t offset, void* out, unsigned size_bytes);
  bool store_slow(SegmentIndex segment, uint64_t offset, const void* value, unsigned size_bytes);
  /// Host pointer for a read-modify-write of `size_bytes` at segment:offset: both rights are checked, A and D are set.
  /// It points into guest RAM also for pages with code. For MMIO and page-crossing operands it points to `rmw_buffer`
  /// and finish_rmw() completes the write; call that after the modification in every case. nullptr on fault. `locked`
  /// makes page-crossing operands stop the world (enter_exclusive() before translating).
  void* begin_rmw(SegmentIndex segment, uint64_t offset, unsigned size_bytes, bool locked);
  void finish_rmw();
  /// Any length up to 4096; for FXSAVE, XSAVE, vectors, string chunks. Checked in full before the first byte moves.
  bool load_bytes(SegmentIndex segment, uint64_t offset, void* out, unsigned size_bytes);
  bool store_bytes(SegmentIndex segment, uint64_t offset, const void* bytes, unsigned size_bytes);
  /// Checks that a later store of `size_bytes` will succeed (rights, limits, A/D set), for instructions with several
  /// writes.
  bool probe_store(SegmentIndex segment, uint64_t offset, unsigned size_bytes);
  /// System-structure access at a linear address (descriptors, TSS, IDT) with the given privilege.
  template <typename T>
  bool load_linear(uint64_t linear, T& out, Privilege privilege) {
    return load_linear_slow(linear, &out, sizeof(T), privilege);
  }
  template <typename T>
  bool store_linear(uint64_t linear, T value, Privilege privilege) {
    return store_linear_slow(linear, &value, sizeof(T), privilege);
  }
  bool load_linear_slow(uint64_t linear, void* out, unsigned size_bytes, Privilege privilege);
  bool store_linear_slow(uint64_t linear, const void* value, unsigned size_bytes, Privilege privilege);
  /// segment:offset to linear with limit, type and canonical checks for `size_bytes`; #GP or #SS otherwise.
  bool linear_address(SegmentIndex segment, uint64_t offset, unsigned size_bytes, Access access, uint64_t& linear);
  /// Translates for instruction fetch at the current CPL, sets A bits. False: #PF is pending.
  bool translate_fetch(uint64_t linear, Translation& out);
  // Dropping translations: each also tells whoever keeps translations of code (forget_code_translations()).
  /// Everything; `keep_global`: what MOV to CR3 drops, everything of the current PCID but globals. Also takes a new
  /// CR3, PCID or paging mode into account.
  void flush_tlb(bool keep_global);
  /// After MOV to CR3 with bit 63: the current PCID may have changed, its translations stay.
  void switch_tlb();
  void flush_tlb_page(uint64_t linear);                    // INVLPG
  void flush_tlb_page_of(uint16_t pcid, uint64_t linear);  // INVPCID type 0
  void flush_tlb_context(uint16_t pcid);                   // INVPCID type 1
  void flush_tlb_contexts();                               // INVPCID type 3
  /// CR0.WP changed: the tables' rights are wrong, translations are not.
  void flush_tlb_tables();
  /// Drops every entry of the write TLBs: some page has received code (safepoint; see CodeWatch). Entries for pages
  /// whose CodeWatch granules are not 0 must never be filled into a write TLB.
  void flush_write_tlb();
  /// Recomputes everything derived (cpl, code_size, in_long_mode, tlb_*, stack_address_size, linear_mask, code_base,
  /// windows) after CR0, CR4, EFER, AC, DR7 or any segment register changed, then calls code_context_changed().
  void update_mode();
  /// The same where only CS and SS have changed, from 64-bit code to 64-bit code: the level is another one.
  void update_level();

  // --- Code (trace_cache.cc).
  /// Translations were dropped or CR3 was loaded. With `keep_global` global ones are still good, and those of another
  /// tlb.context() are once that is the current one again.
  void forget_code_translations(bool keep_global);
  void forget_code_translations_of(uint64_t context);                  // which is not the current one
  void forget_code_translation(uint64_t linear, uint64_t size_bytes);  // of the pages in [linear, linear + size)
  /// CS or what it means has changed: the next trace lookup uses the new base, limit, size and rights.
  void code_context_changed();
  /// After bytes of guest RAM were written at [gpa, gpa + size) other than through a write-TLB entry: tells CodeWatch,
  /// and makes the running trace end after this instruction where its own bytes may have changed.
  void code_written(Gpa gpa, uint64_t size_bytes);
  /// Stops all other vCPUs at instruction boundaries until leave_exclusive(), for split locks. No translation made
  /// before it may be used after it. Not nested.
  void enter_exclusive();
  void leave_exclusive();

  /// For the accelerator, in the state in which its run() is called: interprets the one instruction at `rip`. What it
  /// leaves behind is as ever in `attention` (also its fault, with kAttentionFault).
  void interpret_one();

  // --- Registers.
  uint64_t rflags() const;  // assembled
  /// Split; no permission checks. Keeps attention (TF, RF, IF) and update_mode() (AC) right: leave the trace after it.
  void set_rflags(uint64_t value);
  template <typename T>
  T reg(unsigned number) const {  // uint8_t here means the low byte; see reg8()
    return static_cast<T>(gpr[number]);
  }
  /// 8-bit register as the instruction encodes it: 4-7 are AH CH DH BH without REX (SDM Vol. 2 3.1.1.1).
  uint8_t reg8(const Insn& insn, unsigned number) const;
  void set_reg8(const Insn& insn, unsigned number, uint8_t value);
  /// 8- and 16-bit writes keep the upper bits, 32-bit writes clear bits 63:32 (SDM Vol. 1 3.4.1.1).
  template <typename T>
  void set_reg(unsigned number, T value);
  /// Offset of the memory operand, cut to the address size.
  uint64_t effective_offset(const Step* step) const;
  /// Offset in SS of `rsp` plus `delta`, cut to the stack address size.
  uint64_t stack_offset(int64_t delta) const;
  /// RSP, ESP or SP by the stack address size; the rest of RSP stays (16-bit) or is cleared (32-bit).
  void set_stack_offset(uint64_t offset);

  // --- Faults and leaving.
  bool raise(x86::Vector number);  // returns false, for `return cpu.raise(...)`
  bool raise(x86::Vector number, uint32_t error_code);
  /// Leaves the trace because pending_fault is set: rip = the faulting instruction.
  void fault(const Step* step);
  /// raise() and fault() in one, for `return cpu.fault(step, x86::kInvalidOpcode)`.
  void fault(const Step* step, x86::Vector number);
  void fault(const Step* step, x86::Vector number, uint32_t error_code);
  /// Leaves the trace after completing `step`, at its next instruction (mode change, STI, HLT, I/O that raised a
  /// stop...).
  void leave_after(const Step* step);
  /// Leaves the trace with `step` still (or again) to be executed: a string instruction between two iterations.
  void leave_at(const Step* step);
  /// Leaves the trace with rip = `target` (already cut to the operand size); canonical and limit checks are the
  /// caller's (is_code_target()). Only from the last step of a trace (rows with kBranch or kSerializing).
  void leave_to(uint64_t target) { rip = target; }
  /// Whether near control transfers may go to `target`: canonical in 64-bit mode, inside the limit of CS otherwise.
  bool is_code_target(uint64_t target) const;
  /// Something about interrupts changed (activity, CR8, NMI blocking): leave the trace after it and the run loop looks.
  void request_event_check() { attention |= kAttentionEvents; }
  /// STI, MOV SS, POP SS: then leave_after().
  void set_shadow(Shadow value) {
    shadow = value;
    attention |= kAttentionStep;
  }
  /// A data or I/O breakpoint, or a task switch with T set: `dr6_bits` of DR6 at the #DB after this instruction.
  void note_debug_hit(uint32_t dr6_bits) {
    debug_hits |= dr6_bits;
    attention |= kAttentionEvents;
  }
  uint64_t trace_rip() const { return gpr[kTraceRip]; }
  /// Offset in CS of this and of the following instruction.
  uint64_t this_rip(const Step* step) const { return (gpr[kTraceRip] + step->offset) & linear_mask; }
  uint64_t next_rip(const Step* step) const {
    return (gpr[kTraceRip] + step->offset + step->insn.length) & linear_mask;
  }

  // --- Whole state (run_loop.cc): between `state` in full and the working form.
  void load_state();
  void save_state();
};

/// Where translated code finds a table, from the start of Cpu.
constexpr size_t tlb_table_offset(TlbMode mode, bool write) {
  return offsetof(Cpu, tlb) + SoftTlb::table_offset(mode, write);
}
static_assert(std::is_standard_layout_v<Cpu>, "offsetof(Cpu, ...) is part of the contract with translated code");
static_assert(tlb_table_offset(kTlbUser, false) % 64 == 0);
static_assert(tlb_table_offset(kTlbUser, true) == tlb_table_offset(kTlbUser, false) + sizeof(TlbEntry) * 1024);
static_assert(tlb_table_offset(kTlbModes, false) < uint64_t{1} << 31);

}  // namespace tenon::interp
