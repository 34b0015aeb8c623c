// Insn: one decoded instruction, and OpcodeRow: what its opcode-map row says about it.
//
// Source: Intel SDM Vol. 2 chapter 2 (instruction format), Appendix A (opcode maps), rev. 325383-080.
//
// The decoder fills Insn from the bytes and the CodeSize alone. Rows live in constexpr tables split like the opcode map
// (table_*.cc). The interpreter chooses a handler from row->op, operand forms and sizes; the JIT re-emits the same
// opcode and needs the def/use masks.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "engine/x86/op.hh"

namespace tenon::x86 {

/// What of the CPU state changes decoding.
enum class CodeSize : uint8_t { k16, k32, k64 };

// clang-format off

/// How an operand is encoded: the notation of SDM Vol. 2 Appendix A.2 (addressing method, operand type). The order
/// matters: decode_table.hh tests memory-only, register-only, ModRM and vvvv operands as ranges.
enum class Operand : uint8_t {
  kNone,
  // ModRM.rm, register or memory, of size: byte, word, dword, qword, operand size (v: 2/4/8), y: 4, or 8 with W in
  // 64-bit mode, z: 2 or 4, native: 4 outside and 8 in 64-bit mode whatever the prefixes. kEvMw: register of operand
  // size or word in memory (SLDT, MOV from segment); kEdMb/kEdMw: 32-bit register or byte/word in memory (PINSRB, PEXTRW).
  kEb, kEw, kEd, kEq, kEv, kEy, kEz, kEnative, kEvMw, kEdMb, kEdMw,
  // ModRM.rm, general register only; a: of address size (UMONITOR)
  kRv, kRy, kRd, kRnative, kRa,
  // ModRM.rm, memory only, of size: none or decided by the Op (kM), byte ... 16 bytes (dq), 64 (kM64), vector
  // length (x); p: far pointer (offset of operand size, selector), s: pseudo-descriptor (limit, base), a: two v
  kM, kMb, kMw, kMd, kMq, kMdq, kM64, kMx, kMv, kMy, kMp, kMs, kMa,
  // x87 memory forms: float, integer, BCD of that many bits; environment 14/28, state 94/108, FXSAVE image 512 bytes
  kM32fp, kM64fp, kM80fp, kM16int, kM32int, kM64int, kM80bcd, kMenv, kMstate, kMfxsave,
  kVsib,  // memory with a vector index, elements of 4 bytes or 8 with VEX.W
  // ModRM.reg as general register; a: of address size (MOVDIR64B)
  kGb, kGw, kGd, kGq, kGv, kGy, kGz, kGnative, kGa,
  // ModRM.reg as segment, control, debug register
  kSw, kCr, kDr,
  // x87 register ST(i) in ModRM.rm
  kStI,
  // MMX: ModRM.reg; ModRM.rm register or memory of 8 or 4 bytes; register-only rm
  kPq, kQq, kQd, kNq,
  // XMM/YMM in ModRM.reg; suffix: bytes used: x = vector length, dq 16, qq 32, q and sd 8, d and ss 4
  kVx, kVdq, kVqq, kVss, kVsd, kVq, kVd,
  // XMM/YMM in ModRM.rm or memory of that size; half, quarter, eighth of the vector length
  kWx, kWdq, kWqq, kWss, kWsd, kWq, kWd, kWw, kWb, kWhalf, kWquarter, kWeighth,
  // XMM/YMM in ModRM.rm, register only
  kUx, kUdq, kUq,
  // XMM/YMM in VEX.vvvv; general register in VEX.vvvv, 4 or 8 bytes
  kHx, kHdq, kHqq, kHss, kHsd, kHq, kBy,
  // XMM/YMM in imm8[7:4]
  kLx,
  // immediates: byte zero-extended, byte sign-extended, word zero-extended, operand size up to 4 bytes sign-extended,
  // operand size up to 8 bytes sign-extended, far pointer
  kIb, kIbs, kIw, kIz, kIv, kAp,
  // relative branch, displacement of 1 or 2/4 bytes
  kJb, kJz,
  // memory offset of address size without ModRM
  kOb, kOv,
  // fixed registers and one; kEaxZ: AX or EAX (IN, OUT), kRaxV: AX, EAX or RAX
  kAl, kCl, kDx, kAx, kEax, kEaxZ, kRaxV, kOne, kSt0, kXmm0,
  // register in the opcode's low three bits (plus REX.B)
  kZb, kZv,
  // fixed segment registers
  kRegEs, kRegCs, kRegSs, kRegDs, kRegFs, kRegGs,
  // string operands: source at DS or override:rSI, destination at ES:rDI
  kXb, kXv, kXz, kYb, kYv, kYz,
};

/// Row attributes.
enum RowFlags : uint32_t {
  kLockable     = 1u << 0,   // LOCK legal with a memory destination (SDM Vol. 2, LOCK)
  kInvalid64    = 1u << 1,   // #UD in 64-bit mode
  kOnly64       = 1u << 2,   // #UD outside 64-bit mode
  kDefault64    = 1u << 3,   // operand size defaults to 64 in 64-bit mode (push, pop, near branches)
  kForce64      = 1u << 4,   // operand size is 64 in 64-bit mode whatever the prefixes say
  kCpl0         = 1u << 5,   // #GP(0) unless CPL = 0
  kNotReal      = 1u << 6,   // #UD in real and virtual-8086 mode
  kBranch       = 1u << 7,   // ends a block
  kRep          = 1u << 8,   // F3/F2 repeat it: then RCX (of address size) is read and written too
  kVex          = 1u << 9,   // VEX-encoded
  kL0           = 1u << 10,  // VEX.L must be 0
  kL1           = 1u << 11,  // VEX.L must be 1
  kW0           = 1u << 12,  // VEX.W or REX.W must be 0 (VEX.W is looked at in every mode)
  kW1           = 1u << 13,
  kAligned      = 1u << 14,  // SIMD memory operand must be aligned to its size, else #GP(0)
  kX87          = 1u << 15,  // x87 rules: CR0.EM/TS give #NM, pending exceptions
  kMmx          = 1u << 16,  // MMX rules: CR0.EM gives #UD, TS #NM, resets the x87 stack top and tags
  kSse          = 1u << 17,  // legacy-encoded XMM instruction: CR0.EM/TS, CR4.OSFXSR rules
  kMemoryOnly   = 1u << 18,  // ModRM.mod = 3 is #UD
  kRegisterOnly = 1u << 19,  // ModRM.mod != 3 is #UD
  kSerializing  = 1u << 20,  // ends a block because it may change modes, translations or code
  kWritesOp0    = 1u << 21,  // first operand is written
  kReadsOp0     = 1u << 22,  // first operand is read
  kWritesOp1    = 1u << 23,  // second operand is written too (XCHG, XADD, MULX)
  kFpCompute    = 1u << 24,  // may raise SIMD or x87 floating-point exceptions (uses MXCSR or the x87 control word)
  kFlagsMayKeep = 1u << 25,  // flags may be left as they were (shift count 0, REP with RCX = 0, DIV): no kill
  kAvxState     = 1u << 26,  // uses XMM/YMM by VEX: needs CR4.OSXSAVE, XCR0[2:1] = 3 and CR0.TS = 0
  kModIgnored   = 1u << 27,  // ModRM.mod is taken as 3 whatever it says (MOV CR and DR)
};

/// CPUID feature that must be exposed, else #UD. kBase is always there. LZCNT and TZCNT are no #UD where the feature is
/// missing but execute as BSR and BSF: the caller that hides them sees to that (SDM Vol. 2, LZCNT, TZCNT).
enum class Feature : uint8_t {
  kBase, kCmov, kFpu, kMmx, kSse, kSse2, kSse3, kSsse3, kSse41, kSse42, kPopcnt, kLzcnt, kBmi1, kBmi2, kMovbe, kAes,
  kPclmul, kSha, kAvx, kAvx2, kFma, kF16c, kVaes, kVpclmul, kGfni, kAdx, kRdrand, kRdseed, kFsgsbase, kXsave, kXsaveopt,
  kXsavec, kXsaves, kFxsr, kClflush, kClflushopt, kClwb, kCx8, kCx16, kRdtscp, kRdpid, kInvpcid, kSmap, kSyscall,
  kMonitor, kPrefetchw, kLahf64, kSep, kVmx, kSvm, kWaitpkg, kSerialize, kCet, kMovdiri, kMovdir64b, kPku, kCount,
};

// clang-format on

/// RFLAGS masks hold the arithmetic flags and DF by bit position; GPR masks hold bit n for register n and only what no
/// operand names (kCl, kAl... are operands).
struct OpcodeRow {
  Op op = Op::kInvalid;
  std::array<Operand, 4> operands{};
  uint32_t flags = 0;  // RowFlags
  Feature feature = Feature::kBase;
  Feature feature_256 = Feature::kBase;  // needed instead when VEX.L = 1
  uint16_t rflags_read = 0;
  uint16_t rflags_written = 0;    // bits with a defined result, cleared and set ones included
  uint16_t rflags_undefined = 0;  // bits the manual leaves undefined; also in rflags_written if it depends on a count
  uint16_t gpr_read = 0;
  uint16_t gpr_written = 0;
};

/// VEX.pp is kept as the prefix it stands for. Of F2 and F3 only the last one is kept, as processors do; ES, CS, SS and
/// DS overrides are ignored in 64-bit mode.
enum PrefixBits : uint8_t {
  kPrefixLock = 1 << 0,
  kPrefixRep = 1 << 1,    // F3
  kPrefixRepne = 1 << 2,  // F2
  kPrefixOperandSize = 1 << 3,
  kPrefixAddressSize = 1 << 4,
  kPrefixRex = 1 << 5,
  kPrefixRexW = 1 << 6,  // REX.W or VEX.W
  kPrefixSegment = 1 << 7,
};

enum class OpcodeMap : uint8_t { kLegacy, k0F, k0F38, k0F3A, kVex0F, kVex0F38, kVex0F3A };

constexpr uint8_t kNoRegister = 0xff;
constexpr uint8_t kRipBase = 0xfe;  // base of a RIP-relative operand
constexpr unsigned kInsnLengthMax = 15;

struct Insn {
  const OpcodeRow* row = nullptr;
  int64_t immediate = 0;     // extended as its Operand says; branch displacement; far offset; moffs (zero-extended)
  int32_t displacement = 0;  // of the memory operand, sign-extended
  uint16_t immediate2 = 0;   // far selector, ENTER's level
  uint8_t length = 0;
  CodeSize code_size = CodeSize::k64;  // as decode() was called
  OpcodeMap map = OpcodeMap::kLegacy;
  uint8_t opcode = 0;
  uint8_t modrm = 0;
  uint8_t prefixes = 0;         // PrefixBits
  uint8_t operand_size = 4;     // effective, in bytes: 2, 4 or 8 ("v" operands; y: 8 if this is 8, else 4)
  uint8_t address_size = 8;     // effective, in bytes: 2, 4 or 8
  uint8_t segment = 3;          // effective SegmentIndex of the memory operand or DS:rSI, DS:rBX, default or override
  uint8_t reg = 0;              // ModRM.reg with REX.R/VEX.R, or opcode register with REX.B for kZ*
  uint8_t rm = 0;               // ModRM.rm with REX.B where mod = 3
  uint8_t base = kNoRegister;   // of the memory operand, with REX.B; kRipBase for RIP-relative
  uint8_t index = kNoRegister;  // with REX.X; an XMM/YMM number where the operand is kVsib
  uint8_t scale = 0;            // log2
  uint8_t vvvv = 0;
  uint8_t vector_bytes = 16;  // 16 or 32 for VEX
  bool has_modrm = false;
  bool is_memory = false;  // there is a memory operand (ModRM or moffs)
};
static_assert(sizeof(Insn) <= 48);

enum class DecodeStatus : uint8_t {
  kOk,
  kInvalid,    // #UD
  kTooLong,    // more than 15 bytes: #GP(0) (SDM Vol. 2 2.3.11)
  kTruncated,  // `bytes` ended inside the instruction: give more
};

/// Decodes the instruction at the start of `bytes` (any length; at most 15 are looked at). Pure; any thread. Features
/// are not checked here: the caller compares required_feature() with what it exposes. `out` has meaning only after kOk.
DecodeStatus decode(std::span<const uint8_t> bytes, CodeSize code_size, Insn& out);

/// Bytes the ModRM or moffs operand accesses; 0 if there is none, if only its address is used (LEA, INVLPG, NOP,
/// prefetch, CLFLUSH) or if the size is not in the encoding (XSAVE family). For gathers the size of one element. A
/// bit-string operand (BT with a register index) accesses this many bytes at an address that depends on the index.
unsigned memory_operand_size(const Insn& insn);

/// The feature this very instruction needs (VEX.L = 1 can need another one than VEX.L = 0).
inline Feature required_feature(const Insn& insn) {
  const bool wide = insn.vector_bytes == 32 && insn.row->feature_256 != Feature::kBase;
  return wide ? insn.row->feature_256 : insn.row->feature;
}

/// Operation and sizes, for logs: "Add o4 a8 mem4".
std::string disassemble_brief(const Insn& insn);

}  // namespace tenon::x86
