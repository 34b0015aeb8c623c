#include "tests/differential/comparison.hh"

#include <fmt/format.h>

#include <cstring>

#include "engine/x86/cpu_state.hh"

namespace tenon::differential {

using x86::Op;

namespace {

/// A result that the manual leaves undefined and that the engine does not take from the host's own instruction.
struct Mask {
  Op op;
  uint64_t flags;  // RFLAGS
  uint64_t fip;    // bits of the x87 instruction pointer
  bool (*applies)(const Case& test);
  const char* what;
  const char* manual;
};

/// C0 and C1: processors leave OF alone there and compute it where the count is in CL, which is how the engine rotates.
bool rotates_by_immediate(const Case& test) {
  const int64_t count_mask = test.insn.operand_size == 8 && (test.insn.opcode & 1) != 0 ? 63 : 31;
  return (test.insn.opcode & 0xfe) == 0xc0 && (test.insn.immediate & count_mask) != 1;
}

constexpr const char* kRotateSection =
    "SDM Vol. 2, RCL/RCR/ROL/ROR, Flags Affected: OF is undefined for multi-bit rotates";

bool always(const Case&) { return true; }

constexpr uint64_t kAboveLinear = uint64_t{0xffff} << 48;

constexpr Mask kMasks[] = {
    {Op::kRol, x86::kOf, 0, rotates_by_immediate, "OF after an immediate count other than 1", kRotateSection},
    {Op::kRor, x86::kOf, 0, rotates_by_immediate, "OF after an immediate count other than 1", kRotateSection},
    {Op::kFxrstor, 0, kAboveLinear, always,
     "FIP bits 63:48, of which a processor keeps as many as linear addresses have",
     "SDM Vol. 1 8.1.8 and 10.5.1: FIP is the address of an instruction, so of no other value is anything said"},
};

constexpr uint64_t kComparedFlags = x86::kArithmeticFlags | x86::kDf | x86::kNt | x86::kAc | x86::kId;

/// What is left of flags and FIP for one case.
struct Compared {
  uint64_t flags = kComparedFlags;
  uint64_t fip = ~uint64_t{0};
};

Compared compared(const Case& test, Leniency leniency) {
  Compared result;
  if (leniency.arithmetic_flags) result.flags &= ~uint64_t{x86::kArithmeticFlags};
  if (leniency.x87_pointers) result.fip = 0;
  for (const Mask& mask : kMasks) {
    if (mask.op != test.insn.row->op || !mask.applies(test)) continue;
    result.flags &= ~mask.flags;
    result.fip &= ~mask.fip;
  }
  return result;
}

void add_difference(std::string& text, const char* name, uint64_t host, uint64_t guest) {
  if (host != guest) text += fmt::format("  {}: host {:#x}, guest {:#x}\n", name, host, guest);
}

constexpr const char* kRegisterNames[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};

/// Byte ranges of the XSAVE area that are compared as they are (SDM Vol. 1 Table 13-2): all but FIP (8-15), MXCSR_MASK
/// (28-31), which is the processor's, and reserved bytes.
struct AreaRange {
  const char* name;
  size_t from, to;
  bool is_x87_pointer = false;
};
constexpr AreaRange kAreaRanges[] = {{"FCW", 0, 2},       {"FSW", 2, 4},         {"FTW", 4, 5},
                                     {"FOP", 6, 8, true}, {"FDP", 16, 24, true}, {"MXCSR", 24, 28},
                                     {"XMM", 160, 416},   {"YMM high", 576, 832}};

std::string hex(const std::byte* bytes, size_t count) {  // highest byte first
  std::string text;
  while (count-- > 0) text += fmt::format("{:02x}", static_cast<unsigned>(bytes[count]));
  return text;
}

uint64_t fip(const MachineState& state) {
  uint64_t value = 0;
  std::memcpy(&value, &state.xsave[8], sizeof value);
  return value;
}

void compare_area(std::string& text, const MachineState& host, const MachineState& guest, Leniency leniency) {
  for (const AreaRange& range : kAreaRanges) {
    if (range.is_x87_pointer && leniency.x87_pointers) continue;
    const size_t unit = std::min<size_t>(range.to - range.from, 16);
    for (size_t at = range.from; at < range.to; at += unit)
      if (std::memcmp(&host.xsave[at], &guest.xsave[at], unit) != 0)
        text += fmt::format("  {} {}: host {}, guest {}\n", range.name, (at - range.from) / unit,
                            hex(&host.xsave[at], unit), hex(&guest.xsave[at], unit));
  }
  for (size_t i = 0; i < 8; ++i) {  // ten bytes of each sixteen
    const size_t at = 32 + i * 16;
    if (std::memcmp(&host.xsave[at], &guest.xsave[at], 10) != 0)
      text += fmt::format("  ST({}): host {}, guest {}\n", i, hex(&host.xsave[at], 10), hex(&guest.xsave[at], 10));
  }
}

/// Linux hides from user mode whether a kernel address is present: it reports the protection bit there
/// (arch/x86/mm/fault.c).
Outcome as_linux_reports(Outcome outcome) {
  if (outcome.vector == x86::kPageFault && outcome.fault_address >= 0x7ffffffff000) outcome.error_code |= 1;
  return outcome;
}

std::string words(const Outcome& outcome) {
  if (!outcome.faulted) return "ran";
  return fmt::format("vector {} error {:#x} address {:#x}", outcome.vector, outcome.error_code, outcome.fault_address);
}

}  // namespace

std::string compare(const Case& test, const Outcome& host_outcome, const MachineState& host,
                    const Outcome& guest_outcome, const MachineState& guest, Leniency leniency) {
  std::string text;
  if (as_linux_reports(host_outcome) != as_linux_reports(guest_outcome))
    text += fmt::format("  outcome: host {}; guest {}\n", words(host_outcome), words(guest_outcome));
  for (size_t i = 0; i < 16; ++i) add_difference(text, kRegisterNames[i], host.gpr[i], guest.gpr[i]);
  add_difference(text, "RIP", host.rip, guest.rip);
  const Compared masks = compared(test, leniency);
  add_difference(text, "RFLAGS", host.rflags & masks.flags, guest.rflags & masks.flags);
  add_difference(text, "FIP", fip(host) & masks.fip, fip(guest) & masks.fip);
  add_difference(text, "FS base", host.fs_base, guest.fs_base);
  add_difference(text, "GS base", host.gs_base, guest.gs_base);
  compare_area(text, host, guest, leniency);
  return text;
}

std::string compare_windows(std::span<std::byte> host, std::span<std::byte> guest) {
  if (std::memcmp(host.data(), guest.data(), host.size()) == 0) return {};
  std::string text;
  unsigned shown = 0;
  for (size_t i = 0; i < host.size() && shown < 8; i += 8) {
    if (std::memcmp(&host[i], &guest[i], 8) == 0) continue;
    text += fmt::format("  memory at {:#x}: host {}, guest {}\n", kWindow + i, hex(&host[i], 8), hex(&guest[i], 8));
    ++shown;
  }
  std::memcpy(guest.data(), host.data(), host.size());
  return text;
}

std::string describe(const Case& test) {
  uint32_t mxcsr = 0;
  std::memcpy(&mxcsr, &test.before.xsave[24], sizeof mxcsr);
  std::string text = fmt::format("{} [", op_name(test.insn.row->op));
  for (const uint8_t byte : test.code()) text += fmt::format("{:02x} ", byte);
  text.back() = ']';
  if (test.insn.base < 16) text += fmt::format(" base {:#x}", test.before.gpr[test.insn.base]);
  return text + fmt::format(" rsp {:#x} rbp {:#x} rcx {:#x} at {:#x} flags {:#x} mxcsr {:#x}",
                            test.before.gpr[x86::kRsp], test.before.gpr[x86::kRbp], test.before.gpr[x86::kRcx],
                            test.address, test.before.rflags, mxcsr);
}

std::string describe_masks() {
  std::string text;
  for (const Mask& mask : kMasks) text += fmt::format("{}: {} ({})\n", op_name(mask.op), mask.what, mask.manual);
  text += "jit only: FIP, FDP and FOP of translated x87 instructions, which are kept as 0\n";
  text += "jit without strict flags only: arithmetic flags pushed by a fault\n";
  return text;
}

}  // namespace tenon::differential
