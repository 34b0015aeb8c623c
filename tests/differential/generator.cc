#include "tests/differential/generator.hh"

#include <bit>
#include <cstring>

#include "engine/x86/cpu_state.hh"

namespace tenon::differential {

using x86::Insn;
using x86::Op;

Random::Random(uint64_t seed) {
  for (uint64_t& word : state_) {  // splitmix64
    seed += 0x9e3779b97f4a7c15;
    uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    word = z ^ (z >> 31);
  }
}

uint64_t Random::next() {
  const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

const char* exclusion(Op op) {
  switch (op) {
    case Op::kSyscall: case Op::kSysenter: case Op::kInt: case Op::kInt1: return "enters the host's kernel";
    case Op::kRdtsc: case Op::kRdtscp: case Op::kRdrand: case Op::kRdseed: case Op::kRdpmc: case Op::kCpuid: case Op::kRdpid:
    case Op::kXgetbv: return "gives a different value each time or on each machine";
    case Op::kSgdt: case Op::kSidt: case Op::kSldt: case Op::kStr: case Op::kSmsw: return "emulated by the host's kernel (UMIP)";
    case Op::kMovFromSeg: case Op::kMovToSeg: case Op::kPushSeg: case Op::kPopSeg: case Op::kLfs: case Op::kLgs: case Op::kLss:
    case Op::kLar: case Op::kLsl: case Op::kVerr: case Op::kVerw: case Op::kCallFar: case Op::kJmpFar: case Op::kRetFar:
    case Op::kIret: return "depends on the host kernel's descriptor tables";
    case Op::kXsave: case Op::kXrstor: case Op::kXsaveopt: case Op::kXsavec: case Op::kXsaves: case Op::kXrstors:
      return "depends on the host's XCR0";
    case Op::kRdpkru: case Op::kWrpkru: case Op::kUmonitor: case Op::kUmwait: case Op::kTpause: case Op::kSerialize:
    case Op::kMovdiri: case Op::kMovdir64b: return "not exposed to guests";
    case Op::kMonitor: case Op::kMwait: case Op::kVmcall: case Op::kVmmcall: case Op::kVmfunc: case Op::kInvept: case Op::kInvvpid:
    case Op::kVmclear: case Op::kVmlaunch: case Op::kVmptrld: case Op::kVmptrst: case Op::kVmread: case Op::kVmresume:
    case Op::kVmwrite: case Op::kVmxoff: case Op::kVmxon: case Op::kClgi: case Op::kStgi: case Op::kInvlpga: case Op::kSkinit:
    case Op::kVmload: case Op::kVmrun: case Op::kVmsave: return "virtualisation and monitor instructions depend on the host";
    case Op::kWbinvd: case Op::kInvd: case Op::kRsm: return "privileged on purpose or not, never run on the host";
    default: return nullptr;
  }
}

uint64_t Generator::interesting_integer() {
  static constexpr uint64_t kEdges[] = {0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
                                        0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff, 0xfffffffffffffff0};
  switch (random_.below(8)) {
    case 0: return kEdges[random_.below(std::size(kEdges))];
    case 1: return uint64_t{1} << random_.below(64);
    case 2: return random_.below(256);
    case 3: return random_.next() & 0xffffffff;
    case 4: return static_cast<uint64_t>(static_cast<int64_t>(random_.next()) >> random_.below(63));
    default: return random_.next();
  }
}

void Generator::fill_typed(std::span<std::byte> bytes) {
  static constexpr uint32_t kFloats[] = {0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
                                         1, 0x807fffff, 0x00800000, 0x7f7fffff, 0x4f000000, 0xcf000000, 0x3f000000, 0x5f000000};
  static constexpr uint64_t kDoubles[] = {0, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000,
                                          0xfff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001, 1, 0x800fffffffffffff,
                                          0x0010000000000000, 0x7fefffffffffffff, 0x41e0000000000000, 0xc1e0000000000000,
                                          0x43e0000000000000, 0x3fe0000000000000};
  const uint64_t kind = random_.below(6);
  for (size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    uint64_t value = random_.next();
    if (kind == 0) value = kFloats[value & 15] | uint64_t{kFloats[value >> 4 & 15]} << 32;
    if (kind == 1) value = kDoubles[value & 15];
    // Ordinary floats: exponents near 1, so that arithmetic neither overflows nor vanishes.
    if (kind == 2) value = (value & 0x807fffff807fffff) | 0x3c0000003c000000 | (random_.next() & 0x0700000007000000);
    if (kind == 3) value = (value & 0x800fffffffffffff) | 0x3f80000000000000 | (random_.next() & 0x0070000000000000);
    if (kind == 4) value = interesting_integer();
    std::memcpy(bytes.data() + i, &value, 8);
  }
}

void Generator::refresh(std::span<std::byte> window) {
  const uint64_t size = 64 + random_.below(8) * 64;
  fill_typed(window.subspan(random_.below((window.size() - size) / 8) * 8, size));
}

bool Generator::draw_instruction(Case& out) {
  std::array<uint8_t, x86::kInsnLengthMax>& bytes = out.bytes;
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t word = random_.next();
    std::memcpy(bytes.data() + i, &word, std::min<size_t>(8, bytes.size() - i));
  }
  static constexpr uint8_t kPrefixes[] = {0x66, 0xf2, 0xf3, 0x66, 0x66, 0xf0, 0x67, 0x64, 0x65, 0x2e};
  size_t at = 0;
  while (at < 3 && random_.one_in(3)) bytes[at++] = kPrefixes[random_.below(std::size(kPrefixes))];
  switch (random_.below(8)) {
    case 0: break;  // legacy map, no REX
    case 1: bytes[at++] = 0x40 | static_cast<uint8_t>(random_.below(16)); break;
    case 2: bytes[at++] = 0x48; [[fallthrough]];
    case 3: bytes[at++] = 0x0f; break;
    case 4:
      bytes[at++] = 0x0f;
      bytes[at++] = random_.one_in(2) ? 0x38 : 0x3a;
      break;
    case 5:  // two-byte VEX
      bytes[at++] = 0xc5;
      if (!random_.one_in(3)) bytes[at] |= 0x78;  // vvvv = 1111b, which many rows demand
      ++at;
      break;
    case 6:  // three-byte VEX
      bytes[at++] = 0xc4;
      bytes[at] = static_cast<uint8_t>((bytes[at] & 0xe0) | (1 + random_.below(3)));
      ++at;
      if (random_.one_in(3)) bytes[at] |= 0x78;
      ++at;
      break;
    default: bytes[at++] = static_cast<uint8_t>(0xd8 + random_.below(8)); break;  // x87
  }
  if (x86::decode(bytes, x86::CodeSize::k64, out.insn) != x86::DecodeStatus::kOk) return false;
  // A branch into itself may never end.
  const bool is_branch = (out.insn.row->flags & x86::kBranch) != 0;
  if (is_branch && !out.insn.is_memory && out.insn.immediate >= -int64_t{2 * x86::kInsnLengthMax} && out.insn.immediate <= 0)
    return false;
  return exclusion(out.insn.row->op) == nullptr;
}

void Generator::draw_registers(MachineState& state) {
  for (uint64_t& value : state.gpr) value = random_.one_in(4) ? window_target(8) : interesting_integer();
  state.gpr[x86::kRsp] = window_target(16) & ~uint64_t{random_.one_in(8) ? 0u : 7u};
  state.rflags = x86::kFlagsOne | x86::kIf | (random_.next() & (x86::kArithmeticFlags | x86::kId));
  if (random_.one_in(4)) state.rflags |= x86::kDf;
  if (random_.one_in(16)) state.rflags |= x86::kAc;
  state.fs_base = window_target(64);
  state.gs_base = window_target(64);
}

void Generator::draw_vectors(MachineState& state) {
  std::byte* area = state.xsave.data();
  for (size_t i = 0; i < 16; ++i) fill_typed({area + 160 + i * 16, 16});
  for (size_t i = 0; i < 16; ++i) fill_typed({area + 576 + i * 16, 16});
  // MXCSR: exceptions mostly masked; any rounding, DAZ and FTZ (SDM Vol. 1 10.2.3).
  uint32_t mxcsr = 0x1f80 | static_cast<uint32_t>(random_.next() & 0xe07f);
  if (random_.one_in(8)) mxcsr = static_cast<uint32_t>(random_.next() & 0xffff);
  std::memcpy(area + 24, &mxcsr, 4);
  const uint32_t mask = 0xffff;
  std::memcpy(area + 28, &mask, 4);
  const uint64_t components = 7;
  std::memcpy(area + 512, &components, 8);
}

void Generator::draw_x87(MachineState& state) {
  std::byte* area = state.xsave.data();
  uint16_t control = static_cast<uint16_t>(0x40 | (random_.next() & 0x0f00) | 0x3f);
  if (random_.one_in(8)) control = static_cast<uint16_t>(0x40 | (random_.next() & 0x0f3f));
  uint16_t status = static_cast<uint16_t>(random_.next() & 0x7f7f);
  if (!random_.one_in(8)) status &= 0xff80;
  const bool summary = (status & ~control & 0x3f) != 0;  // ES and B follow the unmasked flags (SDM Vol. 1 8.1.3.3)
  status = static_cast<uint16_t>(summary ? status | 0x8080 : status & ~0x8080);
  uint8_t tags = random_.one_in(3) ? static_cast<uint8_t>(random_.next()) : 0xff;
  std::memcpy(area, &control, 2);
  std::memcpy(area + 2, &status, 2);
  std::memcpy(area + 4, &tags, 1);
  for (size_t i = 0; i < 8; ++i) {
    uint64_t significand = random_.next();
    uint16_t exponent = static_cast<uint16_t>(0x3fff - 32 + random_.below(64));
    const uint64_t kind = random_.below(12);
    if (kind == 0) exponent = 0, significand = 0;                                   // zero
    if (kind == 1) exponent = 0, significand >>= 1;                                 // denormal
    if (kind == 2) exponent = 0x7fff, significand = uint64_t{1} << 63;              // infinity
    if (kind == 3) exponent = 0x7fff, significand |= uint64_t{3} << 62;             // quiet NaN
    if (kind == 4) exponent = static_cast<uint16_t>(random_.next() & 0x7fff);       // anything, unnormal too
    if (kind == 5) exponent = 0x3fff, significand = uint64_t{1} << 63;              // one
    if (kind > 5) significand |= uint64_t{1} << 63;
    exponent |= static_cast<uint16_t>(random_.below(2) << 15);
    std::memcpy(area + 32 + i * 16, &significand, 8);
    std::memcpy(area + 32 + i * 16 + 8, &exponent, 2);
  }
}

uint64_t Generator::window_target(unsigned size_bytes) {
  switch (random_.below(10)) {
    case 0: return kWindow + kPage - random_.below(size_bytes + 1);            // crosses into the second page
    case 1: return kWindow + kWindowWritable - random_.below(size_bytes + 1);  // into the read-only page
    case 2: return kWindow + kWindowReadable - random_.below(size_bytes + 1);  // off the end
    case 3: return kWindow + kPage + (random_.below(kPage / 64) * 64);         // aligned
    case 4:
    case 5: return kWindow + (random_.below((kWindowWritable - 64) / 16) * 16);
    default: return kWindow + 64 + random_.below(kWindowWritable - 128);
  }
}

// Makes the memory operand's linear address land at a window target, by the base or index register or the displacement.
void Generator::aim_memory_operand(Case& out) {
  Insn& insn = out.insn;
  if (!insn.is_memory || random_.one_in(64)) return;
  uint64_t target = window_target(32);
  if (insn.segment == x86::kFs) target -= out.before.fs_base;
  if (insn.segment == x86::kGs) target -= out.before.gs_base;
  const uint64_t displacement = static_cast<uint64_t>(int64_t{insn.displacement});
  uint64_t index = 0;
  if (insn.index != x86::kNoRegister) index = out.before.gpr[insn.index] << insn.scale;
  if (insn.base == x86::kRipBase || insn.base == x86::kNoRegister) {
    if (!insn.has_modrm) return;  // moffs: a random 64-bit address faults on both sides
    const uint64_t next = insn.base == x86::kRipBase ? out.address + insn.length : 0;
    const auto patched = static_cast<int32_t>(target - next - index);
    // The displacement is the four bytes after ModRM and SIB; find them by what they hold.
    for (size_t at = 1; at + 4 <= insn.length; ++at) {
      int32_t found = 0;
      std::memcpy(&found, out.bytes.data() + at, 4);
      if (found != insn.displacement) continue;
      std::memcpy(out.bytes.data() + at, &patched, 4);
      break;
    }
    x86::decode(out.bytes, x86::CodeSize::k64, insn);
    return;
  }
  uint64_t base = target - displacement - index;
  if (insn.base == insn.index) base = (target - displacement) / ((uint64_t{1} << insn.scale) + 1);
  out.before.gpr[insn.base] = base;
}

void Generator::special_rules(Case& out, std::span<std::byte> window) {
  const Op op = out.insn.row->op;
  std::array<uint64_t, 16>& gpr = out.before.gpr;
  const bool is_string = (out.insn.row->flags & x86::kRep) != 0;
  if (is_string || op == Op::kMaskmovdqu || op == Op::kMaskmovq || op == Op::kVmaskmovdqu || op == Op::kXlat) {
    gpr[x86::kRsi] = window_target(64);
    gpr[x86::kRdi] = window_target(64);
    if (op == Op::kXlat) gpr[x86::kRbx] = window_target(256);
    if (is_string && !random_.one_in(32)) gpr[x86::kRcx] = random_.below(96);
  }
  if ((op == Op::kDiv || op == Op::kIdiv) && !random_.one_in(4)) gpr[x86::kRdx] = random_.one_in(2) ? 0 : random_.below(256);
  // Bit offsets in registers reach far: keep most of them near the operand.
  if (out.insn.is_memory && (op == Op::kBt || op == Op::kBts || op == Op::kBtr || op == Op::kBtc) && !random_.one_in(8) &&
      out.insn.reg != out.insn.base && out.insn.reg != out.insn.index)
    gpr[out.insn.reg] = static_cast<uint64_t>(static_cast<int64_t>(random_.below(2048)) - 1024);
  if (op == Op::kEnter) out.before.gpr[x86::kRbp] = window_target(256);
  if (op == Op::kLeave) out.before.gpr[x86::kRbp] = window_target(16);
  // POPF must not set TF: the host would trap after the jump back (SDM Vol. 3 17.3.1.4). NT is left alone too.
  const uint64_t stack = gpr[x86::kRsp] - kWindow;
  if (op == Op::kPopf && stack + 8 <= window.size()) window[stack + 1] &= std::byte{0xbe};
}

void Generator::next(Case& out, std::span<std::byte> window) {
  while (!draw_instruction(out)) ++rejected_;
  out.address = kCodePage + 64 + random_.below(kPage - 256);
  draw_registers(out.before);
  draw_vectors(out.before);
  draw_x87(out.before);
  special_rules(out, window);
  aim_memory_operand(out);
  out.before.rip = out.address;
}

}  // namespace tenon::differential
