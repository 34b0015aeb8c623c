// IN, OUT, INS, OUTS.
//
// INS and OUTS do one iteration at a time, each with its own commit: permission, memory check, port, registers. A REP
// form leaves the instruction between iterations, with RIP still on it, when somebody wants the vCPU's attention.
// Source: Intel SDM Vol. 1 chapter 19 ("Input/Output"), Vol. 2 IN, OUT, INS, OUTS; Vol. 3 18.2.4 (I/O breakpoints).
#include "engine/interp/segment.hh"
#include "engine/interp/system_handlers.hh"
#include "engine/interp/task_switch.hh"

namespace tenon::interp {
namespace {

/// IOPL, then the bitmap; virtual-8086 mode always asks the bitmap (SDM Vol. 1 19.5).
bool port_allowed(Cpu& cpu, uint16_t port, unsigned size_bytes) {
  if ((cpu.state.cr0 & x86::kCr0Pe) == 0) return true;
  const auto iopl = static_cast<unsigned>((cpu.system_flags & x86::kIopl) >> 12);
  if (!in_virtual_8086(cpu) && cpu.cpl <= iopl) return true;
  return io_bitmap_allows(cpu, port, size_bytes);
}

/// Breakpoints of kind 10 with CR4.DE, reported after the instruction (SDM Vol. 3 18.2.4, 18.3.1.2).
void note_io_breakpoints(Cpu& cpu, uint16_t port, unsigned size_bytes) {
  const x86::CpuState& state = cpu.state;
  if ((state.cr4 & x86::kCr4De) == 0 || (state.dr7 & 0xff) == 0) return;
  uint32_t hits = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const bool enabled = ((state.dr7 >> (2 * i)) & 3) != 0;
    if (!enabled || ((state.dr7 >> (16 + 4 * i)) & 3) != 2) continue;
    const uint64_t length = ((state.dr7 >> (18 + 4 * i)) & 3) + 1;  // 1, 2 or 4
    const uint64_t first = state.dr[i] & ~(length - 1);
    if (first < uint64_t{port} + size_bytes && port < first + length) hits |= 1u << i;
  }
  if (hits != 0) cpu.note_debug_hit(hits);
}

uint32_t read_port(Cpu& cpu, uint16_t port, unsigned size_bytes) {
  ++cpu.counters.port_accesses;
  const uint32_t value = cpu.io->read_port(static_cast<IoPort>(port), size_bytes);
  note_io_breakpoints(cpu, port, size_bytes);
  return value;
}

void write_port(Cpu& cpu, uint16_t port, unsigned size_bytes, uint32_t value) {
  ++cpu.counters.port_accesses;
  cpu.io->write_port(static_cast<IoPort>(port), size_bytes, value);
  note_io_breakpoints(cpu, port, size_bytes);
}

/// 1 for the byte forms (even opcodes), else the operand size; REX.W does not make it 8.
unsigned port_size(const Insn& insn) {
  if ((insn.opcode & 1) == 0) return 1;
  return insn.operand_size == 2 ? 2 : 4;
}

uint16_t port_number(const Cpu& cpu, const Insn& insn) {
  const bool immediate = (insn.opcode & 8) == 0;  // E4-E7; EC-EF take DX
  return immediate ? static_cast<uint8_t>(insn.immediate) : cpu.reg<uint16_t>(x86::kRdx);
}

void write_accumulator(Cpu& cpu, unsigned size_bytes, uint32_t value) {
  switch (size_bytes) {
    case 1: return cpu.set_reg<uint8_t>(x86::kRax, static_cast<uint8_t>(value));
    case 2: return cpu.set_reg<uint16_t>(x86::kRax, static_cast<uint16_t>(value));
    default: return cpu.set_reg<uint32_t>(x86::kRax, value);
  }
}

}  // namespace

bool in(Cpu& cpu, const Step* step) {
  const unsigned size = port_size(step->insn);
  const uint16_t port = port_number(cpu, step->insn);
  if (!port_allowed(cpu, port, size)) return false;
  write_accumulator(cpu, size, read_port(cpu, port, size));
  return true;
}

bool out(Cpu& cpu, const Step* step) {
  const unsigned size = port_size(step->insn);
  const uint16_t port = port_number(cpu, step->insn);
  if (!port_allowed(cpu, port, size)) return false;
  const auto mask = static_cast<uint32_t>((uint64_t{1} << (8 * size)) - 1);
  write_port(cpu, port, size, cpu.reg<uint32_t>(x86::kRax) & mask);
  return true;
}

// --- String forms.

namespace {

uint64_t cut(uint64_t value, unsigned size_bytes) {
  return size_bytes == 8 ? value : size_bytes == 4 ? static_cast<uint32_t>(value) : static_cast<uint16_t>(value);
}

void advance(Cpu& cpu, unsigned number, unsigned address_size, unsigned size_bytes) {
  const bool down = (cpu.system_flags & x86::kDf) != 0;
  const uint64_t value = cpu.gpr[number] + (down ? -uint64_t{size_bytes} : uint64_t{size_bytes});
  write_gpr(cpu, number, address_size, value);
}

/// The store is checked before the port is read: a read cannot be taken back.
bool ins_once(Cpu& cpu, const Insn& insn) {
  const unsigned size = port_size(insn);
  const uint16_t port = cpu.reg<uint16_t>(x86::kRdx);
  const uint64_t offset = cut(cpu.gpr[x86::kRdi], insn.address_size);
  if (!port_allowed(cpu, port, size) || !cpu.probe_store(x86::kEs, offset, size)) return false;
  const uint32_t value = read_port(cpu, port, size);
  if (!cpu.store_bytes(x86::kEs, offset, &value, size)) return false;
  advance(cpu, x86::kRdi, insn.address_size, size);
  return true;
}

bool outs_once(Cpu& cpu, const Insn& insn) {
  const unsigned size = port_size(insn);
  const uint16_t port = cpu.reg<uint16_t>(x86::kRdx);
  const uint64_t offset = cut(cpu.gpr[x86::kRsi], insn.address_size);
  uint32_t value = 0;
  if (!port_allowed(cpu, port, size)) return false;
  if (!cpu.load_bytes(static_cast<SegmentIndex>(insn.segment), offset, &value, size)) return false;
  write_port(cpu, port, size, value);
  advance(cpu, x86::kRsi, insn.address_size, size);
  return true;
}

template <auto once>
void repeat(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  if ((insn.prefixes & (x86::kPrefixRep | x86::kPrefixRepne)) == 0) {
    if (!once(cpu, insn)) return cpu.fault(step);
    return next(cpu, step);
  }
  // Permission comes before the count: also with rCX = 0 a forbidden port is #GP.
  if (!port_allowed(cpu, cpu.reg<uint16_t>(x86::kRdx), port_size(insn))) return cpu.fault(step);
  while (cut(cpu.gpr[x86::kRcx], insn.address_size) != 0) {
    if (!once(cpu, insn)) return cpu.fault(step);
    const uint64_t left = cut(cpu.gpr[x86::kRcx], insn.address_size) - 1;
    write_gpr(cpu, x86::kRcx, insn.address_size, left);
    const bool wanted = (cpu.attention | cpu.signal->pending()) != 0;
    if (left != 0 && wanted) return cpu.leave_at(step);
  }
  return next(cpu, step);
}

}  // namespace

void ins(Cpu& cpu, const Step* step) { return repeat<ins_once>(cpu, step); }
void outs(Cpu& cpu, const Step* step) { return repeat<outs_once>(cpu, step); }

}  // namespace tenon::interp
