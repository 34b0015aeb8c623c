// FXSAVE, FXRSTOR, the XSAVE family, LDMXCSR and STMXCSR, in C++: they move state and check headers, nothing more.
//
// The area is assembled or taken apart in a local image of the standard or compacted form, which for x87, SSE and AVX
// have the same layout, since AVX is the first extended component (offset 576 in both).
//
// Source: Intel SDM Vol. 1 10.5 and chapter 13, Vol. 2 pages of the instructions, rev. 325383-080.
// Not implemented: the modified optimisation of XSAVEOPT and XSAVES (SDM Vol. 1 13.6; saving unmodified state is
// allowed). Deviation: FXSAVE and FXRSTOR move XMM registers and MXCSR also with CR4.OSFXSR = 0
// (implementation-dependent, 10.5.1).

#include <array>
#include <span>

#include "engine/interp/families.hh"
#include "engine/interp/memory.hh"
#include "engine/interp/vector.hh"
#include "engine/interp/vector_state.hh"

namespace tenon::interp {

namespace {

using x86::Op;

constexpr unsigned kMxcsrAt = x86::XsaveArea::kMxcsrOffset, kMxcsrMaskAt = kMxcsrAt + 4;
constexpr unsigned kXmmAt = x86::XsaveArea::kXmmOffset;
constexpr unsigned kHeaderAt = x86::XsaveArea::kHeaderOffset;
constexpr unsigned kYmmAt = x86::XsaveArea::kYmmHighOffset;
constexpr unsigned kLegacyBytes = 512, kHeaderBytes = 64, kImageBytes = kYmmAt + 256;
constexpr unsigned kX87Bytes = 24;  // FCW to FDP, before MXCSR
constexpr uint64_t kCompacted = uint64_t{1} << 63;

using Image = std::array<uint8_t, kImageBytes>;

template <typename T>
T image_get(std::span<const uint8_t> image, unsigned at) {
  T value;
  std::memcpy(&value, image.data() + at, sizeof value);
  return value;
}
template <typename T>
void image_set(std::span<uint8_t> image, unsigned at, T value) {
  std::memcpy(image.data() + at, &value, sizeof value);
}

/// Registers the instruction moves: XMM8 to XMM15 only in 64-bit mode.
unsigned register_count(const Cpu& cpu) { return cpu.in_long_mode ? 16 : 8; }

/// Without REX.W the pointers are 32 bits and selectors; the selectors are deprecated and stored as 0.
void put_x87(const VectorState& state, bool wide, std::span<uint8_t> image) {
  std::memcpy(image.data(), state.fx, kX87Bytes);
  std::memcpy(image.data() + Fx::kRegisters, state.fx + Fx::kRegisters, 8 * Fx::kRegisterBytes);
  if (wide) return;
  image_set<uint32_t>(image, Fx::kIp + 4, 0);
  image_set<uint32_t>(image, Fx::kDp + 4, 0);
}

void take_x87(std::span<const uint8_t> image, bool wide, VectorState& state) {
  std::memcpy(state.fx, image.data(), kX87Bytes);
  fx_set_control_status(state, image_get<uint16_t>(image, Fx::kControl), image_get<uint16_t>(image, Fx::kStatus));
  state.fx[Fx::kTags + 1] = 0;
  fx_set<uint16_t>(state, Fx::kOpcode, image_get<uint16_t>(image, Fx::kOpcode) & 0x7ffu);
  for (unsigned i = 0; i < 8; ++i) {
    std::memcpy(fx_register(state, i), image.data() + Fx::kRegisters + i * Fx::kRegisterBytes, 10);
    std::memset(fx_register(state, i) + 10, 0, Fx::kRegisterBytes - 10);
  }
  if (wide) return;
  fx_set<uint32_t>(state, Fx::kIp + 4, 0);
  fx_set<uint32_t>(state, Fx::kDp + 4, 0);
}

void initialise_x87(VectorState& state) {
  std::memset(state.fx, 0, kX87Bytes);
  std::memset(state.fx + Fx::kRegisters, 0, 8 * Fx::kRegisterBytes);
  fx_set<uint16_t>(state, Fx::kControl, Fx::kInitialControl);
}

void put_mxcsr(const VectorState& state, std::span<uint8_t> image) {
  image_set<uint32_t>(image, kMxcsrAt, state.mxcsr);
  image_set<uint32_t>(image, kMxcsrMaskAt, kMxcsrMask);
}

/// The 16-byte halves of the registers: `high` 0 for XMM, 1 for the upper half of YMM.
void put_halves(const VectorState& state, unsigned high, unsigned count, uint8_t* to) {
  for (unsigned i = 0; i < count; ++i) std::memcpy(to + 16 * i, state.ymm[i] + 16 * high, 16);
}

void take_halves(const uint8_t* from, unsigned high, unsigned count, VectorState& state) {
  for (unsigned i = 0; i < count; ++i) std::memcpy(state.ymm[i] + 16 * high, from + 16 * i, 16);
}

void clear_halves(unsigned high, unsigned count, VectorState& state) {
  for (unsigned i = 0; i < count; ++i) std::memset(state.ymm[i] + 16 * high, 0, 16);
}

/// `bytes` is a multiple of 8 long.
bool is_zero(std::span<const uint8_t> bytes) {
  uint64_t all = 0;
  for (unsigned at = 0; at < bytes.size(); at += 8) all |= image_get<uint64_t>(bytes, at);
  return all == 0;
}

// --- FXSAVE, FXRSTOR.

constexpr unsigned kFxAlignment = 16;

/// FXSAVE and FXRSTOR: an address that is not canonical comes first (through SS that is #SS), then with #AC on the
/// first doubleword's alignment, then the image's (SDM Vol. 2, FXSAVE, leaves the choice to the processor).
bool check_fx_alignment(Cpu& cpu, SegmentIndex segment, uint64_t offset) {
  uint64_t linear = 0;
  if (!cpu.linear_address(segment, offset, 1, Access::kRead, linear)) return false;
  return check_operand_alignment(cpu, segment, offset, 4) && check_aligned(cpu, segment, offset, kFxAlignment);
}

void run_fxsave(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const SegmentIndex segment = operand_segment(insn);
  const uint64_t offset = cpu.effective_offset(step);
  if (!x87_gate_open(cpu, false) || !check_fx_alignment(cpu, segment, offset)) return cpu.fault(step);
  if (!cpu.probe_store(segment, cut_to_address_size(insn, offset + kLegacyBytes - 1), 1))
    return cpu.fault(step);  // processors touch the end first
  std::array<uint8_t, kLegacyBytes> image{};
  put_x87(cpu.vector, (insn.prefixes & x86::kPrefixRexW) != 0, image);
  put_mxcsr(cpu.vector, image);
  put_halves(cpu.vector, 0, register_count(cpu), image.data() + kXmmAt);
  const unsigned written =
      kXmmAt + 16 * register_count(cpu);  // what lies behind is not written (SDM Vol. 1 Table 10-2)
  if (!cpu.probe_store(segment, offset, kLegacyBytes) || !cpu.store_bytes(segment, offset, image.data(), written))
    return cpu.fault(step);
  return next(cpu, step);
}

void run_fxrstor(Cpu& cpu, const Step* step) {
  const Insn& insn = step->insn;
  const SegmentIndex segment = operand_segment(insn);
  const uint64_t offset = cpu.effective_offset(step);
  if (!x87_gate_open(cpu, false) || !check_fx_alignment(cpu, segment, offset)) return cpu.fault(step);
  if (!probe_load(cpu, segment, cut_to_address_size(insn, offset + kLegacyBytes - 1), 1)) return cpu.fault(step);
  std::array<uint8_t, kLegacyBytes> image;
  if (!cpu.load_bytes(segment, offset, image.data(), kLegacyBytes)) return cpu.fault(step);
  const auto mxcsr = image_get<uint32_t>(image, kMxcsrAt);
  if ((mxcsr & ~kMxcsrMask) != 0) return cpu.fault(step, x86::kGeneralProtection, 0);
  take_x87(image, (insn.prefixes & x86::kPrefixRexW) != 0, cpu.vector);
  take_halves(image.data() + kXmmAt, 0, register_count(cpu), cpu.vector);
  cpu.vector.mxcsr = mxcsr;
  return next(cpu, step);
}

// --- The XSAVE family.

enum class SaveForm : uint8_t { kXsave, kXsaveopt, kXsavec, kXsaves };

/// #UD, #NM and alignment; `privileged` for XSAVES and XRSTORS.
bool xsave_gate_open(Cpu& cpu, SegmentIndex segment, uint64_t offset, bool privileged) {
  if ((cpu.state.cr4 & x86::kCr4Osxsave) == 0) return cpu.raise(x86::kInvalidOpcode);
  if ((cpu.state.cr0 & x86::kCr0Ts) != 0) return cpu.raise(x86::kDeviceNotAvailable);
  if (privileged && cpu.cpl != 0) return cpu.raise(x86::kGeneralProtection, 0);
  return check_aligned(cpu, segment, offset, 64);
}

/// RFBM (SDM Vol. 1 13.2). No supervisor component exists, so XSS adds nothing.
uint64_t requested_components(const Cpu& cpu) {
  const uint64_t mask = (cpu.gpr[x86::kRdx] << 32) | static_cast<uint32_t>(cpu.gpr[x86::kRax]);
  return mask & cpu.state.xcr0 & kXcAll;
}

/// A piece of the area that an instruction writes.
struct Piece {
  unsigned at, size_bytes;
};

/// All or nothing: every piece is probed before the first is stored.
bool store_pieces(Cpu& cpu, SegmentIndex segment, uint64_t offset, const Image& image, std::span<const Piece> pieces) {
  for (const Piece& piece : pieces)
    if (piece.size_bytes != 0 && !cpu.probe_store(segment, offset + piece.at, piece.size_bytes)) return false;
  for (const Piece& piece : pieces)
    if (piece.size_bytes != 0 &&
        !cpu.store_bytes(segment, offset + piece.at, image.data() + piece.at, piece.size_bytes))
      return false;
  return true;
}

template <SaveForm form>
void run_xsave(Cpu& cpu, const Step* step) {
  constexpr bool kCompact = form == SaveForm::kXsavec || form == SaveForm::kXsaves;
  const SegmentIndex segment = operand_segment(step->insn);
  const uint64_t offset = cpu.effective_offset(step);
  if (!xsave_gate_open(cpu, segment, offset, form == SaveForm::kXsaves)) return cpu.fault(step);
  const uint64_t requested = requested_components(cpu), in_use = components_in_use(cpu.vector);
  const uint64_t saved = form == SaveForm::kXsave ? requested : requested & in_use;
  Image image;  // only what has been put into it is stored
  uint64_t old_components = 0;
  if (!kCompact && !cpu.load(segment, offset + kHeaderAt, old_components)) return cpu.fault(step);
  image_set<uint64_t>(image, kHeaderAt, (old_components & ~requested) | (requested & in_use));
  if (kCompact) image_set<uint64_t>(image, kHeaderAt + 8, requested | kCompacted);
  const unsigned count = register_count(cpu);
  put_mxcsr(cpu.vector, image);
  if ((saved & kXcX87) != 0) put_x87(cpu.vector, (step->insn.prefixes & x86::kPrefixRexW) != 0, image);
  if ((saved & kXcSse) != 0) put_halves(cpu.vector, 0, count, image.data() + kXmmAt);
  if ((saved & kXcAvx) != 0) put_halves(cpu.vector, 1, count, image.data() + kYmmAt);
  // MXCSR goes with SSE, in the standard form also with AVX (SDM Vol. 1 13.7, 13.10).
  const bool mxcsr = kCompact ? (saved & kXcSse) != 0 : (requested & (kXcSse | kXcAvx)) != 0;
  const Piece pieces[] = {
      {0, (saved & kXcX87) != 0 ? kX87Bytes : 0},
      {kMxcsrAt, mxcsr ? 8u : 0u},
      {Fx::kRegisters, (saved & kXcX87) != 0 ? 8u * Fx::kRegisterBytes : 0},
      {kXmmAt, (saved & kXcSse) != 0 ? 16 * count : 0},
      {kYmmAt, (saved & kXcAvx) != 0 ? 16 * count : 0},
      {kHeaderAt, kCompact ? 16u : 8u},
  };
  if (!store_pieces(cpu, segment, offset, image, pieces)) return cpu.fault(step);
  return next(cpu, step);
}

/// What XRSTOR refuses with #GP(0) (SDM Vol. 1 13.8.1, 13.8.2, 13.12).
bool header_is_valid(std::span<const uint8_t> image, uint64_t xcr0, bool must_be_compacted) {
  const auto components = image_get<uint64_t>(image, kHeaderAt);
  const auto layout = image_get<uint64_t>(image, kHeaderAt + 8);
  if ((layout & kCompacted) == 0) {
    return !must_be_compacted && (components & ~xcr0) == 0 && is_zero(image.subspan(kHeaderAt + 8, 16));
  }
  const uint64_t present = layout & ~kCompacted;
  return (present & ~xcr0) == 0 && (components & ~present) == 0 && is_zero(image.subspan(kHeaderAt + 16, 48));
}

template <bool supervisor>
void run_xrstor(Cpu& cpu, const Step* step) {
  const SegmentIndex segment = operand_segment(step->insn);
  const uint64_t offset = cpu.effective_offset(step);
  if (!xsave_gate_open(cpu, segment, offset, supervisor)) return cpu.fault(step);
  Image image;
  if (!cpu.load_bytes(segment, offset, image.data(), kLegacyBytes + kHeaderBytes)) return cpu.fault(step);
  if (!header_is_valid(image, cpu.state.xcr0, supervisor)) return cpu.fault(step, x86::kGeneralProtection, 0);
  const uint64_t requested = requested_components(cpu);
  const uint64_t loaded = requested & image_get<uint64_t>(image, kHeaderAt);
  const bool compacted = (image_get<uint64_t>(image, kHeaderAt + 8) & kCompacted) != 0;
  const unsigned count = register_count(cpu);
  if ((loaded & kXcAvx) != 0 && !cpu.load_bytes(segment, offset + kYmmAt, image.data() + kYmmAt, 16 * count))
    return cpu.fault(step);
  // The standard form takes MXCSR from the area whatever XSTATE_BV says; in the compacted form it belongs to SSE.
  const bool load_mxcsr = compacted ? (loaded & kXcSse) != 0 : (requested & (kXcSse | kXcAvx)) != 0;
  const auto mxcsr = image_get<uint32_t>(image, kMxcsrAt);
  if (load_mxcsr && (mxcsr & ~kMxcsrMask) != 0) return cpu.fault(step, x86::kGeneralProtection, 0);
  VectorState& state = cpu.vector;
  if (load_mxcsr)
    state.mxcsr = mxcsr;
  else if ((requested & kXcSse) != 0)
    state.mxcsr = kInitialMxcsr;
  if ((loaded & kXcX87) != 0)
    take_x87(image, (step->insn.prefixes & x86::kPrefixRexW) != 0, state);
  else if ((requested & kXcX87) != 0)
    initialise_x87(state);
  if ((loaded & kXcSse) != 0)
    take_halves(image.data() + kXmmAt, 0, count, state);
  else if ((requested & kXcSse) != 0)
    clear_halves(0, count, state);
  if ((loaded & kXcAvx) != 0)
    take_halves(image.data() + kYmmAt, 1, count, state);
  else if ((requested & kXcAvx) != 0)
    clear_halves(1, count, state);
  return next(cpu, step);
}

// --- MXCSR.

template <Gate gate>
void run_ldmxcsr(Cpu& cpu, const Step* step) {
  uint32_t value;
  if (!gate_open(cpu, gate)) return cpu.fault(step);
  if (!cpu.load(operand_segment(step->insn), cpu.effective_offset(step), value)) return cpu.fault(step);
  if ((value & ~kMxcsrMask) != 0) return cpu.fault(step, x86::kGeneralProtection, 0);
  cpu.vector.mxcsr = value;
  return next(cpu, step);
}

template <Gate gate>
void run_stmxcsr(Cpu& cpu, const Step* step) {
  if (!gate_open(cpu, gate)) return cpu.fault(step);
  if (!cpu.store(operand_segment(step->insn), cpu.effective_offset(step), cpu.vector.mxcsr)) return cpu.fault(step);
  return next(cpu, step);
}

}  // namespace

uint64_t components_in_use(const VectorState& state) {
  uint64_t components = 0;
  const bool x87_initial = fx_get<uint64_t>(state, 0) == Fx::kInitialControl &&
                           is_zero({state.fx + 8, kX87Bytes - 8}) &&
                           is_zero({state.fx + Fx::kRegisters, 8 * Fx::kRegisterBytes});
  if (!x87_initial) components |= kXcX87;
  if (state.mxcsr != kInitialMxcsr) components |= kXcSse;
  for (const auto& ymm : state.ymm) {
    if (!is_zero({ymm, 16})) components |= kXcSse;
    if (!is_zero({ymm + 16, 16})) components |= kXcAvx;
  }
  return components;
}

void to_xsave_area(const VectorState& state, x86::XsaveArea& area) {
  area.bytes.fill(std::byte{0});
  const std::span<uint8_t> image{reinterpret_cast<uint8_t*>(area.bytes.data()), area.bytes.size()};
  put_x87(state, true, image);
  put_mxcsr(state, image);
  put_halves(state, 0, 16, image.data() + kXmmAt);
  put_halves(state, 1, 16, image.data() + kYmmAt);
  image_set<uint64_t>(image, kHeaderAt, components_in_use(state));
}

void from_xsave_area(const x86::XsaveArea& area, VectorState& state) {
  const std::span<const uint8_t> image{reinterpret_cast<const uint8_t*>(area.bytes.data()), area.bytes.size()};
  const auto components = image_get<uint64_t>(image, kHeaderAt);
  initialise_x87(state);
  // The image's own MXCSR is what FXRSTOR in a thunk loads: the host's.
  fx_set<uint32_t>(state, kMxcsrAt, kInitialMxcsr);
  state.mxcsr = image_get<uint32_t>(image, kMxcsrAt) & kMxcsrMask;
  clear_halves(0, 16, state);
  clear_halves(1, 16, state);
  if ((components & kXcX87) != 0) take_x87(image, true, state);
  if ((components & kXcSse) != 0) take_halves(image.data() + kXmmAt, 0, 16, state);
  if ((components & kXcAvx) != 0) take_halves(image.data() + kYmmAt, 1, 16, state);
}

void vector_load_state(Cpu& cpu) { from_xsave_area(cpu.state.xsave, cpu.vector); }
void vector_save_state(Cpu& cpu) { to_xsave_area(cpu.vector, cpu.state.xsave); }

Handler xsave_handler(const Insn& insn) {
  switch (insn.row->op) {
    case Op::kFxsave: return run_fxsave;
    case Op::kFxrstor: return run_fxrstor;
    case Op::kXsave: return run_xsave<SaveForm::kXsave>;
    case Op::kXsaveopt: return run_xsave<SaveForm::kXsaveopt>;
    case Op::kXsavec: return run_xsave<SaveForm::kXsavec>;
    case Op::kXsaves: return run_xsave<SaveForm::kXsaves>;
    case Op::kXrstor: return run_xrstor<false>;
    case Op::kXrstors: return run_xrstor<true>;
    case Op::kLdmxcsr: return run_ldmxcsr<Gate::kSse>;
    case Op::kVldmxcsr: return run_ldmxcsr<Gate::kAvx>;
    case Op::kStmxcsr: return run_stmxcsr<Gate::kSse>;
    case Op::kVstmxcsr: return run_stmxcsr<Gate::kAvx>;
    default: return nullptr;
  }
}

}  // namespace tenon::interp
