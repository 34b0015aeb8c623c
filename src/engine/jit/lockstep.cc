#include "engine/jit/lockstep.hh"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/interp/host_alu.hh"

namespace tenon::jit {

namespace {

constexpr const char* kRegisterNames[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                          "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};

constexpr const char* kVectorNames[] = {"YMM0", "YMM1", "YMM2",  "YMM3",  "YMM4",  "YMM5",  "YMM6",  "YMM7",
                                        "YMM8", "YMM9", "YMM10", "YMM11", "YMM12", "YMM13", "YMM14", "YMM15"};

/// Byte ranges of the FXSAVE image that are x87 state and no addresses (SDM Vol. 1 Table 10-2): FCW, FSW, FTW; then the
/// ten bytes of each register.
struct ImageRange {
  const char* name;
  size_t at, size;
};
constexpr ImageRange kImageRanges[] = {{"FCW", 0, 2},      {"FSW", 2, 2},      {"FTW", 4, 1},     {"ST(0)", 32, 10},
                                       {"ST(1)", 48, 10},  {"ST(2)", 64, 10},  {"ST(3)", 80, 10}, {"ST(4)", 96, 10},
                                       {"ST(5)", 112, 10}, {"ST(6)", 128, 10}, {"ST(7)", 144, 10}};

std::string hex(const uint8_t* bytes, size_t count) {  // highest byte first
  std::string text;
  while (count-- > 0) text += fmt::format("{:02x}", bytes[count]);
  return text;
}

void compare_number(std::string& text, const char* name, uint64_t expected, uint64_t found) {
  if (expected != found) text += fmt::format("  {}: interpreter {:#x}, translated {:#x}\n", name, expected, found);
}

void compare_bytes(std::string& text, const char* name, const uint8_t* expected, const uint8_t* found, size_t count) {
  if (std::memcmp(expected, found, count) != 0)
    text += fmt::format("  {}: interpreter {}, translated {}\n", name, hex(expected, count), hex(found, count));
}

}  // namespace

void RegisterSnapshot::take(const interp::Cpu& cpu, bool with_vector) {
  std::copy_n(cpu.gpr, gpr.size(), gpr.begin());
  rip = cpu.rip;
  arithmetic_flags = cpu.arithmetic_flags;
  has_vector = with_vector;
  if (has_vector) vector = cpu.vector;
}

void RegisterSnapshot::put_back(interp::Cpu& cpu) const {
  std::ranges::copy(gpr, cpu.gpr);
  cpu.rip = rip;
  cpu.arithmetic_flags = arithmetic_flags;
  if (has_vector) cpu.vector = vector;
}

void ContextSnapshot::take(const interp::Cpu& cpu) {
  std::copy_n(cpu.window, windows.size(), windows.begin());
  system_flags = cpu.system_flags;
  tlb_drops = cpu.tlb.drops();
  device_accesses = cpu.counters.mmio_accesses + cpu.counters.port_accesses;
  kernel_gs_base = cpu.state.kernel_gs_base;
  cpl = cpu.cpl;
}

bool ContextSnapshot::is_same(const interp::Cpu& cpu) const {
  for (size_t i = 0; i < windows.size(); ++i)
    if (windows[i].base != cpu.window[i].base) return false;
  return system_flags == cpu.system_flags && tlb_drops == cpu.tlb.drops() && cpl == cpu.cpl &&
         kernel_gs_base == cpu.state.kernel_gs_base && cpu.shadow == interp::Cpu::Shadow::kNone &&
         device_accesses == cpu.counters.mmio_accesses + cpu.counters.port_accesses;
}

bool Lockstep::overflow_differs(const interp::Cpu& cpu) const {
  const uint64_t flags =
      interp::rflags_from_ax(expected.arithmetic_flags) ^ interp::rflags_from_ax(cpu.arithmetic_flags);
  return (flags & x86::kOf) != 0;
}

std::string Lockstep::differences(const interp::Cpu& cpu, uint64_t flags) const {
  std::string text;
  const bool same = std::memcmp(expected.gpr.data(), cpu.gpr, sizeof expected.gpr) == 0;
  for (size_t i = 0; !same && i < expected.gpr.size(); ++i)
    compare_number(text, kRegisterNames[i], expected.gpr[i], cpu.gpr[i]);
  compare_number(text, "RIP", expected.rip, cpu.rip);
  compare_number(text, "flags", interp::rflags_from_ax(expected.arithmetic_flags) & flags,
                 interp::rflags_from_ax(cpu.arithmetic_flags) & flags);
  if (expected.has_vector) compare_vectors(text, cpu);
  interp::WriteLog::Difference byte;
  if (log.find_difference(byte))
    text += fmt::format("  memory at {:#x}: interpreter {:02x}, translated {:02x}\n", byte.gpa,
                        static_cast<unsigned>(byte.first), static_cast<unsigned>(byte.second));
  return text;
}

void Lockstep::compare_vectors(std::string& text, const interp::Cpu& cpu) const {
  compare_number(text, "MXCSR", expected.vector.mxcsr, cpu.vector.mxcsr);
  for (unsigned i = 0; i < 16; ++i)
    compare_bytes(text, kVectorNames[i], expected.vector.ymm[i], cpu.vector.ymm[i], sizeof cpu.vector.ymm[i]);
  for (const ImageRange& range : kImageRanges)
    compare_bytes(text, range.name, expected.vector.fx + range.at, cpu.vector.fx + range.at, range.size);
}

}  // namespace tenon::jit
