// PUSH, POP, PUSHA, POPA, ENTER, LEAVE (SDM Vol. 2). Segment registers on the stack belong to the system family, flags
// to integer_flags.cc.
#include <array>

#include "engine/interp/integer_families.hh"
#include "engine/interp/integer_operand.hh"
#include "engine/interp/stack_inline.hh"

namespace tenon::interp {
namespace {

/// The slow half of the fast pushes: the store missed the TLB.
template <typename T>
TENON_COLD void push_register_slow(Cpu& cpu, const Step* step) {
  if (!push<false, T>(cpu, cpu.reg<T>(step->insn.rm))) return cpu.fault(step);
  return next(cpu, step);
}

template <typename T, bool flat>
void push_register(Cpu& cpu, const Step* step) {
  if constexpr (flat) {
    const uint64_t offset = cpu.gpr[x86::kRsp] - sizeof(T);
    void* host;
    if (!tlb_hit(cpu.tlb_write, offset, sizeof(T), host)) return push_register_slow<T>(cpu, step);
    store_host<T>(host, cpu.reg<T>(step->insn.rm));
    cpu.gpr[x86::kRsp] = offset;
    return next(cpu, step);
  } else {
    return push_register_slow<T>(cpu, step);
  }
}

template <typename T>
void push_immediate(Cpu& cpu, const Step* step) {
  if (!push<false, T>(cpu, static_cast<T>(step->insn.immediate))) return cpu.fault(step);
  return next(cpu, step);
}

template <typename T>
void push_memory(Cpu& cpu, const Step* step) {
  T value;
  if (!load_operand<false, T>(cpu, step, value) || !push<false, T>(cpu, value)) return cpu.fault(step);
  return next(cpu, step);
}

template <typename T>
TENON_COLD void pop_register_slow(Cpu& cpu, const Step* step) {
  T value;
  if (!peek<false, T>(cpu, value)) return cpu.fault(step);
  drop<false>(cpu, sizeof(T));  // before the write: POP RSP gives the value popped
  cpu.set_reg<T>(step->insn.rm, value);
  return next(cpu, step);
}

template <typename T, bool flat>
void pop_register(Cpu& cpu, const Step* step) {
  if constexpr (flat) {
    const uint64_t offset = cpu.gpr[x86::kRsp];
    void* host;
    if (!tlb_hit(cpu.tlb_read, offset, sizeof(T), host)) return pop_register_slow<T>(cpu, step);
    const T value = load_host<T>(host);
    cpu.gpr[x86::kRsp] = offset + sizeof(T);
    cpu.set_reg<T>(step->insn.rm, value);
    return next(cpu, step);
  } else {
    return pop_register_slow<T>(cpu, step);
  }
}

/// The address uses the stack pointer after the pop (SDM Vol. 2, POP); a fault puts it back.
template <typename T>
void pop_memory(Cpu& cpu, const Step* step) {
  const uint64_t old_rsp = cpu.gpr[x86::kRsp];
  T value;
  if (!peek<false, T>(cpu, value)) return cpu.fault(step);
  drop<false>(cpu, sizeof(T));
  if (!store_operand<false, T>(cpu, step, value)) {
    cpu.gpr[x86::kRsp] = old_rsp;
    return cpu.fault(step);
  }
  return next(cpu, step);
}

Handler push_handler(const Insn& insn, x86::CodeSize code_size) {
  const bool flat = code_size == x86::CodeSize::k64;
  return by_wide_size(insn.operand_size, [&]<typename T>() -> Handler {
    if (place_of(insn.row->operands[0]) == Place::kImmediate) return push_immediate<T>;
    if (insn.is_memory) return push_memory<T>;
    return flat ? push_register<T, true> : push_register<T, false>;
  });
}

Handler pop_handler(const Insn& insn, x86::CodeSize code_size) {
  const bool flat = code_size == x86::CodeSize::k64;
  return by_wide_size(insn.operand_size, [&]<typename T>() -> Handler {
    if (insn.is_memory) return pop_memory<T>;
    return flat ? pop_register<T, true> : pop_register<T, false>;
  });
}

template <typename T>
void push_all(Cpu& cpu, const Step* step) {
  for (int slot = 1; slot <= 8; ++slot) {
    const int64_t delta = -slot * static_cast<int64_t>(sizeof(T));
    if (!cpu.probe_store(x86::kSs, cpu.stack_offset(delta), sizeof(T))) return cpu.fault(step);
  }
  for (int slot = 1; slot <= 8; ++slot) {
    const int64_t delta = -slot * static_cast<int64_t>(sizeof(T));
    if (!cpu.store<T>(x86::kSs, cpu.stack_offset(delta), cpu.reg<T>(static_cast<unsigned>(slot) - 1)))
      return cpu.fault(step);
  }
  cpu.set_stack_offset(cpu.stack_offset(-8 * static_cast<int64_t>(sizeof(T))));
  return next(cpu, step);
}

template <typename T>
void pop_all(Cpu& cpu, const Step* step) {
  std::array<T, 8> values;
  for (unsigned slot = 0; slot < 8; ++slot) {
    if (!peek<false, T>(cpu, values[slot], static_cast<int64_t>(slot * sizeof(T)))) return cpu.fault(step);
  }
  drop<false>(cpu, 8 * sizeof(T));
  for (unsigned slot = 0; slot < 8; ++slot) {
    const unsigned number = 7 - slot;  // DI first
    if (number != x86::kRsp) cpu.set_reg<T>(number, values[slot]);
  }
  return next(cpu, step);
}

/// ENTER (SDM Vol. 2): the stores go one by one as on processors, rSP and rBP change after the last of them.
template <typename T>
void enter(Cpu& cpu, const Step* step) {
  constexpr int64_t kSize = sizeof(T);
  const unsigned level = step->insn.immediate2 & 31u;
  const auto allocation = static_cast<int64_t>(static_cast<uint16_t>(step->insn.immediate));
  const int64_t pushed = kSize * (1 + static_cast<int64_t>(level));
  const uint64_t frame = cpu.stack_offset(-kSize);
  if (!cpu.store<T>(x86::kSs, frame, cpu.reg<T>(x86::kRbp))) return cpu.fault(step);
  const auto from_bp = static_cast<int64_t>(cpu.gpr[x86::kRbp] - cpu.gpr[x86::kRsp]);
  for (unsigned i = 1; i < level; ++i) {
    T link;
    const int64_t down = static_cast<int64_t>(i) * kSize;
    if (!cpu.load<T>(x86::kSs, cpu.stack_offset(from_bp - down), link)) return cpu.fault(step);
    if (!cpu.store<T>(x86::kSs, cpu.stack_offset(-down - kSize), link)) return cpu.fault(step);
  }
  // The frame pointer as pushed and kept is the stack pointer after the first push, upper part of RSP included.
  const uint64_t old_rsp = cpu.gpr[x86::kRsp];
  cpu.set_stack_offset(frame);
  const uint64_t frame_pointer = cpu.gpr[x86::kRsp];
  cpu.gpr[x86::kRsp] = old_rsp;
  if (level > 0 && !cpu.store<T>(x86::kSs, cpu.stack_offset(-pushed), static_cast<T>(frame_pointer)))
    return cpu.fault(step);
  const uint64_t final_offset = cpu.stack_offset(-pushed - allocation);
  if (!cpu.probe_store(x86::kSs, final_offset, sizeof(T))) return cpu.fault(step);
  cpu.set_stack_offset(final_offset);
  cpu.set_reg<T>(x86::kRbp, static_cast<T>(frame_pointer));
  return next(cpu, step);
}

/// rSP = rBP in the stack's width, then POP rBP.
template <typename T>
void leave(Cpu& cpu, const Step* step) {
  const uint64_t bp = cpu.gpr[x86::kRbp];
  const uint64_t offset = cpu.stack_offset(static_cast<int64_t>(bp - cpu.gpr[x86::kRsp]));
  T value;
  if (!cpu.load<T>(x86::kSs, offset, value)) return cpu.fault(step);
  cpu.set_stack_offset(offset);
  drop<false>(cpu, sizeof(T));
  cpu.set_reg<T>(x86::kRbp, value);
  return next(cpu, step);
}

}  // namespace

Handler stack_handler(const Insn& insn, x86::CodeSize code_size) {
  switch (insn.row->op) {
    case x86::Op::kPush: return push_handler(insn, code_size);
    case x86::Op::kPop: return pop_handler(insn, code_size);
    case x86::Op::kPusha: return insn.operand_size == 2 ? push_all<uint16_t> : push_all<uint32_t>;
    case x86::Op::kPopa: return insn.operand_size == 2 ? pop_all<uint16_t> : pop_all<uint32_t>;
    case x86::Op::kEnter: return by_wide_size(insn.operand_size, []<typename T>() -> Handler { return enter<T>; });
    case x86::Op::kLeave: return by_wide_size(insn.operand_size, []<typename T>() -> Handler { return leave<T>; });
    default: return nullptr;
  }
}

}  // namespace tenon::interp
