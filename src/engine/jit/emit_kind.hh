// EmitKind: by which template an instruction of translated code is made; the one table of what the JIT translates.
//
// Everything not named here is executed by the interpreter in the middle of translated code (EmitKind::kInterpret), so
// a new row in the decoder's tables works at once and gets fast when it is named here.
#pragma once

#include <cstdint>

#include "engine/x86/insn.hh"

namespace tenon::jit {

enum class EmitKind : uint8_t {
  kInterpret,
  kSame,       // the same opcode on the host's registers and checked memory; integer
  kVector,     // the same, with the guest's XMM/YMM registers live
  kX87,        // the same, with the guest's x87/MMX registers live
  kVectorX87,  // both (MMX with XMM operands)
  kNothing,    // NOP, prefetch
  kLea,
  kPush,
  kPop,
  kLeave,
  kBranch,  // near branches: emitted by the end of their block; from here on, templates that may call the interpreter
  // emit_string.cc
  kString,
  kBitString,  // BT and its kin with a register index, in memory
  // emit_system.cc
  kFlagBit,  // CLD, STD, CLI, STI
  kPushFlags,
  kPopFlags,
  kTime,  // RDTSC, RDTSCP, RDPID
  kBase,  // RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE
  kSwapgs,
  kReadControl,
  kReadSegment,  // MOV from a segment register
  kSerialize,
  // emit_privilege.cc
  kSyscall,
  kSysret,
};

/// `insn` is 64-bit code and exposed to the guest (its feature is).
EmitKind emit_kind(const x86::Insn& insn);

/// Whether a row that ends a block (kSerializing) has a template after which control always goes on behind it.
bool goes_on(const x86::Insn& insn);

}  // namespace tenon::jit
