// StackCursor: pushes and pops on a stack that may not be SS:RSP yet, for event delivery, far transfers and task
// switches.
//
// Nothing is committed to registers: the caller takes rsp() when everything has succeeded. A push that succeeded before
// a later one faults leaves bytes below the stack pointer, as the hardware does.
#pragma once

#include "engine/interp/cpu.hh"

namespace tenon::interp {

class StackCursor {
 public:
  /// `flat64`: 64-bit mode, no segment. Otherwise the stack's address size is `stack`'s B flag. `error_code` goes with
  /// the #SS of a limit violation. `privilege` as in Cpu::load_linear(): kSupervisor for the stack of an inner level.
  StackCursor(Cpu& cpu, const x86::Segment& stack, uint64_t rsp, bool flat64, Privilege privilege,
              uint32_t error_code = 0)
      : cpu_(cpu), stack_(stack), rsp_(rsp), offset_(rsp), flat64_(flat64), privilege_(privilege), error_(error_code) {}

  bool push(uint64_t value, unsigned size_bytes);
  /// Zero-extended.
  bool pop(unsigned size_bytes, uint64_t& value);
  /// Moves up by `size_bytes` without access: RET imm16.
  void skip(uint64_t size_bytes) { offset_ += size_bytes; }
  /// RSP after it all: a 16-bit stack keeps bits 63:16.
  uint64_t rsp() const;

 private:
  unsigned address_size() const { return flat64_ ? 8 : stack_.is_big() ? 4 : 2; }
  uint64_t cut(uint64_t offset) const;
  bool linear_of(uint64_t offset, unsigned size_bytes, uint64_t& linear);

  Cpu& cpu_;
  const x86::Segment stack_;
  const uint64_t rsp_;
  uint64_t offset_;
  const bool flat64_;
  const Privilege privilege_;
  const uint32_t error_;
};

}  // namespace tenon::interp
