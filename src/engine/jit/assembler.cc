// Encoding: every field of an instruction is computed first (RmField), then the bytes are written front to back with
// stores of fixed size, of which only the bytes that count move the output on. Hence kRoomBytes.
#include "engine/jit/assembler.hh"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/check.hh"

namespace tenon::jit {
namespace {

using x86::OpcodeMap;

constexpr bool fits_int8(int64_t value) { return value == static_cast<int8_t>(value); }
constexpr bool fits_int32(int64_t value) { return value == static_cast<int32_t>(value); }

/// The bytes of one instruction. They are counted from its start, so that the chain of these counts does not begin only
/// when the instruction before is done.
struct Output {
  uint8_t* start;
  size_t count = 0;

  template <typename T>
  void put(T value) {
    put_partly(value, sizeof value);
  }
  /// Writes all of `value` and keeps its first `bytes` bytes.
  template <typename T>
  void put_partly(T value, size_t bytes) {
    std::memcpy(start + count, &value, sizeof value);
    count += bytes;
  }
};

enum RexBits : unsigned { kRexB = 1, kRexX = 2, kRexR = 4, kRexW = 8 };

/// ModRM, SIB and displacement, in the order of memory from the low byte on, and what they add to REX or VEX.
struct RmField {
  uint64_t bytes = 0;
  unsigned count = 0;
  unsigned rex = 0;
};

/// mod and the bytes of displacement that it announces (SDM Vol. 2 Table 2-2). RBP and R13 as base have no form without
/// displacement: that is RIP-relative or without base. By arithmetic, as displacements are not predictable.
struct Displacement {
  unsigned mod;
  unsigned count;
};
[[gnu::always_inline]] inline Displacement displacement_form(unsigned base, int32_t displacement) {
  const bool present = (displacement != 0) | ((base & 7) == kHostRbp);
  const bool wide = !fits_int8(displacement);
  const unsigned mod = present + unsigned{wide};
  constexpr unsigned kCounts = 0x410;  // a hex digit for each mod
  return {mod, kCounts >> 4 * mod & 0xf};
}

/// With SIB: an index, RSP or R12 as base (whose rm value means SIB), or no base (SDM Vol. 2 Table 2-3 and 2.2.1.6).
[[gnu::always_inline]] inline RmField encode_sib(unsigned reg_field, const HostOperand& rm) {
  const bool has_base = rm.base != kNoHostRegister;
  const unsigned base = has_base ? rm.base : unsigned{kHostRbp};
  const unsigned index = rm.index != kNoHostRegister ? rm.index : unsigned{kHostRsp};
  const Displacement form = has_base ? displacement_form(base, rm.displacement) : Displacement{0, 4};
  const unsigned modrm = form.mod << 6 | reg_field | 4;
  const unsigned sib = unsigned{rm.scale} << 6 | (index & 7) << 3 | (base & 7);
  return {.bytes = uint64_t{static_cast<uint32_t>(rm.displacement)} << 16 | sib << 8 | modrm,
          .count = 2 + form.count,
          .rex = base >> 3 | index >> 3 << 1};
}

[[gnu::always_inline]] inline RmField encode_rm(HostRegister reg, const HostOperand& rm, bool may_be_vsib) {
  const unsigned reg_field = (reg & 7u) << 3;
  if (rm.is_register) {
    return {.bytes = 0xc0 | reg_field | (rm.reg & 7u), .count = 1, .rex = (rm.reg & 8u) >> 3};
  }
  // An unscaled index alone is a base, which needs no SIB; not so the vector index of a gather.
  const bool index_is_base = rm.base == kNoHostRegister && rm.scale == 0 && !may_be_vsib;
  const HostRegister base = index_is_base ? rm.index : rm.base;
  if (base == kNoHostRegister || (base & 7) == kHostRsp || (rm.index != kNoHostRegister && !index_is_base)) {
    return encode_sib(reg_field, rm);
  }
  const Displacement form = displacement_form(base, rm.displacement);
  return {.bytes = uint64_t{static_cast<uint32_t>(rm.displacement)} << 8 | form.mod << 6 | reg_field | (base & 7u),
          .count = 1 + form.count,
          .rex = (base & 8u) >> 3};
}

/// Prefixes and escape bytes. 66, F2, F3 and LOCK may stand in any order; REX must be last (SDM Vol. 2 2.2.1).
[[gnu::always_inline]] inline void write_legacy_prefixes(Output& out, const HostInsn& insn, bool gs, unsigned rex) {
  out.put_partly<uint8_t>(0xf0, insn.lock);
  out.put_partly<uint8_t>(insn.rep ? 0xf3 : 0xf2, insn.rep | insn.repne);
  out.put_partly<uint8_t>(0x66, insn.operand_size);
  out.put_partly<uint8_t>(0x65, gs);
  out.put_partly<uint8_t>(static_cast<uint8_t>(0x40 | rex), (rex != 0) | insn.rex);
  out.put_partly<uint8_t>(0x0f, insn.map != OpcodeMap::kLegacy);
  out.put_partly<uint8_t>(insn.map == OpcodeMap::k0F38 ? 0x38 : 0x3a, insn.map >= OpcodeMap::k0F38);
}

/// SDM Vol. 2 2.3.5 and Figure 2-9: R, X, B and vvvv are inverted. Two bytes say R, vvvv, L and pp, and mean map 0F.
[[gnu::always_inline]] inline void write_vex(Output& out, const HostInsn& insn, bool gs, unsigned rex) {
  const unsigned pp = insn.operand_size ? 1u : insn.rep ? 2u : insn.repne ? 3u : 0u;
  const unsigned last = (~unsigned{insn.vvvv} & 0xf) << 3 | unsigned{insn.wide} << 2 | pp;
  out.put_partly<uint8_t>(0x65, gs);
  if (insn.map == OpcodeMap::kVex0F && (rex & ~kRexR) == 0) {
    out.put<uint8_t>(0xc5);
    out.put(static_cast<uint8_t>(((rex & kRexR) == 0 ? 0x80 : 0) | last));
    return;
  }
  const unsigned map = static_cast<unsigned>(insn.map) - static_cast<unsigned>(OpcodeMap::kVex0F) + 1;
  out.put<uint8_t>(0xc4);
  out.put(static_cast<uint8_t>((~rex & 7) << 5 | map));
  out.put(static_cast<uint8_t>((rex & kRexW) << 4 | last));
}

/// Whether it is state at an address known now, which RIP-relative addressing names in two bytes less than GS.
[[gnu::always_inline]] inline bool is_fixed_state(const HostOperand& rm) {
  return !rm.is_register & rm.gs & (rm.base == kNoHostRegister) & (rm.index == kNoHostRegister);
}

/// All of `insn` at `start`; returns its length. `state_from_start`: from where it will run to what GS base is; 0: too
/// far.
[[gnu::always_inline]] inline size_t write(uint8_t* start, const HostInsn& insn, int64_t state_from_start) {
  Output out{start};
  RmField rm;
  unsigned opcode = insn.opcode;
  unsigned rex = insn.w ? unsigned{kRexW} : 0;
  bool gs = false;
  bool by_rip = false;
  if (insn.has_modrm) {
    by_rip = state_from_start != 0 && is_fixed_state(insn.rm);
    rm = by_rip ? RmField{.bytes = (insn.reg & 7u) << 3 | 5, .count = 1 + sizeof(int32_t)}
                : encode_rm(insn.reg, insn.rm, insn.map == OpcodeMap::kVex0F38);
    rex |= rm.rex | (insn.reg & 8u) >> 1;
    gs = insn.rm.gs && !insn.rm.is_register && !by_rip;
  } else if (insn.opcode_register) {
    opcode = (opcode & 0xf8) | (insn.reg & 7u);
    rex |= (insn.reg & 8u) >> 3;
  }
  insn.map >= OpcodeMap::kVex0F ? write_vex(out, insn, gs, rex) : write_legacy_prefixes(out, insn, gs, rex);
  out.put(static_cast<uint8_t>(opcode));
  const size_t modrm_at = out.count;
  out.put_partly(rm.bytes, rm.count);
  out.put_partly(insn.immediate, insn.immediate_bytes);
  if (by_rip) {  // counted from the end of the instruction (SDM Vol. 2 2.2.1.6)
    const auto distance =
        static_cast<int32_t>(state_from_start + insn.rm.displacement - static_cast<int64_t>(out.count));
    std::memcpy(start + modrm_at + 1, &distance, sizeof distance);
  }
  return out.count;
}

/// The common shape of integer instructions: one-byte opcode and ModRM.
[[gnu::always_inline]] inline HostInsn integer(uint8_t opcode, HostRegister reg, const HostOperand& rm, bool w) {
  HostInsn insn;
  insn.opcode = opcode;
  insn.w = w;
  insn.has_modrm = true;
  insn.reg = reg;
  insn.rm = rm;
  return insn;
}

[[gnu::always_inline]] inline HostInsn with_immediate(HostInsn insn, unsigned bytes, int64_t value) {
  insn.immediate_bytes = static_cast<uint8_t>(bytes);
  insn.immediate = value;
  return insn;
}

/// Register in the opcode.
[[gnu::always_inline]] inline HostInsn short_form(uint8_t opcode, HostRegister reg, bool w) {
  HostInsn insn;
  insn.opcode = opcode;
  insn.w = w;
  insn.opcode_register = true;
  insn.reg = reg;
  return insn;
}

/// Operations 0 to 7 of the opcodes 00 to 3F and of group 1 (SDM Vol. 2 Table A-6).
enum Alu : uint8_t { kAdd, kOr, kAdc, kSbb, kAnd, kSub, kXor, kCmp };
constexpr uint8_t opcode_of(Alu operation) { return static_cast<uint8_t>(operation << 3 | 3); }

/// A byte operand: registers 4 to 7 are SPL BPL SIL DIL.
[[gnu::always_inline]] inline HostInsn byte_immediate(uint8_t opcode, HostRegister extension, const HostOperand& to,
                                                      uint8_t value) {
  HostInsn insn = integer(opcode, extension, to, false);
  insn.rex = to.is_register && to.reg >= kHostRsp;
  return with_immediate(insn, 1, value);
}

}  // namespace

Assembler::Assembler(std::span<std::byte> buffer, uint64_t executable, uint64_t state)
    : buffer_(buffer), executable_(executable) {
  constexpr int64_t kReach = (int64_t{1} << 31) - (int64_t{64} << 20);  // less all of the buffer and the state
  const auto distance = static_cast<int64_t>(state - executable);
  if (state != 0 && distance < kReach && distance > -kReach) state_from_start_ = distance;
}

/// Inline in every named instruction, whose fields are constants for the most part: a HostInsn is never made in memory.
[[gnu::always_inline]] inline void Assembler::emit(const HostInsn& insn) {
  if (uint8_t* out = begin(); out != nullptr) {
    at_ += write(out, insn, state_from_start_ == 0 ? 0 : state_from_start_ - static_cast<int64_t>(at_));
  }
}

/// Where to write, or nullptr after an overflow.
uint8_t* Assembler::begin(size_t room_bytes) {
  if (buffer_.size() - at_ < room_bytes) {
    overflowed_ = true;
    buffer_ = buffer_.first(at_);  // nothing more fits from now on, however small
    return nullptr;
  }
  return reinterpret_cast<uint8_t*>(buffer_.data() + at_);
}

void Assembler::encode(const HostInsn& insn) { emit(insn); }

/// One routine for all of that shape: its code is long, and translation comes in short bursts, so that what is not
/// shared is not in the cache.
[[gnu::noinline]] void Assembler::emit_integer(uint8_t opcode, HostRegister reg, const HostOperand& rm, bool w,
                                               unsigned immediate_bytes, int64_t immediate) {
  emit(with_immediate(integer(opcode, reg, rm, w), immediate_bytes, immediate));
}

void Assembler::bytes(std::span<const uint8_t> raw) {
  if (uint8_t* out = begin(raw.size()); out != nullptr) {
    std::memcpy(out, raw.data(), raw.size());
    at_ += raw.size();
  }
}

void Assembler::word(uint16_t value) { bytes(std::bit_cast<std::array<uint8_t, sizeof value>>(value)); }
void Assembler::word(uint64_t value) { bytes(std::bit_cast<std::array<uint8_t, sizeof value>>(value)); }

Fixup Assembler::rel32() { return forward({}, sizeof(int32_t)); }

void Assembler::nops(size_t count) {
  // SDM Vol. 2, NOP, Table 4-12.
  static constexpr std::array<std::array<uint8_t, 9>, 9> kNops = {{
      {0x90},
      {0x66, 0x90},
      {0x0f, 0x1f, 0x00},
      {0x0f, 0x1f, 0x40, 0x00},
      {0x0f, 0x1f, 0x44, 0x00, 0x00},
      {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00},
      {0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
      {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
      {0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
  }};
  while (count != 0) {
    const size_t length = std::min(count, kNops.size());
    bytes(std::span(kNops[length - 1]).first(length));
    count -= length;
  }
}

void Assembler::one_byte(uint8_t opcode) {
  HostInsn insn;
  insn.opcode = opcode;
  emit(insn);
}

void Assembler::byte_and_immediate(uint8_t opcode, uint8_t value) {
  HostInsn insn;
  insn.opcode = opcode;
  emit(with_immediate(insn, 1, value));
}

// --- Moves

void Assembler::mov(HostRegister to, const HostOperand& from, bool w) { emit_integer(0x8b, to, from, w); }
void Assembler::store(const HostOperand& to, HostRegister from, bool w) { emit_integer(0x89, from, to, w); }
void Assembler::store_immediate(const HostOperand& to, int32_t value, bool w) {
  emit_integer(0xc7, 0, to, w, 4, value);
}
void Assembler::store_byte_immediate(const HostOperand& to, uint8_t value) { emit(byte_immediate(0xc6, 0, to, value)); }

void Assembler::mov_immediate(HostRegister to, uint64_t value) {
  if (value == static_cast<uint32_t>(value)) {
    emit(with_immediate(short_form(0xb8, to, false), 4, static_cast<int64_t>(value)));
  } else if (fits_int32(static_cast<int64_t>(value))) {
    store_immediate(HostOperand::r(to), static_cast<int32_t>(value));
  } else {
    emit(with_immediate(short_form(0xb8, to, true), 8, static_cast<int64_t>(value)));
  }
}

void Assembler::lea(HostRegister to, const HostOperand& from, bool w) { emit_integer(0x8d, to, from, w); }

void Assembler::xchg(HostRegister left, HostRegister right) {
  if (left == kHostRax || right == kHostRax) {
    emit(short_form(0x90, left == kHostRax ? right : left, true));
  } else {
    emit_integer(0x87, left, HostOperand::r(right), true);
  }
}

void Assembler::push(const HostOperand& from) { emit_integer(0xff, 6, from, false); }

void Assembler::not_(HostRegister reg) { emit_integer(0xf7, 2, HostOperand::r(reg), true); }

void Assembler::push(HostRegister reg) { emit(short_form(0x50, reg, false)); }
void Assembler::pop(HostRegister reg) { emit(short_form(0x58, reg, false)); }
void Assembler::push_immediate(int32_t value) {
  HostInsn insn;
  insn.opcode = fits_int8(value) ? 0x6a : 0x68;
  emit(with_immediate(insn, fits_int8(value) ? 1 : 4, value));
}

// --- Arithmetic

void Assembler::emit_alu_immediate(unsigned operation, const HostOperand& to, int32_t value, bool w) {
  const auto extension = static_cast<HostRegister>(operation);
  if (fits_int8(value)) return emit_integer(0x83, extension, to, w, 1, value);
  if (!to.is_register || to.reg != kHostRax) return emit_integer(0x81, extension, to, w, 4, value);
  HostInsn insn;
  insn.opcode = static_cast<uint8_t>(extension << 3 | 5);
  insn.w = w;
  emit(with_immediate(insn, 4, value));
}

void Assembler::add(HostRegister to, const HostOperand& from, bool w) { emit_integer(opcode_of(kAdd), to, from, w); }
void Assembler::sub(HostRegister to, const HostOperand& from, bool w) { emit_integer(opcode_of(kSub), to, from, w); }
void Assembler::xor_(HostRegister to, const HostOperand& from, bool w) { emit_integer(opcode_of(kXor), to, from, w); }
void Assembler::cmp(HostRegister left, const HostOperand& right, bool w) {
  emit_integer(opcode_of(kCmp), left, right, w);
}

void Assembler::add_immediate(const HostOperand& to, int32_t value, bool w) { emit_alu_immediate(kAdd, to, value, w); }
void Assembler::and_immediate(const HostOperand& to, int32_t value, bool w) { emit_alu_immediate(kAnd, to, value, w); }
void Assembler::or_immediate(const HostOperand& to, int32_t value, bool w) { emit_alu_immediate(kOr, to, value, w); }
void Assembler::cmp_immediate(const HostOperand& left, int32_t value, bool w) {
  emit_alu_immediate(kCmp, left, value, w);
}
void Assembler::cmp_byte_immediate(const HostOperand& left, uint8_t value) {
  if (left.is_register && left.reg == kHostRax) {
    byte_and_immediate(0x3c, value);
    return;
  }
  emit(byte_immediate(0x80, kCmp, left, value));
}
void Assembler::test(HostRegister left, HostRegister right, bool w) {
  emit_integer(0x85, right, HostOperand::r(left), w);
}

void Assembler::imul(HostRegister to, const HostOperand& from) {
  HostInsn insn = integer(0xaf, to, from, true);
  insn.map = OpcodeMap::k0F;
  emit(insn);
}

void Assembler::shl_immediate(HostRegister to, uint8_t count) {
  emit_integer(0xc1, 4, HostOperand::r(to), true, 1, count);
}

void Assembler::shr_immediate(HostRegister to, uint8_t count) {
  emit_integer(0xc1, 5, HostOperand::r(to), true, 1, count);
}

void Assembler::rorx(HostRegister to, HostRegister from, uint8_t count, bool w) {
  HostInsn insn = integer(0xf0, to, HostOperand::r(from), w);
  insn.map = OpcodeMap::kVex0F3A;
  insn.repne = true;
  emit(with_immediate(insn, 1, count));
}

void Assembler::pext(HostRegister to, HostRegister from, const HostOperand& mask) {
  HostInsn insn = integer(0xf5, to, mask, true);
  insn.map = OpcodeMap::kVex0F38;
  insn.rep = true;
  insn.vvvv = from;
  emit(insn);
}

void Assembler::lahf() { one_byte(0x9f); }
void Assembler::sahf() { one_byte(0x9e); }
void Assembler::seto_al() {
  HostInsn insn = integer(0x90, 0, HostOperand::r(kHostRax), false);
  insn.map = OpcodeMap::k0F;
  emit(insn);
}
void Assembler::add_al(uint8_t value) { byte_and_immediate(0x04, value); }
void Assembler::ret() { one_byte(0xc3); }
void Assembler::int3() { one_byte(0xcc); }

// --- Branches

/// `opcode` and a displacement of zero; the Fixup names the displacement.
Fixup Assembler::forward(std::initializer_list<uint8_t> opcode, unsigned displacement_bytes) {
  uint8_t* start = begin();
  if (start == nullptr) {
    return {};
  }
  Output out{start};
  for (const uint8_t byte : opcode) {
    out.put(byte);
  }
  const Fixup fixup{static_cast<uint32_t>(at_ + out.count)};
  out.put_partly(uint32_t{0}, displacement_bytes);
  at_ += out.count;
  return fixup;
}

/// An empty `short_opcode` (0) is for CALL, which has no short form.
void Assembler::branch(uint8_t short_opcode, std::initializer_list<uint8_t> near_opcode, uint64_t target) {
  uint8_t* start = begin();
  if (start == nullptr) {
    return;
  }
  const auto short_distance = static_cast<int64_t>(target - (address() + 2));
  if (short_opcode == 0 || !fits_int8(short_distance)) {
    bind(forward(near_opcode, 4), target);
    return;
  }
  start[0] = short_opcode;
  start[1] = static_cast<uint8_t>(short_distance);
  at_ += 2;
}

void Assembler::jmp(uint64_t target) { branch(0xeb, {0xe9}, target); }
void Assembler::jcc(Condition condition, uint64_t target) {
  branch(static_cast<uint8_t>(0x70 | condition), {0x0f, static_cast<uint8_t>(0x80 | condition)}, target);
}
void Assembler::call(uint64_t target) { branch(0, {0xe8}, target); }

Fixup Assembler::jmp_forward() { return forward({0xe9}, 4); }
Fixup Assembler::jcc_forward(Condition condition) { return forward({0x0f, static_cast<uint8_t>(0x80 | condition)}, 4); }
Fixup Assembler::call_forward() { return forward({0xe8}, 4); }

/// REX.W, ModRM with RIP-relative displacement.
Fixup Assembler::mov_forward(HostRegister to) {
  const auto rex = static_cast<uint8_t>(0x40 | kRexW | (to & 8u) >> 1);
  return forward({rex, 0x8b, static_cast<uint8_t>((to & 7u) << 3 | 5)}, sizeof(int32_t));
}

void Assembler::jmp_indirect(const HostOperand& target) { emit_integer(0xff, 4, target, false); }
void Assembler::call_indirect(const HostOperand& target) { emit_integer(0xff, 2, target, false); }

Fixup Assembler::jrcxz_forward() { return forward({0xe3}, 1); }
Fixup Assembler::jmp_short_forward() { return forward({0xeb}, 1); }
Fixup Assembler::jcc_short_forward(Condition condition) { return forward({static_cast<uint8_t>(0x70 | condition)}, 1); }

void Assembler::bind(Fixup fixup) { bind(fixup, address()); }

void Assembler::bind(Fixup fixup, uint64_t target) {
  if (overflowed_) {
    return;
  }
  CHECK(fixup.at + sizeof(int32_t) <= at_);
  const auto distance = static_cast<int64_t>(target - address_of(fixup.at + sizeof(int32_t)));
  CHECK(fits_int32(distance));
  const auto displacement = static_cast<int32_t>(distance);
  std::memcpy(buffer_.data() + fixup.at, &displacement, sizeof displacement);
}

void Assembler::bind_short(Fixup fixup) {
  if (overflowed_) {
    return;
  }
  CHECK(fixup.at < at_);
  const size_t distance = at_ - (fixup.at + 1);
  CHECK(distance <= 127);
  buffer_[fixup.at] = static_cast<std::byte>(distance);
}

}  // namespace tenon::jit
