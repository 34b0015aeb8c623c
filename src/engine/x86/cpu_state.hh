// CpuState: the full architectural state of one vCPU, the same structure for every engine.
//
// Source: Intel SDM Vol. 1 chapter 3, Vol. 3 chapter 2. Engines keep working copies in whatever form is fast and
// convert in Vcpu::get_state()/set_state(); snapshots, lockstep and tests see only this.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace tenon::x86 {

enum GprIndex : uint8_t {
  kRax,
  kRcx,
  kRdx,
  kRbx,
  kRsp,
  kRbp,
  kRsi,
  kRdi,
  kR8,
  kR9,
  kR10,
  kR11,
  kR12,
  kR13,
  kR14,
  kR15
};

/// Segment registers in the encoding order of ModRM.reg (SDM Vol. 2 Table 2-2 and B-8).
enum SegmentIndex : uint8_t { kEs, kCs, kSs, kDs, kFs, kGs, kSegmentCount };

/// RFLAGS bits (SDM Vol. 1 3.4.3).
enum RflagsBits : uint64_t {
  kCf = 1u << 0,
  kFlagsOne = 1u << 1,
  kPf = 1u << 2,
  kAf = 1u << 4,
  kZf = 1u << 6,
  kSf = 1u << 7,
  kTf = 1u << 8,
  kIf = 1u << 9,
  kDf = 1u << 10,
  kOf = 1u << 11,
  kIopl = 3u << 12,
  kNt = 1u << 14,
  kRf = 1u << 16,
  kVm = 1u << 17,
  kAc = 1u << 18,
  kVif = 1u << 19,
  kVip = 1u << 20,
  kId = 1u << 21,
  kArithmeticFlags = kCf | kPf | kAf | kZf | kSf | kOf,
};

/// CR0 (SDM Vol. 3 2.5).
enum Cr0Bits : uint64_t {
  kCr0Pe = 1u << 0,
  kCr0Mp = 1u << 1,
  kCr0Em = 1u << 2,
  kCr0Ts = 1u << 3,
  kCr0Et = 1u << 4,
  kCr0Ne = 1u << 5,
  kCr0Wp = 1u << 16,
  kCr0Am = 1u << 18,
  kCr0Nw = 1u << 29,
  kCr0Cd = 1u << 30,
  kCr0Pg = 1u << 31,
};

/// CR4 (SDM Vol. 3 2.5).
enum Cr4Bits : uint64_t {
  kCr4Vme = 1u << 0,
  kCr4Pvi = 1u << 1,
  kCr4Tsd = 1u << 2,
  kCr4De = 1u << 3,
  kCr4Pse = 1u << 4,
  kCr4Pae = 1u << 5,
  kCr4Mce = 1u << 6,
  kCr4Pge = 1u << 7,
  kCr4Pce = 1u << 8,
  kCr4Osfxsr = 1u << 9,
  kCr4Osxmmexcpt = 1u << 10,
  kCr4Umip = 1u << 11,
  kCr4La57 = 1u << 12,
  kCr4Vmxe = 1u << 13,
  kCr4Smxe = 1u << 14,
  kCr4Fsgsbase = 1u << 16,
  kCr4Pcide = 1u << 17,
  kCr4Osxsave = 1u << 18,
  kCr4Smep = 1u << 20,
  kCr4Smap = 1u << 21,
  kCr4Pke = 1u << 22,
};

/// IA32_EFER (SDM Vol. 3 2.2.1).
enum EferBits : uint64_t { kEferSce = 1u << 0, kEferLme = 1u << 8, kEferLma = 1u << 10, kEferNxe = 1u << 11 };

/// Exception vectors (SDM Vol. 3 Table 6-1).
enum Vector : uint8_t {
  kDivideError = 0,
  kDebug = 1,
  kNmiVector = 2,
  kBreakpoint = 3,
  kOverflow = 4,
  kBoundRange = 5,
  kInvalidOpcode = 6,
  kDeviceNotAvailable = 7,
  kDoubleFault = 8,
  kInvalidTss = 10,
  kSegmentNotPresent = 11,
  kStackFault = 12,
  kGeneralProtection = 13,
  kPageFault = 14,
  kX87Error = 16,
  kAlignmentCheck = 17,
  kMachineCheck = 18,
  kSimdError = 19,
};

/// A segment register with its descriptor cache. `attributes` is the descriptor's bits 40-47 in [7:0] and 52-55 in
/// [15:12], as in VMX access rights (SDM Vol. 3 Table 25-2): type [3:0], S [4], DPL [6:5], P [7], AVL [12], L [13],
/// D/B [14], G [15]; kUnusable [16] marks a null selector.
struct Segment {
  static constexpr uint32_t kUnusable = 1u << 16;
  uint64_t base = 0;
  uint32_t limit = 0;  // in bytes, inclusive, already scaled by G
  uint32_t attributes = 0;
  uint16_t selector = 0;

  constexpr unsigned type() const { return attributes & 0xf; }
  constexpr bool is_code_or_data() const { return (attributes >> 4) & 1; }
  constexpr unsigned dpl() const { return (attributes >> 5) & 3; }
  constexpr bool present() const { return (attributes >> 7) & 1; }
  constexpr bool is_long() const { return (attributes >> 13) & 1; }
  constexpr bool is_big() const { return (attributes >> 14) & 1; }
  constexpr bool unusable() const { return (attributes & kUnusable) != 0; }
};

struct DescriptorTable {
  uint64_t base = 0;
  uint16_t limit = 0;
};

/// The XSAVE area in standard (not compacted) form: legacy 512 bytes, header 64, AVX at 576 (SDM Vol. 1 13.4). Room for
/// AVX-512 (ends at 2688 on current CPUs) is kept so that the structure does not change when it comes.
struct alignas(64) XsaveArea {
  static constexpr size_t kSizeBytes = 2816;
  static constexpr size_t kXmmOffset = 160;
  static constexpr size_t kMxcsrOffset = 24;
  static constexpr size_t kHeaderOffset = 512;
  static constexpr size_t kYmmHighOffset = 576;
  std::array<std::byte, kSizeBytes> bytes{};
};

enum class Activity : uint8_t { kRunning, kHalted, kWaitForStartup, kShutdown };

struct alignas(64) CpuState {
  // Line 0-1: general registers.
  std::array<uint64_t, 16> gpr{};
  // Line 2.
  uint64_t rip = 0;
  uint64_t rflags = kFlagsOne;
  uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0, xcr0 = 1;
  // Segments and tables.
  std::array<Segment, kSegmentCount> segments{};
  Segment ldtr{}, tr{};
  DescriptorTable gdtr{}, idtr{};
  std::array<uint64_t, 4> dr{};  // DR0-DR3
  uint64_t dr6 = 0xffff0ff0, dr7 = 0x400;
  // Model-specific registers the engine itself keeps; all others are CpuIo call-outs.
  uint64_t star = 0, lstar = 0, cstar = 0, fmask = 0, kernel_gs_base = 0;
  uint64_t sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  uint64_t pat = 0x0007040600070406, tsc_aux = 0, misc_enable = 1, xss = 0, spec_ctrl = 0;
  uint64_t tsc_offset = 0;  // guest TSC = Clock::now_tsc() + tsc_offset, modulo 2^64
  uint64_t tsc_adjust = 0;
  // Memory types have no effect on the software engines, but firmware and kernels read back what they wrote.
  uint64_t mtrr_default_type = 0;            // IA32_MTRR_DEF_TYPE (SDM Vol. 3 12.11.2)
  std::array<uint64_t, 11> mtrr_fixed{};     // FIX64K_00000, FIX16K_80000, FIX16K_A0000, FIX4K_C0000 ... F8000
  std::array<uint64_t, 16> mtrr_variable{};  // PHYSBASE0, PHYSMASK0, PHYSBASE1, ...
  std::array<uint64_t, 4> pdpte{};           // PAE page-directory pointers, loaded at MOV CR3 (SDM Vol. 3 4.4.1)
  // Events between instructions.
  Activity activity = Activity::kRunning;
  bool interrupt_shadow = false;  // the instruction after STI or MOV/POP SS
  bool nmi_blocked = false;
  XsaveArea xsave{};

  unsigned cpl() const { return segments[kSs].dpl(); }

  /// State after power-up or RESET (SDM Vol. 3 Table 10-1). Every vCPU but the bootstrap processor then waits for SIPI.
  void reset(bool bootstrap_processor);
  /// State after INIT: as reset, but TSC, MTRRs, x87/SSE and CR0.CD/NW keep their values (Table 10-1).
  void init(bool bootstrap_processor);
  /// SIPI: real mode at vector:0000 (SDM Vol. 3 11.6.4).
  void startup(uint8_t vector);
};

}  // namespace tenon::x86
