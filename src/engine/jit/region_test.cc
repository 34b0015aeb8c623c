// Regions by hand: one snippet per shape of block and per rule of liveness, then random code against a model that
// follows every path.
#include "engine/jit/region.hh"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/jit/region_test_support.hh"

// CODE(name, text) assembles Intel-syntax text into `name`. Offsets that matter are fixed by .org in the text.
#define CODE(name, text)                                                                              \
  asm(".pushsection .rodata\n.intel_syntax noprefix\n77:\nregion_" #name ":\n" text "\nregion_" #name \
      "_end:\n.att_syntax prefix\n.popsection\n");                                                    \
  extern "C" const uint8_t region_##name[], region_##name##_end[];                                    \
  static const std::span<const uint8_t> name(region_##name, region_##name##_end)

namespace tenon::jit {
namespace {

using x86::kAf;
using x86::kArithmeticFlags;
using x86::kCf;
using x86::kOf;
using x86::kPf;
using x86::kSf;
using x86::kZf;

constexpr uint8_t kOutside = RegionBlock::kOutside;

/// A page of UD2 with `code` at `at`, and the region found in it.
struct Found {
  RegionPage page;
  std::unique_ptr<Region> region = std::make_unique<Region>();

  explicit Found(std::span<const uint8_t> code, unsigned at = 0, RegionOptions options = {}) {
    for (size_t i = 0; i < page.size(); ++i) page[i] = i % 2 == 0 ? 0x0f : 0x0b;
    std::copy(code.begin(), code.begin() + std::min<ptrdiff_t>(std::ssize(code), std::ssize(page) - at),
              page.begin() + at);
    find(at, options);
  }

  void find(unsigned at, RegionOptions options = {}) {
    find_region(page, at, options, *region);
    check_region(page, at, options, *region);
  }

  const RegionInsn& insn(unsigned index) const { return region->insns[index]; }
  uint16_t live_before(unsigned index) const { return region->insns[index].live_before; }
};

std::string name_of(BlockEnd end) {
  constexpr const char* kNames[] = {"fall", "jump", "cond", "call", "ijump", "icall", "ret", "stop", "bad"};
  return kNames[static_cast<unsigned>(end)];
}

/// One line for all blocks: "0-4 cond n1 t2 loop; ...", offsets in hex, links that are inside only.
std::string shape(const Region& region) {
  std::string text;
  for (const RegionBlock& block : blocks_of(region)) {
    char range[32];
    std::snprintf(range, sizeof range, "%x-%x ", block.start_offset, block.end_offset);
    text += (text.empty() ? "" : "; ") + (range + name_of(block.end));
    if (block.next != kOutside) text += " n" + std::to_string(block.next);
    if (block.taken != kOutside) text += " t" + std::to_string(block.taken);
    if (block.loop_head) text += " loop";
  }
  return text;
}

std::string shape(std::span<const uint8_t> code, RegionOptions options = {}) {
  return shape(*Found(code, 0, options).region);
}

// --- Blocks.

CODE(straight, "mov eax, ebx; add eax, 1; ret");

TEST(RegionBlocks, StraightLineEndsAtReturn) {
  const Found found(straight);
  EXPECT_EQ(shape(*found.region), "0-6 ret");
  EXPECT_EQ(found.region->insn_count, 3);
  EXPECT_EQ(found.insn(1).insn.row->op, x86::Op::kAdd);
  EXPECT_EQ(found.insn(2).offset, 5);
}

CODE(jump_on, "jmp 77b+0x10; .org 77b+0x10; nop; jmp 77b+0x20; .org 77b+0x20; ret");

TEST(RegionBlocks, JumpsAreFollowedInPlace) { EXPECT_EQ(shape(jump_on), "0-2 jump t1; 10-13 jump t2; 20-21 ret"); }

CODE(diamond, "test eax, eax; jz 77b+0x10; inc ebx; jmp 77b+0x12; .org 77b+0x10; dec ebx; .org 77b+0x12; ret");

TEST(RegionBlocks, BothWaysOfAConditionalMeetAgain) {
  EXPECT_EQ(shape(diamond), "0-4 cond n1 t3; 4-8 jump t2; 12-13 ret; 10-12 fall n2");
}

/// All flags live elsewhere; one offset of the page is translated.
struct TranslatedAt final : Elsewhere {
  explicit TranslatedAt(unsigned at) : offset(at) {}
  uint16_t live_at(int64_t) override { return kArithmeticFlags; }
  bool is_translated(unsigned at) override { return at == offset; }
  unsigned offset;
};

TEST(RegionBlocks, WhatIsTranslatedAlreadyIsLeftOutside) {
  const auto shape_with = [](unsigned offset) {
    TranslatedAt elsewhere(offset);
    return shape(diamond, {.elsewhere = &elsewhere});
  };
  EXPECT_EQ(shape_with(0x12), "0-4 cond n1 t2; 4-8 jump; 10-13 ret") << "a block that runs into it goes on";
  EXPECT_EQ(shape_with(0x10), "0-4 cond n1; 4-8 jump t2; 12-13 ret");
  EXPECT_EQ(shape_with(0x4), "0-4 cond t1; 10-13 ret");
  EXPECT_EQ(shape_with(0), shape(diamond)) << "what is asked for is translated in any case";
}

CODE(if_then, "test eax, eax; jz 77b+0x6; inc ebx; .org 77b+0x6; ret");

TEST(RegionBlocks, FallThroughStopsAtATargetThatWaits) {
  EXPECT_EQ(shape(if_then), "0-4 cond n1 t2; 4-6 fall n2; 6-7 ret");
}

CODE(loop_in_block, "xor eax, eax; .org 77b+2; inc eax; cmp eax, ebx; jb 77b+2; ret");

TEST(RegionBlocks, BackwardBranchSplitsItsBlock) {
  EXPECT_EQ(shape(loop_in_block), "0-2 fall n1; 2-8 cond n2 t1 loop; 8-9 ret");
}

CODE(self_loop, "pause; jmp 77b");
CODE(jump_to_itself, "jmp 77b");

TEST(RegionBlocks, BlocksThatBranchToTheirOwnStart) {
  EXPECT_EQ(shape(self_loop), "0-4 jump t0 loop");
  EXPECT_EQ(shape(jump_to_itself), "0-2 jump t0 loop");
}

CODE(into_the_middle, "mov eax, 0x12345678; jz 77b+2; ret");

TEST(RegionBlocks, TargetInsideAnInstructionIsOutside) {
  const Found found(into_the_middle);
  EXPECT_EQ(shape(*found.region), "0-7 cond n1; 7-8 ret");
  EXPECT_EQ(found.region->blocks[0].taken_offset, 2);
}

// The conditional goes back to bytes that run into the middle of the first block's instruction at 10.
CODE(overlapping, ".byte 0xb8, 0x90; .org 77b+0x10, 0x90; mov eax, ebx; jz 77b+0xe; ret; ");

TEST(RegionBlocks, InstructionsDoNotOverlap) {
  Found found(overlapping);
  found.page[0xf] = 0xb8;  // MOV EAX with an immediate of the four bytes from 10 on
  found.find(0x10);
  EXPECT_EQ(shape(*found.region), "10-14 cond n1 t2; 14-15 ret; e-f fall loop");
}

CODE(run_into, "jmp 77b+4; .org 77b+2; inc eax; .org 77b+4; dec eax; jz 77b+2; ret");

TEST(RegionBlocks, ChainRunsIntoAKnownBlock) {
  EXPECT_EQ(shape(run_into), "0-2 jump t1; 4-8 cond n2 t3; 8-9 ret; 2-4 fall n1 loop");
}

CODE(calls, "call 77b+0x40; test eax, eax; jz 77b; call rax; ret");

TEST(RegionBlocks, ReturnSitesAreBlocksOfTheirOwn) {
  const Found found(calls);
  EXPECT_EQ(shape(*found.region), "0-5 call n1 loop; 5-9 cond n2 t0; 9-b icall n3; b-c ret");
  EXPECT_EQ(found.region->blocks[0].taken_offset, 0x40);
}

CODE(return_site_last, "jz 77b+0x20; call 77b+0x100; ret; .org 77b+0x20; nop; ret");

TEST(RegionBlocks, ReturnSitesComeLast) {
  EXPECT_EQ(shape(return_site_last), "0-2 cond n1 t2; 2-7 call n3; 20-22 ret; 7-8 ret");
}

CODE(recursion, "test edi, edi; jz 77b+9; call 77b; .org 77b+9; ret");

TEST(RegionBlocks, CallOfAKnownBlockIsLinked) {
  EXPECT_EQ(shape(recursion), "0-4 cond n1 t2 loop; 4-9 call n2 t0; 9-a ret");
}

CODE(indirect, "jmp [rax]");
CODE(count_zero, "jrcxz 77b+0x10; loop 77b; loope 77b; loopne 77b; ret 8; .org 77b+0x10; jmp rax");

TEST(RegionBlocks, OtherBranches) {
  EXPECT_EQ(shape(indirect), "0-2 ijump");
  EXPECT_EQ(shape(count_zero),
            "0-2 cond n1 t5 loop; 2-4 cond n2 t0; 4-6 cond n3 t0; 6-8 cond n4 t0; 8-b ret; 10-12 ijump");
}

CODE(far_targets, "jz 77b+0x12345; jmp 77b-0x100");

TEST(RegionBlocks, TargetsInOtherPages) {
  const Found found(far_targets);
  EXPECT_EQ(shape(*found.region), "0-6 cond n1; 6-b jump");
  EXPECT_EQ(found.region->blocks[0].taken_offset, 0x12345);
  EXPECT_EQ(found.region->blocks[1].taken_offset, -0x100);
}

TEST(RegionBlocks, LoopToBytesBeforeTheStartIsFoundInTheSamePage) {
  const Found found(std::array<uint8_t, 3>{0x74, 0xee, 0xc3}, 0x110);  // jz 100; 100: ud2
  EXPECT_EQ(shape(*found.region), "110-112 cond n1 t2; 112-113 ret; 100-102 stop loop");
}

CODE(hot_order, "jz 77b+0x40; jz 77b-0x10; ret; .org 77b+0x40; ret");

TEST(RegionBlocks, LoopsComeBeforeWhatIsAhead) {
  const Found found(hot_order, 0x100);
  EXPECT_EQ(shape(*found.region), "100-102 cond n1 t4; 102-104 cond n2 t3; 104-105 ret; f0-f2 stop loop; 140-141 ret");
}

// --- Stops.

CODE(stop_syscall, "syscall");
CODE(stop_iret, "iretq");
CODE(stop_int, "int 0x80");
CODE(stop_int3, "int3");
CODE(stop_hlt, "hlt");
CODE(stop_cr3, "mov cr3, rax");
CODE(stop_wrmsr, "wrmsr");
CODE(stop_invlpg, "invlpg [rax]");
CODE(stop_cpuid, "cpuid");
CODE(stop_popf, "popfq");
CODE(stop_far, "retfq");
CODE(stop_ud2, "ud2");
CODE(stop_mov_ss, "mov ss, eax");

TEST(RegionBlocks, StopsBehindWhatLeavesTranslatedCode) {
  for (const auto code : {stop_syscall, stop_iret, stop_int, stop_int3, stop_hlt, stop_cr3, stop_wrmsr, stop_invlpg,
                          stop_cpuid, stop_popf, stop_far, stop_ud2, stop_mov_ss}) {
    const Found found(code);
    ASSERT_EQ(found.region->block_count, 1);
    EXPECT_EQ(found.region->blocks[0].end, BlockEnd::kStop);
    EXPECT_EQ(found.region->insn_count, 1);
    EXPECT_EQ(found.insn(0).live_after, kArithmeticFlags);
  }
}

CODE(ordinary,
     "pushfq; cli; sti; swapgs; rdmsr; in al, dx; out dx, al; rdtsc; mov rax, cr3; lock inc dword ptr [rax]; ret");

TEST(RegionBlocks, OtherSystemInstructionsAreOrdinary) {
  const Found found(ordinary);
  EXPECT_EQ(found.region->block_count, 1);
  EXPECT_EQ(found.region->insn_count, 11);
  EXPECT_EQ(found.region->blocks[0].end, BlockEnd::kReturn);
}

// --- What cannot be decoded.

CODE(bad_at_start, ".byte 0x06");
CODE(bad_later, "nop; .byte 0x06");
CODE(bad_lock, "nop; .byte 0xf0, 0x01, 0xc0");  // LOCK ADD EAX, EAX
CODE(bad_lock_mov, "nop; .byte 0xf0, 0x89, 0x00");
CODE(fifteen_bytes, "nop; .rept 14; .byte 0x66; .endr; .byte 0x90; ret");
CODE(bad_target, "jz 77b+0x10; ret; .org 77b+0x10; .byte 0x06");
CODE(bad_behind_conditional, "jz 77b+0x10; .byte 0x06; .org 77b+0x10; ret");

TEST(RegionBlocks, UndecodableBytesEndABlockBeforeThem) {
  EXPECT_EQ(shape(bad_at_start), "0-0 bad");
  EXPECT_EQ(shape(bad_later), "0-1 bad");
  EXPECT_EQ(shape(bad_lock), "0-1 bad");
  EXPECT_EQ(shape(bad_lock_mov), "0-1 bad");
  EXPECT_EQ(shape(bad_target), "0-2 cond n1; 2-3 ret");
  EXPECT_EQ(shape(bad_behind_conditional), "0-2 cond t1; 10-11 ret");
}

TEST(RegionBlocks, FifteenBytesAreAnInstructionAndSixteenAreNot) {
  EXPECT_EQ(shape(fifteen_bytes), "0-11 ret");
  std::vector<uint8_t> longer(16, 0x66);
  longer.push_back(0x90);
  EXPECT_EQ(shape(longer), "0-0 bad");
}

CODE(five_bytes, "mov eax, 1; ret");

TEST(RegionBlocks, InstructionAcrossThePagesEndIsLeftOut) {
  for (unsigned in_page = 1; in_page < 5; ++in_page) {
    const Found found(five_bytes, 4096 - in_page);
    EXPECT_EQ(found.region->blocks[0].end, BlockEnd::kUndecodable);
    EXPECT_EQ(found.region->insn_count, 0);
    EXPECT_EQ(found.region->granules, uint64_t{1} << 63);
  }
}

TEST(RegionBlocks, CodeUpToThePagesEndFallsOutOfIt) {
  const Found found(five_bytes, 4091);
  EXPECT_EQ(shape(*found.region), "ffb-1000 fall");
  EXPECT_EQ(found.insn(0).live_after, kArithmeticFlags);
}

// --- Limits.

TEST(RegionBlocks, InstructionLimits) {
  const std::vector<uint8_t> nops(200, 0x90);
  EXPECT_EQ(shape(nops), "0-40 fall");
  EXPECT_EQ(shape(nops, {.insns_max = 5}), "0-5 fall");
  EXPECT_EQ(shape(nops, {.insns_max = 0}), "0-1 fall");
  EXPECT_EQ(shape(nops, {.insns_max = 1000}), "0-40 fall");
  EXPECT_EQ(shape(straight, {.insns_max = 3}), "0-6 ret");
}

CODE(many_blocks, ".rept 12; jz 77b+0x80; .endr; .org 77b+0x80; ret");

TEST(RegionBlocks, BlockLimitLeavesTheRestOutside) {
  const Found found(many_blocks);
  EXPECT_EQ(found.region->block_count, kRegionBlocksMax);
  const RegionBlock& last = found.region->blocks[kRegionBlocksMax - 1];
  EXPECT_EQ(last.end, BlockEnd::kConditional);
  EXPECT_EQ(last.next, kOutside);
  EXPECT_EQ(last.end_offset, 2 * kRegionBlocksMax);
}

CODE(many_joins, "nop; .rept 7; jz 77b+1; .endr; ret");

TEST(RegionBlocks, SplitUsesTheLastBlock) {
  EXPECT_EQ(shape(many_joins).substr(0, 30), "0-1 fall n1; 1-3 cond n2 t1 lo");
  EXPECT_EQ(Found(many_joins).region->block_count, kRegionBlocksMax);
}

// --- Flags of instructions.

CODE(flag_samples, R"(
  add eax, ebx
  adc eax, ebx
  inc eax
  shl eax, cl
  shl eax, 3
  shl eax, 0
  shl eax, 32
  shl rax, 32
  .byte 0x48, 0xc0, 0xe0, 32
  shl eax
  rol eax, 5
  rcl eax, 5
  shld eax, ebx, 4
  shld eax, ebx, cl
  cmovbe eax, ebx
  seto al
  scasb
  repne scasb
  repe cmpsb
  rep movsb
  pushfq
  lahf
  sahf
  cmc
  clc
  std
  div ebx
  imul eax, ebx
  bt eax, 1
  mov rax, cr0
  mov rax, dr0
  lea eax, [rbx]
  not eax
  xchg [rax], ebx
  cmpxchg8b [rax]
  comiss xmm0, xmm1
  adcx eax, ebx
  adox eax, ebx
  andn eax, ebx, ecx
  mulx eax, ebx, ecx
  shlx eax, ebx, ecx
  bsf eax, ebx
  fcomi st, st(1)
  fcmovb st, st(1)
  and eax, ebx
)");

struct FlagCase {
  const char* text;
  uint16_t read;
  uint16_t killed;
};

constexpr uint16_t kAll = kArithmeticFlags;
constexpr FlagCase kFlagCases[] = {
    {"add", 0, kAll},
    {"adc", kCf, kAll},
    {"inc", 0, kAll & ~kCf},
    {"shl by cl", 0, 0},
    {"shl by 3", 0, kAll},
    {"shl by 0", 0, 0},
    {"shl dword by 32", 0, 0},
    {"shl qword by 32", 0, kAll},
    {"shl byte with REX.W by 32", 0, 0},
    {"shl by one", 0, kAll},
    {"rol by 5", 0, kCf | kOf},
    {"rcl by 5", kCf, kCf | kOf},
    {"shld by 4", 0, kAll},
    {"shld by cl", 0, 0},
    {"cmovbe", kCf | kZf, 0},
    {"seto", kOf, 0},
    {"scasb", 0, kAll},
    {"repne scasb", 0, 0},
    {"repe cmpsb", 0, 0},
    {"rep movsb", 0, 0},
    {"pushfq", kAll, 0},
    {"lahf", kAll & ~kOf, 0},
    {"sahf", 0, kAll & ~kOf},
    {"cmc", kCf, kCf},
    {"clc", 0, kCf},
    {"std", 0, 0},
    {"div", 0, 0},  // leaves them as they were on processors, though the manual says undefined
    {"imul", 0, kAll},
    {"bt", 0, kAll & ~kZf},
    {"mov from cr0", 0, 0},
    {"mov from dr0", 0, 0},
    {"lea", 0, 0},
    {"not", 0, 0},
    {"xchg", 0, 0},
    {"cmpxchg8b", 0, kZf},
    {"comiss", 0, kAll},
    {"adcx", kCf, kCf},
    {"adox", kOf, kOf},
    {"andn", 0, kAll},
    {"mulx", 0, 0},
    {"shlx", 0, 0},
    {"bsf", 0, kAll},
    {"fcomi", 0, kAll},
    {"fcmovb", kCf, 0},
    {"and", 0, kAll},
};

TEST(RegionFlags, ReadAndKilledByEachInstruction) {
  std::span<const uint8_t> rest = flag_samples;
  for (const FlagCase& flag_case : kFlagCases) {
    SCOPED_TRACE(flag_case.text);
    x86::Insn insn;
    ASSERT_EQ(x86::decode(rest, x86::CodeSize::k64, insn), x86::DecodeStatus::kOk);
    EXPECT_EQ(flags_read(insn), flag_case.read);
    EXPECT_EQ(flags_killed(insn), flag_case.killed);
    rest = rest.subspan(insn.length);
  }
  EXPECT_TRUE(rest.empty());
}

// --- Liveness.

CODE(adc_chain, "add rax, [rdi]; mov rdx, [rsi]; adc rdx, [rdi+8]; mov rcx, [rsi]; xor eax, eax; ret");

TEST(RegionFlags, CarryLivesThroughAnAdcChain) {
  const Found found(adc_chain);
  EXPECT_EQ(found.live_before(0), 0);
  EXPECT_EQ(found.live_before(1), kCf);
  EXPECT_EQ(found.live_before(2), kCf);
  EXPECT_EQ(found.live_before(3), 0);
  EXPECT_EQ(found.live_before(4), 0);
  EXPECT_EQ(found.live_before(5), kAll);
}

CODE(inc_keeps_carry,
     "mov eax, [rsi]; inc ecx; mov eax, [rdi]; jc 77b+0x20; and eax, 1; ret; .org 77b+0x20; and eax, 1; ret");

TEST(RegionFlags, IncrementKeepsTheCarry) {
  const Found found(inc_keeps_carry);
  EXPECT_EQ(found.live_before(0), kCf);
  EXPECT_EQ(found.insn(1).live_after, kCf);
  EXPECT_EQ(found.insn(3).live_after, 0);
}

CODE(shift_by_cl, "mov eax, [rsi]; shl eax, cl; jz 77b+0x10; and eax, 1; ret; .org 77b+0x10; and eax, 1; ret");

TEST(RegionFlags, ShiftByClMayKeepAll) {
  const Found found(shift_by_cl);
  EXPECT_EQ(found.live_before(0), kZf);
  EXPECT_EQ(found.live_before(2), kZf);
}

CODE(string_scan, "mov eax, [rsi]; repne scasb; setz al; and eax, 1; ret");

TEST(RegionFlags, RepeatedCompareMayKeepAll) { EXPECT_EQ(Found(string_scan).live_before(0), kZf); }

CODE(push_flags, "mov eax, [rsi]; pushfq; and eax, 1; ret");

TEST(RegionFlags, PushfReadsAll) {
  const Found found(push_flags);
  EXPECT_EQ(found.live_before(0), kAll);
  EXPECT_EQ(found.insn(1).live_after, 0);
}

// CF is read only around the loop's back edge; ZF is set and read within it.
CODE(carry_around, R"(
  xor eax, eax
.org 77b+2
  mov edx, [rsi+rcx]
  adc eax, edx
  lea rcx, [rcx+1]
  dec edi
  jnz 77b+2
  and eax, 1
  ret)");

TEST(RegionFlags, LivenessGoesAroundLoops) {
  const Found found(carry_around);
  EXPECT_EQ(shape(*found.region).substr(0, 30), "0-2 fall n1; 2-f cond n2 t1 lo");
  EXPECT_EQ(found.region->blocks[0].live_in, 0);
  EXPECT_EQ(found.region->blocks[1].live_in, kCf);
  EXPECT_EQ(found.insn(3).live_before, kCf);        // LEA, before DEC
  EXPECT_EQ(found.insn(5).live_before, kCf | kZf);  // JNZ
  EXPECT_EQ(found.insn(5).live_after, kCf);
  EXPECT_EQ(found.region->blocks[2].live_in, 0);
}

TEST(RegionFlags, StrictMakesEverythingLive) {
  const Found found(adc_chain, 0, {.strict_flags = true});
  EXPECT_EQ(found.live_before(0), kAll);
  EXPECT_EQ(found.insn(0).live_after, kAll);
  EXPECT_EQ(found.region->blocks[0].live_in, kAll);
}

// --- Look-ahead behind direct exits: `insns_max` makes the exit.

uint16_t live_behind(std::span<const uint8_t> code, unsigned insns) {
  const Found found(code, 0, {.insns_max = insns});
  return found.insn(insns - 1).live_after;
}

CODE(ahead_kills, "nop; mov eax, [rsi]; and eax, 1; ret");
CODE(ahead_reads, "nop; mov eax, [rsi]; adc eax, 1; ret");
CODE(ahead_partly, "nop; inc eax; ret");
CODE(ahead_eleven, "nop; .rept 11; mov eax, [rsi]; .endr; and eax, 1; ret");
CODE(ahead_twelve, "nop; .rept 12; mov eax, [rsi]; .endr; and eax, 1; ret");
CODE(ahead_jump, "nop; jmp 77b+0x10; .org 77b+0x10; and eax, 1; ret");
CODE(ahead_two_jumps, "nop; jmp 77b+0x10; .org 77b+0x10; jmp 77b+0x20; .org 77b+0x20; and eax, 1; ret");
CODE(ahead_conditional, "nop; jz 77b+0x10; and eax, 1; ret; .org 77b+0x10; and eax, 1; ret");
CODE(ahead_call, "nop; call 77b+0x10; ret; .org 77b+0x10; and eax, 1; ret");
CODE(ahead_call_far, "nop; call 77b+0x2000; and eax, 1; ret");
CODE(ahead_invalid, "nop; mov eax, [rsi]; .byte 0x06");
CODE(ahead_return, "nop; ret");
CODE(ahead_stop, "nop; hlt; and eax, 1");

TEST(RegionFlags, LookAheadBehindExits) {
  EXPECT_EQ(live_behind(ahead_kills, 1), 0);
  EXPECT_EQ(live_behind(ahead_reads, 1), kCf);
  EXPECT_EQ(live_behind(ahead_partly, 1), kCf);
  EXPECT_EQ(live_behind(ahead_partly, 2), kAll);
  EXPECT_EQ(live_behind(ahead_eleven, 1), 0);
  EXPECT_EQ(live_behind(ahead_twelve, 1), kAll);
  EXPECT_EQ(live_behind(ahead_jump, 1), 0);
  EXPECT_EQ(live_behind(ahead_two_jumps, 1), kAll);
  EXPECT_EQ(live_behind(ahead_conditional, 1), kAll);
  EXPECT_EQ(live_behind(ahead_call, 1), 0);
  EXPECT_EQ(live_behind(ahead_call_far, 1), kAll);
  EXPECT_EQ(live_behind(ahead_invalid, 1), kAll);
  EXPECT_EQ(live_behind(ahead_return, 1), kAll);
  EXPECT_EQ(live_behind(ahead_stop, 1), kAll);
}

TEST(RegionFlags, CallsAreLookedThrough) {
  const Found found(ahead_call);  // the callee at 10 is no part of the region
  EXPECT_EQ(shape(*found.region), "0-6 call n1; 6-7 ret");
  EXPECT_EQ(found.insn(1).live_after, 0);
}

CODE(callee_returns, "nop; call 77b+0x10; and eax, 1; ret; .org 77b+0x10; ret");

TEST(RegionFlags, CalleeThatReturnsAtOnceKeepsFlagsLive) { EXPECT_EQ(Found(callee_returns).live_before(0), kAll); }

TEST(RegionFlags, LookAheadOverThePagesEndKnowsNothing) {
  std::vector<uint8_t> code = {0x90, 0x8b, 0x06};  // nop; mov eax, [rsi]
  const Found found(code, 4093, {.insns_max = 1});
  EXPECT_EQ(found.insn(0).live_after, kAll);
}

// --- Granules.

CODE(granules,
     "jz 77b+0x80; jmp 77b+0x400; .org 77b+0x80; call 77b+0x800; ret; .org 77b+0x400; and eax, 1; ret; .org 77b+0x800; "
     "and "
     "eax, 1");

TEST(RegionGranules, CoverInstructionsAndLookAhead) {
  EXPECT_EQ(Found(granules).region->granules, uint64_t{1} << 0 | 1 << 2 | 1 << 16 | uint64_t{1} << 32);
  EXPECT_EQ(Found(granules, 0, {.insns_max = 1}).region->granules,
            uint64_t{1} << 0 | 1 << 2 | 1 << 16 | uint64_t{1} << 32);
}

TEST(RegionGranules, InstructionsAcrossGranules) {
  EXPECT_EQ(Found(straight, 0x3f).region->granules, 3u);
  EXPECT_EQ(Found(straight, 0x3a).region->granules, 1u);
}

TEST(RegionGranules, UndecodableBytesCountAsFarAsTheyMatter) {
  EXPECT_EQ(Found(bad_at_start, 0x31).region->granules, 1u);
  EXPECT_EQ(Found(bad_at_start, 0x32).region->granules, 3u);
}

// --- Random code against a model.

/// Pieces of code that touch flags and branch, near enough to each other to meet.
std::vector<uint8_t> random_code(std::mt19937_64& random, size_t size_bytes) {
  static const std::vector<std::vector<uint8_t>> kPieces = {
      {0x01, 0xc8},              // add eax, ecx
      {0x11, 0xc8},              // adc eax, ecx
      {0xff, 0xc0},              // inc eax
      {0xd3, 0xe0},              // shl eax, cl
      {0xc1, 0xe0, 0x03},        // shl eax, 3
      {0x8b, 0x06},              // mov eax, [rsi]
      {0x89, 0x4c, 0x24, 0x08},  // mov [rsp+8], ecx
      {0x0f, 0x94, 0xc0},        // setz al
      {0x0f, 0x48, 0xc1},        // cmovs eax, ecx
      {0x50},                    // push rax
      {0x9f},                    // lahf
      {0x9e},                    // sahf
      {0xf8},                    // clc
      {0xae},                    // scasb
      {0xf2, 0xae},              // repne scasb
      {0x0f, 0xba, 0xe0, 0x03},  // bt eax, 3
      {0xd1, 0xc8},              // ror eax
      {0x90},                    // nop
      {0x74, 0x80},              // the rest: displacement chosen below
      {0x72, 0x80},
      {0x78, 0x80},
      {0xeb, 0x80},
      {0xe3, 0x80},
      {0xe2, 0x80},
      {0xe8, 0x80, 0, 0, 0},
      {0xc3},
      {0xff, 0xe0},
      {0x0f, 0x05},
      {0x06},
  };
  std::vector<uint8_t> code;
  while (code.size() < size_bytes) {
    std::vector<uint8_t> piece = kPieces[random() % 4 == 0 ? random() % kPieces.size() : random() % 24];
    if (piece.size() >= 2 && piece[1] == 0x80)
      piece[1] = static_cast<uint8_t>(random() % 48 - (piece.size() == 2 ? 24 : 0));
    code.insert(code.end(), piece.begin(), piece.end());
  }
  return code;
}

/// Whether `flag` can be read before it is overwritten, by trying every path from an instruction. Outside the region
/// only what the contract promises is known.
class FlagModel {
 public:
  FlagModel(const RegionPage& page, const Region& region, uint16_t flag) : page_(page), region_(region), flag_(flag) {}

  bool live_before(unsigned index) {
    std::set<unsigned> seen;
    return walk(index, seen);
  }

 private:
  const RegionBlock& block_of(unsigned index) const {
    return *std::ranges::find_if(blocks_of(region_), [index](const RegionBlock& block) {
      return index >= block.first && index < unsigned{block.first} + block.count;
    });
  }

  bool walk(unsigned index, std::set<unsigned>& seen) {
    if (!seen.insert(index).second) return false;
    const RegionInsn& insn = region_.insns[index];
    if ((flags_read(insn.insn) & flag_) != 0) return true;
    if ((flags_killed(insn.insn) & flag_) != 0) return false;
    const RegionBlock& block = block_of(index);
    if (index + 1u != unsigned{block.first} + block.count) return walk(index + 1, seen);
    const auto at = [&](uint8_t link, int64_t offset) {
      return link == kOutside ? live_at(offset) : walk(region_.blocks[link].first, seen);
    };
    switch (block.end) {
      case BlockEnd::kFallThrough: return at(block.next, block.end_offset);
      case BlockEnd::kConditional: return at(block.next, block.end_offset) || at(block.taken, block.taken_offset);
      case BlockEnd::kJump:
      case BlockEnd::kCall: return at(block.taken, block.taken_offset);
      default: return true;
    }
  }

  /// Twelve instructions, one direct jump or call.
  bool live_at(int64_t offset) const {
    unsigned jumps = 0;
    for (unsigned count = 0; count < 12; ++count) {
      x86::Insn insn;
      if (offset < 0 || offset >= 4096) return true;
      const auto bytes = std::span(page_).subspan(static_cast<size_t>(offset));
      if (x86::decode(bytes, x86::CodeSize::k64, insn) != x86::DecodeStatus::kOk) return true;
      if ((flags_read(insn) & flag_) != 0) return true;
      if ((flags_killed(insn) & flag_) != 0) return false;
      offset += insn.length;
      const bool is_direct_jump = insn.opcode == 0xeb || insn.opcode == 0xe9 || insn.opcode == 0xe8;
      if (is_direct_jump && insn.map == x86::OpcodeMap::kLegacy && jumps++ == 0) {
        offset += insn.immediate;
      } else if ((insn.row->flags & (x86::kBranch | x86::kSerializing)) != 0) {
        return true;
      }
    }
    return true;
  }

  const RegionPage& page_;
  const Region& region_;
  uint16_t flag_;
};

TEST(RegionRandom, LivenessAgreesWithEveryPath) {
  std::mt19937_64 random(2026);
  unsigned live = 0;
  unsigned dead = 0;
  for (unsigned round = 0; round < 3000; ++round) {
    const unsigned at = random() % 4 == 0 ? 3900 : 256;
    const RegionOptions options{.insns_max = static_cast<unsigned>(random() % 80)};
    const Found found(random_code(random, 400), at, options);
    for (const uint16_t flag : {kCf, kPf, kAf, kZf, kSf, kOf}) {
      FlagModel model(found.page, *found.region, flag);
      for (unsigned i = 0; i < found.region->insn_count; ++i) {
        const bool is_live = (found.live_before(i) & flag) != 0;
        (is_live ? live : dead) += 1;
        ASSERT_EQ(is_live, model.live_before(i)) << "round " << round << " instruction " << i << " flag " << flag;
      }
    }
  }
  EXPECT_GT(live, 50000u);
  EXPECT_GT(dead, 50000u);
}

TEST(RegionRandom, DependsOnTheMarkedBytesAlone) {
  std::mt19937_64 random(1);
  std::set<std::string> shapes;
  for (unsigned round = 0; round < 3000; ++round) {
    const Found found(random_code(random, 3000), 512);
    shapes.insert(shape(*found.region));
    RegionPage noise;
    for (uint8_t& byte : noise) byte = static_cast<uint8_t>(random());
    check_granules(found.page, 512, {}, *found.region, noise);
  }
  EXPECT_GT(shapes.size(), 2000u);
}

TEST(RegionRandom, NothingOfTheLastRegionIsLeft) {
  std::mt19937_64 random(3);
  Found used(random_code(random, 3000), 512);
  for (unsigned round = 0; round < 300; ++round) {
    const Found fresh(random_code(random, 3000), 512);
    used.page = fresh.page;
    used.find(512);
    ASSERT_TRUE(same_region(*fresh.region, *used.region));
  }
}

}  // namespace
}  // namespace tenon::jit
