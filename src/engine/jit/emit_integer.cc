// Instructions that become themselves on other registers, and the stack instructions.
#include <algorithm>

#include "base/check.hh"
#include "engine/jit/emitter.hh"
#include "engine/jit/gpr_operands.hh"
#include "engine/x86/decode_table.hh"

namespace tenon::jit {

namespace {

using x86::Insn;
using x86::Op;
using x86::Operand;

/// Whether a register in ModRM.rm may be its home in memory instead. Not a bit string's; XCHG would lock; both operands
/// of XADD are written, and may be one.
bool rm_may_be_memory(const Insn& insn) {
  switch (insn.row->op) {
    case Op::kBt:
    case Op::kBtc:
    case Op::kBtr:
    case Op::kBts:
    case Op::kXadd:
    case Op::kXchg: return false;
    default: break;
  }
  return std::ranges::any_of(insn.row->operands,
                             [](Operand operand) { return x86::in_range(operand, Operand::kEb, Operand::kEz); });
}

/// XOR or SUB of a register and itself.
bool is_zeroing(const Insn& insn) {
  const Operand second = insn.row->operands[1];
  const bool same = insn.reg == insn.rm && (second == Operand::kGv || second == Operand::kEv);
  return same && insn.operand_size >= 4 && (insn.row->op == Op::kXor || insn.row->op == Op::kSub);
}

void set_field(HostInsn& host, Field field, HostRegister reg) {
  if (field == Field::kRm) {
    host.rm = HostOperand::r(reg);
  } else if (field == Field::kVvvv) {
    host.vvvv = reg;
  } else {
    host.reg = reg;
  }
}

}  // namespace

void Emitter::emit_same(const RegionInsn& region_insn, EmitKind kind) {
  const Insn& insn = region_insn.insn;
  const GprOperands& gprs = plan_of(region_insn).gprs;
  const bool memory = has_memory_access(insn);
  const bool high_byte = HostInsn::uses_high_byte(insn);
  const bool implicit = (insn.row->gpr_read | insn.row->gpr_written) != 0 || insn.row->operands[1] == Operand::kCl ||
                        insn.row->operands[2] == Operand::kCl;
  const bool too_many = gprs.homed > (memory ? 1u : 2u);
  if (too_many || (high_byte && memory && implicit)) return interpret(region_insn, false);
  // MOVZX ESP, AH: R9 stands for RSP and takes REX, AH takes none.
  const auto is_stack_pointer = [](const GprOperand& gpr) { return gpr.guest == x86::kRsp && gpr.size_bytes != 1; };
  if (high_byte && std::any_of(gprs.list, gprs.list + gprs.count, is_stack_pointer))
    return interpret(region_insn, false);
  if (kind == EmitKind::kVector || kind == EmitKind::kVectorX87) need_vector(region_insn);
  if (kind == EmitKind::kX87 || kind == EmitKind::kVectorX87) need_x87(region_insn);
  HostInsn host = HostInsn::from(insn);
  for (unsigned i = 0; i < gprs.count; ++i) {
    const GprOperand& gpr = gprs.list[i];
    if (gpr.guest == x86::kRsp && !(high_byte && gpr.size_bytes == 1)) set_field(host, gpr.field, kHostR9);
  }
  return memory ? emit_same_memory(region_insn, host) : emit_same_registers(region_insn, host);
}

void Emitter::emit_same_registers(const RegionInsn& region_insn, HostInsn& host) {
  const GprOperands& gprs = plan_of(region_insn).gprs;
  HostRegister scratch = kHostR10;
  HostRegister taken[2] = {kNoHostRegister, kNoHostRegister};
  unsigned used = 0;
  uint8_t guests[2] = {};
  const bool is_here = take_r10_home(gprs);
  if (is_here) {
    guests[0] = r10_home_.guest;
    taken[used++] = scratch++;
  }
  bool r10_is_old = false;
  // In memory registers of 32 bits would keep their upper halves.
  const bool may_be_memory = !is_zeroing(region_insn.insn) && rm_may_be_memory(region_insn.insn);
  const auto stays_home = [&](const GprOperand& gpr) {
    if (is_here && gpr.guest == r10_home_.guest) return false;
    return may_be_memory && gpr.field == Field::kRm && !(gpr.written && gpr.size_bytes == 4);
  };
  for (unsigned i = 0; i < gprs.count; ++i) {
    const GprOperand& gpr = gprs.list[i];
    if (!is_homed(gpr.guest)) continue;
    if (stays_home(gpr)) {
      host.rm = home(gpr.guest);
      continue;
    }
    HostRegister reg = kNoHostRegister;
    for (unsigned j = 0; j < used; ++j) {
      if (guests[j] == gpr.guest) reg = taken[j];
    }
    if (reg == kNoHostRegister) {
      reg = scratch++;
      if (reg == kHostR11) r11_taken();
      guests[used] = gpr.guest;
      taken[used++] = reg;
      const bool needed = std::any_of(gprs.list, gprs.list + gprs.count,
                                      [&](const GprOperand& each) { return each.guest == gpr.guest && each.read; });
      if (needed && !is_zeroing(region_insn.insn)) asm_.mov(reg, home(gpr.guest));
    }
    set_field(host, gpr.field, reg);
  }
  asm_.encode(host);
  for (unsigned i = 0; i < gprs.count; ++i) {
    const GprOperand& gpr = gprs.list[i];
    if (!gpr.written || !is_homed(gpr.guest)) continue;
    if (stays_home(gpr)) {
      r10_is_old |= gpr.guest == guests[0];
      continue;
    }
    asm_.store(home(gpr.guest), gpr.guest == guests[0] ? taken[0] : taken[1]);
  }
  if (used != 0 && !r10_is_old) r10_is_home(guests[0]);
}

bool Emitter::take_r10_home(const GprOperands& gprs) {
  const auto is_it = [this](const GprOperand& gpr) { return gpr.guest == r10_home_.guest; };
  if (r10_home_.offset != asm_.offset() || std::none_of(gprs.list, gprs.list + gprs.count, is_it)) return false;
  for (size_t i = fragment_.side.size(); i > 0 && fragment_.side[i - 1].host_offset == asm_.offset(); --i)
    fragment_.side[i - 1].resumable = false;
  return true;
}

void Emitter::emit_same_memory(const RegionInsn& region_insn, HostInsn& host) {
  const Insn& insn = region_insn.insn;
  const Access access = writes_memory(insn) ? Access::kWrite : Access::kRead;
  // Flags that the instruction itself reads are live before it; those after it matter only through it.
  const bool flags_live = region_insn.live_before != 0;
  host.rm = check(region_insn, address_of(region_insn), x86::memory_operand_size(insn), access, flags_live);
  if (HostInsn::uses_high_byte(insn)) return emit_high_byte(region_insn, host, host.rm);
  const GprOperands& gprs = plan_of(region_insn).gprs;
  for (unsigned i = 0; i < gprs.count; ++i) {
    const GprOperand& gpr = gprs.list[i];
    if (!is_homed(gpr.guest)) continue;
    HostRegister reg = kHostR10;  // a destination may be loaded over its own address
    if (gpr.read) {
      reg = free_beside(host.rm);
      asm_.mov(reg, home(gpr.guest));
    }
    set_field(host, gpr.field, reg);
    asm_.encode(host);
    if (gpr.written) asm_.store(home(gpr.guest), reg);
    if (gpr.written && reg == kHostR10) r10_is_home(gpr.guest);
    return;
  }
  asm_.encode(host);
}

/// AH CH DH BH cannot be encoded beside R10 and R11: for the moment of the instruction they change places with AL ...
/// BL.
void Emitter::emit_high_byte(const RegionInsn& region_insn, HostInsn host, const HostOperand& memory) {
  const auto low = static_cast<HostRegister>(region_insn.insn.reg - 4);
  const HostInsn swap{.opcode = 0x86, .has_modrm = true, .reg = region_insn.insn.reg, .rm = HostOperand::r(low)};
  asm_.encode(swap);
  host.rm = memory;
  host.reg = low;
  asm_.encode(host);
  asm_.encode(swap);
}

void Emitter::emit_lea(const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  if (insn.operand_size == 2) return interpret(region_insn, false);
  Address address = address_of(region_insn);
  address.narrow = address.narrow || insn.operand_size == 4;
  const bool homed = is_homed(insn.reg);
  const HostRegister to = homed ? HostRegister{kHostR10} : host_of(insn.reg);
  if (address.constant) {
    emit_rip(to, address);
  } else {
    emit_sum(to, address);
  }
  if (homed) asm_.store(home(insn.reg), to);
}

/// `to` = an address that lies at a known distance from the code, or is a number.
void Emitter::emit_rip(HostRegister to, const Address& address) {
  if (!address.shifted) return asm_.mov_immediate(to, address.narrow ? address.linear & 0xffffffff : address.linear);
  // Nominal RIPs are below 2 GiB, but a displacement may lead out of there.
  if (fits_int32(address.linear)) {
    asm_.mov(to, HostOperand::state(state::kCodeShift));
    return asm_.lea(to, HostOperand::at(to, static_cast<int32_t>(address.linear)), !address.narrow);
  }
  asm_.mov(kHostR11, HostOperand::state(state::kCodeShift));
  r11_taken();
  asm_.mov_immediate(to, address.linear);
  asm_.lea(to, HostOperand::at(to, kHostR11, 0), !address.narrow);
}

void Emitter::emit_push(const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  const Operand operand = insn.row->operands[0];
  const bool flags_live = region_insn.live_before != 0;
  if (insn.operand_size != 8) return interpret(region_insn, false);
  if (operand == Operand::kZv || (operand == Operand::kEv && !insn.is_memory)) {
    const unsigned guest = operand == Operand::kZv ? insn.reg : insn.rm;
    HostOperand to = check(region_insn, stack_address(-8), 8, Access::kWrite, flags_live);
    HostRegister from = host_of(guest);
    if (is_homed(guest)) {
      from = free_beside(to);
      asm_.mov(from, home(guest));
    }
    asm_.store(to, from);
  } else if (operand == Operand::kEv) {
    const HostOperand value = HostOperand::state(state::scratch(kScratchValue));
    asm_.mov(kHostR10, check(region_insn, address_of(region_insn), 8, Access::kRead, flags_live));
    asm_.store(value, kHostR10);
    HostOperand to = check(region_insn, stack_address(-8), 8, Access::kWrite, flags_live);
    const HostRegister from = free_beside(to);
    asm_.mov(from, value);
    asm_.store(to, from);
  } else if (operand == Operand::kIz || operand == Operand::kIbs) {
    const HostOperand to = check(region_insn, stack_address(-8), 8, Access::kWrite, flags_live);
    asm_.store_immediate(to, static_cast<int32_t>(insn.immediate));
  } else {
    return interpret(region_insn, false);
  }
  asm_.lea(kHostR9, HostOperand::at(kHostR9, -8));
}

void Emitter::emit_pop(const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  const Operand operand = insn.row->operands[0];
  const bool to_register = operand == Operand::kZv || (operand == Operand::kEv && !insn.is_memory);
  if (insn.operand_size != 8 || !to_register) return interpret(region_insn, false);
  const unsigned guest = operand == Operand::kZv ? insn.reg : insn.rm;
  const HostOperand from = check(region_insn, stack_address(0), 8, Access::kRead, region_insn.live_before != 0);
  if (guest == x86::kRsp) return asm_.mov(kHostR9, from);
  if (is_homed(guest)) {
    asm_.mov(kHostR10, from);
    asm_.store(home(guest), kHostR10);
  } else {
    asm_.mov(host_of(guest), from);
  }
  asm_.lea(kHostR9, HostOperand::at(kHostR9, 8));
}

void Emitter::emit_leave(const RegionInsn& region_insn) {
  if (region_insn.insn.operand_size != 8) return interpret(region_insn, false);
  const Address address{.base = x86::kRbp};
  asm_.mov(kHostR10, check(region_insn, address, 8, Access::kRead, region_insn.live_before != 0));
  asm_.lea(kHostR9, HostOperand::at(kHostRbp, 8));
  asm_.mov(kHostRbp, HostOperand::r(kHostR10));
}

}  // namespace tenon::jit
