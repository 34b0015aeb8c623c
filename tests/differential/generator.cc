#include "tests/differential/generator.hh"

#include <bit>
#include <cstring>

#include "engine/x86/cpu_state.hh"

namespace tenon::differential {

using x86::Insn;
using x86::Op;

uint64_t Generator::interesting_integer() {
  static constexpr uint64_t kEdges[] = {0,
                                        1,
                                        2,
                                        0x7f,
                                        0x80,
                                        0xff,
                                        0x7fff,
                                        0x8000,
                                        0xffff,
                                        0x7fffffff,
                                        0x80000000,
                                        0xffffffff,
                                        0x7fffffffffffffff,
                                        0x8000000000000000,
                                        0xffffffffffffffff,
                                        0xfffffffffffffff0};
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
  static constexpr uint32_t kFloats[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000,
                                         0x7fc00000, 0x7f800001, 1,          0x807fffff, 0x00800000, 0x7f7fffff,
                                         0x4f000000, 0xcf000000, 0x3f000000, 0x5f000000};
  static constexpr uint64_t kDoubles[] = {0,
                                          0x8000000000000000,
                                          0x3ff0000000000000,
                                          0xbff0000000000000,
                                          0x7ff0000000000000,
                                          0xfff0000000000000,
                                          0x7ff8000000000000,
                                          0x7ff0000000000001,
                                          1,
                                          0x800fffffffffffff,
                                          0x0010000000000000,
                                          0x7fefffffffffffff,
                                          0x41e0000000000000,
                                          0xc1e0000000000000,
                                          0x43e0000000000000,
                                          0x3fe0000000000000};
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

void Generator::draw_bytes(std::array<uint8_t, x86::kInsnLengthMax>& bytes) {
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
      break;
    case 6:  // three-byte VEX
      bytes[at++] = 0xc4;
      bytes[at] = static_cast<uint8_t>((bytes[at] & 0xe0) | (1 + random_.below(3)));
      if (random_.one_in(3)) bytes[at + 1] |= 0x78;
      break;
    default: bytes[at++] = static_cast<uint8_t>(0xd8 + random_.below(8)); break;  // x87
  }
}

// Three of four by row, so that each row has its share; the rest is any bytes, for odd combinations of prefixes.
bool Generator::draw_instruction(Case& out) {
  if (random_.one_in(4)) {
    draw_bytes(out.bytes);
  } else {
    encode(catalog_.form(random_.below(catalog_.size())), random_, out.bytes);
  }
  if (x86::decode(out.bytes, x86::CodeSize::k64, out.insn) != x86::DecodeStatus::kOk) return false;
  out.form = catalog_.find(out.insn);
  if (out.form == catalog_.size()) return false;
  // A branch into itself may never end.
  const x86::Operand target = out.insn.row->operands[0];
  const bool is_relative = target == x86::Operand::kJb || target == x86::Operand::kJz;
  return !is_relative || out.insn.immediate < -int64_t{2 * x86::kInsnLengthMax} || out.insn.immediate > 0;
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
  for (int i = 0; i < 4; ++i) {  // the others stay from the case before
    fill_typed({area + 160 + random_.below(16) * 16, 16});
    fill_typed({area + 576 + random_.below(16) * 16, 16});
  }
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
  // Pointers and opcode of the last x87 instruction (SDM Vol. 1 8.1.8, 8.1.9), in user space.
  const uint64_t pointers[2] = {random_.next() >> 17, random_.next() >> 17};
  const auto opcode = static_cast<uint16_t>(random_.below(0x800));
  std::memcpy(area + 6, &opcode, sizeof opcode);
  std::memcpy(area + 8, pointers, sizeof pointers);
  for (int changed = 0; changed < 3; ++changed) {
    const uint64_t i = random_.below(8);
    uint64_t significand = random_.next();
    uint16_t exponent = static_cast<uint16_t>(0x3fff - 32 + random_.below(64));
    const uint64_t kind = random_.below(12);
    if (kind == 0) exponent = 0, significand = 0;                              // zero
    if (kind == 1) exponent = 0, significand >>= 1;                            // denormal
    if (kind == 2) exponent = 0x7fff, significand = uint64_t{1} << 63;         // infinity
    if (kind == 3) exponent = 0x7fff, significand |= uint64_t{3} << 62;        // quiet NaN
    if (kind == 4) exponent = static_cast<uint16_t>(random_.next() & 0x7fff);  // anything, unnormal too
    if (kind == 5) exponent = 0x3fff, significand = uint64_t{1} << 63;         // one
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

uint64_t Generator::operand_target(const Insn& insn) {
  const uint64_t target = window_target(64);
  const bool aligned = (insn.row->flags & x86::kAligned) != 0 || insn.row->op == Op::kCmpxchg16b;
  return aligned && !random_.one_in(8) ? target & ~uint64_t{31} : target;
}

namespace {

uint64_t segment_base(const Case& test) {
  if (test.insn.segment == x86::kFs) return test.before.fs_base;
  return test.insn.segment == x86::kGs ? test.before.gs_base : 0;
}

bool has_vector_index(const Insn& insn) {
  for (const x86::Operand operand : insn.row->operands)
    if (operand == x86::Operand::kVsib) return true;
  return false;
}

bool has_wide_index(Op op) {
  return op == Op::kVgatherqps || op == Op::kVgatherqpd || op == Op::kVpgatherqd || op == Op::kVpgatherqq;
}

}  // namespace

// The base near the window's middle, most elements of the index register so that they stay in it.
void Generator::aim_gather(Case& out) {
  const Insn& insn = out.insn;
  if (insn.base < 16)
    out.before.gpr[insn.base] = kWindow + kPage - segment_base(out) - static_cast<uint64_t>(int64_t{insn.displacement});
  const size_t width = has_wide_index(insn.row->op) ? 8 : 4;
  for (size_t at = 0; at < 32; at += width) {
    if (random_.one_in(16)) continue;
    const int64_t distance = static_cast<int64_t>(random_.below(3 * kPage)) - static_cast<int64_t>(kPage);
    const int64_t index = distance >> insn.scale;
    std::byte* half = out.before.xsave.data() + (at < 16 ? 160 + insn.index * 16 : 576 + insn.index * 16);
    std::memcpy(half + at % 16, &index, width);
  }
}

// Instructions whose operand is an address in the instruction itself get it written there.
void Generator::aim_offset(Case& out, uint64_t target) {
  const size_t size = out.insn.address_size;
  std::memcpy(out.bytes.data() + out.insn.length - size, &target, size);
  x86::decode(out.bytes, x86::CodeSize::k64, out.insn);
}

// Makes the memory operand's linear address land at a window target, by the base or index register or the displacement.
void Generator::aim_memory_operand(Case& out) {
  Insn& insn = out.insn;
  if (!insn.is_memory || random_.one_in(64)) return;
  if (has_vector_index(insn)) return aim_gather(out);
  const uint64_t target = operand_target(insn) - segment_base(out);
  const uint64_t displacement = static_cast<uint64_t>(int64_t{insn.displacement});
  uint64_t index = 0;
  if (insn.index != x86::kNoRegister) index = out.before.gpr[insn.index] << insn.scale;
  if (insn.base == x86::kRipBase || insn.base == x86::kNoRegister) {
    if (!insn.has_modrm) return aim_offset(out, target);
    const uint64_t next = insn.base == x86::kRipBase ? out.address % kFar + insn.length : 0;
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

// Strings and masked stores have fixed registers.
void Generator::aim_strings(Case& out) {
  const Op op = out.insn.row->op;
  std::array<uint64_t, 16>& gpr = out.before.gpr;
  const bool is_string = (out.insn.row->flags & x86::kRep) != 0;
  if (!is_string && op != Op::kMaskmovdqu && op != Op::kMaskmovq && op != Op::kVmaskmovdqu && op != Op::kXlat) return;
  gpr[x86::kRsi] = window_target(64);
  gpr[x86::kRdi] = window_target(64);
  if (op == Op::kXlat) gpr[x86::kRbx] = window_target(256);
  if (is_string && !random_.one_in(32)) gpr[x86::kRcx] = random_.below(96);
  if (random_.one_in(16)) gpr[random_.one_in(2) ? x86::kRcx : x86::kRdi] |= random_.next() << 32;  // for 67
}

void Generator::special_rules(Case& out, std::span<std::byte> window) {
  const Op op = out.insn.row->op;
  std::array<uint64_t, 16>& gpr = out.before.gpr;
  if ((op == Op::kDiv || op == Op::kIdiv) && !random_.one_in(4))
    gpr[x86::kRdx] = random_.one_in(2) ? 0 : random_.below(256);
  // Bit offsets in registers reach far: keep most of them near the operand.
  if (out.insn.is_memory && (op == Op::kBt || op == Op::kBts || op == Op::kBtr || op == Op::kBtc) &&
      !random_.one_in(8) && out.insn.reg != out.insn.base && out.insn.reg != out.insn.index)
    gpr[out.insn.reg] = static_cast<uint64_t>(static_cast<int64_t>(random_.below(2048)) - 1024);
  if (op == Op::kEnter) gpr[x86::kRbp] = window_target(256);
  if (op == Op::kLeave) gpr[x86::kRbp] = window_target(16);
  // POPF must not set TF: the host would trap after the jump back (SDM Vol. 3 17.3.1.4). NT is left alone too.
  const uint64_t stack = gpr[x86::kRsp] - kWindow;
  if (op == Op::kPopf && stack + 1 < window.size()) window[stack + 1] &= std::byte{0xbe};
  if (op == Op::kRet && random_.one_in(2)) place(window, gpr[x86::kRsp], branch_target(out));
}

// A 32-bit relative branch into the code page; 8-bit ones reach it anyway, 16-bit ones do not exist in 64-bit mode.
void Generator::aim_branch(Case& out) {
  if (out.insn.row->operands[0] != x86::Operand::kJz || random_.one_in(8)) return;
  const auto displacement = static_cast<int32_t>(branch_target(out) - out.address - out.insn.length);
  std::memcpy(out.bytes.data() + out.insn.length - sizeof displacement, &displacement, sizeof displacement);
  x86::decode(out.bytes, x86::CodeSize::k64, out.insn);
}

uint64_t Generator::branch_target(const Case& test) {
  const uint64_t page = test.address - test.address % kPage;
  const uint64_t target = page + random_.below(kPage);
  const bool hits_itself = target + 32 >= test.address && target < test.address + 32;
  return hits_itself ? page : target;
}

void Generator::place(std::span<std::byte> window, uint64_t address, uint64_t value) {
  const uint64_t at = address - kWindow;
  if (at < window.size() && at + 8 <= window.size()) std::memcpy(window.data() + at, &value, 8);
}

// What depends on where the memory operand has ended up: targets of indirect branches, comparisons that succeed.
void Generator::prepare_operand(Case& out, std::span<std::byte> window) {
  const Insn& insn = out.insn;
  const Op op = insn.row->op;
  const bool is_indirect = (op == Op::kJmp || op == Op::kCall) && insn.has_modrm;
  if (is_indirect && !insn.is_memory && random_.one_in(2)) out.before.gpr[insn.rm] = branch_target(out);
  const bool compares = op == Op::kCmpxchg || op == Op::kCmpxchg8b || op == Op::kCmpxchg16b;
  if (!insn.is_memory || insn.base >= 16 || insn.index != x86::kNoRegister || random_.one_in(3)) return;
  const uint64_t address =
      out.before.gpr[insn.base] + static_cast<uint64_t>(int64_t{insn.displacement}) + segment_base(out);
  if (is_indirect) place(window, address, branch_target(out));
  if (!compares) return;
  const uint64_t rax = out.before.gpr[x86::kRax];
  const uint64_t rdx = out.before.gpr[x86::kRdx];
  place(window, address, op == Op::kCmpxchg8b ? (rax & 0xffffffff) | rdx << 32 : rax);
  if (op == Op::kCmpxchg16b) place(window, address + 8, rdx);
}

void Generator::next(Case& out, std::span<std::byte> window) {
  while (!draw_instruction(out)) ++rejected_;
  const uint64_t far = random_.one_in(2) ? 0 : kFar * (1 + random_.below(kFarMax));
  out.address = far + kCodePage + 64 + random_.below(kPage - 256);
  draw_registers(out.before);
  draw_vectors(out.before);
  draw_x87(out.before);
  aim_branch(out);
  aim_strings(out);
  special_rules(out, window);
  aim_memory_operand(out);
  prepare_operand(out, window);
  out.before.rip = out.address;
}

}  // namespace tenon::differential
