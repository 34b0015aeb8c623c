// System instructions that change little: flags beside the arithmetic ones, time, FS and GS bases, control registers.
//
// What they change is a word of Cpu, as the interpreter's handlers change it (interp/integer_flags.cc, system.cc). The
// interpreter gets what needs more than that: STI and POPF where an interrupt may be waiting, POPF that changes TF, AC,
// NT, IOPL or ID, instructions above their CPL, control bits that forbid one.
//
// Source: SDM Vol. 2, each instruction; Vol. 3 17.17 (time-stamp counter).
#include "engine/jit/emitter.hh"
#include "engine/jit/state_offsets.hh"

namespace tenon::jit {

namespace {

using x86::Insn;
using x86::Op;
using x86::OpcodeMap;

constexpr size_t segment_base(unsigned segment) { return segment_offset(segment) + kSegmentBase; }
constexpr size_t window_base(unsigned segment) {
  return offsetof(interp::Cpu, window) + segment * sizeof(interp::SegmentWindow) +
         offsetof(interp::SegmentWindow, base);
}

constexpr size_t kInterruptHint = offsetof(interp::Cpu, interrupt_hint);
constexpr unsigned kCanonicalShift = 16;  // 48-bit linear addresses

unsigned bit_number(uint32_t mask) { return static_cast<unsigned>(__builtin_ctz(mask)); }

HostInsn not_(HostRegister reg) {
  return {.opcode = 0xf7, .w = true, .has_modrm = true, .reg = 2, .rm = HostOperand::r(reg)};
}
HostInsn test_immediate(const HostOperand& what, uint32_t mask) {
  return {.opcode = 0xf7, .has_modrm = true, .rm = what, .immediate_bytes = 4, .immediate = mask};
}
HostInsn load_byte(HostRegister to, const HostOperand& from) {
  return {.map = OpcodeMap::k0F, .opcode = 0xb6, .has_modrm = true, .reg = to, .rm = from};
}
/// SHL (4), SHR (5) or SAR (7) by a constant.
HostInsn shift(HostRegister extension, HostRegister reg, unsigned count, bool w) {
  return {.opcode = 0xc1,
          .w = w,
          .has_modrm = true,
          .reg = extension,
          .rm = HostOperand::r(reg),
          .immediate_bytes = 1,
          .immediate = count};
}
constexpr HostRegister kShl = 4, kSar = 7;
/// SHLX or SARX: `to` = `to` shifted by RCX, without flags.
HostInsn shift_by_rcx(HostRegister to, HostRegister from, bool left) {
  HostInsn insn;
  insn.map = OpcodeMap::kVex0F38;
  insn.opcode = 0xf7;
  insn.operand_size = left;
  insn.rep = !left;
  insn.w = true;
  insn.has_modrm = true;
  insn.reg = to;
  insn.vvvv = kHostRcx;
  insn.rm = HostOperand::r(from);
  return insn;
}

}  // namespace

// --- Conditions.

void Emitter::leave_if(const InterpretSite& site, size_t word, uint32_t mask, bool set, bool flags_live) {
  if (!flags_live) {
    asm_.encode(test_immediate(HostOperand::state(word), mask));
    return leave_to(site, asm_.jcc_forward(set ? kNotEqual : kEqual));
  }
  asm_.mov(kHostR11, HostOperand::r(kHostRcx));
  asm_.mov(kHostR10, HostOperand::state(word), false);
  asm_.mov_immediate(kHostRcx, mask);
  asm_.pext(kHostRcx, kHostR10, HostOperand::r(kHostRcx));
  if (set) {
    const Fixup clear = asm_.jrcxz_forward();
    asm_.mov(kHostRcx, HostOperand::r(kHostR11));
    leave_to(site, asm_.jmp_forward());
    asm_.bind_short(clear);
  } else {
    const Fixup clear = asm_.jrcxz_forward();
    const Fixup goes_on = asm_.jmp_short_forward();
    asm_.bind_short(clear);
    asm_.mov(kHostRcx, HostOperand::r(kHostR11));
    leave_to(site, asm_.jmp_forward());
    asm_.bind_short(goes_on);
  }
  asm_.mov(kHostRcx, HostOperand::r(kHostR11));
}

/// Leaves where an interrupt may be waiting. Keeps R10 where flags are dead.
void Emitter::leave_if_interruptible(const InterpretSite& site, bool flags_live) {
  const HostOperand hint = HostOperand::state(kInterruptHint);
  const HostOperand poke = HostOperand::state(state::kPoke);
  if (!flags_live) {
    asm_.encode(load_byte(kHostR11, hint));
    asm_.encode({.opcode = 0x0b, .has_modrm = true, .reg = kHostR11, .rm = poke});  // or
    return leave_to(site, asm_.jcc_forward(kNotEqual));
  }
  asm_.mov(kHostR11, HostOperand::r(kHostRcx));
  asm_.encode(load_byte(kHostRcx, hint));
  asm_.mov(kHostR10, poke, false);
  asm_.lea(kHostRcx, HostOperand::at(kHostRcx, kHostR10, 0));
  const Fixup quiet = asm_.jrcxz_forward();
  asm_.mov(kHostRcx, HostOperand::r(kHostR11));
  leave_to(site, asm_.jmp_forward());
  asm_.bind_short(quiet);
  asm_.mov(kHostRcx, HostOperand::r(kHostR11));
}

/// Leaves where R10 is no canonical address; R10 is kept.
void Emitter::leave_if_not_canonical(const InterpretSite& site, bool flags_live) {
  if (!flags_live) {
    asm_.mov(kHostR11, HostOperand::r(kHostR10));
    asm_.encode(shift(kShl, kHostR11, kCanonicalShift, true));
    asm_.encode(shift(kSar, kHostR11, kCanonicalShift, true));
    asm_.cmp(kHostR11, HostOperand::r(kHostR10));
    return leave_to(site, asm_.jcc_forward(kNotEqual));
  }
  const HostOperand saved_rcx = HostOperand::state(state::scratch(kScratchCount));
  asm_.store(saved_rcx, kHostRcx);
  asm_.mov_immediate(kHostRcx, kCanonicalShift);
  asm_.encode(shift_by_rcx(kHostR11, kHostR10, true));
  asm_.encode(shift_by_rcx(kHostR11, kHostR11, false));
  asm_.encode(not_(kHostR11));
  asm_.lea(kHostRcx, HostOperand::at(kHostR11, kHostR10, 0, 1));  // the difference
  const Fixup canonical = asm_.jrcxz_forward();
  asm_.mov(kHostRcx, saved_rcx);
  leave_to(site, asm_.jmp_forward());
  asm_.bind_short(canonical);
  asm_.mov(kHostRcx, saved_rcx);
}

// --- Flags.

/// Without touching arithmetic flags: the bit as it is (0 or 1, moved into place) is subtracted, and added as 1.
void Emitter::change_system_flag(uint32_t mask, bool set, bool flags_live) {
  const HostOperand flags = HostOperand::state(state::kSystemFlags);
  const auto value = static_cast<int32_t>(mask);
  if (!flags_live) return set ? asm_.or_immediate(flags, value, false) : asm_.and_immediate(flags, ~value, false);
  asm_.mov(kHostR10, flags);
  asm_.mov_immediate(kHostR11, mask);
  asm_.pext(kHostR11, kHostR10, HostOperand::r(kHostR11));
  asm_.rorx(kHostR11, kHostR11, static_cast<uint8_t>(64 - bit_number(mask)));
  asm_.encode(not_(kHostR11));
  asm_.lea(kHostR10, HostOperand::at(kHostR10, kHostR11, 0, 1 + (set ? value : 0)));
  asm_.store(flags, kHostR10);
}

/// STI at the end of a block is the interpreter's: nothing may come between it and the next instruction.
void Emitter::emit_flag_bit(const RegionInsn& insn) {
  const Op op = insn.insn.row->op;
  const bool flags_live = insn.live_before != 0;
  if (op == Op::kCld || op == Op::kStd) return change_system_flag(x86::kDf, op == Op::kStd, flags_live);
  if ((mode_ & kModeSystem) == 0 || (op == Op::kSti && last_in_block_)) return interpret(insn, false);
  if (op == Op::kCli) return change_system_flag(x86::kIf, false, flags_live);
  InterpretSite& site = make_site(insn);
  leave_if_interruptible(site, flags_live);
  change_system_flag(x86::kIf, true, flags_live);
  end_template(site);
}

void Emitter::emit_push_flags(const RegionInsn& insn) {
  if (insn.insn.operand_size != 8) return interpret(insn, false);
  const HostOperand to = collapse(check(insn, stack_address(-8), 8, Access::kWrite, insn.live_before != 0));
  save_flags(asm_);  // AL = OF, AH = the others
  asm_.encode({.map = OpcodeMap::k0F,
               .opcode = 0xb6,
               .has_modrm = true,
               .reg = kHostR11,
               .rm = HostOperand::r(kHostRax)});  // movzx r11d, al
  asm_.encode(shift(kShl, kHostR11, bit_number(x86::kOf), false));
  asm_.encode({.map = OpcodeMap::k0F,
               .opcode = 0xb6,
               .has_modrm = true,
               .reg = kHostRax,
               .rm = HostOperand::r(4)});  // movzx eax, ah
  asm_.encode({.opcode = 0x0b, .w = true, .has_modrm = true, .reg = kHostRax, .rm = HostOperand::r(kHostR11)});  // or
  asm_.encode(
      {.opcode = 0x0b, .w = true, .has_modrm = true, .reg = kHostRax, .rm = HostOperand::state(state::kSystemFlags)});
  asm_.store(to, kHostRax);
  if (insn.live_after != 0) {
    restore_flags(asm_);
  } else {
    asm_.mov(kHostRax, HostOperand::state(state::scratch(kScratchRax)));
  }
  asm_.lea(kHostR9, HostOperand::at(kHostR9, -8));
}

/// Only arithmetic flags, DF and, where it may, IF change here; above CPL 0 IF and IOPL in the image are ignored where
/// they differ, which is the interpreter's business, too (SDM Vol. 2, POPF, Table 4-16).
void Emitter::emit_pop_flags(const RegionInsn& insn) {
  if (insn.insn.operand_size != 8) return interpret(insn, false);
  const HostOperand flags = HostOperand::state(state::kSystemFlags);
  const bool may_enable = (mode_ & kModeSystem) != 0;
  const uint32_t changeable = x86::kDf | (may_enable ? uint32_t{x86::kIf} : 0);
  constexpr uint32_t kKnown = x86::kTf | x86::kIf | x86::kDf | x86::kIopl | x86::kNt | x86::kRf | x86::kVm | x86::kAc |
                              x86::kVif | x86::kVip | x86::kId;
  InterpretSite& site = make_site(insn);
  asm_.mov(kHostR10, check(insn, stack_address(0), 8, Access::kRead, insn.live_before != 0));
  // From here on flags are lost, and POPF does not fault any more.
  asm_.mov(kHostR11, flags);
  asm_.xor_(kHostR11, HostOperand::r(kHostR10));
  asm_.encode(test_immediate(HostOperand::r(kHostR11), kKnown & ~changeable));
  leave_to(site, asm_.jcc_forward(kNotEqual));
  if (may_enable) {
    asm_.encode(test_immediate(HostOperand::r(kHostR10), x86::kIf));
    const Fixup masked = asm_.jcc_short_forward(kEqual);
    leave_if_interruptible(site, false);
    asm_.bind_short(masked);
    asm_.mov(kHostR11, flags);
    asm_.xor_(kHostR11, HostOperand::r(kHostR10));
  }
  asm_.and_immediate(HostOperand::r(kHostR11), static_cast<int32_t>(changeable), false);
  asm_.encode({.opcode = 0x31, .w = true, .has_modrm = true, .reg = kHostR11, .rm = flags});  // xor
  asm_.mov(kHostR11, HostOperand::r(kHostRax));
  asm_.mov(kHostRax, HostOperand::r(kHostR10));
  asm_.encode({.opcode = 0x86, .has_modrm = true, .reg = 4, .rm = HostOperand::r(kHostRax)});  // xchg al, ah
  constexpr uint8_t kOverflowInAl = x86::kOf >> 8;
  asm_.encode({.opcode = 0x24, .immediate_bytes = 1, .immediate = kOverflowInAl});  // and al
  asm_.add_al(0x80 - kOverflowInAl);                                                // OF where the bit is set
  asm_.sahf();
  asm_.mov(kHostRax, HostOperand::r(kHostR11));
  asm_.lea(kHostR9, HostOperand::at(kHostR9, 8));
  end_template(site);
}

// --- Time.

/// The host's counter and two offsets: the clock's and this vCPU's, both words that C++ keeps. No flags change.
void Emitter::emit_time(const RegionInsn& insn) {
  const Op op = insn.insn.row->op;
  if (op == Op::kRdpid) {
    asm_.mov(kHostR10, HostOperand::state(CPU_STATE(tsc_aux)), false);
    return write_gpr(insn.insn.rm, 8);
  }
  if (!cpu_.clock->host_tsc_offset()) return interpret(insn, false);
  InterpretSite& site = make_site(insn);
  if ((mode_ & kModeSystem) == 0) leave_if(site, CPU_STATE(cr4), x86::kCr4Tsd, true, insn.live_before != 0);
  static constexpr uint8_t kRdtsc[] = {0x0f, 0x31}, kRdtscp[] = {0x0f, 0x01, 0xf9};
  if (op == Op::kRdtscp) {
    asm_.bytes(kRdtscp);
    asm_.mov(kHostRcx, HostOperand::state(CPU_STATE(tsc_aux)), false);
  } else {
    asm_.bytes(kRdtsc);
  }
  asm_.rorx(kHostRdx, kHostRdx, 32);
  asm_.lea(kHostRax, HostOperand::at(kHostRax, kHostRdx, 0));
  for (const size_t offset : {state::kHostTscOffset, CPU_STATE(tsc_offset)}) {
    asm_.mov(kHostR10, HostOperand::state(offset));
    asm_.lea(kHostRax, HostOperand::at(kHostRax, kHostR10, 0));
  }
  asm_.rorx(kHostRdx, kHostRax, 32);
  asm_.mov(kHostRdx, HostOperand::r(kHostRdx), false);
  asm_.mov(kHostRax, HostOperand::r(kHostRax), false);
  end_template(site);
}

// --- Bases and control registers.

void Emitter::write_gpr(unsigned guest, unsigned size_bytes) {
  if (size_bytes == 4) asm_.mov(kHostR10, HostOperand::r(kHostR10), false);
  if (is_homed(guest)) return asm_.store(home(guest), kHostR10);
  asm_.mov(host_of(guest), HostOperand::r(kHostR10));
}

void Emitter::emit_base(const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  const Op op = insn.row->op;
  const bool flags_live = region_insn.live_before != 0;
  const bool writes = op == Op::kWrfsbase || op == Op::kWrgsbase;
  const unsigned segment = op == Op::kRdfsbase || op == Op::kWrfsbase ? x86::kFs : x86::kGs;
  const bool wide = insn.operand_size == 8;
  InterpretSite& site = make_site(region_insn);
  leave_if(site, CPU_STATE(cr4), x86::kCr4Fsgsbase, false, flags_live);
  if (writes) {
    asm_.mov(kHostR10, is_homed(insn.rm) ? home(insn.rm) : HostOperand::r(host_of(insn.rm)), wide);
    if (wide) leave_if_not_canonical(site, flags_live);
    asm_.store(HostOperand::state(segment_base(segment)), kHostR10);
    asm_.store(HostOperand::state(window_base(segment)), kHostR10);
  } else {
    asm_.mov(kHostR10, HostOperand::state(segment_base(segment)));
    write_gpr(insn.rm, wide ? 8 : 4);
  }
  end_template(site);
}

void Emitter::emit_swapgs(const RegionInsn& insn) {
  if ((mode_ & kModeSystem) == 0) return interpret(insn, false);
  const HostOperand base = HostOperand::state(segment_base(x86::kGs));
  const HostOperand kernel_base = HostOperand::state(CPU_STATE(kernel_gs_base));
  asm_.mov(kHostR10, base);
  asm_.mov(kHostR11, kernel_base);
  asm_.store(kernel_base, kHostR10);
  asm_.store(base, kHostR11);
  asm_.store(HostOperand::state(window_base(x86::kGs)), kHostR11);
}

void Emitter::emit_read_control(const RegionInsn& insn) {
  size_t offset = 0;
  switch (insn.insn.reg) {
    case 0: offset = CPU_STATE(cr0); break;
    case 2: offset = CPU_STATE(cr2); break;
    case 3: offset = CPU_STATE(cr3); break;
    case 4: offset = CPU_STATE(cr4); break;
    default: break;  // CR8 is the local APIC's; the others are #UD
  }
  if ((mode_ & kModeSystem) == 0 || offset == 0) return interpret(insn, false);
  asm_.mov(kHostR10, HostOperand::state(offset));
  write_gpr(insn.insn.rm, 8);
}

/// To memory 16 bits whatever the operand size, to a register as many as that has (SDM Vol. 2, MOV).
void Emitter::emit_read_segment(const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  if (insn.reg >= x86::kSegmentCount) return interpret(region_insn, false);
  const auto load_to = [&](HostRegister to) {
    const size_t selector = segment_offset(insn.reg) + kSegmentSelector;
    asm_.encode({.map = OpcodeMap::k0F,
                 .opcode = 0xb7,
                 .has_modrm = true,
                 .reg = to,
                 .rm = HostOperand::state(selector)});  // movzx
  };
  const auto store_from = [&](HostRegister from, const HostOperand& to) {
    asm_.encode({.opcode = 0x89, .operand_size = true, .has_modrm = true, .reg = from, .rm = to});
  };
  if (insn.is_memory) {
    const HostOperand to =
        collapse(check(region_insn, address_of(region_insn), 2, Access::kWrite, region_insn.live_before != 0));
    load_to(kHostR11);
    return store_from(kHostR11, to);
  }
  load_to(kHostR10);
  if (insn.operand_size != 2) return write_gpr(insn.rm, 8);
  store_from(kHostR10, is_homed(insn.rm) ? home(insn.rm) : HostOperand::r(host_of(insn.rm)));
}

/// What another processor has written before is known behind it: somebody who knows of changed code has set `poke`.
void Emitter::emit_serialize(const RegionInsn& insn) {
  static constexpr uint8_t kMfence[] = {0x0f, 0xae, 0xf0};
  asm_.bytes(kMfence);
  poll(next_rip(insn), true);
}

}  // namespace tenon::jit
