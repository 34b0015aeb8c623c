// Runtime: the fixed pieces of machine code around translated code: the way in, the ways out, soft-TLB refill, loading
// vector registers; and the host's signals, by which translated code reports faults of the host's own instructions.
//
// Conventions of translated code (64-bit guest code only):
//   guest RAX RCX RDX RBX RBP RSI RDI R8 R12 R13 R14 R15   in the host registers of the same names
//   guest RSP                                             in host R9
//   guest R9 R10 R11                                      in Cpu::gpr (RIP-relative where it is near, else by GS)
//   guest CF PF AF ZF SF OF                               in host RFLAGS; host DF = 0, AC = 0, TF = 0 always
//   host R10, R11                                         scratch
//   guest RIP                                             known to the code, or code_shift more (kModeShifted, mode.hh)
//   host RSP                                              shadow return stack of host return addresses, in memory of
//   its
//                                                         own with guard pages; the code at each compares R10, the
//                                                         guest RIP returned to, with its own
//   GS base                                               address of the vCPU's interp::Cpu
//   XMM/YMM 0-15, MXCSR                                   the guest's if TranslatedState::vector_live, else anything
//   x87/MMX registers, control and status word            the guest's if x87_live, else anything
// All stubs keep the guest's registers and arithmetic flags. Between instructions of translated code the pinned
// registers hold the guest's values, so a host signal at an instruction that faults finds them all.
//
// Source: System V ABI for the C++ side; SDM Vol. 1 13 (XSAVE), Vol. 3 6.15 (#DE, #GP, #MF, #XM).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/host_fault.hh"
#include "base/result.hh"
#include "engine/interp/cpu.hh"
#include "engine/jit/assembler.hh"

namespace tenon::jit {

/// Why translated code was left; TranslatedState::exit_code. The argument is in exit_argument.
enum class ExitCode : uint8_t {
  kLink,        // a direct exit's stub; argument: return address in the stub (LinkSlot; polls too)
  kIndirect,    // argument: guest RIP to go to (not checked for anything yet)
  kInterpret,   // argument: InterpretSite*
  kSlowAccess,  // the soft TLB has no entry for an access and cannot have one; argument: address in the access's cold
                // code
  kHostFault,   // SIGSEGV, SIGFPE or SIGBUS of a host instruction; argument: its address
};

/// What stands at the return address of fill_stack and fill_group: a jump back to the check, then data.
struct [[gnu::packed]] GroupFillData {
  uint8_t retry[5];
  uint16_t span;        // bytes that the group accesses
  int32_t plain_rel32;  // to code without groups, from the end of this
};

/// Executable addresses of the stubs of one vCPU.
struct Stubs {
  /// void enter(uint64_t host): loads registers and flags from Cpu and goes to `host`; returns to its C++ caller when
  /// an exit stub was reached: gpr, arithmetic_flags are then stored; vector and x87 registers too, if they were live
  /// (the live bytes are 0 then).
  void (*enter)(uint64_t host) = nullptr;
  // Jumped to:
  uint64_t exit_indirect = 0;    // R10 = guest RIP
  uint64_t exit_interpret = 0;   // R10 = InterpretSite*
  uint64_t return_empty = 0;     // what an empty shadow return stack holds: goes to TranslatedState::return_miss
  uint64_t exit_named_link = 0;  // R10 = what names the LinkSlot
  // Called (their return address is the argument, and is popped):
  uint64_t exit_link = 0;
  // Called, return:
  /// Refill for an access of the given [TlbMode][0 read, 1 write]: R10 = linear address + negative_page of the entry at
  /// R11 (byte offset in the table); returns when the entry can be used: retry from the LEA. Else leaves with
  /// kSlowAccess and its return address.
  uint64_t fill[interp::Cpu::kTlbModes][2] = {};
  /// The same with the entry at 8 * R11, for templates that keep flags.
  uint64_t fill_scaled[interp::Cpu::kTlbModes][2] = {};
  /// R10 = linear address + stack_negative_page: makes that page the one of TranslatedState::stack_* for this
  /// [privilege], if GroupFillData::span bytes from there lie in it and it may be written, and returns; else goes on
  /// at GroupFillData::plain_rel32 with R10 = the end of that.
  uint64_t fill_stack[2] = {};
  /// The same for an entry of the soft TLB, as `fill` and `fill_scaled`.
  uint64_t fill_group[interp::Cpu::kTlbModes][2] = {};
  uint64_t fill_group_scaled[interp::Cpu::kTlbModes][2] = {};
  uint64_t load_vector = 0;  // makes XMM/YMM and MXCSR the guest's, sets vector_live
  uint64_t load_x87 = 0;     // makes x87/MMX state the guest's, sets x87_live
  /// Where the signal handler continues after a fault; not for use by emitted code.
  uint64_t exit_fault = 0;
};

/// Emits the stubs for `cpu` (whose address is in them).
Stubs make_stubs(Assembler& assembler, interp::Cpu& cpu);

/// One vCPU thread's set-up for running translated code: GS base, alternate signal stack, shadow return stack, handlers
/// of SIGSEGV, SIGBUS and SIGFPE for faults in `[code, code + size)`, and the host timer behind the guest's APIC
/// deadline. Create on the vCPU's thread; destroy there or when it has ended. The thread blocks all signals but its own
/// from then on.
class HostThread {
 public:
  static Result<std::unique_ptr<HostThread>> create(interp::Cpu& cpu, uint64_t code, size_t size_bytes,
                                                    const Stubs& stubs);
  ~HostThread();
  HostThread(const HostThread&) = delete;
  HostThread& operator=(const HostThread&) = delete;

  /// Empties both shadow return stacks: the next entry starts at the top, where every word above is a sentinel,
  /// Stubs::return_empty.
  void reset_return_stack();
  /// The same for one.
  void reset_return_stack(unsigned privilege);
  /// From now on the shadow return stack of `privilege` (0: CPL 0-2, 1: CPL 3) is in use; the other one stays as it is.
  void use_return_stack(unsigned privilege);
  /// Call before entering translated code: makes sure that `poke` is set when VcpuSignal::deadline_ns() passes. Cheap
  /// when the deadline has not moved to an earlier time (one compare).
  void arm_deadline() {
    const uint64_t deadline = cpu_.signal->deadline_ns();
    if (deadline < armed_ns_.load(std::memory_order_relaxed)) [[unlikely]]
      arm(deadline);
  }

  static constexpr size_t kReturnStackBytes = 64 << 10;

  /// In the handler of the timer's signal.
  void on_timer();

 private:
  struct Host;  // what the operating system gave

  explicit HostThread(interp::Cpu& cpu);
  bool on_fault(HostFault& fault);
  void arm(uint64_t deadline_ns);

  interp::Cpu& cpu_;
  std::atomic<uint64_t> armed_ns_{kNoDeadline};  // the deadline that the timer runs for; the signal handler's, too
  std::unique_ptr<Host> host_;
};

/// Whether this CPU has what translated code needs (AVX, BMI2, LAHF); the error names what is missing.
Result<void> check_host_cpu();

}  // namespace tenon::jit
