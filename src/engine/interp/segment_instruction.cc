// Instructions on segment registers and descriptor tables.
// Source: Intel SDM Vol. 2, each instruction's page; Vol. 3 chapter 3 and 5.10.
#include "engine/interp/segment.hh"
#include "engine/interp/stack_inline.hh"
#include "engine/interp/system_handlers.hh"

namespace tenon::interp {
namespace {

using x86::kSs;
using x86::Operand;

void set_zf(Cpu& cpu, bool value) {
  constexpr uint16_t kZfInAx = 1u << 14;  // AH holds SF ZF - AF - PF - CF
  cpu.arithmetic_flags =
      static_cast<uint16_t>(value ? cpu.arithmetic_flags | kZfInAx : cpu.arithmetic_flags & ~kZfInAx);
}

/// Loads a segment register and whatever is derived from it. SS starts the shadow (SDM Vol. 3 6.8.3).
bool load_and_apply(Cpu& cpu, SegmentIndex segment, uint16_t selector) {
  if (!load_segment(cpu, segment, selector)) return false;
  if (segment != kSs) {
    update_window(cpu, segment);
    return true;
  }
  cpu.update_mode();
  cpu.set_shadow(Cpu::Shadow::kMovSs);
  return true;
}

/// The segment register that a PUSH or POP names: fixed by the opcode.
SegmentIndex fixed_segment(Operand operand) {
  switch (operand) {
    case Operand::kRegEs: return x86::kEs;
    case Operand::kRegCs: return x86::kCs;
    case Operand::kRegSs: return x86::kSs;
    case Operand::kRegDs: return x86::kDs;
    case Operand::kRegFs: return x86::kFs;
    default: return x86::kGs;
  }
}

}  // namespace

bool mov_to_segment(Cpu& cpu, const Step* step) {
  const unsigned number = step->insn.reg & 7u;
  if (number > x86::kGs || number == x86::kCs) return cpu.raise(x86::kInvalidOpcode);
  uint16_t selector = 0;
  if (!read_rm16(cpu, step, selector)) return false;
  return load_and_apply(cpu, static_cast<SegmentIndex>(number), selector);
}

bool mov_from_segment(Cpu& cpu, const Step* step) {
  const unsigned number = step->insn.reg & 7u;
  if (number > x86::kGs) return cpu.raise(x86::kInvalidOpcode);
  return write_rm_or_m16(cpu, step, cpu.state.segments[number].selector);
}

bool push_segment(Cpu& cpu, const Step* step) {
  const unsigned size = step->insn.operand_size;
  const uint16_t selector = cpu.state.segments[fixed_segment(step->insn.row->operands[0])].selector;
  if (size == 8) return cpu.in_long_mode ? push<true, uint64_t>(cpu, selector) : push<false, uint64_t>(cpu, selector);
  // A 32-bit push writes the word only (SDM Vol. 2, PUSH: "all recent processors perform a 16-bit move").
  const uint64_t offset = cpu.stack_offset(-static_cast<int64_t>(size));
  if (!cpu.store<uint16_t>(kSs, offset, selector)) return false;
  cpu.set_stack_offset(offset);
  return true;
}

bool pop_segment(Cpu& cpu, const Step* step) {
  uint16_t selector = 0;
  if (!cpu.load<uint16_t>(kSs, cpu.stack_offset(0), selector)) return false;
  // The pop belongs to the old stack, also where SS itself changes.
  const unsigned address_size = cpu.stack_address_size;
  const uint64_t popped = cpu.stack_offset(step->insn.operand_size);
  if (!load_and_apply(cpu, fixed_segment(step->insn.row->operands[0]), selector)) return false;
  write_gpr(cpu, x86::kRsp, address_size, popped);
  return true;
}

/// LDS, LES, LFS, LGS, LSS: offset of operand size, then selector.
bool load_far_pointer(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  SegmentIndex segment = x86::kDs;
  switch (insn.row->op) {
    case x86::Op::kLes: segment = x86::kEs; break;
    case x86::Op::kLfs: segment = x86::kFs; break;
    case x86::Op::kLgs: segment = x86::kGs; break;
    case x86::Op::kLss: segment = x86::kSs; break;
    default: break;
  }
  uint8_t pointer[10] = {};
  const unsigned size = insn.operand_size;
  if (!cpu.load_bytes(memory_segment(step), cpu.effective_offset(step), pointer, size + 2)) return false;
  uint64_t offset = 0;
  uint16_t selector = 0;
  std::memcpy(&offset, pointer, size);
  std::memcpy(&selector, pointer + size, 2);
  if (!load_and_apply(cpu, segment, selector)) return false;
  if (segment == kSs) cpu.shadow = Cpu::Shadow::kNone;  // LSS needs no shadow: the pointer comes with it (6.8.3)
  write_gpr(cpu, insn.reg, size, offset);
  return true;
}

// --- LDTR and TR.

bool lldt(Cpu& cpu, const Step* step) {
  uint16_t selector = 0;
  if (!read_rm16(cpu, step, selector)) return false;
  if (selector_is_null(selector)) {
    cpu.state.ldtr = null_segment(selector);
    return true;
  }
  const uint32_t error = selector_error(selector);
  if (selector_is_local(selector)) return cpu.raise(x86::kGeneralProtection, error);
  Descriptor descriptor;
  if (!read_descriptor(cpu, selector, x86::kGeneralProtection, descriptor)) return false;
  if (!descriptor.is_system(kLdt)) return cpu.raise(x86::kGeneralProtection, error);
  if (!descriptor.present()) return cpu.raise(x86::kSegmentNotPresent, error);
  if (in_ia32e_mode(cpu) && !read_descriptor_high(cpu, x86::kGeneralProtection, descriptor)) return false;
  const x86::Segment table = descriptor.to_segment();
  if (!x86::is_canonical(table.base)) return cpu.raise(x86::kGeneralProtection, error);
  cpu.state.ldtr = table;
  return true;
}

bool ltr(Cpu& cpu, const Step* step) {
  uint16_t selector = 0;
  if (!read_rm16(cpu, step, selector)) return false;
  if (selector_is_null(selector)) return raise_gp0(cpu);
  const uint32_t error = selector_error(selector);
  if (selector_is_local(selector)) return cpu.raise(x86::kGeneralProtection, error);
  Descriptor descriptor;
  if (!read_descriptor(cpu, selector, x86::kGeneralProtection, descriptor)) return false;
  const bool ia32e = in_ia32e_mode(cpu);
  const bool available = descriptor.is_system(kTss32Available) || (!ia32e && descriptor.is_system(kTss16Available));
  if (!available) return cpu.raise(x86::kGeneralProtection, error);
  if (!descriptor.present()) return cpu.raise(x86::kSegmentNotPresent, error);
  if (ia32e && !read_descriptor_high(cpu, x86::kGeneralProtection, descriptor)) return false;
  x86::Segment task = descriptor.to_segment();
  if (!x86::is_canonical(task.base)) return cpu.raise(x86::kGeneralProtection, error);
  constexpr uint8_t kBusy = 2;
  const auto rights = static_cast<uint8_t>(Bits<47, 40>::get(descriptor.low) | kBusy);
  if (!cpu.store_linear(descriptor.address + 5, rights, Privilege::kSupervisor)) return false;
  task.attributes |= kBusy;
  cpu.state.tr = task;
  return true;
}

bool sldt(Cpu& cpu, const Step* step) {
  return umip_allows(cpu) && write_rm_or_m16(cpu, step, cpu.state.ldtr.selector);
}

bool str(Cpu& cpu, const Step* step) { return umip_allows(cpu) && write_rm_or_m16(cpu, step, cpu.state.tr.selector); }

// --- LAR, LSL, VERR, VERW, ARPL: a descriptor that may not be used clears ZF instead of faulting.

namespace {

/// Whether the type is one that LAR reports (SDM Vol. 2, LAR, Table 3-53).
bool lar_knows(unsigned type, bool ia32e) {
  if (ia32e) return type == kLdt || type == kTss32Available || type == kTss32Busy || type == kCallGate32;
  return type == kTss16Available || type == kLdt || type == kTss16Busy || type == kCallGate16 || type == kTaskGate ||
         type == kTss32Available || type == kTss32Busy || type == kCallGate32;
}

/// LSL knows those that have a limit.
bool lsl_knows(unsigned type, bool ia32e) {
  return lar_knows(type, ia32e) && type != kCallGate16 && type != kTaskGate && type != kCallGate32;
}

bool level_allows(const Cpu& cpu, const Descriptor& descriptor) {
  if (descriptor.is_conforming_code()) return true;
  return descriptor.dpl() >= cpu.cpl && descriptor.dpl() >= selector_rpl(descriptor.selector);
}

/// Reads the operand and its descriptor. `usable` is false where ZF is to be cleared.
bool look_up_operand(Cpu& cpu, const Step* step, Descriptor& descriptor, bool& usable) {
  uint16_t selector = 0;
  usable = false;
  if (!read_rm16(cpu, step, selector)) return false;
  if (selector_is_null(selector)) return true;
  return find_descriptor(cpu, selector, descriptor, usable);
}

}  // namespace

bool lar(Cpu& cpu, const Step* step) {
  Descriptor descriptor;
  bool usable = false;
  if (!look_up_operand(cpu, step, descriptor, usable)) return false;
  usable = usable && (descriptor.is_code_or_data() || lar_knows(descriptor.type(), in_ia32e_mode(cpu))) &&
           level_allows(cpu, descriptor);
  set_zf(cpu, usable);
  if (usable) write_gpr(cpu, step->insn.reg, step->insn.operand_size, (descriptor.low >> 32) & 0x00f0ff00);
  return true;
}

bool lsl(Cpu& cpu, const Step* step) {
  Descriptor descriptor;
  bool usable = false;
  if (!look_up_operand(cpu, step, descriptor, usable)) return false;
  usable = usable && (descriptor.is_code_or_data() || lsl_knows(descriptor.type(), in_ia32e_mode(cpu))) &&
           level_allows(cpu, descriptor);
  set_zf(cpu, usable);
  if (usable) write_gpr(cpu, step->insn.reg, step->insn.operand_size, descriptor.to_segment().limit);
  return true;
}

bool verr(Cpu& cpu, const Step* step) {
  Descriptor descriptor;
  bool usable = false;
  if (!look_up_operand(cpu, step, descriptor, usable)) return false;
  set_zf(cpu, usable && descriptor.is_readable() && level_allows(cpu, descriptor));
  return true;
}

bool verw(Cpu& cpu, const Step* step) {
  Descriptor descriptor;
  bool usable = false;
  if (!look_up_operand(cpu, step, descriptor, usable)) return false;
  set_zf(cpu, usable && descriptor.is_writable_data() && level_allows(cpu, descriptor));
  return true;
}

bool arpl(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const unsigned wanted = cpu.gpr[insn.reg] & 3;
  if (!insn.is_memory) {
    const auto selector = cpu.reg<uint16_t>(insn.rm);
    const bool raise_rpl = selector_rpl(selector) < wanted;
    if (raise_rpl) cpu.set_reg<uint16_t>(insn.rm, static_cast<uint16_t>((selector & ~3u) | wanted));
    set_zf(cpu, raise_rpl);
    return true;
  }
  void* host = cpu.begin_rmw(memory_segment(step), cpu.effective_offset(step), 2, false);
  if (host == nullptr) return false;
  const auto selector = load_host<uint16_t>(host);
  const bool raise_rpl = selector_rpl(selector) < wanted;
  if (raise_rpl) store_host<uint16_t>(host, static_cast<uint16_t>((selector & ~3u) | wanted));
  cpu.finish_rmw();
  set_zf(cpu, raise_rpl);
  return true;
}

// --- GDTR and IDTR.

namespace {

bool load_table(Cpu& cpu, const Step* step, x86::DescriptorTable& table) {
  uint8_t bytes[10] = {};
  const unsigned base_size = cpu.in_long_mode ? 8 : 4;
  if (!cpu.load_bytes(memory_segment(step), cpu.effective_offset(step), bytes, 2 + base_size)) return false;
  x86::DescriptorTable loaded;
  std::memcpy(&loaded.limit, bytes, 2);
  std::memcpy(&loaded.base, bytes + 2, base_size);
  // A 16-bit operand size takes 24 bits of base (SDM Vol. 2, LGDT).
  if (!cpu.in_long_mode && step->insn.operand_size == 2) loaded.base &= 0xffffff;
  if (!x86::is_canonical(loaded.base)) return raise_gp0(cpu);
  table = loaded;
  return true;
}

/// All 32 bits of the base are stored whatever the operand size (SDM Vol. 2, SGDT, Operation).
bool store_table(Cpu& cpu, const Step* step, const x86::DescriptorTable& table) {
  if (!umip_allows(cpu)) return false;
  uint8_t bytes[10] = {};
  const unsigned base_size = cpu.in_long_mode ? 8 : 4;
  std::memcpy(bytes, &table.limit, 2);
  std::memcpy(bytes + 2, &table.base, base_size);
  return cpu.store_bytes(memory_segment(step), cpu.effective_offset(step), bytes, 2 + base_size);
}

}  // namespace

bool lgdt(Cpu& cpu, const Step* step) { return load_table(cpu, step, cpu.state.gdtr); }
bool lidt(Cpu& cpu, const Step* step) { return load_table(cpu, step, cpu.state.idtr); }
bool sgdt(Cpu& cpu, const Step* step) { return store_table(cpu, step, cpu.state.gdtr); }
bool sidt(Cpu& cpu, const Step* step) { return store_table(cpu, step, cpu.state.idtr); }

}  // namespace tenon::interp
