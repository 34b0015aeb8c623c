// SYSCALL and SYSRET between CPL 3 and CPL 0 without leaving translated code.
//
// The templates check what may stand against it and jump to a stub, which does to Cpu what the interpreter's handlers
// and Cpu::update_mode() do (interp/far_transfer_instruction.cc, interp/segment.cc): RCX, R11, RFLAGS, CS, SS, CPL and
// the soft-TLB tables of the new level; and what Runner::refresh_mode() does: the shadow return stack of the new side.
// Then it goes on as an indirect branch. In 64-bit mode nothing else depends on the level. C++ learns of the new side
// at the next exit (Runner::follow_level()).
//
// TranslatedState::level_switch_blocked, which C++ keeps, stands for all that makes it the interpreter's: code of the
// other side was translated for another mode, EFER.SCE is clear, AC is set (on which the tables depend).
//
// Source: SDM Vol. 2, SYSCALL, SYSRET; Vol. 3 5.8.8.
#include "engine/jit/emitter.hh"
#include "engine/jit/state_offsets.hh"

namespace tenon::jit {

namespace {

using interp::Cpu;
using x86::OpcodeMap;

#define TRANSLATED(field) HostOperand::state(offsetof(Cpu, translated) + offsetof(interp::TranslatedState, field))

// What SYSCALL and SYSRET load: flat 4 GiB, accessed, 64-bit code and writable data.
constexpr uint32_t kFlatLimit = 0xffffffff;
constexpr uint32_t kCode64 = 0xa09b, kData = 0xc093, kDpl3 = 3u << 5;
/// RFLAGS bits that SYSRET takes from R11: all defined ones but RF and VM (SDM Vol. 2, SYSRET).
constexpr uint32_t kLoadable = x86::kArithmeticFlags | x86::kTf | x86::kIf | x86::kDf | x86::kIopl | x86::kNt |
                               x86::kAc | x86::kVif | x86::kVip | x86::kId;
constexpr uint32_t kNotArithmetic = ~uint32_t{x86::kArithmeticFlags};
constexpr uint8_t kOfShift = 11;

const HostOperand kSystemFlagsHere = HostOperand::state(offsetof(Cpu, system_flags));

HostInsn load_byte(HostRegister to, HostRegister from) {  // 4: AH
  return {.map = OpcodeMap::k0F, .opcode = 0xb6, .has_modrm = true, .reg = to, .rm = HostOperand::r(from)};
}
HostInsn load_word(HostRegister to, const HostOperand& from) {
  return {.map = OpcodeMap::k0F, .opcode = 0xb7, .has_modrm = true, .reg = to, .rm = from};
}
HostInsn store_word(const HostOperand& to, HostRegister from) {
  return {.opcode = 0x89, .operand_size = true, .has_modrm = true, .reg = from, .rm = to};
}
HostInsn or_(HostRegister to, const HostOperand& from) {
  return {.opcode = 0x0b, .has_modrm = true, .reg = to, .rm = from};
}
HostInsn and_(HostRegister to, const HostOperand& from) {
  return {.opcode = 0x23, .has_modrm = true, .reg = to, .rm = from};
}
HostInsn not_(HostRegister reg) { return {.opcode = 0xf7, .has_modrm = true, .reg = 2, .rm = HostOperand::r(reg)}; }
HostInsn shift_left(HostRegister reg, uint8_t count) {
  return {
      .opcode = 0xc1, .has_modrm = true, .reg = 4, .rm = HostOperand::r(reg), .immediate_bytes = 1, .immediate = count};
}
HostOperand in_segment(unsigned segment, size_t member) { return HostOperand::state(segment_offset(segment) + member); }

/// Makes the two stubs. Between instructions that set flags for the guest and the jump there are only moves.
class LevelSwitch {
 public:
  LevelSwitch(Assembler& assembler, Cpu& cpu, const TranslatorStubs& stubs)
      : asm_(assembler), cpu_(cpu), stubs_(stubs) {}

  /// RCX = the return address, flags are the guest's.
  uint64_t make_syscall() {
    const uint64_t start = begin();
    const HostOperand eax = HostOperand::r(kHostRax);
    asm_.mov(kHostR10, eax);
    asm_.lahf();
    asm_.seto_al();
    asm_.encode(load_byte(kHostR11, kHostRax));
    asm_.encode(load_byte(kHostRax, 4));
    asm_.encode(shift_left(kHostR11, kOfShift));
    asm_.encode(or_(kHostRax, HostOperand::r(kHostR11)));
    asm_.encode(or_(kHostRax, kSystemFlagsHere));
    asm_.store(home(x86::kR11), kHostRax);
    asm_.mov(kHostR11, HostOperand::state(CPU_STATE(fmask)), false);
    asm_.encode(not_(kHostR11));
    asm_.encode(and_(kHostRax, HostOperand::r(kHostR11)));
    asm_.or_immediate(eax, x86::kFlagsOne, false);
    asm_.mov(kHostR11, eax, false);
    asm_.and_immediate(HostOperand::r(kHostR11), static_cast<int32_t>(kNotArithmetic), false);
    asm_.store(kSystemFlagsHere, kHostR11);
    // Selectors: STAR[47:32] and 8 more.
    asm_.encode(load_word(kHostR11, HostOperand::state(CPU_STATE(star) + 4)));
    asm_.and_immediate(HostOperand::r(kHostR11), 0xfffc, false);
    asm_.encode(store_word(in_segment(x86::kCs, kSegmentSelector), kHostR11));
    asm_.lea(kHostR11, HostOperand::at(kHostR11, 8), false);
    asm_.encode(store_word(in_segment(x86::kSs, kSegmentSelector), kHostR11));
    enter_level(0);
    set_flags_of_rax();
    asm_.mov(kHostR10, HostOperand::state(CPU_STATE(lstar)));
    asm_.jmp_indirect(cached_target(asm_, 0));
    return start;
  }

  /// RCX = where to go; flags are free.
  uint64_t make_sysret() {
    const uint64_t start = begin();
    asm_.mov(kHostR10, home(x86::kR11), false);
    asm_.mov(kHostR11, HostOperand::r(kHostR10), false);
    asm_.and_immediate(HostOperand::r(kHostR11), static_cast<int32_t>(kLoadable & kNotArithmetic), false);
    asm_.or_immediate(HostOperand::r(kHostR11), x86::kFlagsOne, false);
    asm_.store(kSystemFlagsHere, kHostR11);
    // Selectors: STAR[63:48] + 8 and 8 more, with RPL 3.
    asm_.encode(load_word(kHostR11, HostOperand::state(CPU_STATE(star) + 6)));
    asm_.lea(kHostR11, HostOperand::at(kHostR11, 8), false);
    asm_.or_immediate(HostOperand::r(kHostR11), 3, false);
    asm_.encode(store_word(in_segment(x86::kSs, kSegmentSelector), kHostR11));
    asm_.lea(kHostR11, HostOperand::at(kHostR11, 8), false);
    asm_.encode(store_word(in_segment(x86::kCs, kSegmentSelector), kHostR11));
    enter_level(1);
    asm_.mov(kHostR11, HostOperand::r(kHostRax));
    asm_.mov(kHostRax, HostOperand::r(kHostR10));
    asm_.mov(kHostR10, HostOperand::r(kHostR11));
    set_flags_of_rax();
    asm_.mov(kHostR10, HostOperand::r(kHostRcx));
    asm_.jmp_indirect(cached_target(asm_, 1));
    return start;
  }

 private:
  uint64_t begin() {
    constexpr size_t kStubAlignment = 16;
    asm_.nops((kStubAlignment - asm_.address() % kStubAlignment) % kStubAlignment);
    return asm_.address();
  }

  /// Arithmetic flags of the RFLAGS image in RAX, then RAX = R10.
  void set_flags_of_rax() {
    constexpr uint8_t kOverflowInAl = x86::kOf >> 8;
    asm_.encode({.opcode = 0x86, .has_modrm = true, .reg = 4, .rm = HostOperand::r(kHostRax)});  // xchg al, ah
    asm_.encode({.opcode = 0x24, .immediate_bytes = 1, .immediate = kOverflowInAl});             // and al
    asm_.add_al(0x80 - kOverflowInAl);                                                           // OF where it is set
    asm_.sahf();
    asm_.mov(kHostRax, HostOperand::r(kHostR10));
  }

  /// CS, SS but for their selectors, CPL, soft TLB and shadow return stack of a side. R11 is lost.
  void enter_level(unsigned side) {
    for (const unsigned segment : {x86::kCs, x86::kSs}) {
      const uint32_t attributes = (segment == x86::kCs ? kCode64 : kData) | (side == 1 ? kDpl3 : 0);
      asm_.store_immediate(in_segment(segment, kSegmentBase), 0);
      asm_.store_immediate(in_segment(segment, kSegmentLimit), static_cast<int32_t>(kFlatLimit), false);
      asm_.store_immediate(in_segment(segment, kSegmentAttributes), static_cast<int32_t>(attributes), false);
    }
    const interp::TlbMode mode = side == 1 ? interp::kTlbUser : interp::kTlbSupervisorUser;
    asm_.store_byte_immediate(HostOperand::state(offsetof(Cpu, cpl)), side == 1 ? 3 : 0);
    asm_.store_byte_immediate(HostOperand::state(offsetof(Cpu, tlb_mode)), static_cast<uint8_t>(mode));
    store_constant(HostOperand::state(offsetof(Cpu, tlb_read)), cpu_.tlb.table(mode, false));
    store_constant(HostOperand::state(offsetof(Cpu, tlb_write)), cpu_.tlb.table(mode, true));

    asm_.mov(kHostR11, TRANSLATED(other_return_stack));
    asm_.store(TRANSLATED(other_return_stack), kHostRsp);
    asm_.mov(kHostRsp, HostOperand::r(kHostR11));
    HostOperand top = TRANSLATED(return_stack_tops);
    top.displacement += static_cast<int32_t>(side * sizeof(uint64_t));
    asm_.mov(kHostR11, top);
    asm_.store(TRANSLATED(return_stack_top), kHostR11);
    asm_.store_immediate(TRANSLATED(return_stack_side), static_cast<int32_t>(side), false);
    asm_.mov_immediate(kHostR11, stubs_.return_miss[side]);
    asm_.store(TRANSLATED(return_miss), kHostR11);
  }

  void store_constant(const HostOperand& to, const void* value) {
    asm_.mov_immediate(kHostR11, reinterpret_cast<uint64_t>(value));
    asm_.store(to, kHostR11);
  }

  Assembler& asm_;
  Cpu& cpu_;
  const TranslatorStubs& stubs_;
};

const HostOperand kBlocked = TRANSLATED(level_switch_blocked);

}  // namespace

void make_level_stubs(Assembler& assembler, Cpu& cpu, TranslatorStubs& stubs) {
  LevelSwitch level_switch(assembler, cpu, stubs);
  stubs.syscall = level_switch.make_syscall();
  stubs.sysret = level_switch.make_sysret();
}

void Emitter::emit_transfer(const RegionInsn& insn) {
  switch (plan_of(insn).kind) {
    case EmitKind::kSyscall: return emit_syscall(insn);
    case EmitKind::kSysret: return emit_sysret(insn);
    default: return interpret(insn, true);
  }
}

/// Flags go into R11, so they are live.
void Emitter::emit_syscall(const RegionInsn& insn) {
  if ((mode_ & kModeUser) == 0) return interpret(insn, true);
  const InterpretSite& site = make_site(insn);
  asm_.mov(kHostR11, HostOperand::r(kHostRcx));
  asm_.mov(kHostRcx, kBlocked, false);
  const Fixup possible = asm_.jrcxz_forward();
  asm_.mov(kHostRcx, HostOperand::r(kHostR11));
  leave_to(site, asm_.jmp_forward());
  asm_.bind_short(possible);
  emit_rip(kHostRcx, {.constant = true, .linear = next_rip(insn), .shifted = shifted_});
  asm_.jmp(stubs_.syscall);
}

/// An interrupt that waits for IF is the run loop's.
void Emitter::emit_sysret(const RegionInsn& insn) {
  if ((mode_ & kModeSystem) == 0 || insn.insn.operand_size != 8) return interpret(insn, true);
  const InterpretSite& site = make_site(insn);
  asm_.cmp_immediate(kBlocked, 0, false);
  leave_to(site, asm_.jcc_forward(kNotEqual));
  leave_if(site, gpr_offset(x86::kR11), x86::kTf | x86::kAc, true, false);
  leave_if_interruptible(site, false);
  asm_.mov(kHostR10, HostOperand::r(kHostRcx));
  leave_if_not_canonical(site, false);
  asm_.jmp(stubs_.sysret);
}

#undef TRANSLATED

}  // namespace tenon::jit
