// Handlers of far JMP, CALL, RET and IRET, and the fast system calls SYSCALL, SYSRET, SYSENTER, SYSEXIT.
// Source: Intel SDM Vol. 2, each instruction's page; Vol. 3 5.8.7 and 5.8.8.
#include "engine/interp/far_transfer.hh"
#include "engine/interp/system_handlers.hh"

namespace tenon::interp {
namespace {

using x86::kCs;
using x86::kRsp;
using x86::kSs;

struct FarPointer {
  uint64_t offset = 0;
  uint16_t selector = 0;
};

/// m16:16, m16:32 or m16:64, or the immediate form.
bool read_far_operand(Cpu& cpu, const Step* step, FarPointer& out) {
  const Insn& insn = step->insn;
  const unsigned size = insn.operand_size;
  if (!insn.is_memory) {
    out.offset = static_cast<uint64_t>(insn.immediate) & (size == 2 ? 0xffffu : 0xffffffffu);
    out.selector = insn.immediate2;
    return true;
  }
  uint8_t bytes[10] = {};
  if (!cpu.load_bytes(memory_segment(step), cpu.effective_offset(step), bytes, size + 2)) return false;
  std::memcpy(&out.offset, bytes, size);
  std::memcpy(&out.selector, bytes + size, 2);
  return true;
}

// Fixed descriptors of the fast system calls: flat 4 GiB, accessed (SDM Vol. 2, SYSCALL, SYSENTER, Operation).
constexpr uint32_t kFlatLimit = 0xffffffff;
constexpr uint32_t kCode64 = 0xa09b;  // G, L, present, code, execute/read
constexpr uint32_t kCode32 = 0xc09b;  // G, D
constexpr uint32_t kData = 0xc093;    // G, B, present, data, read/write
constexpr uint32_t kDpl3 = 3u << 5;

x86::Segment flat(uint64_t selector, uint32_t attributes, unsigned cpl) {
  return x86::Segment{.base = 0,
                      .limit = kFlatLimit,
                      .attributes = attributes | (cpl == 3 ? kDpl3 : 0),
                      .selector = static_cast<uint16_t>((selector & ~uint64_t{3}) | cpl)};
}

void enter_level(Cpu& cpu, const x86::Segment& code, const x86::Segment& stack, uint64_t rip) {
  cpu.state.segments[kCs] = code;
  cpu.state.segments[kSs] = stack;
  const bool stays_64bit = cpu.in_long_mode && code.is_long();
  stays_64bit ? cpu.update_level() : cpu.update_mode();
  cpu.rip = rip;
}

}  // namespace

bool jmp_far(Cpu& cpu, const Step* step) {
  FarPointer target;
  if (!read_far_operand(cpu, step, target)) return false;
  return far_jump(cpu, target.selector, target.offset, cpu.next_rip(step));
}

bool call_far(Cpu& cpu, const Step* step) {
  FarPointer target;
  if (!read_far_operand(cpu, step, target)) return false;
  return far_call(cpu, target.selector, target.offset, step->insn.operand_size, cpu.next_rip(step));
}

bool ret_far(Cpu& cpu, const Step* step) {
  const bool releases = step->insn.row->operands[0] == x86::Operand::kIw;
  const unsigned release = releases ? static_cast<uint16_t>(step->insn.immediate) : 0;
  return far_return(cpu, step->insn.operand_size, release);
}

bool iret(Cpu& cpu, const Step* step) { return interrupt_return(cpu, step->insn.operand_size, cpu.next_rip(step)); }

bool syscall(Cpu& cpu, const Step* step) {
  const x86::CpuState& state = cpu.state;
  if ((state.efer & x86::kEferSce) == 0 || !cpu.in_long_mode) return cpu.raise(x86::kInvalidOpcode);
  const uint64_t flags = cpu.rflags();
  const uint64_t selector = Bits<47, 32>::get(state.star);
  cpu.gpr[x86::kRcx] = cpu.next_rip(step);
  cpu.gpr[x86::kR11] = flags & ~x86::kRf;
  cpu.set_rflags((flags & ~state.fmask & ~x86::kRf) | x86::kFlagsOne);
  enter_level(cpu, flat(selector, kCode64, 0), flat(selector + 8, kData, 0), state.lstar);
  return true;
}

bool sysret(Cpu& cpu, const Step* step) {
  const x86::CpuState& state = cpu.state;
  if ((state.efer & x86::kEferSce) == 0 || !cpu.in_long_mode) return cpu.raise(x86::kInvalidOpcode);
  const bool to_64bit = step->insn.operand_size == 8;
  const uint64_t target = cpu.gpr[x86::kRcx];
  // Intel checks before the level changes: the #GP is taken at CPL 0 on the guest-user stack (SDM Vol. 2, SYSRET).
  if (to_64bit && !x86::is_canonical(target)) return raise_gp0(cpu);
  const uint64_t selector = Bits<63, 48>::get(state.star);
  constexpr uint64_t kLoadable = 0x3c7fd7;  // all defined bits but RF and VM
  cpu.set_rflags((cpu.gpr[x86::kR11] & kLoadable) | x86::kFlagsOne);
  const x86::Segment code = to_64bit ? flat(selector + 16, kCode64, 3) : flat(selector, kCode32, 3);
  enter_level(cpu, code, flat(selector + 8, kData, 3), to_64bit ? target : static_cast<uint32_t>(target));
  return true;
}

bool sysenter(Cpu& cpu, const Step*) {
  const x86::CpuState& state = cpu.state;
  if ((state.cr0 & x86::kCr0Pe) == 0 || (state.sysenter_cs & 0xfffc) == 0) return raise_gp0(cpu);
  const bool long_mode = in_ia32e_mode(cpu);
  const uint64_t selector = state.sysenter_cs & 0xfffc;
  cpu.set_rflags(cpu.rflags() & ~(x86::kVm | x86::kIf | x86::kRf));
  cpu.gpr[kRsp] = long_mode ? state.sysenter_esp : static_cast<uint32_t>(state.sysenter_esp);
  enter_level(cpu, flat(selector, long_mode ? kCode64 : kCode32, 0), flat(selector + 8, kData, 0),
              long_mode ? state.sysenter_eip : static_cast<uint32_t>(state.sysenter_eip));
  return true;
}

bool sysexit(Cpu& cpu, const Step* step) {
  const x86::CpuState& state = cpu.state;
  const bool protected_mode = (state.cr0 & x86::kCr0Pe) != 0;
  if (!protected_mode || cpu.cpl != 0 || (state.sysenter_cs & 0xfffc) == 0) return raise_gp0(cpu);
  const bool to_64bit = step->insn.operand_size == 8;
  const uint64_t rsp = cpu.gpr[x86::kRcx], rip = cpu.gpr[x86::kRdx];
  if (to_64bit && (!x86::is_canonical(rsp) || !x86::is_canonical(rip))) return raise_gp0(cpu);
  const uint64_t selector = (state.sysenter_cs & 0xfffc) + (to_64bit ? 32 : 16);
  cpu.gpr[kRsp] = to_64bit ? rsp : static_cast<uint32_t>(rsp);
  enter_level(cpu, flat(selector, to_64bit ? kCode64 : kCode32, 3), flat(selector + 8, kData, 3),
              to_64bit ? rip : static_cast<uint32_t>(rip));
  return true;
}

}  // namespace tenon::interp
