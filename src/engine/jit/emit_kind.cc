#include "engine/jit/emit_kind.hh"

#include <array>

#include "engine/x86/decode_table.hh"

namespace tenon::jit {
namespace {

using x86::Insn;
using x86::Op;
using x86::Operand;

struct NamedKind {
  Op op;
  EmitKind kind;
};

// Not here, so interpreted: PAUSE, which lends the host CPU to others when it comes often.
// clang-format off
constexpr NamedKind kNamed[] = {
    {Op::kAdc, EmitKind::kSame}, {Op::kAdd, EmitKind::kSame}, {Op::kAnd, EmitKind::kSame}, {Op::kBsf, EmitKind::kSame},
    {Op::kBsr, EmitKind::kSame}, {Op::kBswap, EmitKind::kSame}, {Op::kCbw, EmitKind::kSame}, {Op::kClc, EmitKind::kSame},
    {Op::kCmc, EmitKind::kSame}, {Op::kStc, EmitKind::kSame}, {Op::kCmovcc, EmitKind::kSame}, {Op::kCmp, EmitKind::kSame},
    {Op::kCmpxchg, EmitKind::kSame}, {Op::kCmpxchg8b, EmitKind::kSame}, {Op::kCmpxchg16b, EmitKind::kSame},
    {Op::kCwd, EmitKind::kSame}, {Op::kDec, EmitKind::kSame}, {Op::kDiv, EmitKind::kSame}, {Op::kIdiv, EmitKind::kSame},
    {Op::kImul, EmitKind::kSame}, {Op::kInc, EmitKind::kSame}, {Op::kLahf, EmitKind::kSame}, {Op::kSahf, EmitKind::kSame},
    {Op::kMov, EmitKind::kSame}, {Op::kMovbe, EmitKind::kSame}, {Op::kMovsx, EmitKind::kSame},
    {Op::kMovsxd, EmitKind::kSame}, {Op::kMovzx, EmitKind::kSame}, {Op::kMul, EmitKind::kSame}, {Op::kNeg, EmitKind::kSame},
    {Op::kNot, EmitKind::kSame}, {Op::kOr, EmitKind::kSame}, {Op::kRcl, EmitKind::kSame}, {Op::kRcr, EmitKind::kSame},
    {Op::kRol, EmitKind::kSame}, {Op::kRor, EmitKind::kSame}, {Op::kSar, EmitKind::kSame}, {Op::kSbb, EmitKind::kSame},
    {Op::kSetcc, EmitKind::kSame}, {Op::kShl, EmitKind::kSame}, {Op::kShld, EmitKind::kSame}, {Op::kShr, EmitKind::kSame},
    {Op::kShrd, EmitKind::kSame}, {Op::kSub, EmitKind::kSame}, {Op::kTest, EmitKind::kSame}, {Op::kXadd, EmitKind::kSame},
    {Op::kXchg, EmitKind::kSame}, {Op::kXor, EmitKind::kSame}, {Op::kAdcx, EmitKind::kSame}, {Op::kAdox, EmitKind::kSame},
    {Op::kAndn, EmitKind::kSame}, {Op::kBextr, EmitKind::kSame}, {Op::kBlsi, EmitKind::kSame},
    {Op::kBlsmsk, EmitKind::kSame}, {Op::kBlsr, EmitKind::kSame}, {Op::kBzhi, EmitKind::kSame},
    {Op::kCrc32, EmitKind::kSame}, {Op::kLzcnt, EmitKind::kSame}, {Op::kMulx, EmitKind::kSame}, {Op::kPdep, EmitKind::kSame},
    {Op::kPext, EmitKind::kSame}, {Op::kPopcnt, EmitKind::kSame}, {Op::kRdrand, EmitKind::kSame},
    {Op::kRdseed, EmitKind::kSame}, {Op::kRorx, EmitKind::kSame}, {Op::kSarx, EmitKind::kSame}, {Op::kShlx, EmitKind::kSame},
    {Op::kShrx, EmitKind::kSame}, {Op::kTzcnt, EmitKind::kSame},
    {Op::kLfence, EmitKind::kSame}, {Op::kMfence, EmitKind::kSame}, {Op::kSfence, EmitKind::kSame},
    {Op::kMovdiri, EmitKind::kSame}, {Op::kMovnti, EmitKind::kSame},
    {Op::kNop, EmitKind::kNothing}, {Op::kPrefetch, EmitKind::kNothing}, {Op::kPrefetchw, EmitKind::kNothing},
    {Op::kLea, EmitKind::kLea}, {Op::kPush, EmitKind::kPush}, {Op::kPop, EmitKind::kPop}, {Op::kLeave, EmitKind::kLeave},
    {Op::kFwait, EmitKind::kX87},
    {Op::kJcc, EmitKind::kBranch}, {Op::kJcxz, EmitKind::kBranch}, {Op::kLoop, EmitKind::kBranch},
    {Op::kMovs, EmitKind::kString}, {Op::kStos, EmitKind::kString}, {Op::kLods, EmitKind::kString},
    {Op::kScas, EmitKind::kString}, {Op::kCmps, EmitKind::kString},
    {Op::kBt, EmitKind::kBitString}, {Op::kBtc, EmitKind::kBitString}, {Op::kBtr, EmitKind::kBitString},
    {Op::kBts, EmitKind::kBitString},
    {Op::kCld, EmitKind::kFlagBit}, {Op::kStd, EmitKind::kFlagBit}, {Op::kCli, EmitKind::kFlagBit},
    {Op::kSti, EmitKind::kFlagBit}, {Op::kPushf, EmitKind::kPushFlags}, {Op::kPopf, EmitKind::kPopFlags},
    {Op::kRdtsc, EmitKind::kTime}, {Op::kRdtscp, EmitKind::kTime}, {Op::kRdpid, EmitKind::kTime},
    {Op::kRdfsbase, EmitKind::kBase}, {Op::kRdgsbase, EmitKind::kBase}, {Op::kWrfsbase, EmitKind::kBase},
    {Op::kWrgsbase, EmitKind::kBase}, {Op::kSwapgs, EmitKind::kSwapgs}, {Op::kMovFromCr, EmitKind::kReadControl},
    {Op::kMovFromSeg, EmitKind::kReadSegment}, {Op::kSerialize, EmitKind::kSerialize},
    {Op::kSyscall, EmitKind::kSyscall}, {Op::kSysret, EmitKind::kSysret},
    {Op::kJmp, EmitKind::kBranch}, {Op::kCall, EmitKind::kBranch}, {Op::kRet, EmitKind::kBranch},
};

/// SIMD and x87 rows that show or load addresses of instructions, or access memory in a way of their own.
constexpr Op kVectorInterpreted[] = {
    Op::kFxsave, Op::kFxrstor, Op::kFnstenv, Op::kFldenv, Op::kFnsave, Op::kFrstor, Op::kMaskmovdqu, Op::kMaskmovq,
    Op::kVmaskmovdqu, Op::kFbstp, Op::kFneni, Op::kFndisi, Op::kFnsetpm,
};
// clang-format on

constexpr size_t kOps = static_cast<size_t>(Op::kCount);

constexpr std::array<EmitKind, kOps> make_kinds() {
  std::array<EmitKind, kOps> kinds{};
  for (const NamedKind& named : kNamed) kinds[static_cast<size_t>(named.op)] = named.kind;
  return kinds;
}

constexpr std::array<bool, kOps> make_interpreted() {
  std::array<bool, kOps> interpreted{};
  for (const Op op : kVectorInterpreted) interpreted[static_cast<size_t>(op)] = true;
  return interpreted;
}

constexpr auto kKinds = make_kinds();
constexpr auto kInterpreted = make_interpreted();

bool has_operand(const Insn& insn, Operand operand) {
  for (const Operand each : insn.row->operands) {
    if (each == operand) return true;
  }
  return false;
}

bool is_segment_or_debug(const Insn& insn) {
  const bool segment = has_operand(insn, Operand::kSw) && insn.row->op != Op::kMovFromSeg;
  return segment || has_operand(insn, Operand::kDr);
}

EmitKind vector_kind(const Insn& insn) {
  if (kInterpreted[static_cast<size_t>(insn.row->op)] || has_operand(insn, Operand::kVsib)) return EmitKind::kInterpret;
  const uint32_t flags = insn.row->flags;
  const bool vector = (flags & (x86::kSse | x86::kAvxState)) != 0;
  const bool x87 = (flags & (x86::kX87 | x86::kMmx)) != 0;
  if (insn.is_memory && (flags & x86::kUpdatesOp0) != 0 && x86::memory_operand_size(insn) == 0)
    return EmitKind::kInterpret;
  if (vector && x87) return EmitKind::kVectorX87;
  return vector ? EmitKind::kVector : EmitKind::kX87;
}

}  // namespace

EmitKind emit_kind(const Insn& insn) {
  const x86::MapEntry& entry = x86::entry_of(*insn.row);
  if (entry.immediate == x86::ImmediateForm::kOffset) return EmitKind::kInterpret;
  if (entry.check_reg && is_segment_or_debug(insn)) return EmitKind::kInterpret;
  const EmitKind named = kKinds[static_cast<size_t>(insn.row->op)];
  // BT and its kin with a register index reach memory far from their operand.
  if (named == EmitKind::kBitString)
    return insn.is_memory && insn.row->operands[1] == Operand::kGv ? named : EmitKind::kSame;
  if (named != EmitKind::kInterpret) return named;
  constexpr uint32_t kVectorRows = x86::kSse | x86::kAvxState | x86::kX87 | x86::kMmx;
  return (insn.row->flags & kVectorRows) != 0 ? vector_kind(insn) : EmitKind::kInterpret;
}

bool goes_on(const Insn& insn) {
  const EmitKind kind = emit_kind(insn);
  return kind == EmitKind::kPopFlags || kind == EmitKind::kSerialize;
}

}  // namespace tenon::jit
