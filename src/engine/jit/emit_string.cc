// String instructions, and bit strings.
//
// Single elements are two checked accesses. REP MOVS and REP STOS call a stub of their soft-TLB mode and element size:
// it goes by chunks that end at the nearer page end of the two sides, translates both sides for each, and lets the
// host's own repeated instruction do the chunk. RCX, RSI and RDI are exact between chunks, so at a page that is not in
// the soft TLB even after a refill, and where somebody wants the vCPU's attention, the interpreter goes on from there.
// Overlap needs no care: elements are done in the guest's order, in a chunk by what the host's instruction promises.
//
// Interpreted: DF = 1, 32-bit addresses, repeated LODS, SCAS and CMPS, repetition with a source in FS or GS.
//
// Source: SDM Vol. 2, MOVS, STOS, LODS, SCAS, CMPS, REP, BT.
#include <bit>

#include "engine/interp/soft_tlb_fill.hh"
#include "engine/jit/emitter.hh"
#include "engine/x86/decode_table.hh"

namespace tenon::jit {

namespace {

using x86::Insn;
using x86::Op;
using x86::OpcodeMap;

constexpr unsigned kEntryShift = 4;  // log2 of sizeof(TlbEntry)
constexpr unsigned kPageShift = 12;
constexpr int32_t kTableMask = (interp::SoftTlb::kEntries - 1) << kEntryShift;
constexpr size_t kHostPage = offsetof(interp::TlbEntry, host_page);

unsigned element_size(const Insn& insn) { return (insn.opcode & 1) == 0 ? 1 : insn.operand_size; }

/// The instruction of one-byte opcode `opcode` for bytes and `opcode` + 1 for the other sizes.
HostInsn sized(uint8_t opcode, unsigned size_bytes, HostRegister reg, const HostOperand& rm) {
  HostInsn insn;
  insn.opcode = static_cast<uint8_t>(opcode + (size_bytes == 1 ? 0 : 1));
  insn.operand_size = size_bytes == 2;
  insn.w = size_bytes == 8;
  insn.has_modrm = true;
  insn.reg = reg;
  insn.rm = rm;
  return insn;
}

constexpr uint8_t kStore = 0x88, kLoad = 0x8a, kCompare = 0x3a;

/// Zero-extending, so that no register's old value is waited for.
void load_element(Assembler& assembler, HostRegister to, unsigned size_bytes, const HostOperand& from) {
  if (size_bytes >= 4) return assembler.mov(to, from, size_bytes == 8);
  const auto movzx = static_cast<uint8_t>(size_bytes == 1 ? 0xb6 : 0xb7);
  assembler.encode({.map = OpcodeMap::k0F, .opcode = movzx, .has_modrm = true, .reg = to, .rm = from});
}

void advance(Assembler& assembler, HostRegister index, unsigned size_bytes) {
  assembler.lea(index, HostOperand::at(index, static_cast<int32_t>(size_bytes)));
}

/// `to` = `index` of a bit string shifted right to the number of its unit. Flags stay.
void unit_number(Assembler& assembler, HostRegister to, const HostOperand& index, unsigned unit_bytes) {
  assembler.mov_immediate(to, unit_bytes == 8 ? 6 : 5);
  assembler.encode({.map = OpcodeMap::kVex0F38,
                    .opcode = 0xf7,
                    .rep = true,
                    .w = unit_bytes == 8,
                    .has_modrm = true,
                    .reg = to,
                    .vvvv = to,
                    .rm = index});  // sarx
  if (unit_bytes == 8) return;
  assembler.encode({.opcode = 0x63, .w = true, .has_modrm = true, .reg = to, .rm = HostOperand::r(to)});  // movsxd
}

HostOperand index_operand(unsigned guest) { return is_homed(guest) ? home(guest) : HostOperand::r(host_of(guest)); }

}  // namespace

// --- Single elements.

void Emitter::emit_string(const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  const Op op = insn.row->op;
  const bool repeated = (insn.prefixes & (x86::kPrefixRep | x86::kPrefixRepne)) != 0;
  if (insn.address_size != 8) return interpret(region_insn, false);
  if (repeated) return emit_repeat(region_insn);
  const bool flags_live = region_insn.live_before != 0;
  const unsigned size_bytes = element_size(insn);
  InterpretSite& site = make_site(region_insn);
  leave_if(site, state::kSystemFlags, x86::kDf, true, flags_live);
  if (op == Op::kMovs || op == Op::kCmps) {
    emit_two_strings(region_insn, size_bytes);
  } else if (op == Op::kLods) {
    const HostOperand from = check(region_insn, string_source(region_insn), size_bytes, Access::kRead, flags_live);
    asm_.encode(sized(kLoad, size_bytes, kHostRax, from));
    advance(asm_, kHostRsi, size_bytes);
  } else {
    const Access access = op == Op::kStos ? Access::kWrite : Access::kRead;
    const HostOperand to = check(region_insn, {.base = x86::kRdi}, size_bytes, access, flags_live);
    asm_.encode(sized(op == Op::kStos ? kStore : kCompare, size_bytes, kHostRax, to));
    advance(asm_, kHostRdi, size_bytes);
  }
  end_template(site);
}

/// MOVS and CMPS: the element at RSI, and what becomes of the one at RDI.
void Emitter::emit_two_strings(const RegionInsn& insn, unsigned size_bytes) {
  const bool moves = insn.insn.row->op == Op::kMovs;
  const bool flags_live = insn.live_before != 0;
  const HostOperand value = HostOperand::state(state::scratch(kScratchValue));
  const Access access = moves ? Access::kWrite : Access::kRead;
  load_element(asm_, kHostR10, size_bytes, check(insn, string_source(insn), size_bytes, Access::kRead, flags_live));
  asm_.store(value, kHostR10);
  const HostOperand other = collapse(check(insn, {.base = x86::kRdi}, size_bytes, access, flags_live));
  asm_.mov(kHostR11, value);
  asm_.encode(sized(moves ? kStore : kCompare, size_bytes, kHostR11, other));
  advance(asm_, kHostRsi, size_bytes);
  advance(asm_, kHostRdi, size_bytes);
}

/// DS:RSI, or with an override FS or GS.
Emitter::Address Emitter::string_source(const RegionInsn& insn) const {
  Address source = address_of(insn);
  source.constant = false;
  source.base = x86::kRsi;
  return source;
}

// --- Repetition.

void Emitter::emit_repeat(const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  const bool moves = insn.row->op == Op::kMovs;
  const bool plain = insn.segment < x86::kFs || !moves;
  if (!(moves || insn.row->op == Op::kStos) || !plain) return interpret(region_insn, false);
  const auto shift = static_cast<unsigned>(std::countr_zero(element_size(insn)));
  InterpretSite& site = make_site(region_insn);
  asm_.mov_immediate(kHostR10, reinterpret_cast<uint64_t>(&site));
  asm_.call(stubs_.repeat[tlb_mode(mode_)][moves ? 0 : 1][shift]);
  end_template(site);
}

namespace {

class RepeatStub {
 public:
  RepeatStub(Assembler& assembler, interp::Cpu& cpu, const Stubs& runtime, unsigned mode, bool moves, unsigned shift)
      : asm_(assembler),
        cpu_(reinterpret_cast<uint64_t>(&cpu)),
        runtime_(runtime),
        mode_(static_cast<interp::TlbMode>(mode)),
        moves_(moves),
        shift_(shift) {}

  uint64_t make() {
    const uint64_t start = asm_.address();
    asm_.store(kSite, kHostR10);
    save_flags(asm_);
    test_immediate(HostOperand::state(state::kSystemFlags), x86::kDf);
    const Fixup backward = asm_.jcc_forward(kNotEqual);
    chunk_ = asm_.address();
    asm_.test(kHostRcx, kHostRcx);
    const Fixup nothing = asm_.jcc_forward(kEqual);
    asm_.cmp_immediate(HostOperand::state(state::kPoke), 0, false);
    const Fixup poked = asm_.jcc_forward(kNotEqual);
    const Fixup to_miss = translate(kHostRdi, true);
    asm_.store(kDestination, kHostR11);
    room_in(kHostRax);
    Fixup from_miss{};
    const uint64_t source = asm_.address();
    if (moves_) {
      from_miss = translate(kHostRsi, false);
      room_in(kHostR10);
      limit(kHostR10);
    }
    limit(kHostRcx);
    repeat();
    asm_.test(kHostRcx, kHostRcx);
    asm_.jcc(kNotEqual, chunk_);
    asm_.bind(nothing);
    restore_flags(asm_);
    asm_.ret();
    asm_.bind(backward);
    asm_.bind(poked);
    const uint64_t leave = asm_.address();
    restore_flags(asm_);
    asm_.lea(kHostRsp, HostOperand::at(kHostRsp, 8));
    asm_.mov(kHostR10, kSite);
    asm_.jmp(runtime_.exit_interpret);
    fill(to_miss, kHostRdi, true, chunk_, leave);
    // Not from the destination on: a refill may take its entry away where both have the same index.
    if (moves_) fill(from_miss, kHostRsi, false, source, leave);
    return start;
  }

 private:
  /// Registers that C++ may change, less those that are free here.
  static constexpr HostRegister kVolatile[] = {kHostRcx, kHostRdx, kHostRsi, kHostRdi, kHostR8, kHostR9};

  void test_immediate(const HostOperand& what, uint32_t mask) {
    asm_.encode({.opcode = 0xf7, .has_modrm = true, .rm = what, .immediate_bytes = 4, .immediate = mask});
  }

  /// R10 = offset of the element at `linear` in its page, R11 = its host address. Returns the way for a miss.
  Fixup translate(HostRegister linear, bool write) {
    const size_t table = interp::tlb_table_offset(mode_, write);
    asm_.rorx(kHostR11, linear, kPageShift - kEntryShift, false);
    asm_.mov(kHostR10, HostOperand::r(linear));
    asm_.and_immediate(HostOperand::r(kHostR11), kTableMask, false);
    asm_.add(kHostR10, HostOperand::state(table, kHostR11, 0));
    asm_.cmp_immediate(HostOperand::r(kHostR10), static_cast<int32_t>(kPageSize) - (1 << shift_));
    const Fixup miss = asm_.jcc_forward(kAbove);
    asm_.mov(kHostR11, HostOperand::state(table + kHostPage, kHostR11, 0));
    asm_.add(kHostR11, HostOperand::r(kHostR10));
    return miss;
  }

  /// `to` = whole elements from R10 to the end of the page.
  void room_in(HostRegister to) {
    if (to == kHostR10) {
      asm_.encode({.opcode = 0xf7, .has_modrm = true, .reg = 3, .rm = HostOperand::r(to)});  // neg
      asm_.add_immediate(HostOperand::r(to), kPageSize, false);
    } else {
      asm_.mov_immediate(to, kPageSize);
      asm_.sub(to, HostOperand::r(kHostR10), false);
    }
    if (shift_ == 0) return;
    asm_.encode({.opcode = 0xc1,
                 .has_modrm = true,
                 .reg = 5,
                 .rm = HostOperand::r(to),
                 .immediate_bytes = 1,
                 .immediate = static_cast<int64_t>(shift_)});  // shr
  }

  /// RAX = min(RAX, by).
  void limit(HostRegister by) {
    asm_.cmp(kHostRax, HostOperand::r(by));
    asm_.encode({.map = OpcodeMap::k0F,
                 .opcode = 0x40 | kAbove,
                 .w = true,
                 .has_modrm = true,
                 .reg = kHostRax,
                 .rm = HostOperand::r(by)});  // cmova
  }

  /// RAX elements; of MOVS from R11. RCX, RSI and RDI as the guest finds them afterwards.
  void repeat() {
    asm_.sub(kHostRcx, HostOperand::r(kHostRax));
    asm_.store(kCount, kHostRcx);
    asm_.mov(kHostRcx, HostOperand::r(kHostRax));
    const auto scale = static_cast<uint8_t>(shift_);
    if (moves_) {
      asm_.lea(kHostR10, HostOperand::at(kHostRsi, kHostRax, scale));
      asm_.mov(kHostRsi, HostOperand::r(kHostR11));
    }
    asm_.lea(kHostR11, HostOperand::at(kHostRdi, kHostRax, scale));
    asm_.mov(kHostRdi, kDestination);
    if (!moves_) asm_.mov(kHostRax, HostOperand::state(state::scratch(kScratchRax)));
    HostInsn insn;
    insn.opcode = static_cast<uint8_t>((moves_ ? 0xa4 : 0xaa) + (shift_ == 0 ? 0 : 1));
    insn.rep = true;
    insn.operand_size = shift_ == 1;
    insn.w = shift_ == 3;
    asm_.encode(insn);
    if (moves_) asm_.mov(kHostRsi, HostOperand::r(kHostR10));
    asm_.mov(kHostRdi, HostOperand::r(kHostR11));
    asm_.mov(kHostRcx, kCount);
  }

  /// As runtime.hh's fill stubs, but on failure the instruction is the interpreter's, from where it has come to.
  /// RAX is kept.
  void fill(Fixup from, HostRegister linear, bool write, uint64_t retry, uint64_t leave) {
    asm_.bind(from);
    asm_.store(kCount, kHostRax);
    for (const HostRegister host : kVolatile) asm_.store(home_of(host), host);
    asm_.store(kReturnStack, kHostRsp);
    asm_.mov(kHostRsp, kEngineStack);
    if (linear != kHostRsi) asm_.mov(kHostRsi, HostOperand::r(linear));
    asm_.mov_immediate(kHostRdi, cpu_);
    asm_.mov_immediate(kHostRdx, write ? 1 : 0);
    asm_.mov_immediate(kHostRax, reinterpret_cast<uint64_t>(&tenon_tlb_fill));
    asm_.call_indirect(HostOperand::r(kHostRax));
    asm_.mov(kHostRsp, kReturnStack);
    for (const HostRegister host : kVolatile) asm_.mov(host, home_of(host));
    asm_.encode({.opcode = 0x84, .has_modrm = true, .reg = kHostRax, .rm = HostOperand::r(kHostRax)});  // test al, al
    asm_.mov(kHostRax, kCount);
    asm_.jcc(kNotEqual, retry);
    asm_.jmp(leave);
  }

  static HostOperand home_of(HostRegister host) { return home(host == kHostR9 ? unsigned{x86::kRsp} : host); }

  static constexpr size_t in_translated(size_t offset) { return offsetof(interp::Cpu, translated) + offset; }

  const HostOperand kSite = HostOperand::state(state::scratch(kScratchSite));
  const HostOperand kDestination = HostOperand::state(state::scratch(kScratchValue));
  const HostOperand kCount = HostOperand::state(state::scratch(kScratchCount));
  const HostOperand kReturnStack = HostOperand::state(in_translated(offsetof(interp::TranslatedState, return_stack)));
  const HostOperand kEngineStack = HostOperand::state(in_translated(offsetof(interp::TranslatedState, engine_stack)));

  Assembler& asm_;
  const uint64_t cpu_;
  const Stubs& runtime_;
  const interp::TlbMode mode_;
  const bool moves_;
  const unsigned shift_;
  uint64_t chunk_ = 0;
};

}  // namespace

void make_repeat_stubs(Assembler& assembler, interp::Cpu& cpu, TranslatorStubs& stubs) {
  constexpr size_t kStubAlignment = 16;
  for (unsigned mode = 0; mode < interp::kTlbNever; ++mode) {
    for (unsigned stores = 0; stores < 2; ++stores) {
      for (unsigned shift = 0; shift < 4; ++shift) {
        assembler.nops((kStubAlignment - assembler.address() % kStubAlignment) % kStubAlignment);
        stubs.repeat[mode][stores][shift] = RepeatStub(assembler, cpu, stubs.runtime, mode, stores == 0, shift).make();
      }
    }
  }
}

// --- Bit strings.

/// R10 += offset of the unit that the bit index names; R11 is lost.
void Emitter::emit_bit_unit(const Address& address) {
  unit_number(asm_, kHostR11, index_operand(address.bit_index), address.bit_unit_bytes);
  asm_.lea(kHostR10, HostOperand::at(kHostR10, kHostR11, address.bit_unit_bytes == 8 ? 3 : 2));
}

/// The unit is what is checked; the host's instruction then gets the address that its whole index leads there from.
void Emitter::emit_bit_string(const RegionInsn& region_insn) {
  const Insn& insn = region_insn.insn;
  const unsigned unit = insn.operand_size;
  Address address = address_of(region_insn);
  if (unit == 2 || address.narrow) return interpret(region_insn, false);
  address.bit_index = insn.reg;
  address.bit_unit_bytes = static_cast<uint8_t>(unit);
  const Access access = insn.row->op == Op::kBt ? Access::kRead : Access::kWrite;
  collapse(check(region_insn, address, unit, access, region_insn.live_before != 0));
  unit_number(asm_, kHostR11, index_operand(insn.reg), unit);
  asm_.encode({.opcode = 0xf7, .w = true, .has_modrm = true, .reg = 2, .rm = HostOperand::r(kHostR11)});  // not
  asm_.lea(kHostR10, HostOperand::at(kHostR10, kHostR11, unit == 8 ? 3 : 2, static_cast<int32_t>(unit)));
  HostInsn host = HostInsn::from(insn);
  host.rm = HostOperand::at(kHostR10);
  host.reg = is_homed(insn.reg) ? HostRegister{kHostR11} : host_of(insn.reg);
  if (is_homed(insn.reg)) asm_.mov(kHostR11, home(insn.reg));
  asm_.encode(host);
}

}  // namespace tenon::jit
