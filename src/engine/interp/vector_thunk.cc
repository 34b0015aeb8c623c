#include "engine/interp/vector_thunk.hh"

#include <array>
#include <cstddef>
#include <deque>
#include <span>
#include <unordered_map>

#include "base/code_memory.hh"
#include "base/float_trap.hh"
#include "base/mutex.hh"

namespace tenon::interp {

namespace {

using x86::Op;
using x86::OpcodeMap;
using x86::Operand;

// Distinct encodings: about 900 without an immediate, and 100 with one times 256 values, two vector lengths, two values
// of W and two forms: below 210 thousand of at most 256 bytes. The file behind it takes host memory only as thunks are
// made.
constexpr size_t kCodeBytes = size_t{64} << 20;

/// Host registers by role: their numbers in ModRM, below 8 so that no prefix is needed.
enum HostOperand : uint8_t { kHostImplicit = 0, kHostReg = 1, kHostRm = 2, kHostVvvv = 3, kHostIs4 = 4, kHostGpr = 0 };
/// Host pointers by role (see the head of vector_thunk.hh).
enum HostPointer : uint8_t {
  kRcxPointer = 1,
  kRdxPointer = 2,
  kRsiPointer = 6,
  kRdiPointer = 7,
  kR8Pointer = 8,
  kR9Pointer = 9
};

/// Bytes of one thunk being written.
class Writer {
 public:
  void bytes(std::initializer_list<uint8_t> list) {
    for (const uint8_t byte : list) byte_(byte);
  }
  void imm32(uint32_t value) {
    for (unsigned i = 0; i < 4; ++i) byte_(static_cast<uint8_t>(value >> (8 * i)));
  }
  /// `opcode` (without REX) with ModRM [pointer], no displacement; `rex` is ORed into a REX prefix where one is needed.
  void with_pointer(std::initializer_list<uint8_t> prefixes, uint8_t rex, std::initializer_list<uint8_t> opcode,
                    unsigned reg, HostPointer pointer) {
    bytes(prefixes);
    const auto full_rex = static_cast<uint8_t>(rex | (pointer >= 8 ? 1 : 0));
    if (full_rex != 0) byte_(static_cast<uint8_t>(0x40 | full_rex));
    bytes(opcode);
    byte_(static_cast<uint8_t>((reg << 3) | (pointer & 7u)));
  }
  /// 0F AE /group or another two-byte opcode on [r8 + field].
  void on_state(std::initializer_list<uint8_t> opcode, uint8_t rex, unsigned reg, size_t field) {
    byte_(static_cast<uint8_t>(0x41 | rex));
    bytes(opcode);
    byte_(static_cast<uint8_t>(0x80 | (reg << 3)));
    imm32(static_cast<uint32_t>(field));
  }
  /// Makes the rel32 jump whose instruction ended at `end` go here.
  void bind_jump(size_t end) {
    for (unsigned i = 0; i < 4; ++i) code_[end - 4 + i] = static_cast<uint8_t>((size_ - end) >> (8 * i));
  }
  std::span<const uint8_t> code() const { return {code_.data(), size_}; }

 private:
  void byte_(uint8_t byte) {
    CHECK(size_ < code_.size());
    code_[size_++] = byte;
  }
  std::array<uint8_t, 256> code_{};
  size_t size_ = 0;
};

/// Which field of the encoding holds an operand.
enum class Field : uint8_t { kNone, kReg, kRm, kVvvv, kIs4, kImmediate };

struct OperandUse {
  Field field = Field::kNone;
  Place place = Place::kNone;  // kXmm, kMmx or kGpr for the register form
};

/// Ranges of Operand enumerators, which stand in the order of their addressing methods.
struct OperandRange {
  Operand first, last;
  OperandUse use;
};
// clang-format off
constexpr OperandRange kOperandRanges[] = {
  {Operand::kEb,  Operand::kRa,  {Field::kRm,        Place::kGpr}},
  {Operand::kM,   Operand::kMy,  {Field::kRm,        Place::kMemory}},
  {Operand::kGb,  Operand::kGa,  {Field::kReg,       Place::kGpr}},
  {Operand::kPq,  Operand::kPq,  {Field::kReg,       Place::kMmx}},
  {Operand::kQq,  Operand::kNq,  {Field::kRm,        Place::kMmx}},
  {Operand::kVx,  Operand::kVd,  {Field::kReg,       Place::kXmm}},
  {Operand::kWx,  Operand::kUq,  {Field::kRm,        Place::kXmm}},
  {Operand::kHx,  Operand::kHq,  {Field::kVvvv,      Place::kXmm}},
  {Operand::kLx,  Operand::kLx,  {Field::kIs4,       Place::kXmm}},
  {Operand::kIb,  Operand::kIb,  {Field::kImmediate, Place::kNone}},
};
// clang-format on

OperandUse classify(Operand operand) {
  for (const OperandRange& range : kOperandRanges)
    if (operand >= range.first && operand <= range.last) return range.use;
  return {};
}

/// Operands an instruction has beyond its row's operand columns (the pages of SDM Vol. 2).
struct Implicit {
  bool reads_xmm0 = false;
  bool writes_xmm0 = false;
  bool reads_lengths = false;  // EAX and EDX
  bool writes_ecx = false;
};

Implicit implicit_operands(Op op) {
  switch (op) {
    case Op::kBlendvpd:
    case Op::kBlendvps:
    case Op::kPblendvb:
    case Op::kSha256rnds2: return {.reads_xmm0 = true};
    case Op::kPcmpestrm:
    case Op::kVpcmpestrm: return {.writes_xmm0 = true, .reads_lengths = true};
    case Op::kPcmpistrm:
    case Op::kVpcmpistrm: return {.writes_xmm0 = true};
    case Op::kPcmpestri:
    case Op::kVpcmpestri: return {.reads_lengths = true, .writes_ecx = true};
    case Op::kPcmpistri:
    case Op::kVpcmpistri: return {.writes_ecx = true};
    default: return {};
  }
}

/// One SIMD instruction, taken apart for emission.
struct Shape {
  std::array<OperandUse, 4> operands{};
  Implicit implicit;
  bool vex = false;
  bool wide = false;  // W as emitted
  bool has_immediate = false;
  uint8_t immediate = 0;
  bool has_reg = false, has_vvvv = false, has_gpr = false, has_mmx = false;
};

Shape shape_of(const Insn& insn, bool long_mode) {
  Shape shape;
  shape.vex = insn.map >= OpcodeMap::kVex0F;
  shape.implicit = implicit_operands(insn.row->op);
  for (unsigned i = 0; i < 4; ++i) {
    OperandUse use = classify(insn.row->operands[i]);
    if (use.field == Field::kRm && insn.is_memory) use.place = Place::kMemory;
    shape.operands[i] = use;
    shape.has_reg |= use.field == Field::kReg;
    shape.has_vvvv |= use.field == Field::kVvvv;
    shape.has_gpr |= classify(insn.row->operands[i]).place == Place::kGpr;
    shape.has_mmx |= use.place == Place::kMmx;
    if (use.field == Field::kIs4 || use.field == Field::kImmediate) shape.has_immediate = true;
    if (use.field == Field::kIs4) shape.immediate = kHostIs4 << 4;
    if (use.field == Field::kImmediate) shape.immediate = static_cast<uint8_t>(insn.immediate);
  }
  // Where W chooses the width of a general register it has no effect outside 64-bit mode (SDM Vol. 2 2.3.5.1).
  shape.wide =
      (insn.prefixes & x86::kPrefixRexW) != 0 && (long_mode || !(shape.has_gpr || shape.implicit.reads_lengths));
  return shape;
}

/// What a thunk depends on, in one word.
uint64_t plan_key(const Insn& insn, const Shape& shape) {
  uint64_t key = static_cast<uint64_t>(insn.map);
  key = key << 8 | insn.opcode;
  key = key << 3 | (insn.prefixes & (x86::kPrefixRep | x86::kPrefixRepne | x86::kPrefixOperandSize)) >> 1;
  key = key << 1 | (shape.wide ? 1 : 0);
  key = key << 1 | (insn.vector_bytes == 32 ? 1 : 0);
  key = key << 1 | (insn.is_memory ? 1 : 0);
  key = key << 3 | (shape.has_reg ? 0u : (insn.modrm >> 3) & 7u);
  return key << 8 | shape.immediate;
}

HostPointer pointer_of(Field field) {
  switch (field) {
    case Field::kReg: return kRdiPointer;
    case Field::kRm: return kRsiPointer;
    case Field::kVvvv: return kRdxPointer;
    default: return kRcxPointer;
  }
}

uint8_t host_register_of(Field field) {
  switch (field) {
    case Field::kReg: return kHostReg;
    case Field::kRm: return kHostRm;
    case Field::kVvvv: return kHostVvvv;
    default: return kHostIs4;
  }
}

/// MOVUPS or VMOVUPS between host register and [pointer]. `opcode` 10h loads, 11h stores.
void emit_xmm_move(Writer& out, bool vex, bool wide, uint8_t opcode, unsigned reg, HostPointer pointer) {
  if (!vex) return out.with_pointer({}, 0, {0x0f, opcode}, reg, pointer);
  // Three-byte VEX: R and X inverted are 1, B inverted as the pointer needs, map 0F, W0, vvvv 1111b, pp 0.
  out.bytes({0xc4, static_cast<uint8_t>(pointer >= 8 ? 0xc1 : 0xe1), static_cast<uint8_t>(wide ? 0x7c : 0x78), opcode,
             static_cast<uint8_t>((reg << 3) | (pointer & 7u))});
}

void emit_load(Writer& out, const Insn& insn, const Shape& shape, const OperandUse& use) {
  const HostPointer pointer = pointer_of(use.field);
  switch (use.place) {
    case Place::kXmm:
      return emit_xmm_move(out, shape.vex, insn.vector_bytes == 32, 0x10, host_register_of(use.field), pointer);
    case Place::kMmx: return out.with_pointer({}, 0, {0x0f, 0x6f}, host_register_of(use.field), pointer);
    case Place::kGpr: return out.with_pointer({}, 8, {0x8b}, kHostGpr, pointer);
    default: return;
  }
}

void emit_store(Writer& out, const Shape& shape, const OperandUse& use) {
  const HostPointer pointer = pointer_of(use.field);
  switch (use.place) {
    // VEX instructions zero the rest of the register whatever their own length: always 32 bytes.
    case Place::kXmm: return emit_xmm_move(out, shape.vex, true, 0x11, host_register_of(use.field), pointer);
    case Place::kMmx: return out.with_pointer({}, 0, {0x0f, 0x7f}, host_register_of(use.field), pointer);
    case Place::kGpr: return out.with_pointer({}, 8, {0x89}, kHostGpr, pointer);
    default: return;
  }
}

/// ModRM with the host's registers; an opcode extension stays in the reg field.
uint8_t host_modrm(const Insn& insn, const Shape& shape) {
  unsigned reg = (insn.modrm >> 3) & 7u;
  unsigned rm = 0xc0 | kHostRm;
  for (const OperandUse& use : shape.operands) {
    if (use.field == Field::kReg) reg = use.place == Place::kGpr ? +kHostGpr : +kHostReg;
    if (use.field == Field::kRm && use.place == Place::kGpr) rm = 0xc0 | kHostGpr;
    if (use.field == Field::kRm && use.place == Place::kMemory) rm = kRsiPointer;
  }
  return static_cast<uint8_t>(reg << 3 | rm);
}

void emit_legacy_opcode(Writer& out, const Insn& insn, const Shape& shape) {
  if ((insn.prefixes & x86::kPrefixOperandSize) != 0) out.bytes({0x66});
  if ((insn.prefixes & x86::kPrefixRepne) != 0)
    out.bytes({0xf2});
  else if ((insn.prefixes & x86::kPrefixRep) != 0)
    out.bytes({0xf3});
  if (shape.wide) out.bytes({0x48});
  out.bytes({0x0f});
  if (insn.map == OpcodeMap::k0F38) out.bytes({0x38});
  if (insn.map == OpcodeMap::k0F3A) out.bytes({0x3a});
}

void emit_vex_opcode(Writer& out, const Insn& insn, const Shape& shape) {
  uint8_t pp = 0;
  if ((insn.prefixes & x86::kPrefixOperandSize) != 0) pp = 1;
  if ((insn.prefixes & x86::kPrefixRep) != 0) pp = 2;
  if ((insn.prefixes & x86::kPrefixRepne) != 0) pp = 3;
  const auto map = static_cast<uint8_t>(static_cast<unsigned>(insn.map) - static_cast<unsigned>(OpcodeMap::kVex0F) + 1);
  const unsigned vvvv = shape.has_vvvv ? +kHostVvvv : 0u;
  const unsigned last = (shape.wide ? 0x80u : 0u) | (~vvvv & 15u) << 3 | (insn.vector_bytes == 32 ? 4u : 0u) | pp;
  out.bytes({0xc4, static_cast<uint8_t>(0xe0 | map), static_cast<uint8_t>(last)});
}

void emit_instruction(Writer& out, const Insn& insn, const Shape& shape) {
  if (shape.vex)
    emit_vex_opcode(out, insn, shape);
  else
    emit_legacy_opcode(out, insn, shape);
  out.bytes({insn.opcode, host_modrm(insn, shape)});
  if (shape.has_immediate) out.bytes({shape.immediate});
}

void emit_implicit_loads(Writer& out, const Implicit& implicit) {
  if (implicit.reads_xmm0) emit_xmm_move(out, false, false, 0x10, kHostImplicit, kR8Pointer);
  if (implicit.reads_lengths) {
    out.bytes({0x49, 0x8b, 0x01});                 // mov rax, [r9 + 8 * kRax]
    out.bytes({0x49, 0x8b, 0x51, 8 * x86::kRdx});  // mov rdx, [r9 + 8 * kRdx]
  }
}

void emit_implicit_stores(Writer& out, const Shape& shape) {
  if (shape.implicit.writes_xmm0) emit_xmm_move(out, shape.vex, true, 0x11, kHostImplicit, kR8Pointer);
  if (shape.implicit.writes_ecx) out.bytes({0x49, 0x89, 0x49, 8 * x86::kRcx});  // mov [r9 + 8 * kRcx], rcx
}

constexpr size_t kMxcsrField = offsetof(VectorState, mxcsr);
constexpr size_t kFxField = offsetof(VectorState, fx);

// mov dword [rsp - 8], kHostMxcsr; ldmxcsr [rsp - 8]
void emit_host_mxcsr(Writer& out) {
  out.bytes({0xc7, 0x44, 0x24, 0xf8, 0x80, 0x1f, 0, 0, 0x0f, 0xae, 0x54, 0x24, 0xf8});
}
void emit_load_mxcsr(Writer& out) { out.on_state({0x0f, 0xae}, 0, 2, kMxcsrField); }
void emit_store_mxcsr(Writer& out) { out.on_state({0x0f, 0xae}, 0, 3, kMxcsrField); }
// lahf; seto al; movzx eax, ax
void emit_flags_to_eax(Writer& out) { out.bytes({0x9f, 0x0f, 0x90, 0xc0, 0x0f, 0xb7, 0xc0}); }

/// From the loads to the end of the instruction; flags go to eax at once, because what follows destroys them.
void emit_computation(Writer& out, const Insn& insn, const Shape& shape) {
  emit_instruction(out, insn, shape);
  if (insn.row->rflags_written != 0) emit_flags_to_eax(out);
}

void emit_loads(Writer& out, const Insn& insn, const Shape& shape) {
  for (const OperandUse& use : shape.operands) emit_load(out, insn, shape, use);
  emit_implicit_loads(out, shape.implicit);
}

void emit_results(Writer& out, const Insn& insn, const Shape& shape) {
  if ((insn.row->flags & x86::kWritesOp0) != 0) emit_store(out, shape, shape.operands[0]);
  emit_implicit_stores(out, shape);
  if ((insn.row->flags & x86::kFpCompute) != 0 && insn.row->rflags_written == 0)
    out.bytes({0x31, 0xc0});                     // xor eax, eax
  if (shape.has_mmx) out.bytes({0x0f, 0x77});    // emms
  if (shape.vex) out.bytes({0xc5, 0xf8, 0x77});  // vzeroupper
  out.bytes({0xc3});
}

/// A jump to what follows later: jne rel32, bound by bind_jump().
size_t emit_jne(Writer& out) {
  out.bytes({0x0f, 0x85, 0, 0, 0, 0});
  return out.code().size();
}

/// The two ways through an instruction that uses MXCSR (see the head of vector_thunk.hh).
Writer computing_thunk(const Insn& insn, const Shape& shape) {
  Writer out;
  // mov eax, [r8 + mxcsr]; and eax, ~3fh; cmp eax, kHostMxcsr: are the guest's masks and modes the host's?
  out.on_state({0x8b}, 0, 0, kMxcsrField);
  out.bytes({0x83, 0xe0, 0xc0, 0x3d, 0x80, 0x1f, 0, 0});
  const size_t other_control = emit_jne(out);
  emit_loads(out, insn, shape);
  emit_computation(out, insn, shape);
  out.bytes({0x0f, 0xae, 0x5c, 0x24, 0xf8});  // stmxcsr [rsp - 8]
  out.on_state({0x8b}, 4, 2, kMxcsrField);    // mov r10d, [r8 + mxcsr]
  out.bytes({0x41, 0xf7, 0xd2});              // not r10d
  out.bytes({0x44, 0x23, 0x54, 0x24, 0xf8});  // and r10d, [rsp - 8]
  out.bytes({0x41, 0xf6, 0xc2, 0x3f});        // test r10b, 3fh: a flag that the guest has not got yet?
  const size_t new_flags = emit_jne(out);
  emit_results(out, insn, shape);
  out.bind_jump(other_control);
  out.bind_jump(new_flags);
  emit_loads(out, insn, shape);
  emit_load_mxcsr(out);
  emit_computation(out, insn, shape);
  emit_store_mxcsr(out);
  emit_host_mxcsr(out);
  emit_results(out, insn, shape);
  return out;
}

Writer simd_thunk(const Insn& insn, const Shape& shape) {
  if ((insn.row->flags & x86::kFpCompute) != 0) return computing_thunk(insn, shape);
  Writer out;
  emit_loads(out, insn, shape);
  emit_computation(out, insn, shape);
  emit_results(out, insn, shape);
  return out;
}

/// Where FloatTrapRange continues a thunk that trapped: rsp and r8 are as the thunk left them.
Writer trap_exit() {
  Writer out;
  emit_store_mxcsr(out);
  emit_host_mxcsr(out);
  out.bytes({0xdb, 0xe3});                                           // fninit
  if (__builtin_cpu_supports("avx")) out.bytes({0xc5, 0xf8, 0x77});  // vzeroupper
  out.bytes({0xb8});                                                 // mov eax, kTrapped
  out.imm32(VectorPlan::kTrapped);
  out.bytes({0xc3});
  return out;
}

Writer x87_thunk(const Insn& insn) {
  Writer out;
  out.on_state({0x0f, 0xae}, 8, 1, kFxField);  // fxrstor64
  const bool uses_flags = (insn.row->rflags_read | insn.row->rflags_written) != 0;
  if (uses_flags) out.bytes({0x89, 0xd0, 0x04, 0x7f, 0x9e});  // mov eax, edx; add al, 127 (OF from AL); sahf
  const uint8_t modrm = insn.is_memory ? static_cast<uint8_t>((insn.modrm & 0x38u) | kRsiPointer) : insn.modrm;
  out.bytes({insn.opcode, modrm});
  if (uses_flags) emit_flags_to_eax(out);
  out.on_state({0x0f, 0xae}, 8, 0, kFxField);  // fxsave64
  out.bytes({0xdb, 0xe3, 0xc3});               // fninit; ret
  return out;
}

template <typename Code>
Code code_at(const std::byte* address) {
  return reinterpret_cast<Code>(reinterpret_cast<uintptr_t>(address));
}

Gate gate_of(const Shape& shape, const Insn& insn) {
  if (shape.vex) return Gate::kAvx;
  if ((insn.row->flags & x86::kSse) != 0) return shape.has_mmx ? Gate::kSseMmx : Gate::kSse;
  return shape.has_mmx ? Gate::kMmx : Gate::kSse;
}

bool is_x87_memory(Operand operand) { return operand >= Operand::kM32fp && operand <= Operand::kM80bcd; }

}  // namespace

struct VectorThunks::Impl {
  Mutex mutex;
  CodeMemory memory TENON_GUARDED_BY(mutex);  // appended to by whichever vCPU meets an encoding first
  FloatTrapRange traps;
  std::deque<VectorPlan> plans TENON_GUARDED_BY(mutex);
  std::deque<X87Plan> x87_plans TENON_GUARDED_BY(mutex);
  std::unordered_map<uint64_t, const VectorPlan*> by_key TENON_GUARDED_BY(mutex);
  std::unordered_map<uint32_t, const X87Plan*> x87_by_key TENON_GUARDED_BY(mutex);

  Impl(CodeMemory code, FloatTrapRange range) : memory(std::move(code)), traps(std::move(range)) {}
};

VectorThunks::VectorThunks(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
VectorThunks::~VectorThunks() = default;

Result<VectorThunks*> VectorThunks::shared() {
  static Mutex mutex;
  static std::unique_ptr<VectorThunks> instance;  // guarded by mutex until made
  const MutexLock lock(mutex);
  if (instance == nullptr) {
    CodeMemory memory = TRY(CodeMemory::create(kCodeBytes, "tenon-vector-thunks"));
    const Writer exit = trap_exit();
    const std::byte* resume = memory.append(exit.code());
    FloatTrapRange traps = TRY(FloatTrapRange::add(memory.executable(), resume));
    instance.reset(new VectorThunks(std::make_unique<Impl>(std::move(memory), std::move(traps))));
  }
  return instance.get();
}

const VectorPlan* VectorThunks::plan(const Insn& insn, bool long_mode) {
  const Shape shape = shape_of(insn, long_mode);
  const uint64_t key = plan_key(insn, shape);
  const MutexLock lock(impl_->mutex);
  if (const auto found = impl_->by_key.find(key); found != impl_->by_key.end()) return found->second;
  VectorPlan plan;
  const bool writes = (insn.row->flags & x86::kWritesOp0) != 0;
  plan.gate = gate_of(shape, insn);
  plan.aligned = (insn.row->flags & x86::kAligned) != 0;
  plan.may_trap = (insn.row->flags & x86::kFpCompute) != 0;
  plan.writes_flags = insn.row->rflags_written != 0;
  if (insn.is_memory) plan.memory_bytes = static_cast<uint8_t>(x86::memory_operand_size(insn));
  for (const OperandUse& use : shape.operands) {
    if (use.field == Field::kReg) plan.reg = use.place;
    if (use.field == Field::kRm) plan.rm = use.place;
  }
  plan.writes_memory = writes && shape.operands[0].place == Place::kMemory;
  plan.writes_mmx_reg = writes && plan.reg == Place::kMmx && shape.operands[0].field == Field::kReg;
  plan.writes_mmx_rm = writes && plan.rm == Place::kMmx && shape.operands[0].field == Field::kRm;
  const Writer out = simd_thunk(insn, shape);
  const std::byte* code = impl_->memory.append(out.code());
  if (code == nullptr) return nullptr;
  plan.code = code_at<VectorPlan::Code>(code);
  return impl_->by_key[key] = &impl_->plans.emplace_back(plan);
}

const X87Plan* VectorThunks::x87_plan(const Insn& insn) {
  const uint32_t key =
      uint32_t{insn.opcode} << 9 | (insn.is_memory ? 1u << 8 : 0u) | (insn.is_memory ? insn.modrm & 0x38u : insn.modrm);
  const MutexLock lock(impl_->mutex);
  if (const auto found = impl_->x87_by_key.find(key); found != impl_->x87_by_key.end()) return found->second;
  X87Plan plan;
  plan.uses_flags = (insn.row->rflags_read | insn.row->rflags_written) != 0;
  if (insn.is_memory) plan.memory_bytes = static_cast<uint8_t>(x86::memory_operand_size(insn));
  plan.writes_memory =
      insn.is_memory && (insn.row->flags & x86::kWritesOp0) != 0 && is_x87_memory(insn.row->operands[0]);
  const Writer out = x87_thunk(insn);
  const std::byte* code = impl_->memory.append(out.code());
  if (code == nullptr) return nullptr;
  plan.code = code_at<X87Plan::Code>(code);
  return impl_->x87_by_key[key] = &impl_->x87_plans.emplace_back(plan);
}

}  // namespace tenon::interp
