// The decoder by hand: one test per rule of SDM Vol. 2 chapter 2 and per trap of the opcode maps. The breadth is in
// decode_zydis_test.cc.
#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "engine/x86/cpu_state.hh"
#include "engine/x86/insn.hh"

namespace tenon::x86 {
namespace {

using Bytes = std::vector<uint8_t>;
constexpr CodeSize k16 = CodeSize::k16;
constexpr CodeSize k32 = CodeSize::k32;
constexpr CodeSize k64 = CodeSize::k64;

DecodeStatus status_of(CodeSize code_size, const Bytes& bytes) {
  Insn insn;
  return decode(bytes, code_size, insn);
}

bool is_invalid(CodeSize code_size, const Bytes& bytes) {
  return status_of(code_size, bytes) == DecodeStatus::kInvalid;
}

/// Decodes bytes that are exactly one instruction.
Insn decoded(CodeSize code_size, const Bytes& bytes) {
  static constexpr OpcodeRow kNothing{};
  Insn insn;
  EXPECT_EQ(decode(bytes, code_size, insn), DecodeStatus::kOk);
  EXPECT_EQ(insn.length, bytes.size());
  if (insn.row == nullptr) insn.row = &kNothing;
  return insn;
}

Op op_of(CodeSize code_size, const Bytes& bytes) { return decoded(code_size, bytes).row->op; }

TEST(Decode, LastSegmentOverrideWins) {
  EXPECT_EQ(decoded(k32, {0x64, 0x65, 0x8b, 0x00}).segment, kGs);
  EXPECT_EQ(decoded(k32, {0x65, 0x26, 0x8b, 0x00}).segment, kEs);
  EXPECT_EQ(decoded(k32, {0x36, 0x8b, 0x00}).segment, kSs);
}

TEST(Decode, OldSegmentOverridesAreNullIn64BitMode) {
  EXPECT_EQ(decoded(k64, {0x64, 0x2e, 0x8b, 0x00}).segment, kFs);
  const Insn insn = decoded(k64, {0x2e, 0x8b, 0x00});
  EXPECT_EQ(insn.segment, kDs);
  EXPECT_EQ(insn.prefixes & kPrefixSegment, 0);
}

TEST(Decode, DefaultSegmentOfTheStackRegistersIsSs) {
  EXPECT_EQ(decoded(k32, {0x8b, 0x45, 0x00}).segment, kSs);              // [ebp]
  EXPECT_EQ(decoded(k32, {0x8b, 0x04, 0x24}).segment, kSs);              // [esp]
  EXPECT_EQ(decoded(k32, {0x8b, 0x04, 0x28}).segment, kDs);              // [eax+ebp]: the base decides
  EXPECT_EQ(decoded(k32, {0x8b, 0x04, 0x2d, 0, 0, 0, 0}).segment, kDs);  // [ebp*1+0]: no base
  EXPECT_EQ(decoded(k32, {0x8b, 0x05, 0, 0, 0, 0}).segment, kDs);
  EXPECT_EQ(decoded(k64, {0x49, 0x8b, 0x45, 0x00}).segment, kDs);  // [r13]
  EXPECT_EQ(decoded(k16, {0x8b, 0x46, 0x00}).segment, kSs);        // [bp]
  EXPECT_EQ(decoded(k16, {0x8b, 0x03}).segment, kSs);              // [bp+di]
  EXPECT_EQ(decoded(k16, {0x8b, 0x06, 0x34, 0x12}).segment, kDs);
  EXPECT_EQ(decoded(k32, {0x26, 0xa4}).segment, kEs);  // the source of MOVS
  EXPECT_EQ(decoded(k32, {0xd7}).segment, kDs);
}

TEST(Decode, RexCountsOnlyDirectlyBeforeTheOpcode) {
  const Insn overridden = decoded(k64, {0x48, 0x66, 0x8b, 0xc1});
  EXPECT_EQ(overridden.operand_size, 2);
  EXPECT_EQ(overridden.prefixes & (kPrefixRex | kPrefixRexW), 0);
  EXPECT_EQ(decoded(k64, {0x66, 0x48, 0x8b, 0xc1}).operand_size, 8);
  EXPECT_EQ(decoded(k64, {0x48, 0x40, 0x8b, 0xc1}).operand_size, 4);  // the last REX only
}

TEST(Decode, OfF2AndF3TheLastOneCounts) {
  EXPECT_EQ(op_of(k64, {0xf2, 0xf3, 0x0f, 0x58, 0xc1}), Op::kAddss);
  EXPECT_EQ(op_of(k64, {0xf3, 0xf2, 0x0f, 0x58, 0xc1}), Op::kAddsd);
  EXPECT_EQ(decoded(k64, {0xf2, 0xf3, 0xa4}).prefixes & (kPrefixRep | kPrefixRepne), kPrefixRep);
}

TEST(Decode, MandatoryPrefixes) {
  EXPECT_EQ(op_of(k64, {0x66, 0xf3, 0x0f, 0x58, 0xc1}), Op::kAddss);  // F3 beats 66
  EXPECT_TRUE(is_invalid(k64, {0xf3, 0x0f, 0x54, 0xc1}));             // ANDPS has no F3 form
  EXPECT_EQ(op_of(k64, {0xf3, 0x0f, 0xaf, 0xc1}), Op::kImul);         // ignored where nothing is encoded by it
  EXPECT_EQ(op_of(k64, {0xf3, 0x0f, 0xbc, 0xc1}), Op::kTzcnt);
  EXPECT_EQ(op_of(k64, {0xf2, 0x0f, 0xbc, 0xc1}), Op::kBsf);
  const Insn crc32 = decoded(k64, {0x66, 0xf2, 0x0f, 0x38, 0xf1, 0xc1});
  EXPECT_EQ(crc32.row->op, Op::kCrc32);
  EXPECT_EQ(crc32.operand_size, 2);
  EXPECT_EQ(decoded(k64, {0x66, 0x0f, 0x38, 0xf0, 0x00}).operand_size, 2);  // MOVBE: 66 is the operand size
  EXPECT_EQ(decoded(k64, {0x66, 0x0f, 0x6e, 0xc0}).operand_size, 4);        // MOVD: 66 is not
}

TEST(Decode, FifteenBytesAreTheLimit) {
  Bytes bytes(14, 0x66);
  bytes.push_back(0x90);
  EXPECT_EQ(status_of(k64, bytes), DecodeStatus::kOk);
  bytes.insert(bytes.begin(), 0x66);
  EXPECT_EQ(status_of(k64, bytes), DecodeStatus::kTooLong);
  EXPECT_EQ(status_of(k64, Bytes(15, 0x66)), DecodeStatus::kTooLong);
  EXPECT_EQ(status_of(k64, Bytes(14, 0x66)), DecodeStatus::kTruncated);
  EXPECT_EQ(status_of(k64, {}), DecodeStatus::kTruncated);
}

TEST(Decode, EveryPrefixOfAnInstructionIsTruncated) {
  const Bytes longest = {0x2e, 0x67, 0xc7, 0x84, 0x88, 0x78, 0x56, 0x34, 0x12, 1, 2, 3, 4};
  for (size_t size = 0; size < longest.size(); ++size) {
    EXPECT_EQ(status_of(k64, Bytes(longest.begin(), longest.begin() + static_cast<ptrdiff_t>(size))),
              DecodeStatus::kTruncated)
        << size;
  }
  EXPECT_EQ(op_of(k64, longest), Op::kMov);
}

TEST(Decode, OperandSizes) {
  EXPECT_EQ(decoded(k16, {0x89, 0xc8}).operand_size, 2);
  EXPECT_EQ(decoded(k16, {0x66, 0x89, 0xc8}).operand_size, 4);
  EXPECT_EQ(decoded(k32, {0x66, 0x89, 0xc8}).operand_size, 2);
  EXPECT_EQ(decoded(k64, {0x89, 0xc8}).operand_size, 4);
  EXPECT_EQ(decoded(k64, {0x50}).operand_size, 8);
  EXPECT_EQ(decoded(k64, {0x66, 0x50}).operand_size, 2);
  EXPECT_EQ(decoded(k64, {0xcf}).operand_size, 4);  // IRET has no 64-bit default
  EXPECT_EQ(decoded(k64, {0x48, 0xcf}).operand_size, 8);
}

TEST(Decode, NearBranchesIgnoreTheOperandSizeIn64BitMode) {
  const Insn call = decoded(k64, {0x66, 0xe8, 0xff, 0xff, 0xff, 0xff});
  EXPECT_EQ(call.operand_size, 8);
  EXPECT_EQ(call.immediate, -1);
  EXPECT_EQ(decoded(k32, {0x66, 0xe8, 0xfe, 0xff}).immediate, -2);
  EXPECT_EQ(decoded(k64, {0x66, 0xff, 0xd0}).operand_size, 8);
  EXPECT_EQ(decoded(k64, {0x0f, 0x8f, 0, 0, 0, 0x80}).immediate, INT32_MIN);
  EXPECT_EQ(decoded(k64, {0x75, 0x80}).immediate, -128);
}

TEST(Decode, LockNeedsALockableMemoryDestination) {
  EXPECT_EQ(op_of(k64, {0xf0, 0x01, 0x08}), Op::kAdd);
  EXPECT_TRUE(is_invalid(k64, {0xf0, 0x01, 0xc8}));  // register
  EXPECT_TRUE(is_invalid(k64, {0xf0, 0x03, 0x08}));  // memory is the source
  EXPECT_TRUE(is_invalid(k64, {0xf0, 0x39, 0x08}));  // CMP writes nothing
  EXPECT_TRUE(is_invalid(k64, {0xf0, 0x8b, 0x08}));
  EXPECT_TRUE(is_invalid(k64, {0xf0, 0x0f, 0xa3, 0x08}));  // BT
  EXPECT_EQ(op_of(k64, {0xf0, 0x0f, 0xab, 0x08}), Op::kBts);
  EXPECT_EQ(op_of(k64, {0xf0, 0x48, 0x0f, 0xc7, 0x08}), Op::kCmpxchg16b);
  EXPECT_TRUE(is_invalid(k64, {0xf0, 0x0f, 0x22, 0xc0}));  // AMD's CR8 in 32-bit mode
  EXPECT_TRUE(is_invalid(k64, {0xf0, 0x90}));
}

TEST(Decode, SixteenBitAddressing) {
  struct Case {
    uint8_t rm;
    uint8_t base;
    uint8_t index;
  };
  constexpr Case kCases[] = {{0, kRbx, kRsi},        {1, kRbx, kRdi},        {2, kRbp, kRsi},
                             {3, kRbp, kRdi},        {4, kRsi, kNoRegister}, {5, kRdi, kNoRegister},
                             {6, kRbp, kNoRegister}, {7, kRbx, kNoRegister}};
  for (const Case& expected : kCases) {
    const Insn insn = decoded(k16, {0x8b, static_cast<uint8_t>(0x80 | expected.rm), 0xfe, 0xff});
    EXPECT_EQ(insn.base, expected.base);
    EXPECT_EQ(insn.index, expected.index);
    EXPECT_EQ(insn.displacement, -2);
    EXPECT_EQ(insn.address_size, 2);
  }
  const Insn absolute = decoded(k32, {0x67, 0x8b, 0x06, 0x00, 0x80});
  EXPECT_EQ(absolute.base, kNoRegister);
  EXPECT_EQ(absolute.displacement, -0x8000);
}

TEST(Decode, SibAndRipRelative) {
  const Insn scaled = decoded(k64, {0x4b, 0x8b, 0x44, 0xc5, 0xf0});  // [r13+r8*8-16]
  EXPECT_EQ(scaled.base, kR13);
  EXPECT_EQ(scaled.index, kR8);
  EXPECT_EQ(scaled.scale, 3);
  EXPECT_EQ(scaled.displacement, -16);
  EXPECT_EQ(decoded(k64, {0x8b, 0x04, 0x24}).index, kNoRegister);
  EXPECT_EQ(decoded(k64, {0x42, 0x8b, 0x04, 0x24}).index, kR12);  // REX.X makes index 100b a register
  const Insn rip = decoded(k64, {0x8b, 0x05, 1, 0, 0, 0});
  EXPECT_EQ(rip.base, kRipBase);
  EXPECT_EQ(rip.displacement, 1);
  EXPECT_EQ(decoded(k64, {0x41, 0x8b, 0x05, 1, 0, 0, 0}).base, kRipBase);  // REX.B does not count
  EXPECT_EQ(decoded(k64, {0x67, 0x41, 0x8b, 0x04, 0x25, 1, 0, 0, 0}).base, kNoRegister);
  EXPECT_EQ(decoded(k32, {0x8b, 0x05, 1, 0, 0, 0}).base, kNoRegister);
}

TEST(Decode, MemoryOffsetsHaveTheAddressSize) {
  const Insn wide = decoded(k64, {0xa1, 1, 2, 3, 4, 5, 6, 7, 0x88});
  EXPECT_EQ(static_cast<uint64_t>(wide.immediate), 0x8807060504030201u);
  EXPECT_TRUE(wide.is_memory);
  EXPECT_EQ(decoded(k64, {0x67, 0xa1, 0, 0, 0, 0x80}).immediate, 0x80000000);
  EXPECT_EQ(decoded(k16, {0xa1, 0x00, 0x80}).immediate, 0x8000);
}

TEST(Decode, Immediates) {
  EXPECT_EQ(decoded(k64, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}).immediate, 0x0807060504030201);
  EXPECT_EQ(decoded(k64, {0x48, 0xc7, 0xc0, 0, 0, 0, 0x80}).immediate, INT32_MIN);
  EXPECT_EQ(decoded(k64, {0x83, 0xc0, 0xff}).immediate, -1);
  EXPECT_EQ(decoded(k64, {0xcd, 0x80}).immediate, 0x80);
  EXPECT_EQ(decoded(k64, {0xc2, 0x00, 0x80}).immediate, 0x8000);
  const Insn enter = decoded(k64, {0xc8, 0x10, 0x00, 0x03});
  EXPECT_EQ(enter.immediate, 0x10);
  EXPECT_EQ(enter.immediate2, 3);
  const Insn far = decoded(k32, {0xea, 0x78, 0x56, 0x34, 0x92, 0x08, 0x00});
  EXPECT_EQ(far.immediate, 0x92345678);
  EXPECT_EQ(far.immediate2, 8);
  EXPECT_EQ(decoded(k16, {0xea, 0x00, 0x80, 0x00, 0xf0}).immediate2, 0xf000);
  EXPECT_EQ(decoded(k64, {0xf7, 0xc0, 1, 0, 0, 0}).row->op, Op::kTest);  // only TEST of group 3 has one
  EXPECT_EQ(op_of(k64, {0xf7, 0xd0}), Op::kNot);
}

TEST(Decode, ControlAndDebugRegisterMovesIgnoreMod) {
  const Insn insn = decoded(k64, {0x0f, 0x20, 0x05});  // mod = 0, rm = 5 would be RIP-relative
  EXPECT_EQ(insn.row->op, Op::kMovFromCr);
  EXPECT_EQ(insn.rm, kRbp);
  EXPECT_FALSE(insn.is_memory);
  EXPECT_EQ(decoded(k64, {0x44, 0x0f, 0x22, 0xc0}).reg, 8);  // CR8
  for (const int missing : {1, 5, 6, 7}) {
    EXPECT_TRUE(is_invalid(k64, {0x0f, 0x22, static_cast<uint8_t>(0xc0 | missing << 3)})) << missing;
  }
  EXPECT_TRUE(is_invalid(k64, {0x44, 0x0f, 0x21, 0xc0}));  // DR8
}

TEST(Decode, SegmentRegisters) {
  EXPECT_EQ(op_of(k64, {0x8e, 0xd8}), Op::kMovToSeg);
  EXPECT_TRUE(is_invalid(k64, {0x8e, 0xc8}));            // CS
  EXPECT_TRUE(is_invalid(k64, {0x8c, 0xf0}));            // 6
  EXPECT_EQ(decoded(k64, {0x44, 0x8e, 0xd8}).reg, kDs);  // REX.R does not count
  EXPECT_EQ(memory_operand_size(decoded(k64, {0x48, 0x8c, 0x18})), 2u);
}

TEST(Decode, MmxRegistersIgnoreRex) {
  const Insn insn = decoded(k64, {0x45, 0x0f, 0xfc, 0xc1});
  EXPECT_EQ(insn.reg, 0);
  EXPECT_EQ(insn.rm, 1);
  EXPECT_EQ(decoded(k64, {0x66, 0x45, 0x0f, 0xfc, 0xc1}).rm, 9);
}

TEST(Decode, Nops) {
  EXPECT_EQ(op_of(k64, {0x90}), Op::kNop);
  EXPECT_EQ(op_of(k64, {0x48, 0x90}), Op::kNop);
  EXPECT_EQ(op_of(k64, {0x66, 0x90}), Op::kNop);
  EXPECT_EQ(op_of(k64, {0xf3, 0x90}), Op::kPause);
  EXPECT_EQ(op_of(k64, {0x41, 0x90}), Op::kXchg);
  EXPECT_EQ(decoded(k64, {0x41, 0x90}).reg, kR8);
  EXPECT_EQ(op_of(k64, {0xf3, 0x0f, 0x1e, 0xfa}), Op::kNop);  // ENDBR64
  EXPECT_EQ(op_of(k64, {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00}), Op::kNop);
  EXPECT_EQ(op_of(k64, {0x0f, 0x0d, 0x08}), Op::kPrefetchw);
}

TEST(Decode, OpcodesThatDependOnTheMode) {
  EXPECT_EQ(op_of(k64, {0x63, 0xc1}), Op::kMovsxd);
  EXPECT_EQ(op_of(k32, {0x63, 0xc1}), Op::kArpl);
  EXPECT_EQ(op_of(k32, {0x40}), Op::kInc);
  for (const int opcode : {0x06, 0x27, 0x60, 0x82, 0xce, 0xd4, 0xd6}) {
    EXPECT_TRUE(is_invalid(k64, {static_cast<uint8_t>(opcode), 0})) << opcode;
  }
  EXPECT_TRUE(is_invalid(k32, {0x0f, 0x05}));  // SYSCALL
  EXPECT_EQ(op_of(k64, {0x0f, 0x05}), Op::kSyscall);
  EXPECT_TRUE(is_invalid(k32, {0x0f, 0x01, 0xf8}));        // SWAPGS
  EXPECT_TRUE(is_invalid(k32, {0xf3, 0x0f, 0xae, 0xc0}));  // RDFSBASE
}

TEST(Decode, VexOrLdsOrLes) {
  EXPECT_EQ(op_of(k32, {0xc5, 0xf8, 0x77}), Op::kVzeroupper);
  EXPECT_EQ(op_of(k32, {0xc5, 0x38}), Op::kLds);
  EXPECT_EQ(op_of(k16, {0xc4, 0x07}), Op::kLes);
  EXPECT_EQ(op_of(k64, {0xc5, 0x78, 0x28, 0xc0}), Op::kVmovaps);  // VEX.R, would be LDS elsewhere
  EXPECT_EQ(decoded(k32, {0xc5, 0xfc, 0x58, 0xc1}).vector_bytes, 32);
}

TEST(Decode, VexForbidsOtherPrefixes) {
  for (const int prefix : {0x66, 0xf2, 0xf3, 0xf0, 0x48}) {
    EXPECT_TRUE(is_invalid(k64, {static_cast<uint8_t>(prefix), 0xc5, 0xf8, 0x58, 0xc1})) << prefix;
  }
  EXPECT_EQ(op_of(k64, {0x65, 0x67, 0xc5, 0xf8, 0x58, 0x00}), Op::kVaddps);
}

TEST(Decode, VexFields) {
  const Insn add = decoded(k64, {0xc4, 0x41, 0x2c, 0x58, 0xcb});  // vaddps ymm9, ymm10, ymm11
  EXPECT_EQ(add.reg, 9);
  EXPECT_EQ(add.vvvv, 10);
  EXPECT_EQ(add.rm, 11);
  EXPECT_EQ(add.vector_bytes, 32);
  EXPECT_TRUE(is_invalid(k64, {0xc5, 0xf0, 0x28, 0xc1}));                   // VMOVAPS has no vvvv
  EXPECT_TRUE(is_invalid(k64, {0xc5, 0xfd, 0x6e, 0xc0}));                   // VMOVD with L = 1
  EXPECT_TRUE(is_invalid(k64, {0xc4, 0xe2, 0xf9, 0x18, 0xc0}));             // VBROADCASTSS with W = 1
  EXPECT_TRUE(is_invalid(k64, {0xc4, 0xe3, 0x79, 0x00, 0xc0, 0x00}));       // VPERMQ with W = 0, L = 0
  EXPECT_TRUE(is_invalid(k64, {0xc4, 0xe4, 0x79, 0x58, 0xc0}));             // map 4
  EXPECT_EQ(decoded(k64, {0xc4, 0xe2, 0xf8, 0xf2, 0xc1}).operand_size, 8);  // ANDN by W
  EXPECT_EQ(decoded(k32, {0xc4, 0xe2, 0xf8, 0xf2, 0xc1}).operand_size, 4);
  EXPECT_EQ(decoded(k32, {0xc4, 0xe3, 0x71, 0x4a, 0xc2, 0xf0}).immediate, 0x70);
}

TEST(Decode, GathersNeedThreeRegisters) {
  const Insn gather = decoded(k64, {0xc4, 0xe2, 0x71, 0x90, 0x04, 0x10});  // vpgatherdd xmm0, [rax+xmm2], xmm1
  EXPECT_EQ(gather.index, 2);
  EXPECT_EQ(memory_operand_size(gather), 4u);
  EXPECT_TRUE(is_invalid(k64, {0xc4, 0xe2, 0x71, 0x90, 0x04, 0x08}));      // index = mask
  EXPECT_TRUE(is_invalid(k64, {0xc4, 0xe2, 0x79, 0x90, 0x04, 0x10}));      // destination = mask
  EXPECT_TRUE(is_invalid(k64, {0xc4, 0xe2, 0x71, 0x90, 0x00}));            // no SIB
  EXPECT_EQ(decoded(k64, {0xc4, 0xe2, 0x71, 0x90, 0x04, 0x20}).index, 4);  // index 100b is a register here
}

TEST(Decode, X87Aliases) {
  EXPECT_EQ(op_of(k32, {0xdc, 0xd1}), Op::kFcom);
  EXPECT_EQ(op_of(k32, {0xdd, 0xc9}), Op::kFxch);
  EXPECT_EQ(op_of(k32, {0xd9, 0xd9}), Op::kFstp);
  EXPECT_EQ(op_of(k32, {0xdf, 0xc1}), Op::kFfreep);
  EXPECT_EQ(op_of(k32, {0xdb, 0xe0}), Op::kFneni);
  EXPECT_EQ(op_of(k32, {0xdc, 0xe1}), Op::kFsubr);  // reversed against D8 E0
  EXPECT_EQ(op_of(k32, {0xd8, 0xe1}), Op::kFsub);
  EXPECT_TRUE(is_invalid(k32, {0xd9, 0xd1}));
  EXPECT_TRUE(is_invalid(k32, {0xdb, 0xe5}));
}

TEST(Decode, WhatIsLeftOutIsInvalid) {
  for (const CodeSize code_size : {k16, k32, k64}) {
    EXPECT_TRUE(is_invalid(code_size, {0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1}));  // EVEX
    EXPECT_TRUE(is_invalid(code_size, {0x8f, 0xe9, 0x78, 0x81, 0xc1}));        // XOP
    EXPECT_TRUE(is_invalid(code_size, {0x0f, 0x0f, 0xc1, 0x9e}));              // 3DNow!
    EXPECT_TRUE(is_invalid(code_size, {0x0f, 0x04}));
  }
  EXPECT_EQ(op_of(k32, {0x62, 0x00}), Op::kBound);
  EXPECT_EQ(op_of(k64, {0x8f, 0xc0}), Op::kPop);
  EXPECT_EQ(op_of(k64, {0x0f, 0x0b}), Op::kUd2);
}

TEST(Decode, MemoryOperandSizes) {
  struct Case {
    CodeSize code_size;
    Bytes bytes;
    unsigned size;
  };
  const Case cases[] = {
      {k64, {0x8d, 0x00}, 0},         // LEA
      {k64, {0x0f, 0x1f, 0x00}, 0},   // NOP
      {k64, {0x0f, 0x18, 0x08}, 0},   // PREFETCHT0
      {k64, {0x0f, 0xae, 0x38}, 0},   // CLFLUSH
      {k64, {0x89, 0xc8}, 0},         // register form
      {k64, {0x0f, 0xb6, 0x00}, 1},   // MOVZX byte
      {k64, {0x48, 0x63, 0x00}, 4},   // MOVSXD
      {k64, {0xff, 0x10}, 8},         // CALL
      {k64, {0x48, 0xff, 0x28}, 10},  // JMP m16:64
      {k64, {0x0f, 0x01, 0x10}, 10},  // LGDT
      {k32, {0x0f, 0x01, 0x10}, 6},
      {k32, {0x62, 0x00}, 8},                    // BOUND
      {k32, {0xdb, 0x28}, 10},                   // FLD m80
      {k32, {0xd9, 0x30}, 28},                   // FNSTENV
      {k32, {0x66, 0xdd, 0x30}, 94},             // FNSAVE
      {k64, {0x0f, 0xae, 0x00}, 512},            // FXSAVE
      {k64, {0x48, 0x0f, 0xc7, 0x08}, 16},       // CMPXCHG16B
      {k64, {0xf3, 0x0f, 0x10, 0x00}, 4},        // MOVSS
      {k64, {0x66, 0x0f, 0x6f, 0x00}, 16},       // MOVDQA
      {k64, {0xc5, 0xfd, 0x6f, 0x00}, 32},       // VMOVDQA ymm
      {k64, {0xc4, 0xe2, 0x7d, 0x31, 0x00}, 8},  // VPMOVZXBD ymm: a quarter
      {k64, {0xa2, 0, 0, 0, 0, 0, 0, 0, 0}, 1},  // MOV moffs8
  };
  for (const Case& expected : cases) {
    const Insn insn = decoded(expected.code_size, expected.bytes);
    EXPECT_EQ(memory_operand_size(insn), expected.size) << disassemble_brief(insn);
  }
}

TEST(Decode, FlagMasks) {
  const OpcodeRow* adc = decoded(k64, {0x11, 0xc8}).row;
  EXPECT_EQ(adc->rflags_read, kCf);
  EXPECT_EQ(adc->rflags_written, kArithmeticFlags);
  EXPECT_EQ(decoded(k64, {0xff, 0xc0}).row->rflags_written & kCf, 0);  // INC
  EXPECT_EQ(decoded(k64, {0x7f, 0x00}).row->rflags_read, kZf | kSf | kOf);
  EXPECT_EQ(decoded(k64, {0x0f, 0x94, 0xc0}).row->rflags_read, kZf);
  const OpcodeRow* shift_one = decoded(k64, {0xd1, 0xe0}).row;
  EXPECT_EQ(shift_one->flags & kFlagsMayKeep, 0u);
  EXPECT_EQ(shift_one->rflags_undefined, kAf);
  const OpcodeRow* shift_cl = decoded(k64, {0xd3, 0xe0}).row;
  EXPECT_NE(shift_cl->flags & kFlagsMayKeep, 0u);
  EXPECT_EQ(shift_cl->rflags_undefined, kAf | kOf);
}

TEST(Decode, ImplicitRegisters) {
  const OpcodeRow* divide = decoded(k64, {0x48, 0xf7, 0xf1}).row;
  EXPECT_EQ(divide->gpr_read, 1u << kRax | 1u << kRdx);
  EXPECT_EQ(decoded(k64, {0xf6, 0xf1}).row->gpr_written, 1u << kRax);
  EXPECT_EQ(decoded(k64, {0xf3, 0xa4}).row->gpr_written, 1u << kRsi | 1u << kRdi);
  EXPECT_EQ(decoded(k64, {0x0f, 0x05}).row->gpr_written, 1u << kRcx | 1u << kR11);
}

TEST(Decode, FeatureDependsOnTheVectorLength) {
  EXPECT_EQ(required_feature(decoded(k64, {0xc5, 0xf9, 0xfe, 0xc1})), Feature::kAvx);
  EXPECT_EQ(required_feature(decoded(k64, {0xc5, 0xfd, 0xfe, 0xc1})), Feature::kAvx2);
  EXPECT_EQ(required_feature(decoded(k64, {0xc5, 0xfc, 0x58, 0xc1})), Feature::kAvx);
  EXPECT_EQ(required_feature(decoded(k64, {0xc4, 0xe2, 0x7d, 0xdc, 0xc1})), Feature::kVaes);
}

TEST(Decode, Names) {
  EXPECT_STREQ(op_name(Op::kInvalid), "Invalid");
  EXPECT_STREQ(op_name(Op::kVaddpd), "Vaddpd");
  EXPECT_STREQ(op_name(Op::kCount), "Invalid");
  EXPECT_EQ(disassemble_brief(decoded(k64, {0x48, 0x01, 0x08})), "Add o8 a8 mem8");
}

}  // namespace
}  // namespace tenon::x86
