// PUSH and POP of one value, for every family that uses the stack.
#pragma once

#include "engine/interp/cpu_inline.hh"

namespace tenon::interp {

/// Pushes T through SS:rSP. False: faulted, nothing changed. `flat`: known 64-bit mode.
template <bool flat, typename T>
[[gnu::always_inline]] inline bool push(Cpu& cpu, T value) {
  if constexpr (flat) {
    const uint64_t offset = cpu.gpr[x86::kRsp] - sizeof(T);
    if (!cpu.store_flat<T>(x86::kSs, offset, value)) return false;
    cpu.gpr[x86::kRsp] = offset;
  } else {
    const uint64_t offset = cpu.stack_offset(-static_cast<int64_t>(sizeof(T)));
    if (!cpu.store<T>(x86::kSs, offset, value)) return false;
    cpu.set_stack_offset(offset);
  }
  return true;
}

/// Reads the value `depth` bytes above the stack pointer; the caller moves it afterwards.
template <bool flat, typename T>
[[gnu::always_inline]] inline bool peek(Cpu& cpu, T& out, int64_t depth = 0) {
  if constexpr (flat) return cpu.load_flat<T>(x86::kSs, cpu.gpr[x86::kRsp] + static_cast<uint64_t>(depth), out);
  return cpu.load<T>(x86::kSs, cpu.stack_offset(depth), out);
}

template <bool flat>
[[gnu::always_inline]] inline void drop(Cpu& cpu, uint64_t size_bytes) {
  if constexpr (flat) {
    cpu.gpr[x86::kRsp] += size_bytes;
  } else {
    cpu.set_stack_offset(cpu.stack_offset(static_cast<int64_t>(size_bytes)));
  }
}

}  // namespace tenon::interp
