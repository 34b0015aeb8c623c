// x87 control instructions in C++: control and status word, environment and state images, FNINIT, FNCLEX, FWAIT.
//
// They compute nothing; what matters is the layout of the images (four environment formats by operand size and by real
// or protected mode, SDM Vol. 1 8.1.10) and which instructions wait for pending exceptions (8.6).
//
// Source: Intel SDM Vol. 1 8.1, 8.3.12 and Vol. 2 (FLDENV, FSAVE...). Reserved bits of the images are as current CPUs
// store them.

#include <array>

#include "engine/interp/memory.hh"
#include "engine/interp/vector.hh"

namespace tenon::interp {

namespace {

using x86::Op;

constexpr unsigned kStateRegisterBytes = 10;

/// The registers apart from the data registers.
struct Environment {
  uint16_t control, status, tags;
  uint32_t ip, dp;
  uint16_t opcode;
};

/// Two-bit tag of one register: 0 valid, 1 zero, 2 special (SDM Vol. 1 8.1.7).
unsigned content_tag(const uint8_t* value) {
  uint64_t mantissa;
  uint16_t sign_exponent;
  std::memcpy(&mantissa, value, sizeof mantissa);
  std::memcpy(&sign_exponent, value + 8, sizeof sign_exponent);
  const unsigned exponent = sign_exponent & 0x7fffu;
  if (exponent == 0) return mantissa == 0 ? 1 : 2;
  return exponent == 0x7fff || mantissa >> 63 == 0 ? 2 : 0;
}

/// The tag word by physical register, from the one-bit tags of FXSAVE (SDM Vol. 2, FXSAVE, "recreating FSAVE format").
uint16_t full_tags(VectorState& state) {
  const unsigned top = fx_top(state);
  unsigned tags = 0;
  for (unsigned physical = 0; physical < 8; ++physical) {
    const bool used = ((state.fx[Fx::kTags] >> physical) & 1) != 0;
    const unsigned tag = used ? content_tag(fx_register(state, (physical - top) & 7u)) : 3;
    tags |= tag << (2 * physical);
  }
  return static_cast<uint16_t>(tags);
}

uint8_t short_tags(uint16_t full) {
  unsigned tags = 0;
  for (unsigned physical = 0; physical < 8; ++physical)
    if (((full >> (2 * physical)) & 3) != 3) tags |= 1u << physical;
  return static_cast<uint8_t>(tags);
}

Environment environment_of(VectorState& state) {
  return {fx_get<uint16_t>(state, Fx::kControl),
          fx_get<uint16_t>(state, Fx::kStatus),
          full_tags(state),
          fx_get<uint32_t>(state, Fx::kIp),
          fx_get<uint32_t>(state, Fx::kDp),
          static_cast<uint16_t>(fx_get<uint16_t>(state, Fx::kOpcode) & 0x7ffu)};
}

void set_environment(VectorState& state, const Environment& e) {
  fx_set_control_status(state, e.control, e.status);
  state.fx[Fx::kTags] = short_tags(e.tags);
  fx_set<uint64_t>(state, Fx::kIp, e.ip);
  fx_set<uint64_t>(state, Fx::kDp, e.dp);
  fx_set<uint16_t>(state, Fx::kOpcode, e.opcode & 0x7ffu);
}

/// An environment image: seven fields of two or four bytes.
struct EnvironmentFormat {
  bool real;             // real and virtual-8086 mode: linear addresses and the opcode packed together
  unsigned field_bytes;  // 2 or 4
  unsigned size_bytes() const { return 7 * field_bytes; }
};

EnvironmentFormat format_of(const Cpu& cpu, const Insn& insn) {
  const bool real = (cpu.state.cr0 & x86::kCr0Pe) == 0 || (cpu.system_flags & x86::kVm) != 0;
  return {real, insn.operand_size == 2 ? 2u : 4u};
}

using Fields = std::array<uint32_t, 7>;

Fields pack(const Environment& e, const EnvironmentFormat& format) {
  constexpr uint32_t kOnes = 0xffff0000;  // reserved halves read as ones
  Fields fields{kOnes | e.control, kOnes | e.status, kOnes | e.tags};
  if (!format.real) {
    // FCS and FDS are deprecated and stored as 0 (CPUID.7.EBX[13]); the 16-bit format has no opcode.
    fields[3] = e.ip;
    fields[4] = uint32_t{e.opcode} << 16;
    fields[5] = e.dp;
    fields[6] = kOnes;
  } else {
    fields[3] = kOnes | (e.ip & 0xffff);
    fields[4] = (e.ip & 0xffff0000) >> 4 | e.opcode;
    fields[5] = kOnes | (e.dp & 0xffff);
    fields[6] = (e.dp & 0xffff0000) >> 4;
  }
  return fields;
}

Environment unpack(const Fields& fields, const EnvironmentFormat& format) {
  Environment e{static_cast<uint16_t>(fields[0]),
                static_cast<uint16_t>(fields[1]),
                static_cast<uint16_t>(fields[2]),
                fields[3],
                fields[5],
                static_cast<uint16_t>(format.field_bytes == 4 ? fields[4] >> 16 : 0)};
  if (format.real) {
    e.ip = (fields[3] & 0xffff) | (fields[4] & 0x0ffff000) << 4;
    e.dp = (fields[5] & 0xffff) | (fields[6] & 0x0ffff000) << 4;
    e.opcode = static_cast<uint16_t>(fields[4] & 0x7ff);
  }
  return e;
}

void write_fields(uint8_t* image, const Fields& fields, const EnvironmentFormat& format) {
  for (unsigned i = 0; i < fields.size(); ++i)
    std::memcpy(image + i * format.field_bytes, &fields[i], format.field_bytes);
}

Fields read_fields(const uint8_t* image, const EnvironmentFormat& format) {
  Fields fields{};
  for (unsigned i = 0; i < fields.size(); ++i)
    std::memcpy(&fields[i], image + i * format.field_bytes, format.field_bytes);
  return fields;
}

constexpr unsigned kImageBytesMax = 28 + 8 * kStateRegisterBytes;

/// Processors touch the image's first field and its last byte before the rest: what CR2 names where part of it is
/// missing.
bool store_image(Cpu& cpu, const Step* step, const uint8_t* image, unsigned size, const EnvironmentFormat& format) {
  const SegmentIndex segment = operand_segment(step->insn);
  const uint64_t offset = cpu.effective_offset(step);
  return cpu.probe_store(segment, offset, format.field_bytes) &&
         cpu.probe_store(segment, cut_to_address_size(step->insn, offset + size - 1), 1) &&
         cpu.store_bytes(segment, offset, image, size);
}

bool load_image(Cpu& cpu, const Step* step, uint8_t* image, unsigned size, const EnvironmentFormat& format) {
  const SegmentIndex segment = operand_segment(step->insn);
  const uint64_t offset = cpu.effective_offset(step);
  return probe_load(cpu, segment, offset, format.field_bytes) &&
         probe_load(cpu, segment, cut_to_address_size(step->insn, offset + size - 1), 1) &&
         cpu.load_bytes(segment, offset, image, size);
}

void run_fnstenv(Cpu& cpu, const Step* step) {
  if (!x87_gate_open(cpu, false)) return cpu.fault(step);
  const EnvironmentFormat format = format_of(cpu, step->insn);
  const Environment e = environment_of(cpu.vector);
  uint8_t image[kImageBytesMax];
  write_fields(image, pack(e, format), format);
  if (!store_image(cpu, step, image, format.size_bytes(), format)) return cpu.fault(step);
  fx_set_control_status(cpu.vector, e.control | Fx::kErrorFlags,
                        e.status);  // masks all exceptions (SDM Vol. 2, FSTENV)
  return next(cpu, step);
}

void run_fldenv(Cpu& cpu, const Step* step) {
  if (!x87_gate_open(cpu, true)) return cpu.fault(step);
  const EnvironmentFormat format = format_of(cpu, step->insn);
  uint8_t image[kImageBytesMax];
  if (!load_image(cpu, step, image, format.size_bytes(), format)) return cpu.fault(step);
  const unsigned old_top = fx_top(cpu.vector);
  set_environment(cpu.vector, unpack(read_fields(image, format), format));
  fx_turn(cpu.vector, old_top, fx_top(cpu.vector));
  return next(cpu, step);
}

void run_fnsave(Cpu& cpu, const Step* step) {
  if (!x87_gate_open(cpu, false)) return cpu.fault(step);
  const EnvironmentFormat format = format_of(cpu, step->insn);
  uint8_t image[kImageBytesMax];
  write_fields(image, pack(environment_of(cpu.vector), format), format);
  for (unsigned i = 0; i < 8; ++i)
    std::memcpy(image + format.size_bytes() + i * kStateRegisterBytes, fx_register(cpu.vector, i), kStateRegisterBytes);
  const unsigned size = format.size_bytes() + 8 * kStateRegisterBytes;
  if (!store_image(cpu, step, image, size, format)) return cpu.fault(step);
  fx_init(cpu.vector);
  return next(cpu, step);
}

void run_frstor(Cpu& cpu, const Step* step) {
  if (!x87_gate_open(cpu, true)) return cpu.fault(step);
  const EnvironmentFormat format = format_of(cpu, step->insn);
  uint8_t image[kImageBytesMax];
  const unsigned size = format.size_bytes() + 8 * kStateRegisterBytes;
  if (!load_image(cpu, step, image, size, format)) return cpu.fault(step);
  set_environment(cpu.vector, unpack(read_fields(image, format), format));
  for (unsigned i = 0; i < 8; ++i)
    std::memcpy(fx_register(cpu.vector, i), image + format.size_bytes() + i * kStateRegisterBytes, kStateRegisterBytes);
  return next(cpu, step);
}

void run_fldcw(Cpu& cpu, const Step* step) {
  uint16_t control;
  if (!x87_gate_open(cpu, true)) return cpu.fault(step);
  if (!cpu.load(operand_segment(step->insn), cpu.effective_offset(step), control)) return cpu.fault(step);
  fx_set_control_status(cpu.vector, control, fx_get<uint16_t>(cpu.vector, Fx::kStatus));
  return next(cpu, step);
}

template <unsigned field>
void run_store_word(Cpu& cpu, const Step* step) {
  if (!x87_gate_open(cpu, false)) return cpu.fault(step);
  const auto value = fx_get<uint16_t>(cpu.vector, field);
  if (!cpu.store(operand_segment(step->insn), cpu.effective_offset(step), value)) return cpu.fault(step);
  return next(cpu, step);
}

void run_fnstsw_ax(Cpu& cpu, const Step* step) {
  if (!x87_gate_open(cpu, false)) return cpu.fault(step);
  cpu.set_reg<uint16_t>(x86::kRax, fx_get<uint16_t>(cpu.vector, Fx::kStatus));
  return next(cpu, step);
}

void run_fninit(Cpu& cpu, const Step* step) {
  if (!x87_gate_open(cpu, false)) return cpu.fault(step);
  fx_init(cpu.vector);
  return next(cpu, step);
}

/// Clears the exception flags, SF, ES and B (SDM Vol. 2, FCLEX).
void run_fnclex(Cpu& cpu, const Step* step) {
  if (!x87_gate_open(cpu, false)) return cpu.fault(step);
  const auto status = static_cast<uint16_t>(fx_get<uint16_t>(cpu.vector, Fx::kStatus) & 0x7f00u);
  fx_set<uint16_t>(cpu.vector, Fx::kStatus, status);
  return next(cpu, step);
}

/// WAIT looks at CR0.MP with CR0.TS, and not at CR0.EM (SDM Vol. 3 2.5, Table 2-2).
void run_fwait(Cpu& cpu, const Step* step) {
  constexpr uint64_t kBoth = x86::kCr0Mp | x86::kCr0Ts;
  if ((cpu.state.cr0 & kBoth) == kBoth) return cpu.fault(step, x86::kDeviceNotAvailable);
  if (fx_pending_errors(cpu.vector) != 0) return cpu.fault(step, x86::kX87Error);
  return next(cpu, step);
}

/// FNENI, FNDISI, FNSETPM: 8087 and 80287 instructions that do nothing any more.
void run_nothing(Cpu& cpu, const Step* step) {
  if (!x87_gate_open(cpu, false)) return cpu.fault(step);
  return next(cpu, step);
}

}  // namespace

void fx_turn(VectorState& state, unsigned old_top, unsigned new_top) {
  if (old_top == new_top) return;
  uint8_t turned[8][Fx::kRegisterBytes];
  for (unsigned slot = 0; slot < 8; ++slot)
    std::memcpy(turned[slot], fx_register(state, (slot + new_top - old_top) & 7u), Fx::kRegisterBytes);
  std::memcpy(state.fx + Fx::kRegisters, turned, sizeof turned);
}

void fx_reset_top(VectorState& state) {
  fx_turn(state, fx_top(state), 0);
  fx_set<uint16_t>(state, Fx::kStatus, static_cast<uint16_t>(fx_get<uint16_t>(state, Fx::kStatus) & ~Fx::kTop));
}

void fx_init(VectorState& state) {
  fx_reset_top(state);
  std::memset(state.fx, 0, Fx::kDp + 8);
  fx_set<uint16_t>(state, Fx::kControl, Fx::kInitialControl);
}

void fx_set_control_status(VectorState& state, uint16_t control, uint16_t status) {
  fx_set<uint16_t>(state, Fx::kControl, static_cast<uint16_t>((control & 0x1f7fu) | 0x40u));
  fx_set<uint16_t>(state, Fx::kStatus, static_cast<uint16_t>(status & ~unsigned{Fx::kErrorSummary | Fx::kBusy}));
  if (fx_pending_errors(state) == 0) return;
  fx_set<uint16_t>(state, Fx::kStatus, static_cast<uint16_t>(status | Fx::kErrorSummary | Fx::kBusy));
}

Handler x87_control_handler(const Insn& insn) {
  switch (insn.row->op) {
    case Op::kFnstenv: return run_fnstenv;
    case Op::kFldenv: return run_fldenv;
    case Op::kFnsave: return run_fnsave;
    case Op::kFrstor: return run_frstor;
    case Op::kFldcw: return run_fldcw;
    case Op::kFnstcw: return run_store_word<Fx::kControl>;
    case Op::kFnstsw: return insn.is_memory ? run_store_word<Fx::kStatus> : run_fnstsw_ax;
    case Op::kFninit: return run_fninit;
    case Op::kFnclex: return run_fnclex;
    case Op::kFwait: return run_fwait;
    case Op::kFneni:
    case Op::kFndisi:
    case Op::kFnsetpm: return run_nothing;
    default: return nullptr;
  }
}

}  // namespace tenon::interp
