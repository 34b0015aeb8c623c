// The named instructions against two decoders (Zydis and the engine's own) over all registers, addressing forms and
// displacement sizes, and code that is executed: branches, fixups, GS-relative state, flag-preserving templates.
#include "engine/jit/assembler.hh"

#include <Zydis/Zydis.h>
#include <asm/prctl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "base/code_memory.hh"

namespace tenon::jit {
namespace {

constexpr std::array<int32_t, 9> kDisplacements = {
    0, 1, -1, 127, -128, 128, -129, 0x12345678, std::numeric_limits<int32_t>::min()};
constexpr std::array<int32_t, 8> kImmediates = {0, 1, -1, 127, -128, 128, -129, 0x12345678};

std::vector<HostOperand> all_registers() {
  std::vector<HostOperand> operands;
  for (unsigned reg = 0; reg < 16; ++reg) operands.push_back(HostOperand::r(static_cast<HostRegister>(reg)));
  return operands;
}

/// Every base with every index and scale, each also missing, with and without GS.
std::vector<HostOperand> all_memory() {
  std::vector<HostOperand> operands;
  for (unsigned base = 0; base <= 16; ++base) {
    for (unsigned index = 0; index <= 16; ++index) {
      if (index == kHostRsp) continue;
      for (uint8_t scale = 0; scale < (index == 16 ? 1 : 4); ++scale) {
        for (const int32_t displacement : kDisplacements) {
          HostOperand operand =
              HostOperand::at(base == 16 ? kNoHostRegister : static_cast<HostRegister>(base),
                              index == 16 ? kNoHostRegister : static_cast<HostRegister>(index), scale, displacement);
          operands.push_back(operand);
          operand.gs = true;
          operands.push_back(operand);
        }
      }
    }
  }
  return operands;
}

/// Memory operands in which every field has been through all its values, for instructions with other operands too.
std::vector<HostOperand> some_memory() {
  const std::vector<HostOperand> all = all_memory();
  std::vector<HostOperand> some;
  for (size_t i = 0; i < all.size(); i += 13) some.push_back(all[i]);
  return some;
}

std::vector<HostOperand> registers_and(std::vector<HostOperand> memory) {
  const std::vector<HostOperand> registers = all_registers();
  memory.insert(memory.end(), registers.begin(), registers.end());
  return memory;
}

/// One visible operand as it must be decoded.
struct Expected {
  enum class Kind : uint8_t { kRegister, kHostOperand, kImmediate } kind;
  HostOperand operand{};
  int64_t immediate = 0;
  unsigned bits = 0;
};
Expected reg(unsigned number, unsigned bits) {
  return {Expected::Kind::kRegister, HostOperand::r(static_cast<HostRegister>(number)), 0, bits};
}
Expected rm(const HostOperand& operand, unsigned bits) { return {Expected::Kind::kHostOperand, operand, 0, bits}; }
Expected imm(int64_t value) { return {Expected::Kind::kImmediate, {}, value, 0}; }
constexpr unsigned bits_of(bool w) { return w ? 64 : 32; }

ZydisRegister gpr(HostRegister number, unsigned bits) {
  if (number == kNoHostRegister) return ZYDIS_REGISTER_NONE;
  if (bits == 8) return static_cast<ZydisRegister>(ZYDIS_REGISTER_AL + (number < 4 ? number : number + 4));
  return static_cast<ZydisRegister>((bits == 64 ? ZYDIS_REGISTER_RAX : ZYDIS_REGISTER_EAX) + number);
}

/// An instruction emitted on its own, decoded by both decoders.
class Emitted {
 public:
  template <typename Emit>
  explicit Emitted(Emit emit) {
    Assembler assembler(buffer_, kAddress);
    emit(assembler);
    size_ = assembler.offset();
  }

  /// The whole of it is one `mnemonic` with these operands, in no more bytes than Zydis' encoder needs.
  testing::AssertionResult is(ZydisMnemonic mnemonic, std::initializer_list<Expected> expected) {
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands{};
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, buffer_.data(), size_, &insn_, operands.data()))) {
      return failure() << "not decodable";
    }
    if (insn_.length != size_) return failure() << "decoded as " << unsigned{insn_.length} << " bytes";
    if (insn_.mnemonic != mnemonic) return failure() << "is " << ZydisMnemonicGetString(insn_.mnemonic);
    if (insn_.operand_count_visible != expected.size()) return failure() << "other number of operands";
    size_t i = 0;
    for (const Expected& one : expected) {
      if (!matches(operands[i], one)) return failure() << "operand " << i << " differs";
      ++i;
    }
    x86::Insn ours;
    const std::span raw(reinterpret_cast<const uint8_t*>(buffer_.data()), size_);
    if (x86::decode(raw, x86::CodeSize::k64, ours) != x86::DecodeStatus::kOk || ours.length != size_) {
      return failure() << "the engine's own decoder disagrees";
    }
    return is_shortest(operands.data());
  }

 private:
  static constexpr uint64_t kAddress = 0x10000;

  testing::AssertionResult failure() const {
    auto result = testing::AssertionFailure();
    for (size_t i = 0; i < size_; ++i) result << std::hex << std::to_integer<unsigned>(buffer_[i]) << " ";
    return result << std::dec << ": ";
  }

  static bool matches(const ZydisDecodedOperand& theirs, const Expected& expected) {
    if (expected.kind == Expected::Kind::kImmediate) {
      return theirs.type == ZYDIS_OPERAND_TYPE_IMMEDIATE && theirs.imm.value.s == expected.immediate;
    }
    const HostOperand& ours = expected.operand;
    if (ours.is_register) {
      return theirs.type == ZYDIS_OPERAND_TYPE_REGISTER && theirs.reg.value == gpr(ours.reg, expected.bits);
    }
    if (theirs.type != ZYDIS_OPERAND_TYPE_MEMORY || theirs.size != expected.bits ||
        theirs.mem.disp.value != ours.displacement) {
      return false;
    }
    // An unscaled index without base is the same address as a base without index.
    const bool index_is_base = ours.base == kNoHostRegister && ours.scale == 0 && theirs.mem.base != 0;
    const ZydisRegister base = gpr(index_is_base ? ours.index : ours.base, 64);
    const ZydisRegister index = gpr(index_is_base ? kNoHostRegister : ours.index, 64);
    const bool is_gs = theirs.mem.segment == ZYDIS_REGISTER_GS;
    return theirs.mem.base == base && theirs.mem.index == index && is_gs == ours.gs &&
           (index == ZYDIS_REGISTER_NONE || theirs.mem.scale == 1u << ours.scale);
  }

  testing::AssertionResult is_shortest(const ZydisDecodedOperand* operands) {
    ZydisEncoderRequest request;
    std::array<uint8_t, ZYDIS_MAX_INSTRUCTION_LENGTH> bytes{};
    ZyanUSize length = bytes.size();
    if (!ZYAN_SUCCESS(
            ZydisEncoderDecodedInstructionToEncoderRequest(&insn_, operands, insn_.operand_count_visible, &request)) ||
        !ZYAN_SUCCESS(ZydisEncoderEncodeInstruction(&request, bytes.data(), &length))) {
      return failure() << "the oracle cannot encode it";
    }
    // The oracle likes moffs with a 67 prefix for absolute addresses, which stalls the length decoder.
    const bool has_address_size = bytes[0] == 0x67 || bytes[1] == 0x67;
    if (length < size_ && !has_address_size) return failure() << "could have " << length << " bytes";
    return testing::AssertionSuccess();
  }

  std::array<std::byte, Assembler::kRoomBytes> buffer_{};
  size_t size_ = 0;
  ZydisDecodedInstruction insn_{};
};

#define EXPECT_EMITS(call, mnemonic, ...) \
  ASSERT_TRUE(Emitted([&](Assembler& a) { a.call; }).is(ZYDIS_MNEMONIC_##mnemonic, __VA_ARGS__)) << #call

TEST(Assembler, RegisterAndOperand) {
  for (const HostOperand& operand : registers_and(some_memory())) {
    for (const HostRegister r : {0, 3, 4, 5, 7, 8, 11, 12, 13, 15}) {
      for (const bool w : {false, true}) {
        const unsigned bits = bits_of(w);
        EXPECT_EMITS(mov(r, operand, w), MOV, {reg(r, bits), rm(operand, bits)});
        EXPECT_EMITS(store(operand, r, w), MOV, {rm(operand, bits), reg(r, bits)});
        EXPECT_EMITS(add(r, operand, w), ADD, {reg(r, bits), rm(operand, bits)});
        EXPECT_EMITS(sub(r, operand, w), SUB, {reg(r, bits), rm(operand, bits)});
        EXPECT_EMITS(xor_(r, operand, w), XOR, {reg(r, bits), rm(operand, bits)});
        EXPECT_EMITS(cmp(r, operand, w), CMP, {reg(r, bits), rm(operand, bits)});
      }
    }
  }
}

TEST(Assembler, EveryAddressingForm) {
  for (const HostOperand& operand : all_memory()) {
    EXPECT_EMITS(mov(kHostRdx, operand), MOV, {reg(kHostRdx, 64), rm(operand, 64)});
    EXPECT_EMITS(store(operand, kHostR14, false), MOV, {rm(operand, 32), reg(kHostR14, 32)});
    HostOperand address = operand;
    address.gs = false;  // LEA has no segment
    EXPECT_EMITS(lea(kHostR10, address, false), LEA, {reg(kHostR10, 32), rm(address, 64)});
    EXPECT_EMITS(lea(kHostRax, address), LEA, {reg(kHostRax, 64), rm(address, 64)});
    EXPECT_EMITS(jmp_indirect(operand), JMP, {rm(operand, 64)});
    EXPECT_EMITS(call_indirect(operand), CALL, {rm(operand, 64)});
    EXPECT_EMITS(store_byte_immediate(operand, 0xfe), MOV, {rm(operand, 8), imm(-2)});
    EXPECT_EMITS(cmp_byte_immediate(operand, 0x7e), CMP, {rm(operand, 8), imm(0x7e)});
  }
}

TEST(Assembler, Immediates) {
  for (const HostOperand& operand : registers_and(some_memory())) {
    for (const int32_t value : kImmediates) {
      for (const bool w : {false, true}) {
        const unsigned bits = bits_of(w);
        EXPECT_EMITS(add_immediate(operand, value, w), ADD, {rm(operand, bits), imm(value)});
        EXPECT_EMITS(and_immediate(operand, value, w), AND, {rm(operand, bits), imm(value)});
        EXPECT_EMITS(or_immediate(operand, value, w), OR, {rm(operand, bits), imm(value)});
        EXPECT_EMITS(cmp_immediate(operand, value, w), CMP, {rm(operand, bits), imm(value)});
        if (!operand.is_register) {
          EXPECT_EMITS(store_immediate(operand, value, w), MOV, {rm(operand, bits), imm(value)});
        }
      }
    }
  }
}

TEST(Assembler, RegisterPairs) {
  for (unsigned i = 0; i < 256; ++i) {
    const auto a1 = static_cast<HostRegister>(i / 16);
    const auto a2 = static_cast<HostRegister>(i % 16);
    for (const bool w : {false, true}) {
      EXPECT_EMITS(test(a1, a2, w), TEST, {reg(a1, bits_of(w)), reg(a2, bits_of(w))});
      EXPECT_EMITS(rorx(a1, a2, 8, w), RORX, {reg(a1, bits_of(w)), reg(a2, bits_of(w)), imm(8)});
    }
    EXPECT_EMITS(imul(a1, HostOperand::r(a2)), IMUL, {reg(a1, 64), reg(a2, 64)});
    EXPECT_EMITS(pext(a1, a2, HostOperand::r(3)), PEXT, {reg(a1, 64), reg(a2, 64), reg(3, 64)});
    const HostOperand mask = HostOperand::state(0x100);
    EXPECT_EMITS(pext(a1, a2, mask), PEXT, {reg(a1, 64), reg(a2, 64), rm(mask, 64)});
    if (a1 == kHostRax && a2 == kHostRax) continue;  // NOP by another name
    const bool swapped = a1 == kHostRax || (a2 != kHostRax && a1 != kHostRax);
    EXPECT_EMITS(xchg(a1, a2), XCHG, {reg(swapped ? a2 : a1, 64), reg(swapped ? a1 : a2, 64)});
  }
}

TEST(Assembler, OneRegister) {
  for (unsigned i = 0; i < 16; ++i) {
    const auto r = static_cast<HostRegister>(i);
    EXPECT_EMITS(push(r), PUSH, {reg(r, 64)});
    EXPECT_EMITS(pop(r), POP, {reg(r, 64)});
    EXPECT_EMITS(cmp_byte_immediate(HostOperand::r(r), 1), CMP, {reg(r, 8), imm(1)});
    EXPECT_EMITS(mov_immediate(r, 0), MOV, {reg(r, 32), imm(0)});
    EXPECT_EMITS(mov_immediate(r, 0x7fffffff), MOV, {reg(r, 32), imm(0x7fffffff)});
    EXPECT_EMITS(mov_immediate(r, 0xffffffff), MOV, {reg(r, 32), imm(-1)});  // zero-extended by the register
    EXPECT_EMITS(mov_immediate(r, ~uint64_t{0}), MOV, {reg(r, 64), imm(-1)});
    EXPECT_EMITS(mov_immediate(r, 0xffffffff80000000), MOV, {reg(r, 64), imm(-0x80000000LL)});
    EXPECT_EMITS(mov_immediate(r, 0xffffffff7fffffff), MOV, {reg(r, 64), imm(-0x80000001LL)});
    EXPECT_EMITS(mov_immediate(r, 0x100000000), MOV, {reg(r, 64), imm(0x100000000)});
  }
}

TEST(Assembler, NoOperands) {
  for (const int32_t value : kImmediates) EXPECT_EMITS(push_immediate(value), PUSH, {imm(value)});
  EXPECT_EMITS(lahf(), LAHF, {});
  EXPECT_EMITS(sahf(), SAHF, {});
  EXPECT_EMITS(seto_al(), SETO, {reg(0, 8)});
  EXPECT_EMITS(add_al(127), ADD, {reg(0, 8), imm(127)});
  EXPECT_EMITS(ret(), RET, {});
  EXPECT_EMITS(int3(), INT3, {});
}

TEST(Assembler, NopsFillExactlyWithFewInstructions) {
  for (size_t count = 0; count <= 40; ++count) {
    std::array<std::byte, 128> buffer{};
    Assembler assembler(buffer, 0);
    assembler.nops(count);
    ASSERT_EQ(assembler.offset(), count);
    size_t instructions = 0;
    for (size_t at = 0; at < count; ++instructions) {
      x86::Insn insn;
      const std::span raw(reinterpret_cast<const uint8_t*>(buffer.data()) + at, count - at);
      ASSERT_EQ(x86::decode(raw, x86::CodeSize::k64, insn), x86::DecodeStatus::kOk);
      ASSERT_EQ(insn.row->op, x86::Op::kNop);
      at += insn.length;
    }
    EXPECT_EQ(instructions, (count + 8) / 9);
  }
}

// --- The end of the buffer

TEST(Assembler, NothingIsWrittenBehindTheBuffer) {
  HostInsn longest;  // more than any legal instruction has
  longest.map = x86::OpcodeMap::k0F38;
  longest.lock = longest.rep = longest.operand_size = longest.w = longest.has_modrm = true;
  longest.rm = HostOperand::state(0x12345678, kHostR15, 3);
  longest.immediate_bytes = 8;
  for (size_t size = 0; size < 200; ++size) {
    std::vector<std::byte> memory(size + 64, std::byte{0xa5});
    Assembler assembler(std::span<std::byte>(memory).first(size), 0x1000);
    for (size_t i = 0; i < 40; ++i) {
      switch (i % 5) {
        case 0: assembler.encode(longest); break;
        case 1: assembler.ret(); break;
        case 2: assembler.bind(assembler.jmp_forward()); break;
        case 3: assembler.bind_short(assembler.jrcxz_forward()); break;
        default: assembler.nops(11); break;
      }
    }
    ASSERT_TRUE(assembler.overflowed());
    ASSERT_LE(assembler.offset(), size);
    ASSERT_EQ(assembler.code().size(), assembler.offset());
    for (size_t i = size; i < memory.size(); ++i) ASSERT_EQ(memory[i], std::byte{0xa5}) << size;
  }
}

TEST(Assembler, OverflowIsFinal) {
  std::array<std::byte, 40> buffer{};
  Assembler assembler(buffer, 0);
  assembler.mov_immediate(kHostRax, ~uint64_t{0} >> 1);
  EXPECT_FALSE(assembler.overflowed());
  const Fixup early = assembler.jmp_forward();
  EXPECT_TRUE(assembler.overflowed());
  const size_t end = assembler.offset();
  const std::array<uint8_t, 1> one = {0x90};
  assembler.bytes(one);  // would fit
  assembler.bind(early);
  assembler.bind(assembler.call_forward(), ~uint64_t{0});
  assembler.bind_short(assembler.jmp_short_forward());
  assembler.jmp(uint64_t{1} << 60);
  EXPECT_EQ(assembler.offset(), end);
  EXPECT_EQ(end, 10u);
}

TEST(Assembler, RawBytesMayFillTheBuffer) {
  std::array<std::byte, 40> buffer{};
  std::array<uint8_t, 40> raw{};
  raw.fill(0x90);
  Assembler assembler(buffer, 0);
  assembler.bytes(raw);
  EXPECT_FALSE(assembler.overflowed());
  EXPECT_EQ(assembler.offset(), raw.size());
  assembler.bytes(std::span(raw).first(1));
  EXPECT_TRUE(assembler.overflowed());
}

// --- Executed

/// Code memory and an assembler for it.
class AssemblerExecution : public testing::Test {
 protected:
  void SetUp() override {
    auto memory = CodeMemory::create(1 << 20, "assembler-test");
    ASSERT_TRUE(memory.has_value()) << memory.error().message();
    memory_.emplace(std::move(*memory));
    assembler_.emplace(memory_->writable(), reinterpret_cast<uint64_t>(memory_->executable().data()));
  }

  /// Calls what begins at `offset` with two arguments in RDI and RSI.
  uint64_t call(size_t offset, uint64_t first = 0, uint64_t second = 0) {
    EXPECT_FALSE(assembler_->overflowed());
    // SAFETY: the test's own code follows the System V ABI.
    auto* function = reinterpret_cast<uint64_t (*)(uint64_t, uint64_t)>(assembler_->address_of(offset));
    return function(first, second);
  }

  std::optional<CodeMemory> memory_;
  std::optional<Assembler> assembler_;
};

bool holds(Condition condition, int64_t left, int64_t right) {
  const auto unsigned_left = static_cast<uint64_t>(left);
  const auto unsigned_right = static_cast<uint64_t>(right);
  const auto difference = static_cast<int64_t>(unsigned_left - unsigned_right);
  int64_t ignored = 0;
  switch (static_cast<Condition>(condition & ~1)) {
    case kOverflow: return __builtin_sub_overflow(left, right, &ignored) != ((condition & 1) != 0);
    case kBelow: return (unsigned_left < unsigned_right) != ((condition & 1) != 0);
    case kEqual: return (left == right) != ((condition & 1) != 0);
    case kBelowOrEqual: return (unsigned_left <= unsigned_right) != ((condition & 1) != 0);
    case kSign: return (difference < 0) != ((condition & 1) != 0);
    case kParity: return (std::popcount(static_cast<uint8_t>(difference)) % 2 == 0) != ((condition & 1) != 0);
    case kLess: return (left < right) != ((condition & 1) != 0);
    default: return (left <= right) != ((condition & 1) != 0);
  }
}

/// if (left <condition> right) return 1; else return 0; with the branch forward near, forward short and backward.
TEST_F(AssemblerExecution, EveryConditionInEveryForm) {
  constexpr std::array<int64_t, 7> kValues = {0, 1, -1, 3, -200, INT64_MIN, INT64_MAX};
  Assembler& a = *assembler_;
  for (unsigned condition = 0; condition < 16; ++condition) {
    const auto cc = static_cast<Condition>(condition);
    for (const size_t padding : {0, 100, 200}) {
      const size_t yes = a.offset();
      a.mov_immediate(kHostRax, 1);
      a.ret();
      a.nops(padding);
      const size_t backward = a.offset();
      a.cmp(kHostRdi, HostOperand::r(kHostRsi));
      a.jcc(cc, a.address_of(yes));
      EXPECT_EQ(a.offset() - backward, padding == 200 ? 9u : 5u);
      a.mov_immediate(kHostRax, 0);
      a.ret();
      const size_t forward = a.offset();
      a.cmp(kHostRdi, HostOperand::r(kHostRsi));
      const bool is_short = padding <= 100;
      const Fixup fixup = is_short ? a.jcc_short_forward(cc) : a.jcc_forward(cc);
      a.mov_immediate(kHostRax, 0);
      a.ret();
      a.nops(padding);
      is_short ? a.bind_short(fixup) : a.bind(fixup);
      a.mov_immediate(kHostRax, 1);
      a.ret();
      for (const int64_t left : kValues) {
        for (const int64_t right : kValues) {
          const uint64_t expected = holds(cc, left, right) ? 1 : 0;
          const auto u = [](int64_t value) { return static_cast<uint64_t>(value); };
          EXPECT_EQ(call(backward, u(left), u(right)), expected) << condition << " " << left << " " << right;
          EXPECT_EQ(call(forward, u(left), u(right)), expected) << condition << " " << left << " " << right;
        }
      }
    }
  }
}

TEST_F(AssemblerExecution, LoopWithJrcxz) {
  Assembler& a = *assembler_;  // RDI + (RDI - 1) + ... + 1
  a.mov_immediate(kHostRax, 0);
  a.mov(kHostRcx, HostOperand::r(kHostRdi));
  const size_t head = a.offset();
  const Fixup done = a.jrcxz_forward();
  a.add(kHostRax, HostOperand::r(kHostRcx));
  a.add_immediate(HostOperand::r(kHostRcx), -1);
  a.jmp(a.address_of(head));
  a.bind_short(done);
  a.ret();
  EXPECT_EQ(call(0, 0), 0u);
  EXPECT_EQ(call(0, 1000), 500500u);
}

TEST_F(AssemblerExecution, CallsAndRebinding) {
  Assembler& a = *assembler_;
  const size_t first = a.offset();
  a.lea(kHostRax, HostOperand::at(kHostRdi, kHostRsi, 3, 5));
  a.ret();
  const size_t second = a.offset();
  a.mov(kHostRax, HostOperand::r(kHostRdi));
  a.sub(kHostRax, HostOperand::r(kHostRsi));
  a.ret();
  const size_t caller = a.offset();
  a.push(kHostRbp);
  const Fixup site = a.call_forward();
  a.bind(site, a.address_of(first));
  a.call(a.address_of(second));
  a.pop(kHostRbp);
  a.ret();
  const size_t jumper = a.offset();
  const Fixup link = a.jmp_forward();
  a.bind(link, a.address_of(first));
  EXPECT_EQ(call(caller, 100, 1), 99u);
  EXPECT_EQ(call(jumper, 100, 1), 113u);
  a.bind(link, a.address_of(second));  // as links are patched
  EXPECT_EQ(call(jumper, 100, 1), 99u);
}

TEST_F(AssemblerExecution, IndirectThroughMemoryAndRegister) {
  Assembler& a = *assembler_;
  const size_t target = a.offset();
  a.mov_immediate(kHostRax, 0x123456789abcdef0);
  a.ret();
  const size_t through_memory = a.offset();
  a.jmp_indirect(HostOperand::at(kHostRdi, kHostRsi, 3));
  const size_t through_register = a.offset();
  a.mov(kHostR11, HostOperand::at(kHostRdi, 8));
  a.push(kHostR11);
  a.call_indirect(HostOperand::r(kHostR11));
  a.pop(kHostR11);
  a.ret();
  const std::array<uint64_t, 2> table = {0, a.address_of(target)};
  const auto table_address = reinterpret_cast<uint64_t>(table.data());
  EXPECT_EQ(call(through_memory, table_address, 1), 0x123456789abcdef0u);
  EXPECT_EQ(call(through_register, table_address), 0x123456789abcdef0u);
}

/// Reads and writes the six words of state, in forms with and without immediates and index.
void use_state(Assembler& a) {
  a.mov(kHostRax, HostOperand::state(8));
  a.add(kHostRax, HostOperand::state(0, kHostRdi, 3));
  a.add(kHostRax, HostOperand::state(8, kHostRsi, 0));
  a.store(HostOperand::state(32), kHostRax, false);
  a.store_immediate(HostOperand::state(36), -2, false);
  a.store_byte_immediate(HostOperand::state(40, kHostRdi, 1), 0x5a);
  a.store_byte_immediate(HostOperand::state(40), 0x17);
  a.pext(kHostR10, kHostRax, HostOperand::state(16));
  a.ret();
}

void expect_used(std::span<uint64_t> state, const std::function<uint64_t()>& call) {
  std::ranges::copy(std::array<uint64_t, 6>{1, 20, 300, 4000, 0, 0}, state.begin());
  ASSERT_EQ(syscall(SYS_arch_prctl, ARCH_SET_GS, state.data()), 0);
  EXPECT_EQ(call(), 20u + 300u + 4000u);
  ASSERT_EQ(syscall(SYS_arch_prctl, ARCH_SET_GS, nullptr), 0);
  EXPECT_EQ(state[4], uint64_t{0xfffffffe} << 32 | 4320);
  EXPECT_EQ(state[5], uint64_t{0x5a} << 32 | 0x17);
}

TEST_F(AssemblerExecution, StateInGs) {
  use_state(*assembler_);
  std::array<uint64_t, 6> state{};
  expect_used(state, [this] { return call(0, 2, 16); });
}

TEST_F(AssemblerExecution, StateNearby) {
  constexpr size_t kStateAt = 512 << 10;
  const auto executable = reinterpret_cast<uint64_t>(memory_->executable().data());
  const std::span state(reinterpret_cast<uint64_t*>(memory_->writable().data() + kStateAt), 6);
  use_state(*assembler_);
  const size_t by_gs = assembler_->offset();
  assembler_.emplace(memory_->writable(), executable, reinterpret_cast<uint64_t>(state.data()));
  use_state(*assembler_);
  EXPECT_EQ(assembler_->offset(), by_gs - 2 * 5);  // two bytes for each access without index
  expect_used(state, [this] { return call(0, 2, 16); });
  // Too far: as if it were not known.
  assembler_.emplace(memory_->writable(), executable, executable + (uint64_t{1} << 31));
  use_state(*assembler_);
  EXPECT_EQ(assembler_->offset(), by_gs);
}

/// The sequence that keeps all arithmetic flags over code that changes them, and instructions that leave flags alone.
TEST_F(AssemblerExecution, FlagsAreKept) {
  Assembler& a = *assembler_;  // flags of RDI - RSI are read only behind other arithmetic
  a.cmp(kHostRdi, HostOperand::r(kHostRsi));
  a.lahf();
  a.seto_al();
  a.xor_(kHostRdx, HostOperand::r(kHostRdx));
  a.add_immediate(HostOperand::r(kHostRdx), 0x7fffffff, false);
  a.add_al(127);
  a.sahf();
  a.rorx(kHostR11, kHostRdi, 8);
  a.mov_immediate(kHostR10, 0xff00);
  a.pext(kHostR10, kHostRdi, HostOperand::r(kHostR10));
  a.lea(kHostRcx, HostOperand::at(kHostR10, 1));
  a.xchg(kHostR10, kHostR11);
  const std::array<uint8_t, 2> pushf_pop = {0x9c, 0x58};
  a.bytes(pushf_pop);
  a.ret();
  constexpr uint64_t kArithmetic = 0x8d5;
  for (const int64_t left : {int64_t{0}, int64_t{1}, int64_t{-1}, INT64_MIN, INT64_MAX, int64_t{0x1234}}) {
    for (const int64_t right : {int64_t{0}, int64_t{1}, int64_t{-1}, INT64_MIN, INT64_MAX, int64_t{0x1235}}) {
      uint64_t expected = 0;
      asm("cmp %2, %1\n\tpushf\n\tpop %0" : "=r"(expected) : "r"(left), "r"(right) : "cc", "memory");
      const uint64_t flags = call(0, static_cast<uint64_t>(left), static_cast<uint64_t>(right));
      EXPECT_EQ(flags & kArithmetic, expected & kArithmetic) << left << " " << right;
    }
  }
}

TEST(AssemblerDeathTest, BranchesMustReach) {
  std::array<std::byte, 512> buffer{};
  Assembler assembler(buffer, 0x400000);
  EXPECT_DEATH(assembler.jmp(uint64_t{1} << 40), "check failed");
  const Fixup fixup = assembler.jmp_short_forward();
  assembler.nops(128);
  EXPECT_DEATH(assembler.bind_short(fixup), "check failed");
}

}  // namespace
}  // namespace tenon::jit
