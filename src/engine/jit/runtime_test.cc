// Pieces of host code run between the stubs: registers, flags, vector and x87 state on the way in and out, refills of
// the soft TLB, faults of host instructions, the shadow return stack, and how a running vCPU is poked.
#include "engine/jit/runtime.hh"

#include <atomic>
#include <cmath>
#include <cstring>
#include <numbers>
#include <random>
#include <thread>

#include "base/code_memory.hh"
#include "engine/interp/interp_test_support.hh"
#include "engine/interp/vector.hh"

namespace tenon::jit {
namespace {

using interp::Cpu;
using interp::Fx;

constexpr size_t kCodeBytes = 64 << 10;
constexpr size_t kStubBytes = 16 << 10;

class Runtime {
 public:
  Runtime() {
    auto memory = CodeMemory::create(kCodeBytes, "test-jit");
    EXPECT_TRUE(memory.has_value());
    code_.emplace(std::move(*memory));
    Assembler assembler(code_->writable().first(kStubBytes), base());
    stubs = make_stubs(assembler, cpu());
    auto created = HostThread::create(cpu(), base(), kCodeBytes, stubs);
    EXPECT_TRUE(created.has_value()) << created.error().message();
    host = std::move(*created);
    machine.enter_64({});
    EXPECT_TRUE(machine.vcpu->set_state(machine.state));
  }

  Cpu& cpu() { return machine.vcpu->cpu(); }
  interp::TranslatedState& translated() { return cpu().translated; }
  ExitCode exit_code() { return static_cast<ExitCode>(translated().exit_code); }

  /// Where the next code goes.
  Assembler assembler() { return Assembler(code_->writable().subspan(kStubBytes), base() + kStubBytes); }
  /// `emit` writes code into an assembler; it is run.
  template <typename Emit>
  void run(Emit&& emit) {
    Assembler to = assembler();
    emit(to);
    ASSERT_FALSE(to.overflowed());
    stubs.enter(to.address_of(0));
  }
  void leave(Assembler& to, uint64_t argument = 0) {
    to.mov_immediate(kHostR10, argument);
    to.jmp(stubs.exit_indirect);
  }

  interp::TestMachine machine;
  Stubs stubs;
  std::unique_ptr<HostThread> host;

 private:
  uint64_t base() { return reinterpret_cast<uint64_t>(code_->executable().data()); }
  std::optional<CodeMemory> code_;
};

/// Registers and flags of a Cpu.
struct Registers {
  std::array<uint64_t, 16> gpr{};
  uint16_t flags = 0;
  bool operator==(const Registers&) const = default;

  static Registers of(const Cpu& cpu) {
    Registers registers;
    std::copy_n(cpu.gpr, 16, registers.gpr.begin());
    registers.flags = cpu.arithmetic_flags;
    return registers;
  }
  static Registers random(std::mt19937_64& random) {
    Registers registers;
    for (uint64_t& value : registers.gpr) value = random();
    registers.flags = static_cast<uint16_t>((random() & 0xd500) | 0x0200 | (random() & 1));  // LAHF bit 1 is always set
    return registers;
  }
  void put(Cpu& cpu) const {
    std::copy(gpr.begin(), gpr.end(), cpu.gpr);
    cpu.arithmetic_flags = flags;
  }
};

constexpr HostGpr kPinned[] = {kHostRax, kHostRcx, kHostRdx, kHostRbx, kHostR9,  kHostRbp, kHostRsi,
                               kHostRdi, kHostR8,  kHostR12, kHostR13, kHostR14, kHostR15};
constexpr unsigned guest_of(HostGpr host) { return host == kHostR9 ? unsigned{x86::kRsp} : unsigned{host}; }

TEST(Runtime, RegistersAndFlagsGoInAndOut) {
  Runtime runtime;
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    const Registers before = Registers::random(random);
    before.put(runtime.cpu());
    Registers expected = before;
    const uint64_t argument = random();
    runtime.run([&](Assembler& to) {
      int32_t delta = 0;
      for (const HostGpr host : kPinned) {
        delta += 0x1234567;
        to.lea(host, HostOperand::at(host, delta));
        expected.gpr[guest_of(host)] += static_cast<uint64_t>(delta);
      }
      runtime.leave(to, argument);
    });
    EXPECT_EQ(Registers::of(runtime.cpu()), expected) << round;
    EXPECT_EQ(runtime.exit_code(), ExitCode::kIndirect);
    EXPECT_EQ(runtime.translated().exit_argument, argument);
    EXPECT_EQ(runtime.translated().return_stack, runtime.translated().return_stack_top);
  }
}

TEST(Runtime, FlagsOfTheLastInstructionComeOut) {
  Runtime runtime;
  Registers{}.put(runtime.cpu());
  runtime.cpu().gpr[x86::kRcx] = 0x7fffffffffffffff;
  runtime.run([&](Assembler& to) {
    to.add_immediate(HostOperand::r(kHostRcx), 1);
    runtime.leave(to);
  });
  EXPECT_EQ(runtime.cpu().rflags() & x86::kArithmeticFlags, x86::kOf | x86::kSf | x86::kAf | x86::kPf);
}

TEST(Runtime, ExitsTellWhyAndWhere) {
  Runtime runtime;
  std::mt19937_64 random(2);
  const Registers before = Registers::random(random);
  before.put(runtime.cpu());
  uint64_t behind_call = 0;
  runtime.run([&](Assembler& to) {
    to.call(runtime.stubs.exit_link);
    behind_call = to.address();
  });
  EXPECT_EQ(runtime.exit_code(), ExitCode::kLink);
  EXPECT_EQ(runtime.translated().exit_argument, behind_call);
  EXPECT_EQ(runtime.translated().return_stack, runtime.translated().return_stack_top);
  runtime.run([&](Assembler& to) {
    to.mov_immediate(kHostR10, 0x1122334455667788);
    to.jmp(runtime.stubs.exit_interpret);
  });
  EXPECT_EQ(runtime.exit_code(), ExitCode::kInterpret);
  EXPECT_EQ(runtime.translated().exit_argument, 0x1122334455667788u);
  EXPECT_EQ(Registers::of(runtime.cpu()), before);
}

// --- Refills of the soft TLB.

TEST(Runtime, AFillThatSucceedsReturns) {
  Runtime runtime;
  std::mt19937_64 random(3);
  const interp::TlbMode mode = runtime.cpu().tlb_mode;
  for (unsigned write = 0; write < 2; ++write) {
    const uint64_t linear = 0x21000 + 0x2000 * write + 0x123;
    const unsigned index = interp::SoftTlb::index_of(linear);
    for (const bool scaled : {false, true}) {
      runtime.cpu().tlb.empty_tables();
      const Registers before = Registers::random(random);
      before.put(runtime.cpu());
      const interp::TlbEntry& entry = runtime.cpu().tlb.table(mode, write != 0)[index];
      const uint64_t stale = entry.negative_page;
      runtime.run([&](Assembler& to) {
        to.mov_immediate(kHostR10, linear + stale);
        to.mov_immediate(kHostR11, scaled ? index * 2 : index * sizeof entry);
        to.call(scaled ? runtime.stubs.fill_scaled[mode][write] : runtime.stubs.fill[mode][write]);
        runtime.leave(to, 0x77);
      });
      EXPECT_EQ(runtime.exit_code(), ExitCode::kIndirect);
      EXPECT_EQ(runtime.translated().exit_argument, 0x77u);
      EXPECT_EQ(entry.negative_page, 0 - (linear & ~(kPageSize - 1)));
      EXPECT_EQ(Registers::of(runtime.cpu()), before);
    }
  }
}

TEST(Runtime, AFillThatFailsLeaves) {
  Runtime runtime;
  std::mt19937_64 random(4);
  constexpr uint64_t kMissing = 0x25000;
  runtime.machine.set_page(kMissing, 0);
  const interp::TlbMode mode = runtime.cpu().tlb_mode;
  for (unsigned write = 0; write < 2; ++write) {
    const Registers before = Registers::random(random);
    before.put(runtime.cpu());
    uint64_t behind_call = 0;
    runtime.run([&](Assembler& to) {
      const unsigned index = interp::SoftTlb::index_of(kMissing);
      to.mov_immediate(kHostR10, kMissing + runtime.cpu().tlb.table(mode, write != 0)[index].negative_page);
      to.mov_immediate(kHostR11, index * 2);
      to.call(runtime.stubs.fill_scaled[mode][write]);
      behind_call = to.address();
    });
    EXPECT_EQ(runtime.exit_code(), ExitCode::kSlowAccess);
    EXPECT_EQ(runtime.translated().exit_argument, behind_call);
    EXPECT_EQ(runtime.translated().return_stack, runtime.translated().return_stack_top);
    EXPECT_EQ(Registers::of(runtime.cpu()), before);
    EXPECT_FALSE(runtime.cpu().has_fault);
  }
}

/// Calls `stub` as the check of a group does: 1 it returned, 2 it went on in code without groups.
uint64_t call_group_fill(Runtime& runtime, uint64_t stub, uint64_t r10, uint64_t r11, uint16_t span) {
  uint64_t plain_end = 0;
  runtime.run([&](Assembler& to) {
    to.mov_immediate(kHostR10, r10);
    to.mov_immediate(kHostR11, r11);
    to.call(stub);
    const Fixup retry = to.jmp_forward();
    to.word(span);
    const Fixup plain = to.rel32();
    plain_end = to.address();
    to.bind(plain);
    to.jmp(runtime.stubs.exit_named_link);
    to.bind(retry);
    runtime.leave(to, 1);
  });
  if (runtime.exit_code() == ExitCode::kIndirect) return runtime.translated().exit_argument;
  EXPECT_EQ(runtime.exit_code(), ExitCode::kLink);
  EXPECT_EQ(runtime.translated().exit_argument, plain_end);
  return 2;
}

TEST(Runtime, GroupFillsReturnOrGoOnInPlainCode) {
  Runtime runtime;
  std::mt19937_64 random(6);
  const interp::TlbMode mode = runtime.cpu().tlb_mode;
  interp::TranslatedState& state = runtime.translated();
  const auto expect = [&](uint64_t linear, uint16_t span, uint64_t outcome) {
    const Registers before = Registers::random(random);
    for (const unsigned write : {0u, 1u}) {
      before.put(runtime.cpu());
      const unsigned index = interp::SoftTlb::index_of(linear);
      const interp::TlbEntry& entry = runtime.cpu().tlb.table(mode, write != 0)[index];
      const uint64_t r10 = linear + entry.negative_page;
      EXPECT_EQ(call_group_fill(runtime, runtime.stubs.fill_group[mode][write], r10, index * 16, span), outcome);
      EXPECT_EQ(linear + entry.negative_page < kPageSize, outcome == 1);
      EXPECT_EQ(Registers::of(runtime.cpu()), before);
    }
    state.stack_negative_page[0] = 0x123000;
    const uint64_t r10 = linear + state.stack_negative_page[0];
    EXPECT_EQ(call_group_fill(runtime, runtime.stubs.fill_stack[0], r10, 0, span), outcome);
    EXPECT_EQ(state.stack_negative_page[0], outcome == 1 ? 0 - (linear & ~(kPageSize - 1)) : 0x123000);
    EXPECT_EQ(Registers::of(runtime.cpu()), before);
  };
  expect(0x21ff0, 17, 2);  // leaves the page
  expect(0x21ff0, 16, 1);
  expect(0x22000, 2048, 1);
  constexpr uint64_t kMissing = 0x25000;
  runtime.machine.set_page(kMissing, 0);
  expect(kMissing, 8, 2);
}

// --- Vector and x87 registers.

uint32_t host_mxcsr() {
  uint32_t value = 0;
  asm volatile("stmxcsr %0" : "=m"(value));
  return value;
}
uint16_t host_x87_control() {
  uint16_t value = 0;
  asm volatile("fnstcw %0" : "=m"(value));
  return value;
}

TEST(Runtime, VectorRegistersAreTheGuestsWhileTheyAreLive) {
  Runtime runtime;
  std::mt19937_64 random(5);
  constexpr uint64_t kLinear = 0x23000;
  for (int round = 0; round < 20; ++round) {
    interp::VectorState& vector = runtime.cpu().vector;
    for (auto& ymm : vector.ymm) {
      for (uint8_t& byte : ymm) byte = static_cast<uint8_t>(random());
    }
    vector.mxcsr = 0x7f80;  // rounds toward zero
    const interp::VectorState before = vector;
    const Registers registers = Registers::random(random);
    registers.put(runtime.cpu());
    runtime.cpu().tlb.empty_tables();
    runtime.run([&](Assembler& to) {
      to.call(runtime.stubs.load_vector);
      // A refill in between, which leaves them alone.
      const interp::TlbMode mode = runtime.cpu().tlb_mode;
      const unsigned index = interp::SoftTlb::index_of(kLinear);
      to.mov_immediate(kHostR10, kLinear + runtime.cpu().tlb.table(mode, false)[index].negative_page);
      to.mov_immediate(kHostR11, index * 2);
      to.call(runtime.stubs.fill_scaled[mode][0]);
      // vxorps ymm3, ymm9, ymm12; movaps xmm4, xmm5: the upper half of YMM4 stays
      to.bytes(std::to_array<uint8_t>({0xc4, 0xc1, 0x34, 0x57, 0xdc, 0x0f, 0x28, 0xe5}));
      runtime.leave(to);
    });
    EXPECT_EQ(runtime.exit_code(), ExitCode::kIndirect);
    EXPECT_EQ(Registers::of(runtime.cpu()), registers);
    EXPECT_EQ(host_mxcsr() & 0xffc0, 0x1f80u);
    EXPECT_EQ(runtime.translated().vector_live, 0);
    interp::VectorState expected = before;
    for (unsigned i = 0; i < 32; ++i) expected.ymm[3][i] = before.ymm[9][i] ^ before.ymm[12][i];
    std::memcpy(expected.ymm[4], before.ymm[5], 16);
    EXPECT_EQ(std::memcmp(vector.ymm, expected.ymm, sizeof expected.ymm), 0) << round;
    EXPECT_EQ(vector.mxcsr, 0x7f80u);
  }
}

TEST(Runtime, MxcsrFlagsOfTheGuestComeOut) {
  Runtime runtime;
  interp::VectorState& vector = runtime.cpu().vector;
  vector.mxcsr = 0x1f80;
  std::memset(vector.ymm, 0, sizeof vector.ymm);
  const float one = 1;
  std::memcpy(vector.ymm[1], &one, sizeof one);
  runtime.run([&](Assembler& to) {
    to.call(runtime.stubs.load_vector);
    to.bytes(std::to_array<uint8_t>({0xf3, 0x0f, 0x5e, 0xc8}));  // divss xmm1, xmm0
    runtime.leave(to);
  });
  EXPECT_EQ(vector.mxcsr, 0x1f84u);  // ZE
  float result = 0;
  std::memcpy(&result, vector.ymm[1], sizeof result);
  EXPECT_TRUE(std::isinf(result));
}

TEST(Runtime, X87StateIsTheGuestsWhileItIsLive) {
  Runtime runtime;
  interp::VectorState& state = runtime.cpu().vector;
  interp::fx_init(state);
  interp::fx_set_control_status(state, 0x37f, 0);
  state.fx[Fx::kTags] = 0;
  std::memset(state.ymm, 0x5a, sizeof state.ymm);
  std::mt19937_64 random(6);
  const Registers registers = Registers::random(random);
  registers.put(runtime.cpu());
  const auto load_pi = [&](Assembler& to) {
    to.call(runtime.stubs.load_vector);
    to.call(runtime.stubs.load_x87);
    to.bytes(std::to_array<uint8_t>({0xd9, 0xeb}));  // fldpi
    runtime.leave(to);
  };
  runtime.run(load_pi);
  EXPECT_EQ(runtime.translated().x87_live, 0);
  EXPECT_EQ(host_x87_control(), 0x37f);
  EXPECT_EQ(interp::fx_top(state), 7u);
  EXPECT_EQ(state.fx[Fx::kTags], 0x80);
  long double value = 0;
  std::memcpy(&value, interp::fx_register(state, 0), 10);
  EXPECT_EQ(value, std::numbers::pi_v<long double>);
  EXPECT_EQ(interp::fx_get<uint64_t>(state, Fx::kIp), 0u);
  EXPECT_EQ(interp::fx_get<uint64_t>(state, Fx::kDp), 0u);
  EXPECT_EQ(interp::fx_get<uint16_t>(state, Fx::kOpcode), 0u);

  runtime.run([&](Assembler& to) {
    to.call(runtime.stubs.load_x87);
    to.bytes(std::to_array<uint8_t>({0xd8, 0xc0}));  // fadd st0, st0
    runtime.leave(to);
  });
  std::memcpy(&value, interp::fx_register(state, 0), 10);
  EXPECT_EQ(value, 2 * std::numbers::pi_v<long double>);
  EXPECT_EQ(Registers::of(runtime.cpu()), registers);
  for (const auto& ymm : state.ymm) {
    for (const uint8_t byte : ymm) ASSERT_EQ(byte, 0x5a);
  }
}

// --- Faults of host instructions.

class HostFaults : public testing::Test {
 protected:
  /// Runs `bytes` and expects a fault at its first instruction, with nothing changed.
  void expect_fault(std::span<const uint8_t> bytes, const Registers& registers) {
    registers.put(runtime_.cpu());
    uint64_t at = 0;
    runtime_.run([&](Assembler& to) {
      to.call(runtime_.stubs.load_vector);
      at = to.address();
      to.bytes(bytes);
      runtime_.leave(to);
    });
    EXPECT_EQ(runtime_.exit_code(), ExitCode::kHostFault);
    EXPECT_EQ(runtime_.translated().exit_argument, at);
    EXPECT_EQ(Registers::of(runtime_.cpu()), registers);
    EXPECT_EQ(runtime_.translated().vector_live, 0);
  }
  Runtime runtime_;
};

TEST_F(HostFaults, DivideError) {
  std::mt19937_64 random(7);
  Registers registers = Registers::random(random);
  registers.gpr[x86::kRcx] = 0;
  for (int i = 0; i < 3; ++i) expect_fault(std::to_array<uint8_t>({0x48, 0xf7, 0xf1}), registers);  // div rcx
}

TEST_F(HostFaults, UnmaskedSimdException) {
  runtime_.cpu().vector.mxcsr = 0x1d80;  // ZM clear
  std::memset(runtime_.cpu().vector.ymm, 0, sizeof runtime_.cpu().vector.ymm);
  const float one = 1;
  std::memcpy(runtime_.cpu().vector.ymm[1], &one, sizeof one);
  std::mt19937_64 random(8);
  expect_fault(std::to_array<uint8_t>({0xf3, 0x0f, 0x5e, 0xc8}), Registers::random(random));  // divss xmm1, xmm0
  EXPECT_EQ(runtime_.cpu().vector.mxcsr, 0x1d84u);
  EXPECT_EQ(std::memcmp(runtime_.cpu().vector.ymm[1], &one, sizeof one), 0);
}

TEST_F(HostFaults, MisalignedSseOperand) {
  alignas(16) std::byte buffer[48];
  std::mt19937_64 random(9);
  Registers registers = Registers::random(random);
  registers.gpr[x86::kRdx] = reinterpret_cast<uint64_t>(buffer) + 1;
  expect_fault(std::to_array<uint8_t>({0x0f, 0x28, 0x02}), registers);  // movaps xmm0, [rdx]
}

TEST_F(HostFaults, PendingX87Exception) {
  interp::VectorState& state = runtime_.cpu().vector;
  interp::fx_init(state);
  interp::fx_set_control_status(state, 0x37b, 0);  // ZM clear
  state.fx[Fx::kTags] = 0;
  uint64_t at = 0;
  runtime_.run([&](Assembler& to) {
    to.call(runtime_.stubs.load_x87);
    to.bytes(std::to_array<uint8_t>({0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9}));  // fld1; fldz; fdivp
    at = to.address();
    to.bytes(std::to_array<uint8_t>({0xd9, 0xe8}));  // fld1
    runtime_.leave(to);
  });
  EXPECT_EQ(runtime_.exit_code(), ExitCode::kHostFault);
  EXPECT_EQ(runtime_.translated().exit_argument, at);
  EXPECT_EQ(interp::fx_pending_errors(state), 4u);
  EXPECT_EQ(runtime_.translated().x87_live, 0);
}

using HostFaultsDeathTest = HostFaults;
TEST_F(HostFaultsDeathTest, OutsideTranslatedCodeTheProcessDies) {
  volatile uintptr_t nowhere = 16;  // volatile: the compiler must not see that it is nothing
  EXPECT_DEATH(*reinterpret_cast<volatile int*>(nowhere) = 1, "");
}

// --- The shadow return stack.

TEST(ReturnStack, StartsAnewWhenItIsFull) {
  Runtime runtime;
  Registers{.flags = 0x0200}.put(runtime.cpu());
  runtime.cpu().gpr[x86::kRcx] = 3 * HostThread::kReturnStackBytes / 8;
  const Registers before = Registers::of(runtime.cpu());
  runtime.run([&](Assembler& to) {
    to.lea(kHostRcx, HostOperand::at(kHostRcx, -1));
    const Fixup end = to.jrcxz_forward();
    to.call(to.address_of(0));
    to.bind_short(end);
    runtime.leave(to, 5);
  });
  EXPECT_EQ(runtime.exit_code(), ExitCode::kIndirect);
  EXPECT_EQ(runtime.translated().exit_argument, 5u);
  Registers expected = before;
  expected.gpr[x86::kRcx] = 0;
  EXPECT_EQ(Registers::of(runtime.cpu()), expected);
  const uint64_t depth = runtime.translated().return_stack_top - runtime.translated().return_stack;
  EXPECT_LE(depth, HostThread::kReturnStackBytes);
  EXPECT_GT(depth, 0u);
  runtime.host->reset_return_stack();
  EXPECT_EQ(runtime.translated().return_stack, runtime.translated().return_stack_top);
}

TEST(ReturnStack, AReturnThatFindsItEmptyLeaves) {
  Runtime runtime;
  for (int i = 0; i < 2000; ++i) {  // more than there are sentinels
    const uint64_t address = uint64_t{0x123456789} * static_cast<unsigned>(i);
    runtime.run([&](Assembler& to) {
      to.mov_immediate(kHostR10, address);
      to.ret();
    });
    ASSERT_EQ(runtime.exit_code(), ExitCode::kIndirect);
    ASSERT_EQ(runtime.translated().exit_argument, address);
    runtime.translated().return_stack = runtime.translated().return_stack_top;  // as Translator's return_miss does
  }
}

TEST(ReturnStack, EachPrivilegeHasItsOwn) {
  Runtime runtime;
  const auto call = [&] {
    runtime.run([&](Assembler& to) {
      const Fixup over = to.call_forward();
      to.bind(over);
      runtime.leave(to, 5);
    });
  };
  interp::TranslatedState& state = runtime.translated();
  const uint64_t top = state.return_stack_top;
  call();
  EXPECT_EQ(state.return_stack, top - 8);
  runtime.host->use_return_stack(1);
  EXPECT_NE(state.return_stack_top, top);
  EXPECT_EQ(state.return_stack, state.return_stack_top);
  call();
  call();
  EXPECT_EQ(state.return_stack, state.return_stack_top - 16);
  runtime.host->use_return_stack(0);
  EXPECT_EQ(state.return_stack_top, top);
  EXPECT_EQ(state.return_stack, top - 8);
  runtime.host->reset_return_stack();
  EXPECT_EQ(state.return_stack, top);
  runtime.host->use_return_stack(1);
  EXPECT_EQ(state.return_stack, state.return_stack_top);
}

// --- Poked from outside.

HostOperand poke_word() {
  return HostOperand::state(offsetof(Cpu, translated) + offsetof(interp::TranslatedState, poke));
}

/// Spins until the poke word is set.
void emit_wait_for_poke(Runtime& runtime, Assembler& to) {
  to.cmp_immediate(poke_word(), 0, false);
  to.jcc(kEqual, to.address_of(0));
  runtime.leave(to, 0x90);
}

TEST(Poke, TheTimerSetsIt) {
  Runtime runtime;
  for (int i = 1; i <= 3; ++i) {
    runtime.translated().poke = 0;
    runtime.machine.signal.set_deadline_ns(runtime.machine.clock.now_ns() + 2'000'000);
    runtime.host->arm_deadline();
    runtime.host->arm_deadline();
    runtime.run([&](Assembler& to) { emit_wait_for_poke(runtime, to); });
    EXPECT_EQ(runtime.translated().exit_argument, 0x90u);
    EXPECT_EQ(runtime.translated().poke, 1u);
  }
}

TEST(Poke, AnEarlierDeadlineTakesTheTimer) {
  Runtime runtime;
  runtime.machine.signal.set_deadline_ns(uint64_t{3600} * 1'000'000'000);
  runtime.host->arm_deadline();
  EXPECT_EQ(runtime.translated().poke, 0u);
  runtime.machine.signal.set_deadline_ns(1'000'000);
  runtime.host->arm_deadline();
  runtime.run([&](Assembler& to) { emit_wait_for_poke(runtime, to); });
  EXPECT_EQ(runtime.translated().poke, 1u);
}

TEST(Poke, ADeadlineThatHasPassedSetsItAtOnce) {
  Runtime runtime;
  runtime.machine.clock.advance_ns(100);
  runtime.machine.signal.set_deadline_ns(100);
  runtime.host->arm_deadline();
  EXPECT_EQ(runtime.translated().poke, 1u);
}

/// Two vCPUs on two threads, each told to stop by a third.
TEST(Poke, EveryThreadHasItsOwn) {
  constexpr int kThreads = 2;
  constexpr int kRounds = 50;
  std::atomic<VcpuSignal*> signals[kThreads] = {};
  std::atomic<int> entered[kThreads] = {};
  std::vector<std::thread> threads;
  for (int n = 0; n < kThreads; ++n) {
    threads.emplace_back([&, n] {
      Runtime runtime;
      std::mt19937_64 random(static_cast<uint64_t>(n));
      runtime.machine.signal.set_poke(&runtime.translated().poke);
      signals[n] = &runtime.machine.signal;
      for (int round = 0; round < kRounds; ++round) {
        const Registers before = Registers::random(random);
        before.put(runtime.cpu());
        runtime.translated().poke.exchange(0);
        runtime.machine.signal.take(~0u);
        entered[n].fetch_add(1);
        runtime.run([&](Assembler& to) { emit_wait_for_poke(runtime, to); });
        Registers after = Registers::of(runtime.cpu());
        after.flags = before.flags;
        EXPECT_EQ(after, before);
      }
      runtime.machine.signal.set_poke(nullptr);
      entered[n] = kRounds + 1;
      while (entered[n] != 0) std::this_thread::yield();
    });
  }
  for (int n = 0; n < kThreads; ++n) {
    while (entered[n] == 0) std::this_thread::yield();
    while (entered[n] <= kRounds) {
      signals[n].load()->raise(VcpuSignal::kInterrupt);
      std::this_thread::yield();
    }
  }
  for (int n = 0; n < kThreads; ++n) {
    entered[n] = 0;
    threads[static_cast<size_t>(n)].join();
  }
}

TEST(HostCpu, IsGoodEnough) {
  const Result<void> checked = check_host_cpu();
  EXPECT_TRUE(checked.has_value()) << checked.error().message();
}

}  // namespace
}  // namespace tenon::jit
