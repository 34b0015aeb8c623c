// Insn: one decoded instruction, and OpcodeRow: what its opcode-map row says about it.
//
// The decoder fills Insn without looking at CPU state other than DecodeMode. Rows live in constexpr tables split like the
// opcode map (SDM Vol. 2 Appendix A): legacy, 0F, 0F38, 0F3A, VEX maps, groups, x87. The interpreter chooses a handler from
// row->op, operand forms and sizes; the JIT re-emits the same opcode and needs the def/use masks.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "engine/x86/op.hh"

namespace tenon::x86 {

/// What of the CPU state changes decoding.
enum class CodeSize : uint8_t { k16, k32, k64 };

/// How an operand is encoded: the notation of SDM Vol. 2 Appendix A.2 (addressing method, operand type).
enum class Operand : uint8_t {
  kNone,
  // ModRM.rm, register or memory, of size: byte, word, dword, qword, operand size (2/4/8), 4-or-8 (y), 2-or-4 (z)
  kEb, kEw, kEd, kEq, kEv, kEy, kEz,
  // ModRM.reg as general register
  kGb, kGw, kGd, kGq, kGv, kGy, kGz,
  // ModRM.rm, general register only / memory only
  kRv, kRy, kRd, kRq, kM, kMb, kMw, kMd, kMq, kMdq, kMqq, kMp, kMs, kMa, kMv, kMy,
  // immediates: byte, byte sign-extended to operand size, word, operand size up to 4 bytes sign-extended, operand size
  // up to 8 bytes, far pointer
  kIb, kIbs, kIw, kIz, kIv, kAp,
  // relative branch
  kJb, kJz,
  // memory offset without ModRM
  kOb, kOv,
  // fixed registers and one
  kAl, kCl, kDx, kAx, kEax, kRaxV, kOne, kSt0,
  // register in the opcode's low three bits (plus REX.B)
  kZb, kZv, kZy,
  // segment, control, debug registers in ModRM.reg; fixed segment registers
  kSw, kCr, kDr, kRegEs, kRegCs, kRegSs, kRegDs, kRegFs, kRegGs,
  // string operands
  kXb, kXv, kYb, kYv,
  // x87 register ST(i) and memory forms
  kSti, kM32fp, kM64fp, kM80fp, kM16int, kM32int, kM64int, kM80bcd, kMenv, kMfxsave,
  // MMX: ModRM.reg, ModRM.rm, register-only rm
  kPq, kQq, kQd, kNq,
  // XMM/YMM by vector length (x), or fixed: V = ModRM.reg, W = ModRM.rm (memory of that size), U = rm register only,
  // H = VEX.vvvv, L = imm8[7:4]; suffix: size of what is used
  kVx, kVdq, kVqq, kVss, kVsd, kVq, kVd,
  kWx, kWdq, kWqq, kWss, kWsd, kWq, kWd, kWw, kWb,
  kUx, kUdq, kUq,
  kHx, kHdq, kHqq, kHss, kHsd, kHq,
  kLx, kLdq,
  kBy,    // general register in VEX.vvvv, 4 or 8 bytes
  kVsib,  // memory with a vector index
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
  kRep          = 1u << 8,   // F3/F2 repeat it
  kVex          = 1u << 9,   // VEX-encoded
  kVexL0        = 1u << 10,  // VEX.L must be 0
  kVexL1        = 1u << 11,  // VEX.L must be 1
  kVexW0        = 1u << 12,
  kVexW1        = 1u << 13,
  kAligned      = 1u << 14,  // SIMD memory operand must be aligned to its size, else #GP(0)
  kX87          = 1u << 15,
  kMmx          = 1u << 16,
  kSse          = 1u << 17,  // legacy-encoded XMM instruction: CR0.EM/TS, CR4.OSFXSR rules
  kMemoryOnly   = 1u << 18,  // ModRM.mod = 3 is #UD
  kRegisterOnly = 1u << 19,  // ModRM.mod != 3 is #UD
  kSerializing  = 1u << 20,  // ends a block because it may change modes, translations or code
  kWritesOp0    = 1u << 21,  // first operand is written
  kReadsOp0     = 1u << 22,  // first operand is read
  kWritesOp1    = 1u << 23,  // second operand is written too (XCHG, XADD)
  kFpCompute    = 1u << 24,  // may raise SIMD or x87 floating-point exceptions (uses MXCSR or the x87 control word)
};

/// CPUID feature that must be exposed, else #UD. kBase is always there.
enum class Feature : uint8_t {
  kBase, kCmov, kFpu, kMmx, kSse, kSse2, kSse3, kSsse3, kSse41, kSse42, kPopcnt, kLzcnt, kBmi1, kBmi2, kMovbe, kAes,
  kPclmul, kSha, kAvx, kAvx2, kFma, kF16c, kVaes, kVpclmul, kGfni, kAdx, kRdrand, kRdseed, kFsgsbase, kXsave, kXsaveopt,
  kXsavec, kXsaves, kFxsr, kClflush, kClflushopt, kClwb, kCx8, kCx16, kRdtscp, kRdpid, kInvpcid, kSmap, kSyscall, kMonitor,
  kPrefetchw, kLahf64, kSep, kVmx, kSvm, kWaitpkg, kSerialize, kCet, kMovdiri, kMovdir64b, kPku, kCount,
};

struct OpcodeRow {
  Op op = Op::kInvalid;
  std::array<Operand, 4> operands{};
  uint32_t flags = 0;              // RowFlags
  Feature feature = Feature::kBase;
  uint16_t rflags_read = 0;        // arithmetic RFLAGS bits and DF, by bit position
  uint16_t rflags_written = 0;     // bits with a defined result
  uint16_t rflags_undefined = 0;   // bits the manual leaves undefined after it
  uint16_t gpr_read = 0;           // implicit registers (bit n = register n), beyond the operands
  uint16_t gpr_written = 0;
};

enum PrefixBits : uint8_t {
  kPrefixLock = 1 << 0, kPrefixRep = 1 << 1 /* F3 */, kPrefixRepne = 1 << 2 /* F2 */, kPrefixOperandSize = 1 << 3 /* 66 */,
  kPrefixAddressSize = 1 << 4 /* 67 */, kPrefixRex = 1 << 5, kPrefixRexW = 1 << 6 /* REX.W or VEX.W */, kPrefixSegment = 1 << 7,
};

enum class OpcodeMap : uint8_t { kLegacy, k0F, k0F38, k0F3A, kVex0F, kVex0F38, kVex0F3A };

constexpr uint8_t kNoRegister = 0xff;
constexpr uint8_t kRipBase = 0xfe;  // base of a RIP-relative operand
constexpr unsigned kInsnLengthMax = 15;

struct Insn {
  const OpcodeRow* row = nullptr;
  int64_t immediate = 0;      // sign-extended as its Operand says; branch displacement; far offset; moffs
  int32_t displacement = 0;   // of the memory operand, sign-extended
  uint16_t immediate2 = 0;    // far selector, ENTER's level
  uint8_t length = 0;
  OpcodeMap map = OpcodeMap::kLegacy;
  uint8_t opcode = 0;
  uint8_t modrm = 0;
  uint8_t prefixes = 0;       // PrefixBits
  uint8_t operand_size = 4;   // effective, in bytes: 2, 4 or 8 ("v" operands)
  uint8_t address_size = 8;   // effective, in bytes: 2, 4 or 8
  uint8_t segment = 0;        // effective SegmentIndex of the memory operand, default or override
  uint8_t reg = 0;            // ModRM.reg with REX.R/VEX.R, or opcode register with REX.B for kZ*
  uint8_t rm = 0;             // ModRM.rm with REX.B where mod = 3
  uint8_t base = kNoRegister; // of the memory operand, with REX.B; kRipBase for RIP-relative
  uint8_t index = kNoRegister;
  uint8_t scale = 0;          // log2
  uint8_t vvvv = 0;
  uint8_t vector_bytes = 16;  // 16 or 32 for VEX
  bool has_modrm = false;
  bool is_memory = false;     // there is a memory operand (ModRM or moffs)
};
static_assert(sizeof(Insn) <= 48);

enum class DecodeStatus : uint8_t {
  kOk,
  kInvalid,    // #UD
  kTooLong,    // more than 15 bytes: #GP(0) (SDM Vol. 2 2.3.11)
  kTruncated,  // `bytes` ended inside the instruction: give more
};

/// Decodes the instruction at the start of `bytes` (any length; at most 15 are looked at). Pure; any thread. Features are not
/// checked here: the caller compares row->feature with what it exposes.
DecodeStatus decode(std::span<const uint8_t> bytes, CodeSize code_size, Insn& out);

}  // namespace tenon::x86
