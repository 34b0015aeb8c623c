// Assembler: host machine code from operands that are registers, memory or GS-relative state.
//
// Two uses. Templates (soft-TLB checks, links, stubs) call the named members. Re-emission of guest instructions fills a
// HostInsn, mostly from the guest's own Insn with other registers, and encode()s it: one routine for the legacy, 0F,
// 0F38, 0F3A and VEX maps, so that what the JIT can emit is a table (x86/table_*.cc) and not code.
//
// The buffer is the writable view of code memory; the addresses that branches need are those of the executable view.
// Nothing is emitted past the end of the buffer: where less than kRoomBytes are left `overflowed` is set, nothing more
// is emitted or bound, and the caller starts over with more room.
//
// Each instruction gets its shortest encoding: disp8 or none, no SIB where none is needed, two-byte VEX, imm8.
//
// Not implemented: RIP-relative operands other than state, address-size prefix, EVEX.
//
// Source: Intel SDM Vol. 2 chapter 2 (encoding), chapters 3 to 5 (opcodes).
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>

#include "engine/x86/insn.hh"

namespace tenon::jit {

/// Register numbers as encoded: general (RAX = 0 ... R15 = 15) or XMM/YMM.
using HostRegister = uint8_t;
constexpr HostRegister kNoHostRegister = 0xff;

enum HostGpr : HostRegister {
  kHostRax,
  kHostRcx,
  kHostRdx,
  kHostRbx,
  kHostRsp,
  kHostRbp,
  kHostRsi,
  kHostRdi,
  kHostR8,
  kHostR9,
  kHostR10,
  kHostR11,
  kHostR12,
  kHostR13,
  kHostR14,
  kHostR15
};

/// ModRM.rm of a host instruction: a register, or memory at [base + index << scale + displacement], optionally in GS.
/// No base and no index: the displacement is the whole address (GS-relative state). Of gathers the index is an XMM/YMM
/// register, of any number.
struct HostOperand {
  bool is_register = true;
  bool gs = false;
  HostRegister reg = 0;
  HostRegister base = kNoHostRegister;
  HostRegister index = kNoHostRegister;  // never RSP
  uint8_t scale = 0;                     // log2
  int32_t displacement = 0;

  static constexpr HostOperand r(HostRegister reg) { return {.reg = reg}; }
  static constexpr HostOperand at(HostRegister base, int32_t displacement = 0) {
    return {.is_register = false, .base = base, .displacement = displacement};
  }
  static constexpr HostOperand at(HostRegister base, HostRegister index, uint8_t scale, int32_t displacement = 0) {
    return {.is_register = false, .base = base, .index = index, .scale = scale, .displacement = displacement};
  }
  /// State at GS base + offset.
  static constexpr HostOperand state(size_t offset) {
    return {.is_register = false, .gs = true, .displacement = static_cast<int32_t>(offset)};
  }
  /// State at GS base + offset + index << scale.
  static constexpr HostOperand state(size_t offset, HostRegister index, uint8_t scale) {
    return {
        .is_register = false, .gs = true, .index = index, .scale = scale, .displacement = static_cast<int32_t>(offset)};
  }
};

/// One host instruction to encode.
struct HostInsn {
  x86::OpcodeMap map = x86::OpcodeMap::kLegacy;
  uint8_t opcode = 0;
  bool operand_size = false;  // 66, or the VEX.pp of the same meaning
  bool rep = false;           // F3
  bool repne = false;         // F2
  bool lock = false;
  bool w = false;     // REX.W or VEX.W
  bool rex = false;   // a REX prefix even if no bit is set: SPL BPL SIL DIL instead of AH CH DH BH
  bool wide = false;  // VEX.L
  bool has_modrm = false;
  bool opcode_register = false;  // `reg` goes into the opcode's low three bits and REX.B (no ModRM)
  HostRegister reg = 0;          // ModRM.reg: register or opcode extension
  HostRegister vvvv = 0;         // VEX
  HostOperand rm{};
  uint8_t immediate_bytes = 0;  // 0 to 8, after everything else
  int64_t immediate = 0;

  /// `insn` as the guest encoded it, with the guest's register numbers: the caller then changes reg, rm and vvvv. Its
  /// memory operand, segment and address-size prefixes are not taken over (rm is register 0 then); branches are not for
  /// this. LOCK, the mandatory prefixes, VEX fields and the immediate are kept; F2 and F3 only where they select the
  /// instruction or repeat it. MOV with a memory offset (A0 to A3) becomes MOV with a ModRM operand. A register that is
  /// fixed or an opcode extension is in reg and rm as it was encoded, without REX bits: change only what row->operands
  /// names. `insn` must be decoded 64-bit code.
  static HostInsn from(const x86::Insn& insn);

  /// Whether AH, CH, DH or BH is an operand: then no REX prefix may be needed (register numbers >= 8, W, `rex`).
  static bool uses_high_byte(const x86::Insn& insn);
};

/// A rel32 that is not yet known: from label_*() to bind().
struct Fixup {
  uint32_t at = 0;  // offset of the rel32 from the start of the buffer
};

enum Condition : uint8_t {
  kOverflow,
  kNoOverflow,
  kBelow,
  kAboveOrEqual,
  kEqual,
  kNotEqual,
  kBelowOrEqual,
  kAbove,
  kSign,
  kNoSign,
  kParity,
  kNoParity,
  kLess,
  kGreaterOrEqual,
  kLessOrEqual,
  kGreater
};

class Assembler {
 public:
  /// An instruction is emitted only where this much room is left: more than any has, so that fields are written whole.
  static constexpr size_t kRoomBytes = 32;

  /// `executable`: the address that code at buffer[0] will run at. `state`: what GS base will be then, if it is known:
  /// where it is near, state is addressed RIP-relative, which is two bytes shorter.
  Assembler(std::span<std::byte> buffer, uint64_t executable, uint64_t state = 0);

  size_t offset() const { return at_; }
  uint64_t address() const { return executable_ + at_; }
  uint64_t address_of(size_t offset) const { return executable_ + offset; }
  bool overflowed() const { return overflowed_; }
  std::span<const std::byte> code() const { return buffer_.first(at_); }

  void encode(const HostInsn& insn);
  void bytes(std::span<const uint8_t> raw);
  void word(uint16_t value);  // data
  void word(uint64_t value);
  Fixup rel32();            // data: a distance from its end
  void nops(size_t count);  // `count` bytes of padding, in as few instructions as possible

  // --- Named instructions; `w` = 64-bit operands, else 32-bit.
  void mov(HostRegister to, const HostOperand& from, bool w = true);  // load or register move
  void store(const HostOperand& to, HostRegister from, bool w = true);
  void store_immediate(const HostOperand& to, int32_t value, bool w = true);
  void store_byte_immediate(const HostOperand& to, uint8_t value);
  void mov_immediate(HostRegister to, uint64_t value);  // shortest of mov r32, mov r64 sign-extended, movabs
  void lea(HostRegister to, const HostOperand& from, bool w = true);
  void add(HostRegister to, const HostOperand& from, bool w = true);
  void add_immediate(const HostOperand& to, int32_t value, bool w = true);
  void sub(HostRegister to, const HostOperand& from, bool w = true);
  void and_immediate(const HostOperand& to, int32_t value, bool w = true);
  void or_immediate(const HostOperand& to, int32_t value, bool w = true);
  void xor_(HostRegister to, const HostOperand& from, bool w = true);
  void cmp(HostRegister left, const HostOperand& right, bool w = true);
  void cmp_immediate(const HostOperand& left, int32_t value, bool w = true);
  void cmp_byte_immediate(const HostOperand& left, uint8_t value);
  void test(HostRegister left, HostRegister right, bool w = true);
  void imul(HostRegister to, const HostOperand& from);  // 64 bits
  void shl_immediate(HostRegister to, uint8_t count);   // 64 bits
  void shr_immediate(HostRegister to, uint8_t count);
  void rorx(HostRegister to, HostRegister from, uint8_t count, bool w = true);  // flags stay
  void pext(HostRegister to, HostRegister from, const HostOperand& mask);       // flags stay
  void xchg(HostRegister left, HostRegister right);
  void push(HostRegister reg);
  void push(const HostOperand& from);
  void not_(HostRegister reg);         // flags stay
  void push_immediate(int32_t value);  // sign-extended to 64 bits
  void pop(HostRegister reg);
  void lahf();
  void sahf();
  void seto_al();
  void add_al(uint8_t value);
  void ret();
  void int3();

  // --- Branches. To a known executable address (within 2 GiB), or with a Fixup to bind later (always rel32; backward
  // branches to known places take the short form where they can).
  void jmp(uint64_t target);
  void jcc(Condition condition, uint64_t target);
  void call(uint64_t target);
  Fixup jmp_forward();
  Fixup jcc_forward(Condition condition);
  Fixup call_forward();
  Fixup mov_forward(HostRegister to);  // loads 8 bytes from where it is bound to
  void jmp_indirect(const HostOperand& target);
  void call_indirect(const HostOperand& target);
  /// JRCXZ over a short distance: returns the place of its rel8, which bind_short() sets to here (CHECK: within 127).
  Fixup jrcxz_forward();
  Fixup jmp_short_forward();
  Fixup jcc_short_forward(Condition condition);
  void bind(Fixup fixup);                   // to here
  void bind(Fixup fixup, uint64_t target);  // to an executable address
  void bind_short(Fixup fixup);

 private:
  void emit(const HostInsn& insn);
  void emit_integer(uint8_t opcode, HostRegister reg, const HostOperand& rm, bool w, unsigned immediate_bytes = 0,
                    int64_t immediate = 0);
  void emit_alu_immediate(unsigned operation, const HostOperand& to, int32_t value, bool w);
  uint8_t* begin(size_t room_bytes = kRoomBytes);
  void one_byte(uint8_t opcode);
  void byte_and_immediate(uint8_t opcode, uint8_t value);
  Fixup forward(std::initializer_list<uint8_t> opcode, unsigned displacement_bytes);
  void branch(uint8_t short_opcode, std::initializer_list<uint8_t> near_opcode, uint64_t target);

  std::span<std::byte> buffer_;
  uint64_t executable_;
  int64_t state_from_start_ = 0;  // from `executable_` to the state; 0: by GS
  size_t at_ = 0;
  bool overflowed_ = false;
};

}  // namespace tenon::jit
