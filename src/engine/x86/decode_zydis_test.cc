// The decoder against an independent one (Zydis) on random byte strings, in 16-, 32- and 64-bit mode: validity, length,
// operation, sizes, operands, immediates, and which flags and registers the instruction reads and writes.
//
// A short run is part of every test run. TENON_DECODE_CASES=100000000 sets another number of strings, TENON_DECODE_SEED
// another seed. Every known difference is in kDeviations with its reason; anything else fails.
#include <Zydis/Zydis.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine/x86/cpu_state.hh"
#include "engine/x86/decode_table.hh"

namespace tenon::x86 {
namespace {

constexpr size_t kStringSize = 20;
using Bytes = std::array<uint8_t, kStringSize>;

enum class Field : uint8_t {
  kOnlyOurs,
  kOnlyTheirs,
  kLength,
  kOp,
  kOperandSize,
  kAddressSize,
  kMemory,
  kMemorySize,
  kSegment,
  kRegister,
  kImmediate,
  kAccess,
  kFlagsRead,
  kFlagsWritten,
  kFlagsUndefined,
  kGprRead,
  kGprWritten,
};
constexpr std::array kFieldNames = {
    "valid only here", "valid only there",        "length",      "operation",     "operand size",
    "address size",    "memory operand",          "memory size", "segment",       "register",
    "immediate",       "access to first operand", "flags read",  "flags written", "flags undefined",
    "registers read",  "registers written",
};

/// Zydis mnemonics that are called otherwise here; the rest differ in letter case only.
struct Alias {
  const char* theirs;
  Op ours;
};
// clang-format off
constexpr Alias kAliases[] = {
    {"jo", Op::kJcc}, {"jno", Op::kJcc}, {"jb", Op::kJcc}, {"jnb", Op::kJcc}, {"jz", Op::kJcc}, {"jnz", Op::kJcc},
    {"jbe", Op::kJcc}, {"jnbe", Op::kJcc}, {"js", Op::kJcc}, {"jns", Op::kJcc}, {"jp", Op::kJcc}, {"jnp", Op::kJcc},
    {"jl", Op::kJcc}, {"jnl", Op::kJcc}, {"jle", Op::kJcc}, {"jnle", Op::kJcc}, {"jcxz", Op::kJcxz},
    {"jecxz", Op::kJcxz}, {"jrcxz", Op::kJcxz}, {"call", Op::kCallFar}, {"jmp", Op::kJmpFar}, {"ret", Op::kRetFar},
    {"iretd", Op::kIret}, {"iretq", Op::kIret}, {"cwde", Op::kCbw}, {"cdqe", Op::kCbw}, {"cdq", Op::kCwd},
    {"cqo", Op::kCwd}, {"pushad", Op::kPusha}, {"popad", Op::kPopa}, {"pushfd", Op::kPushf}, {"pushfq", Op::kPushf},
    {"popfd", Op::kPopf}, {"popfq", Op::kPopf}, {"push", Op::kPushSeg}, {"pop", Op::kPopSeg},
    {"mov", Op::kMovFromSeg}, {"mov", Op::kMovToSeg}, {"mov", Op::kMovFromCr}, {"mov", Op::kMovToCr},
    {"mov", Op::kMovFromDr}, {"mov", Op::kMovToDr}, {"movsb", Op::kMovs}, {"movsw", Op::kMovs}, {"movsd", Op::kMovs},
    {"movsq", Op::kMovs}, {"stosb", Op::kStos}, {"stosw", Op::kStos}, {"stosd", Op::kStos}, {"stosq", Op::kStos},
    {"lodsb", Op::kLods}, {"lodsw", Op::kLods}, {"lodsd", Op::kLods}, {"lodsq", Op::kLods}, {"scasb", Op::kScas},
    {"scasw", Op::kScas}, {"scasd", Op::kScas}, {"scasq", Op::kScas}, {"cmpsb", Op::kCmps}, {"cmpsw", Op::kCmps},
    {"cmpsd", Op::kCmps}, {"cmpsq", Op::kCmps}, {"insb", Op::kIns}, {"insw", Op::kIns}, {"insd", Op::kIns},
    {"outsb", Op::kOuts}, {"outsw", Op::kOuts}, {"outsd", Op::kOuts}, {"prefetchnta", Op::kPrefetch},
    {"prefetcht0", Op::kPrefetch}, {"prefetcht1", Op::kPrefetch}, {"prefetcht2", Op::kPrefetch},
    {"prefetch", Op::kNop}, {"prefetchwt1", Op::kNop}, {"endbr32", Op::kNop}, {"endbr64", Op::kNop},
    {"movq", Op::kMovd}, {"pextrq", Op::kPextrd}, {"pinsrq", Op::kPinsrd}, {"vmovq", Op::kVmovd},
    {"vpextrq", Op::kVpextrd}, {"vpinsrq", Op::kVpinsrd}, {"fxsave64", Op::kFxsave}, {"fxrstor64", Op::kFxrstor},
    {"xsave64", Op::kXsave}, {"xrstor64", Op::kXrstor}, {"xsaveopt64", Op::kXsaveopt}, {"xsavec64", Op::kXsavec},
    {"xsaves64", Op::kXsaves}, {"xrstors64", Op::kXrstors}, {"fstpnce", Op::kFstp}, {"feni8087_nop", Op::kFneni},
    {"fdisi8087_nop", Op::kFndisi}, {"fsetpm287_nop", Op::kFnsetpm},
};
// clang-format on

std::string lower_case(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](unsigned char c) { return std::tolower(c); });
  return result;
}

/// Which of our operations each Zydis mnemonic may be.
class Mnemonics {
 public:
  Mnemonics() : ops_(ZYDIS_MNEMONIC_MAX_VALUE + 1) {
    std::map<std::string, Op> by_name;
    for (unsigned i = 1; i < static_cast<unsigned>(Op::kCount); ++i) {
      by_name[lower_case(op_name(static_cast<Op>(i)))] = static_cast<Op>(i);
    }
    for (unsigned i = 0; i <= ZYDIS_MNEMONIC_MAX_VALUE; ++i) {
      const std::string name = ZydisMnemonicGetString(static_cast<ZydisMnemonic>(i));
      if (const auto found = by_name.find(name); found != by_name.end()) {
        ops_[i].push_back(found->second);
      }
      for (const Alias& alias : kAliases) {
        if (name == alias.theirs) {
          ops_[i].push_back(alias.ours);
        }
      }
      if (name.starts_with("set")) ops_[i].push_back(Op::kSetcc);
      if (name.starts_with("cmov")) ops_[i].push_back(Op::kCmovcc);
    }
  }

  bool match(ZydisMnemonic mnemonic, Op op) const {
    const std::vector<Op>& ops = ops_[mnemonic];
    return std::find(ops.begin(), ops.end(), op) != ops.end();
  }

 private:
  std::vector<std::vector<Op>> ops_;
};

struct Theirs {
  ZydisDecodedInstruction insn{};
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands{};
  bool is_valid = false;
};

/// Zydis for the three code sizes, with the extensions that are NOPs here switched off.
class Oracle {
 public:
  Oracle() {
    ZydisDecoderInit(&decoders_[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&decoders_[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&decoders_[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    for (ZydisDecoder& decoder : decoders_) {
      ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
      ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
      ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    }
  }

  void decode(CodeSize code_size, const Bytes& bytes, Theirs& out) const {
    const ZydisDecoder& decoder = decoders_[static_cast<size_t>(code_size)];
    out.is_valid =
        ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes.data(), bytes.size(), &out.insn, out.operands.data()));
  }

 private:
  std::array<ZydisDecoder, 3> decoders_{};
};

/// Instruction set extensions that Zydis knows and this decoder leaves out (op.hh).
// clang-format off
constexpr ZydisISAExt kLeftOut[] = {
    ZYDIS_ISA_EXT_AMD3DNOW, ZYDIS_ISA_EXT_AMD_INVLPGB, ZYDIS_ISA_EXT_AMX_BF16, ZYDIS_ISA_EXT_AMX_INT8,
    ZYDIS_ISA_EXT_AMX_TILE, ZYDIS_ISA_EXT_AVX512VEX, ZYDIS_ISA_EXT_AVX_VNNI, ZYDIS_ISA_EXT_CET, ZYDIS_ISA_EXT_CLZERO,
    ZYDIS_ISA_EXT_ENQCMD, ZYDIS_ISA_EXT_FMA4, ZYDIS_ISA_EXT_HRESET, ZYDIS_ISA_EXT_KEYLOCKER,
    ZYDIS_ISA_EXT_KEYLOCKER_WIDE, ZYDIS_ISA_EXT_MCOMMIT, ZYDIS_ISA_EXT_MONITORX, ZYDIS_ISA_EXT_PADLOCK,
    ZYDIS_ISA_EXT_PCONFIG, ZYDIS_ISA_EXT_PT, ZYDIS_ISA_EXT_RDPRU, ZYDIS_ISA_EXT_RTM, ZYDIS_ISA_EXT_SGX,
    ZYDIS_ISA_EXT_SGX_ENCLV, ZYDIS_ISA_EXT_SMX, ZYDIS_ISA_EXT_SNP, ZYDIS_ISA_EXT_SSE4A, ZYDIS_ISA_EXT_TBM,
    ZYDIS_ISA_EXT_TDX, ZYDIS_ISA_EXT_TSX_LDTRK, ZYDIS_ISA_EXT_UINTR, ZYDIS_ISA_EXT_XOP, ZYDIS_ISA_EXT_KNC,
    ZYDIS_ISA_EXT_KNCE, ZYDIS_ISA_EXT_KNCV,
};
// clang-format on

bool is_left_out(const ZydisDecodedInstruction& insn) {
  switch (insn.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_LEGACY:
    case ZYDIS_INSTRUCTION_ENCODING_VEX:
      return std::find(std::begin(kLeftOut), std::end(kLeftOut), insn.meta.isa_ext) != std::end(kLeftOut);
    default: return true;  // EVEX, MVEX, XOP, 3DNow!
  }
}

/// A known difference. No mnemonic and Op::kInvalid mean any.
struct Deviation {
  Field field;
  std::string_view theirs;
  Op ours;
  const char* reason;
};
constexpr const char* kMerges = "the destination keeps its other elements, so it is read";
constexpr const char* kPushes = "pushes FLAGS and uses the stack of the mode or the TSS";
constexpr Deviation kDeviations[] = {
    {Field::kAccess, {}, Op::kCvtpi2ps, kMerges},
    {Field::kAccess, {}, Op::kCvtsd2ss, kMerges},
    {Field::kAccess, {}, Op::kCvtss2sd, kMerges},
    {Field::kAccess, {}, Op::kMovhlps, kMerges},
    {Field::kAccess, {}, Op::kMovhpd, kMerges},
    {Field::kAccess, {}, Op::kMovhps, kMerges},
    {Field::kAccess, {}, Op::kMovlhps, kMerges},
    {Field::kAccess, {}, Op::kMovlpd, kMerges},
    {Field::kAccess, {}, Op::kMovlps, kMerges},
    {Field::kAccess, {}, Op::kMovsd, kMerges},
    {Field::kAccess, {}, Op::kMovss, kMerges},
    {Field::kAccess, {}, Op::kRcpss, kMerges},
    {Field::kAccess, {}, Op::kRoundsd, kMerges},
    {Field::kAccess, {}, Op::kRoundss, kMerges},
    {Field::kAccess, {}, Op::kRsqrtss, kMerges},
    {Field::kAccess, {}, Op::kSqrtsd, kMerges},
    {Field::kAccess, {}, Op::kSqrtss, kMerges},
    {Field::kAccess, {}, Op::kBsf, "the destination is kept if the source is zero"},
    {Field::kAccess, {}, Op::kBsr, "the destination is kept if the source is zero"},
    {Field::kOnlyTheirs, "syscall", Op::kInvalid, "exists outside 64-bit mode only on AMD processors"},
    {Field::kOnlyTheirs, "sysret", Op::kInvalid, "exists outside 64-bit mode only on AMD processors"},
    {Field::kMemorySize, "movsxd", Op::kMovsxd,
     "with a 16-bit operand size the source has 16 bits (SDM Vol. 2, MOVSXD)"},
    {Field::kFlagsRead, {}, Op::kCmps, "REP tests the ZF that the same instruction has set"},
    {Field::kFlagsRead, {}, Op::kScas, "REP tests the ZF that the same instruction has set"},
    {Field::kFlagsRead, {}, Op::kInt, kPushes},
    {Field::kFlagsRead, {}, Op::kInt1, kPushes},
    {Field::kFlagsRead, {}, Op::kInt3, kPushes},
    {Field::kFlagsRead, {}, Op::kInto, kPushes},
    {Field::kFlagsRead, {}, Op::kIret, "a task return saves EFLAGS in the old TSS"},
    {Field::kFlagsRead, {}, Op::kSyscall, "saves RFLAGS in R11"},
    {Field::kGprRead, {}, Op::kInt, kPushes},
    {Field::kGprRead, {}, Op::kInt1, kPushes},
    {Field::kGprRead, {}, Op::kInt3, kPushes},
    {Field::kGprRead, {}, Op::kInto, kPushes},
    {Field::kGprWritten, {}, Op::kInt, kPushes},
    {Field::kGprWritten, {}, Op::kInt1, kPushes},
    {Field::kGprWritten, {}, Op::kInt3, kPushes},
    {Field::kGprWritten, {}, Op::kInto, kPushes},
    {Field::kGprRead, {}, Op::kLahf, "writes AH, so the rest of RAX is kept"},
    {Field::kGprRead, {}, Op::kLeave, "RSP is overwritten without being read"},
    {Field::kGprRead, {}, Op::kVmfunc, "EPTP switching takes an index in ECX"},
    {Field::kGprWritten, {}, Op::kRsm, "loads every register from SMRAM"},
    {Field::kGprRead, {}, Op::kXlat, "AL is part of the address"},
    {Field::kGprRead, {}, Op::kMovdir64b, "the register with the destination address is the first operand"},
    {Field::kGprRead, {}, Op::kVpcmpestri, "reads EAX and EDX with VEX.W = 1 outside 64-bit mode too"},
    {Field::kGprRead, {}, Op::kVpcmpestrm, "reads EAX and EDX with VEX.W = 1 outside 64-bit mode too"},
    {Field::kSegment, {}, Op::kMovdir64b, "Insn::segment is that of the source; the destination is at ES always"},
    {Field::kOperandSize, "nop", Op::kNop, "without meaning for the hint space"},
    {Field::kImmediate, {}, Op::kVblendvps, "imm8[7] is ignored outside 64-bit mode"},
    {Field::kImmediate, {}, Op::kVblendvpd, "imm8[7] is ignored outside 64-bit mode"},
    {Field::kImmediate, {}, Op::kVpblendvb, "imm8[7] is ignored outside 64-bit mode"},
    {Field::kFlagsWritten, {}, Op::kBextr, "SDM Vol. 2, BEXTR: AF, SF and PF undefined, ZF set, the others cleared"},
    {Field::kFlagsUndefined, {}, Op::kBextr, "SDM Vol. 2, BEXTR: AF, SF and PF undefined, ZF set, the others cleared"},
    {Field::kFlagsWritten, {}, Op::kSbb, "SDM Vol. 2, SBB: AF is set according to the result"},
    {Field::kFlagsUndefined, {}, Op::kSbb, "SDM Vol. 2, SBB: AF is set according to the result"},
    {Field::kFlagsWritten, {}, Op::kVmcall, "SDM Vol. 3 31.2: VMX instructions report in the six arithmetic flags"},
    {Field::kFlagsWritten, {}, Op::kVmlaunch, "SDM Vol. 3 31.2: VMX instructions report in the six arithmetic flags"},
    {Field::kFlagsWritten, {}, Op::kVmresume, "SDM Vol. 3 31.2: VMX instructions report in the six arithmetic flags"},
    {Field::kFlagsWritten, {}, Op::kVptest, "SDM Vol. 2, PTEST: OF, AF, PF, SF cleared in the VEX form too"},
    {Field::kFlagsWritten, {}, Op::kVtestps, "SDM Vol. 2, VTESTPS: OF, AF, PF, SF cleared"},
    {Field::kFlagsWritten, {}, Op::kVtestpd, "SDM Vol. 2, VTESTPD: OF, AF, PF, SF cleared"},
    {Field::kFlagsUndefined, {}, Op::kMovFromCr, "SDM Vol. 2, MOV control registers: all six undefined"},
    {Field::kFlagsUndefined, {}, Op::kMovToCr, "SDM Vol. 2, MOV control registers: all six undefined"},
    {Field::kFlagsUndefined, {}, Op::kMovFromDr, "SDM Vol. 2, MOV debug registers: all six undefined"},
    {Field::kFlagsUndefined, {}, Op::kMovToDr, "SDM Vol. 2, MOV debug registers: all six undefined"},
};

/// One comparison; the constructor does it and `differences` says how many fields differ.
class Comparison {
 public:
  Comparison(const Mnemonics& mnemonics, const Insn& ours, DecodeStatus status, const Theirs& theirs)
      : ours_(ours), theirs_(theirs) {
    const bool valid_here = status == DecodeStatus::kOk;
    if (valid_here != theirs.is_valid) {
      if (valid_here || !is_left_out(theirs.insn)) add(valid_here ? Field::kOnlyOurs : Field::kOnlyTheirs);
      return;
    }
    if (!valid_here) {
      return;
    }
    check(Field::kLength, ours.length == theirs.insn.length);
    if (is_left_out(theirs.insn) && ours.row->op == Op::kNop) {
      return;  // an extension in the hint space
    }
    if (!mnemonics.match(theirs.insn.mnemonic, ours.row->op)) {
      add(Field::kOp);
      return;
    }
    compare_sizes();
    compare_operands();
    compare_immediates();
    compare_effects();
  }

  struct Difference {
    Field field;
    uint64_t theirs;
    uint64_t ours;
  };
  const std::vector<Difference>& differences() const { return differences_; }

 private:
  void add(Field field) { differences_.push_back({field, 0, 0}); }
  void check_equal(Field field, uint64_t theirs, uint64_t ours) {
    if (theirs != ours) differences_.push_back({field, theirs, ours});
  }
  void check(Field field, bool is_equal) {
    if (!is_equal) add(field);
  }
  bool has_operand(std::initializer_list<Operand> wanted) const {
    return std::any_of(ours_.row->operands.begin(), ours_.row->operands.end(), [&wanted](Operand operand) {
      return std::find(wanted.begin(), wanted.end(), operand) != wanted.end();
    });
  }

  void compare_sizes() {
    check(Field::kAddressSize, ours_.address_size * 8 == theirs_.insn.address_width);
    if (has_operand({Operand::kEv, Operand::kGv, Operand::kZv, Operand::kRaxV, Operand::kXv, Operand::kYv, Operand::kOv,
                     Operand::kMv, Operand::kRv, Operand::kIz, Operand::kIv, Operand::kJz})) {
      check(Field::kOperandSize, ours_.operand_size * 8 == theirs_.insn.operand_width);
    }
  }

  static uint8_t gpr_number(ZydisRegister reg) {
    const auto id = static_cast<int>(ZydisRegisterGetId(reg));
    if (ZydisRegisterGetClass(reg) == ZYDIS_REGCLASS_GPR8) {
      return static_cast<uint8_t>(id < 8 ? id : id - 4);  // Zydis counts AL..BL, AH..BH, SPL..DIL, R8B..
    }
    return static_cast<uint8_t>(id);
  }

  void compare_operands() {
    bool has_memory = false;
    for (unsigned i = 0; i < theirs_.insn.operand_count; ++i) {
      const ZydisDecodedOperand& operand = theirs_.operands[i];
      if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
        compare_register(operand);
      } else if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
        const bool is_encoded = operand.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ||
                                operand.encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64;
        has_memory |= is_encoded;
        is_encoded ? compare_memory(operand) : compare_implicit_memory(operand);
      }
    }
    check(Field::kMemory, has_memory == ours_.is_memory);
    if (theirs_.insn.operand_count_visible != 0 && ours_.row->op != Op::kNop) {
      compare_access(theirs_.operands[0]);
    }
  }

  void compare_register(const ZydisDecodedOperand& operand) {
    const uint8_t number = gpr_number(operand.reg.value);
    switch (operand.encoding) {
      case ZYDIS_OPERAND_ENCODING_MODRM_REG:
      case ZYDIS_OPERAND_ENCODING_OPCODE: check(Field::kRegister, number == ours_.reg); break;
      case ZYDIS_OPERAND_ENCODING_MODRM_RM: check(Field::kRegister, number == ours_.rm && !ours_.is_memory); break;
      case ZYDIS_OPERAND_ENCODING_NDSNDD: check(Field::kRegister, number == ours_.vvvv); break;
      case ZYDIS_OPERAND_ENCODING_IS4: check(Field::kRegister, number == ours_.immediate >> 4); break;
      default: break;
    }
  }

  void compare_memory(const ZydisDecodedOperand& operand) {
    if (operand.encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64) {
      const uint64_t mask = ~uint64_t{0} >> (64 - 8 * ours_.address_size);
      check(Field::kMemory,
            (static_cast<uint64_t>(operand.mem.disp.value) & mask) == static_cast<uint64_t>(ours_.immediate));
    } else {
      // With a 32-bit address in 64-bit mode Zydis 4.0 takes SIB.base = 101b, mod = 0 for R13 without displacement if
      // REX.B is set, though it counts the four bytes; SDM Vol. 2 Table 2-5: REX.B does not count there, no base.
      const bool is_r13_there = ours_.base == kNoRegister && ours_.code_size == CodeSize::k64 &&
                                ours_.address_size == 4 && base_of(operand) == kR13 && operand.mem.disp.value == 0;
      check(Field::kMemory, index_of(operand) == ours_.index);
      check(Field::kMemory,
            is_r13_there || (base_of(operand) == ours_.base && operand.mem.disp.value == ours_.displacement));
      check(Field::kMemory,
            ours_.index == kNoRegister || ours_.address_size == 2 || operand.mem.scale == 1u << ours_.scale);
    }
    check(Field::kMemorySize, memory_size_matches(operand));
    compare_implicit_memory(operand);
  }

  bool memory_size_matches(const ZydisDecodedOperand& operand) const {
    const unsigned size = memory_operand_size(ours_);
    return operand.mem.type == ZYDIS_MEMOP_TYPE_AGEN ? size == 0 : size * 8 == operand.size || size == 0;
  }

  /// Also strings, XLAT, MASKMOVQ: where the segment can be overridden it is Insn::segment.
  void compare_implicit_memory(const ZydisDecodedOperand& operand) {
    const bool is_fixed = operand.encoding == ZYDIS_OPERAND_ENCODING_NONE &&
                          (operand.mem.segment == ZYDIS_REGISTER_ES || operand.mem.segment == ZYDIS_REGISTER_SS);
    if (!is_fixed && operand.mem.type != ZYDIS_MEMOP_TYPE_AGEN && operand.mem.segment != ZYDIS_REGISTER_NONE) {
      check_equal(Field::kSegment, static_cast<uint64_t>(ZydisRegisterGetId(operand.mem.segment)), ours_.segment);
    }
  }

  static uint8_t base_of(const ZydisDecodedOperand& operand) {
    if (operand.mem.base == ZYDIS_REGISTER_NONE) return kNoRegister;
    return ZydisRegisterGetClass(operand.mem.base) == ZYDIS_REGCLASS_IP ? kRipBase : gpr_number(operand.mem.base);
  }
  static uint8_t index_of(const ZydisDecodedOperand& operand) {
    return operand.mem.index == ZYDIS_REGISTER_NONE ? kNoRegister : gpr_number(operand.mem.index);
  }

  /// An operand that is only named (prefetch, CLFLUSH, INVLPG, UD1) has no access here. A conditional write keeps the
  /// old value otherwise, which counts as reading it.
  void compare_access(const ZydisDecodedOperand& operand) {
    constexpr uint32_t kReads = ZYDIS_OPERAND_ACTION_MASK_READ | ZYDIS_OPERAND_ACTION_CONDWRITE;
    const uint32_t ours = ours_.row->flags & (kReadsOp0 | kWritesOp0);
    if (ours == 0 || (operand.type != ZYDIS_OPERAND_TYPE_REGISTER && operand.type != ZYDIS_OPERAND_TYPE_MEMORY)) {
      return;
    }
    const uint32_t reads = (operand.actions & kReads) != 0 ? uint32_t{kReadsOp0} : 0;
    const uint32_t writes = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0 ? uint32_t{kWritesOp0} : 0;
    check_equal(Field::kAccess, reads | writes, ours);
  }

  static bool same_bits(uint64_t a, uint64_t b, unsigned bits) {
    return bits == 0 || ((a ^ b) & (~uint64_t{0} >> (64 - bits))) == 0;
  }

  void compare_immediates() {
    const auto& raw = theirs_.insn.raw;
    check(Field::kImmediate, same_bits(raw.imm[0].value.u, static_cast<uint64_t>(ours_.immediate), raw.imm[0].size));
    check(Field::kImmediate, same_bits(raw.imm[1].value.u, ours_.immediate2, raw.imm[1].size));
  }

  void compare_effects() {
    if (theirs_.insn.cpu_flags != nullptr) {
      compare_flags(*theirs_.insn.cpu_flags);
    }
    if ((ours_.row->flags & kRep) != 0) {
      return;  // Zydis lists the pointers of some string instructions as registers, of others in memory operands only
    }
    uint16_t read = 0;
    uint16_t written = 0;
    // Fixed registers (AL, CL...) are operands for both; SVM instructions show RAX that is implicit here.
    const unsigned first = ours_.row->operands[0] == Operand::kNone ? 0 : theirs_.insn.operand_count_visible;
    for (unsigned i = first; i < theirs_.insn.operand_count; ++i) {
      add_implicit(theirs_.operands[i], read, written);
    }
    check_equal(Field::kGprRead, read, ours_.row->gpr_read);
    check_equal(Field::kGprWritten, written, ours_.row->gpr_written);
  }

  void compare_flags(const ZydisAccessedFlags& flags) {
    // Shifts and rotates by one define OF; Zydis takes them together with the other counts.
    const uint32_t looked = (kArithmeticFlags | kDf) & ~(has_operand({Operand::kOne}) ? uint32_t{kOf} : 0u);
    const uint32_t written = flags.modified | flags.set_0 | flags.set_1;
    const uint32_t ours_written = ours_.row->rflags_written & ~uint32_t{ours_.row->rflags_undefined};
    check_equal(Field::kFlagsRead, flags.tested & looked, ours_.row->rflags_read & looked);
    check_equal(Field::kFlagsWritten, written & looked, ours_written & looked);
    check_equal(Field::kFlagsUndefined, flags.undefined & looked, ours_.row->rflags_undefined & looked);
  }

  void add_implicit(const ZydisDecodedOperand& operand, uint16_t& read, uint16_t& written) const {
    if (operand.encoding != ZYDIS_OPERAND_ENCODING_NONE) {
      return;
    }
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
      read |= gpr_bit(operand.mem.base) | gpr_bit(operand.mem.index);
    } else if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
      read |= (operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0 ? gpr_bit(operand.reg.value) : uint16_t{0};
      written |= (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0 ? gpr_bit(operand.reg.value) : uint16_t{0};
    }
  }

  uint16_t gpr_bit(ZydisRegister reg) const {
    const ZydisRegister wide = ZydisRegisterGetLargestEnclosing(theirs_.insn.machine_mode, reg);
    const ZydisRegisterClass kind = ZydisRegisterGetClass(wide);
    const bool is_gpr = kind == ZYDIS_REGCLASS_GPR64 || kind == ZYDIS_REGCLASS_GPR32 || kind == ZYDIS_REGCLASS_GPR16;
    return is_gpr ? static_cast<uint16_t>(1u << gpr_number(wide)) : uint16_t{0};
  }

  const Insn& ours_;
  const Theirs& theirs_;
  std::vector<Difference> differences_;
};

bool is_explained(Field field, std::string_view theirs, Op ours) {
  return std::any_of(std::begin(kDeviations), std::end(kDeviations), [&](const Deviation& deviation) {
    return deviation.field == field && (deviation.theirs.empty() || deviation.theirs == theirs) &&
           (deviation.ours == Op::kInvalid || deviation.ours == ours);
  });
}

/// Random strings that reach every opcode map often: prefixes, REX, escape bytes or VEX, the rest random.
class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}

  CodeSize next(Bytes& bytes) {
    for (size_t i = 0; i < kStringSize; i += 4) {
      const auto word = static_cast<uint32_t>(random_());
      std::copy_n(reinterpret_cast<const uint8_t*>(&word), 4, bytes.begin() + static_cast<ptrdiff_t>(i));
    }
    const auto choice = static_cast<uint32_t>(random_());
    const auto code_size = static_cast<CodeSize>(choice % 4 == 3 ? 2 : choice % 4);
    size_t position = add_prefixes(bytes, choice >> 2);
    if (code_size == CodeSize::k64 && (choice >> 12) % 3 == 0) {
      bytes[position++] = static_cast<uint8_t>(0x40 | ((choice >> 8) & 0xf));
    }
    add_escape(bytes, position, choice >> 16);
    return code_size;
  }

 private:
  size_t add_prefixes(Bytes& bytes, uint32_t choice) {
    static constexpr std::array<uint8_t, 12> kPrefixes = {0x66, 0xf2, 0xf3, 0x66, 0x67, 0xf0,
                                                          0x2e, 0x36, 0x64, 0x65, 0x26, 0x48};
    static constexpr std::array<size_t, 16> kCounts = {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 3, 4, 12};
    const size_t count = kCounts[choice % 16];
    for (size_t i = 0; i < count; ++i) {
      bytes[i] = kPrefixes[bytes[i] % kPrefixes.size()];
    }
    return count;
  }

  static void add_escape(Bytes& bytes, size_t position, uint32_t choice) {
    const unsigned kind = choice % 16;
    uint8_t* next = &bytes[position];
    if (kind >= 4 && kind < 10) {
      next[0] = 0x0f;
      if (kind >= 8) next[1] = kind == 8 ? 0x38 : 0x3a;
    } else if (kind >= 10 && kind < 12) {
      next[0] = 0xc5;
      next[1] |= (choice & 0x10) != 0 ? 0xf8 : 0xc0;  // vvvv unused half of the time, and no LDS outside 64-bit mode
    } else if (kind >= 12) {
      next[0] = 0xc4;
      const uint32_t inverted_rxb = (choice & 0x20) != 0 ? 0xe0 : (next[1] & 0xe0);
      next[1] = static_cast<uint8_t>(inverted_rxb | (1 + (choice >> 8) % 3));
      next[2] |= (choice & 0x10) != 0 ? 0x78 : 0;
    }
  }

  std::mt19937_64 random_;
};

std::string hex(const Bytes& bytes, size_t count) {
  std::string text;
  std::array<char, 4> digits{};
  for (size_t i = 0; i < count; ++i) {
    std::snprintf(digits.data(), digits.size(), "%02x ", bytes[i]);
    text += digits.data();
  }
  return text;
}

std::string describe(Field field, const char* theirs, Op ours) {
  return std::string(kFieldNames[static_cast<size_t>(field)]) + ": there " + theirs + ", here " + op_name(ours);
}

uint64_t number_from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 0) : otherwise;
}

/// Every row of every table, to see that the generator reaches them.
std::vector<const OpcodeRow*> all_rows() {
  std::vector<const OpcodeRow*> rows;
  for (const MapTable* table : {&kTableLegacy, &kTableX87, &kTable0F, &kTable0FSimd, &kTable0F38, &kTable0F3A,
                                &kTableVex0F, &kTableVex0F38, &kTableVex0F3A}) {
    for (const MapSlot& slot : table->slots) {
      for (unsigned i = slot.first; i < slot.end; ++i) {
        rows.push_back(&table->entries[i].row);
      }
    }
  }
  return rows;
}
constexpr uint64_t kCasesForAllRows = 5'000'000;

TEST(DecodeAgainstZydis, RandomStrings) {
  const uint64_t cases = number_from_environment("TENON_DECODE_CASES", kCasesForAllRows);
  const Mnemonics mnemonics;
  const Oracle oracle;
  Generator generator(number_from_environment("TENON_DECODE_SEED", 1));
  struct Finding {
    uint64_t count = 0;
    std::string example;
  };
  std::map<std::string, Finding> findings;
  std::set<const OpcodeRow*> rows;
  Bytes bytes{};
  Insn insn;
  Theirs theirs;
  for (uint64_t i = 0; i < cases; ++i) {
    const CodeSize code_size = generator.next(bytes);
    const DecodeStatus status = decode(bytes, code_size, insn);
    oracle.decode(code_size, bytes, theirs);
    const Op op = status == DecodeStatus::kOk ? insn.row->op : Op::kInvalid;
    if (status == DecodeStatus::kOk) rows.insert(insn.row);
    const char* name = theirs.is_valid ? ZydisMnemonicGetString(theirs.insn.mnemonic) : "(invalid)";
    const Comparison comparison(mnemonics, insn, status, theirs);
    for (const Comparison::Difference& difference : comparison.differences()) {
      if (is_explained(difference.field, name, op)) continue;
      Finding& finding = findings[describe(difference.field, name, op)];
      if (finding.count++ == 0) {
        finding.example = std::to_string(16 << static_cast<int>(code_size)) + "-bit " + hex(bytes, kStringSize) +
                          std::to_string(difference.theirs) + " against " + std::to_string(difference.ours);
      }
    }
  }
  std::printf("%llu strings, %zu of %zu rows\n", static_cast<unsigned long long>(cases), rows.size(),
              all_rows().size());
  for (const OpcodeRow* row : all_rows()) {
    EXPECT_TRUE(rows.contains(row) || cases < kCasesForAllRows) << op_name(row->op) << " was never reached";
  }
  for (const auto& [what, finding] : findings) {
    ADD_FAILURE() << what << " (" << finding.count << " times), first: " << finding.example;
  }
}

}  // namespace
}  // namespace tenon::x86
