// The stubs of runtime.hh as machine code.
//
// Flags travel in the AX form of Cpu::arithmetic_flags: LAHF and SETO take them out, ADD AL, 127 (which sets OF where
// AL was 1) and SAHF put them back. Everything between is MOV, LEA and PUSH, which touch no flags. RAX goes to its
// place in Cpu::gpr first and comes back last.
//
// Vector registers are 16 YMM and MXCSR. x87 state goes through XSAVE and XRSTOR with only bit 0 of the mask set, so
// that neither SSE registers nor MXCSR are touched (SDM Vol. 1 13.7, 13.8).
//
// Deviation: the FPU's last instruction and operand pointers and opcode (FIP, FDP, FOP) read as 0 after x87
// instructions that were translated: the host's are addresses of the host. Processors that deprecate FCS and FDS show
// how little software looks at them (SDM Vol. 1 8.1.8).
#include <cstddef>

#include "base/check.hh"
#include "engine/interp/soft_tlb_fill.hh"
#include "engine/interp/vector.hh"
#include "engine/jit/runtime.hh"

namespace tenon::jit {
namespace {

using interp::Cpu;
using interp::Fx;
using interp::TranslatedState;
using interp::VectorState;
using x86::OpcodeMap;

/// Registers that hold guest state and that the ABI lets C++ change, less RAX; and those it keeps.
constexpr HostGpr kVolatile[] = {kHostRcx, kHostRdx, kHostRsi, kHostRdi, kHostR8, kHostR9};
constexpr HostGpr kKept[] = {kHostRbx, kHostRbp, kHostR12, kHostR13, kHostR14, kHostR15};
constexpr unsigned kVectors = 16;
constexpr size_t kStubAlignment = 16;

constexpr HostOperand gpr(unsigned guest) { return HostOperand::state(offsetof(Cpu, gpr) + sizeof(uint64_t) * guest); }
/// The home of the guest register that `host` holds.
constexpr HostOperand home(HostGpr host) { return gpr(host == kHostR9 ? unsigned{x86::kRsp} : unsigned{host}); }

#define TRANSLATED(field) HostOperand::state(offsetof(Cpu, translated) + offsetof(TranslatedState, field))
#define VECTOR(field) HostOperand::state(offsetof(Cpu, vector) + offsetof(VectorState, field))
const HostOperand kVectorLive = TRANSLATED(vector_live), kX87Live = TRANSLATED(x87_live);
const HostOperand kVectorWasLive = TRANSLATED(vector_was_live);  // and x87_was_live behind it
const HostOperand kExitCode = TRANSLATED(exit_code), kExitArgument = TRANSLATED(exit_argument);
const HostOperand kEngineStack = TRANSLATED(engine_stack), kReturnStack = TRANSLATED(return_stack);
const HostOperand kReturnMiss = TRANSLATED(return_miss), kStackNegativePage = TRANSLATED(stack_negative_page);
const HostOperand kHostMxcsr = TRANSLATED(host_mxcsr), kGuestMxcsr = VECTOR(mxcsr);
const HostOperand kX87Image = VECTOR(fx), kX87Header = VECTOR(fx_header);
#undef TRANSLATED
#undef VECTOR

HostOperand ymm(unsigned number) {
  return HostOperand::state(offsetof(Cpu, vector) + offsetof(VectorState, ymm) + sizeof(VectorState::ymm[0]) * number);
}
HostOperand in_x87_image(unsigned at) {
  HostOperand operand = kX87Image;
  operand.displacement += static_cast<int32_t>(at);
  return operand;
}

/// Group 15 (0F AE): the operation is in ModRM.reg (SDM Vol. 2 Table A-6).
enum StateOperation : uint8_t { kLdmxcsr = 2, kStmxcsr = 3, kXsave = 4, kXrstor = 5 };

class StubMaker {
 public:
  explicit StubMaker(Assembler& assembler, Cpu& cpu) : asm_(assembler), cpu_(reinterpret_cast<uint64_t>(&cpu)) {}

  Stubs make() {
    Stubs stubs;
    make_exits(stubs);
    make_enter(stubs);
    for (unsigned mode = 0; mode < interp::kTlbModes; ++mode) {
      for (unsigned write = 0; write < 2; ++write) {
        make_fill(stubs, mode, write);
        stubs.fill_group[mode][write] =
            make_group_fill(negative_page(mode, write, 0), reinterpret_cast<uint64_t>(&tenon_group_fill), write);
        stubs.fill_group_scaled[mode][write] =
            make_group_fill(negative_page(mode, write, 3), reinterpret_cast<uint64_t>(&tenon_group_fill), write);
      }
    }
    for (unsigned side = 0; side < 2; ++side) {
      HostOperand negative_page = kStackNegativePage;
      negative_page.displacement += static_cast<int32_t>(side * sizeof(uint64_t));
      stubs.fill_stack[side] = make_group_fill(negative_page, reinterpret_cast<uint64_t>(&tenon_stack_fill), 1);
    }
    stubs.load_vector = begin();
    load_vector();
    asm_.ret();
    stubs.load_x87 = begin();
    load_x87();
    asm_.ret();
    CHECK(!asm_.overflowed());
    return stubs;
  }

 private:
  uint64_t begin() {
    asm_.nops((kStubAlignment - asm_.address() % kStubAlignment) % kStubAlignment);
    return asm_.address();
  }

  // --- Flags.

  void save_rax_and_flags() {
    asm_.store(gpr(x86::kRax), kHostRax);
    asm_.lahf();
    asm_.seto_al();
    asm_.encode({.opcode = 0x89, .operand_size = true, .has_modrm = true, .reg = kHostRax, .rm = flags()});  // mov m16
  }
  void load_flags_and_rax() {
    asm_.encode({.map = OpcodeMap::k0F, .opcode = 0xb7, .has_modrm = true, .reg = kHostRax, .rm = flags()});  // movzx
    asm_.add_al(127);
    asm_.sahf();
    asm_.mov(kHostRax, gpr(x86::kRax));
  }
  static HostOperand flags() { return HostOperand::state(offsetof(Cpu, arithmetic_flags)); }

  // --- Registers.

  template <size_t kCount>
  void save(const HostGpr (&registers)[kCount]) {
    for (const HostGpr host : registers) asm_.store(home(host), host);
  }
  template <size_t kCount>
  void load(const HostGpr (&registers)[kCount]) {
    for (const HostGpr host : registers) asm_.mov(host, home(host));
  }

  void state_operation(StateOperation operation, const HostOperand& at, bool w = false) {
    asm_.encode({.map = OpcodeMap::k0F, .opcode = 0xae, .w = w, .has_modrm = true, .reg = operation, .rm = at});
  }
  /// VMOVUPS (SDM Vol. 2): 10 loads, 11 stores.
  void move_ymm(uint8_t opcode, unsigned number) {
    asm_.encode({.map = OpcodeMap::kVex0F,
                 .opcode = opcode,
                 .wide = true,
                 .has_modrm = true,
                 .reg = static_cast<HostRegister>(number),
                 .rm = ymm(number)});
  }

  void load_vector() {
    for (unsigned number = 0; number < kVectors; ++number) move_ymm(0x10, number);
    state_operation(kLdmxcsr, kGuestMxcsr);
    asm_.store_byte_immediate(kVectorLive, 1);
  }
  void save_vector() {
    for (unsigned number = 0; number < kVectors; ++number) move_ymm(0x11, number);
    state_operation(kStmxcsr, kGuestMxcsr);
    state_operation(kLdmxcsr, kHostMxcsr);
    asm_.encode({.map = OpcodeMap::kVex0F, .opcode = 0x77});  // vzeroupper
    asm_.store_byte_immediate(kVectorLive, 0);
  }

  /// EDX:EAX = 1: x87 state alone. RAX and RDX wait in their homes.
  void choose_x87() {
    asm_.mov_immediate(kHostRax, 1);
    asm_.mov_immediate(kHostRdx, 0);
  }
  void load_x87() {
    asm_.store(gpr(x86::kRax), kHostRax);
    asm_.store(gpr(x86::kRdx), kHostRdx);
    choose_x87();
    asm_.store_byte_immediate(kX87Header, 1);  // XSTATE_BV: not the initial state, whatever XSAVE found
    state_operation(kXrstor, kX87Image, true);
    asm_.store_byte_immediate(kX87Live, 1);
    asm_.mov(kHostRdx, gpr(x86::kRdx));
    asm_.mov(kHostRax, gpr(x86::kRax));
  }
  void save_x87() {
    static constexpr uint8_t kFninit[] = {0xdb, 0xe3};
    choose_x87();
    state_operation(kXsave, kX87Image, true);
    asm_.bytes(kFninit);
    asm_.store_immediate(in_x87_image(Fx::kIp), 0);
    asm_.store_immediate(in_x87_image(Fx::kDp), 0);
    asm_.store_byte_immediate(in_x87_image(Fx::kOpcode), 0);
    asm_.store_byte_immediate(in_x87_image(Fx::kOpcode + 1), 0);
    asm_.store_byte_immediate(kX87Live, 0);
  }

  // --- In and out.

  /// System V: RBX, RBP, R12 to R15 belong to the caller; with the return address and 8 bytes more RSP is aligned for
  /// calls from here.
  void make_enter(Stubs& stubs) {
    stubs.enter = reinterpret_cast<void (*)(uint64_t)>(begin());
    for (const HostGpr host : kKept) asm_.push(host);
    asm_.lea(kHostRsp, HostOperand::at(kHostRsp, -8));
    asm_.store(kEngineStack, kHostRsp);
    asm_.mov(kHostR10, HostOperand::r(kHostRdi));
    load(kKept);
    load(kVolatile);
    load_flags_and_rax();
    asm_.mov(kHostRsp, kReturnStack);
    asm_.jmp_indirect(HostOperand::r(kHostR10));
  }

  void make_exits(Stubs& stubs) {
    exit_fault_ = stubs.exit_fault = begin();
    save_rax_and_flags();
    save(kVolatile);
    asm_.store(kReturnStack, kHostRsp);
    leave_ = asm_.address();  // RSP is free, all but kKept and the vectors is saved
    save(kKept);
    asm_.mov(kHostRsp, kEngineStack);
    // Both live bytes at once: who resumes in the middle of a block makes the same registers live again.
    asm_.encode({.map = OpcodeMap::k0F, .opcode = 0xb7, .has_modrm = true, .reg = kHostRax, .rm = kVectorLive});
    asm_.encode({.opcode = 0x89, .operand_size = true, .has_modrm = true, .reg = kHostRax, .rm = kVectorWasLive});
    asm_.cmp_byte_immediate(kVectorLive, 0);
    const Fixup vector_live = asm_.jcc_forward(kNotEqual);
    const uint64_t vector_saved = asm_.address();
    asm_.cmp_byte_immediate(kX87Live, 0);
    const Fixup x87_live = asm_.jcc_forward(kNotEqual);
    const uint64_t x87_saved = asm_.address();
    asm_.lea(kHostRsp, HostOperand::at(kHostRsp, 8));
    for (size_t i = std::size(kKept); i > 0; --i) asm_.pop(kKept[i - 1]);
    asm_.ret();
    asm_.bind(vector_live);
    save_vector();
    asm_.jmp(vector_saved);
    asm_.bind(x87_live);
    save_x87();
    asm_.jmp(x87_saved);

    stubs.exit_link = begin();
    asm_.pop(kHostR10);
    stubs.exit_named_link = asm_.address();
    exit_with(ExitCode::kLink);
    stubs.exit_indirect = begin();
    exit_with(ExitCode::kIndirect);
    stubs.return_empty = begin();
    asm_.jmp_indirect(kReturnMiss);
    stubs.exit_interpret = begin();
    exit_with(ExitCode::kInterpret);

    // Behind make_fill(), where the fill failed: on the shadow stack, at the return address.
    slow_access_ = begin();
    asm_.pop(kHostR10);
    asm_.store(kReturnStack, kHostRsp);
    asm_.store(kExitArgument, kHostR10);
    asm_.store_immediate(kExitCode, static_cast<int32_t>(ExitCode::kSlowAccess));
    asm_.jmp(leave_);
  }

  /// The argument is in R10.
  void exit_with(ExitCode code) {
    asm_.store(kExitArgument, kHostR10);
    asm_.store_immediate(kExitCode, static_cast<int32_t>(code));
    asm_.jmp(exit_fault_);
  }

  /// Of the entry at R11 << scale in the table.
  static HostOperand negative_page(unsigned mode, unsigned write, uint8_t scale) {
    const size_t table = interp::tlb_table_offset(static_cast<interp::TlbMode>(mode), write != 0);
    return HostOperand::state(table + offsetof(interp::TlbEntry, negative_page), kHostR11, scale);
  }

  void make_fill(Stubs& stubs, unsigned mode, unsigned write) {
    stubs.fill[mode][write] = begin();
    save_rax_and_flags();
    asm_.sub(kHostR10, negative_page(mode, write, 0));
    const Fixup linear_known = asm_.jmp_short_forward();
    stubs.fill_scaled[mode][write] = begin();
    save_rax_and_flags();
    asm_.sub(kHostR10, negative_page(mode, write, 3));
    asm_.bind_short(linear_known);
    save(kVolatile);
    asm_.store(kReturnStack, kHostRsp);
    asm_.mov(kHostRsp, kEngineStack);
    asm_.mov_immediate(kHostRdi, cpu_);
    asm_.mov(kHostRsi, HostOperand::r(kHostR10));
    asm_.mov_immediate(kHostRdx, write);
    asm_.mov_immediate(kHostRax, reinterpret_cast<uint64_t>(&tenon_tlb_fill));
    asm_.call_indirect(HostOperand::r(kHostRax));
    asm_.mov(kHostRsp, kReturnStack);
    asm_.encode({.opcode = 0x84, .has_modrm = true, .reg = kHostRax, .rm = HostOperand::r(kHostRax)});  // test al, al
    asm_.jcc(kEqual, slow_access_);
    load(kVolatile);
    load_flags_and_rax();
    asm_.ret();
  }

  /// Of Stubs::fill_stack and fill_group. `fill`: bool (Cpu*, linear, size, access).
  uint64_t make_group_fill(const HostOperand& negative_page, uint64_t fill, unsigned access) {
    const uint64_t start = begin();
    save_rax_and_flags();
    asm_.sub(kHostR10, negative_page);
    save(kVolatile);
    asm_.mov(kHostRdx, HostOperand::at(kHostRsp));
    asm_.encode({.map = OpcodeMap::k0F,
                 .opcode = 0xb7,
                 .has_modrm = true,
                 .reg = kHostRdx,
                 .rm = HostOperand::at(kHostRdx, offsetof(GroupFillData, span))});  // movzx
    asm_.store(kReturnStack, kHostRsp);
    asm_.mov(kHostRsp, kEngineStack);
    asm_.mov_immediate(kHostRdi, cpu_);
    asm_.mov(kHostRsi, HostOperand::r(kHostR10));
    asm_.mov_immediate(kHostRcx, access);
    asm_.mov_immediate(kHostRax, fill);
    asm_.call_indirect(HostOperand::r(kHostRax));
    asm_.mov(kHostRsp, kReturnStack);
    asm_.encode({.opcode = 0x84, .has_modrm = true, .reg = kHostRax, .rm = HostOperand::r(kHostRax)});  // test al, al
    const Fixup none = asm_.jcc_short_forward(kEqual);
    load(kVolatile);
    load_flags_and_rax();
    asm_.ret();
    asm_.bind_short(none);
    load(kVolatile);
    load_flags_and_rax();
    asm_.pop(kHostR10);
    const HostOperand plain = HostOperand::at(kHostR10, offsetof(GroupFillData, plain_rel32));
    asm_.encode({.opcode = 0x63, .w = true, .has_modrm = true, .reg = kHostR11, .rm = plain});  // movsxd
    asm_.lea(kHostR10, HostOperand::at(kHostR10, sizeof(GroupFillData)));
    asm_.lea(kHostR11, HostOperand::at(kHostR11, kHostR10, 0));
    asm_.jmp_indirect(HostOperand::r(kHostR11));
    return start;
  }

  Assembler& asm_;
  const uint64_t cpu_;
  uint64_t exit_fault_ = 0;
  uint64_t leave_ = 0;
  uint64_t slow_access_ = 0;
};

}  // namespace

Stubs make_stubs(Assembler& assembler, Cpu& cpu) {
  const Stubs stubs = StubMaker(assembler, cpu).make();
  cpu.translated.return_miss = stubs.exit_indirect;
  return stubs;
}

}  // namespace tenon::jit
