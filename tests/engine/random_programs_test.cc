// Random programs of several blocks on the JIT and on the interpreter: registers, flags and memory must come out alike.
//
// tests/differential compares single instructions and lockstep single blocks; this is for what templates assume over
// blocks (jit/emit_stack.cc, emit_base.cc, region.cc). Programs are nested: forward branches around a part, parts with
// more on the stack, calls; all of it in a loop. Pointers lie near the ends of pages.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "engine/empty_cpu_io.hh"
#include "engine/interp/interp_engine.hh"
#include "engine/jit/jit_engine.hh"
#include "host/host_clock.hh"
#include "machine/flat_guest.hh"

namespace tenon {
namespace {

constexpr uint64_t kPrograms = 0x100000;
constexpr uint64_t kProgramBytes = 0x1000;
constexpr unsigned kProgramsMax = 256;
constexpr uint64_t kData = 0x400000;
constexpr uint64_t kStack = 0x500000;
constexpr uint64_t kAreaBytes = 0x10000;
constexpr uint64_t kMemoryBytes = 8 << 20;

using Random = std::mt19937_64;

/// Writes one program.
class Generator {
 public:
  explicit Generator(Random& random) : random_(random) {}

  std::vector<uint8_t> run() {
    part(2);
    put({0x9c});              // pushfq
    put({0x49, 0xff, 0xcf});  // dec r15
    put({0x0f, 0x85});        // jnz start
    put32(-static_cast<int64_t>(code_.size() + 4));
    put({0x9c, 0xe6, 0xf5, 0xeb, 0xfe});  // pushfq; out 0xf5, al; jmp to itself
    return code_;
  }

 private:
  static constexpr std::array<uint8_t, 8> kValues = {0, 1, 2, 7, 8, 10, 11, 13};
  static constexpr std::array<uint8_t, 6> kPointers = {3, 5, 6, 9, 12, 4};  // RBX RBP RSI R9 R12 RSP

  unsigned below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }
  uint8_t value() { return kValues[below(kValues.size())]; }
  void put(std::initializer_list<unsigned> bytes) {
    for (const unsigned byte : bytes) code_.push_back(static_cast<uint8_t>(byte));
  }
  void put32(int64_t number) {
    for (unsigned i = 0; i < 4; ++i) code_.push_back(static_cast<uint8_t>(number >> 8 * i));
  }
  /// The rel32 at `at` leads here.
  void bind(size_t at) {
    const auto distance = static_cast<int32_t>(code_.size() - at - 4);
    std::memcpy(code_.data() + at, &distance, sizeof distance);
  }
  size_t hole() {
    put32(0);
    return code_.size() - 4;
  }

  void registers(unsigned opcode, uint8_t reg, uint8_t rm) {
    put({0x48u | reg >> 3 << 2 | rm >> 3, opcode, 0xc0u | (reg & 7u) << 3 | (rm & 7u)});
  }
  /// [pointer + disp8], 64 or 32 bits.
  void memory(unsigned opcode, uint8_t reg) {
    // Behind a return address nothing is stored off RSP, which is the last.
    const bool any = calls_ == 0 || (opcode & 2) != 0;
    const uint8_t base = kPointers[below(kPointers.size() - (any ? 0 : 1))];
    put({0x40u | below(2) << 3 | reg >> 3 << 2 | base >> 3, opcode, 0x40u | (reg & 7u) << 3 | (base & 7u)});
    if ((base & 7) == 4) put({0x24});
    put({below(2) == 0 ? 8 * below(8) : below(100)});
  }

  void instruction() {
    const unsigned alu = below(8) << 3;  // ADD OR ADC SBB AND SUB XOR CMP
    switch (below(10)) {
      case 0: return registers(alu | 1, value(), value());
      case 1: return memory(alu | 3, value());
      case 2: return memory(alu | 1, value());
      case 3:
      case 4: return memory(0x8b, value());
      case 5: return memory(0x89, value());
      case 6: return registers(0x89, value(), value());
      case 7: {  // cmovcc
        const uint8_t to = value(), from = value();
        return put({0x48u | to >> 3 << 2 | from >> 3, 0x0f, 0x40 | below(16), 0xc0u | (to & 7u) << 3 | (from & 7u)});
      }
      case 8: {  // lea pointer, [pointer + disp8]
        constexpr std::array<uint8_t, 3> kMoving = {3, 5, 6};
        const uint8_t reg = kMoving[below(3)];
        return put({0x48, 0x8d, 0x40u | unsigned{reg} << 3 | reg, (below(33) - 16) & 0xff});
      }
      default: return put({0x48, 0x85, 0xc0u | below(4) << 3 | below(2)});  // test
    }
  }

  void part(unsigned depth) {
    for (unsigned left = 2 + below(5); left > 0; --left) {
      const unsigned kind = depth == 0 ? 0 : below(9);
      if (kind == 1 || kind == 2) {
        put({0x0f, 0x80 | below(16)});  // jcc over
        const size_t over = hole();
        part(depth - 1);
        bind(over);
      } else if (kind == 3) {
        push_and_pop(depth);
      } else if (kind == 4) {
        const unsigned bytes = 8 * below(9);
        put({0x48, 0x83, 0xec, bytes});  // sub rsp
        part(depth - 1);
        put({0x48, below(2) == 0 ? 0x83u : 0x8du});
        if (code_.back() == 0x83) {
          put({0xc4, bytes});  // add rsp
        } else {
          put({0x64, 0x24, bytes});  // lea rsp, [rsp + bytes]
        }
      } else if (kind == 5) {
        call(depth);
      } else {
        instruction();
      }
    }
  }

  void push_and_pop(unsigned depth) {
    const unsigned count = 1 + below(3);
    for (unsigned i = 0; i < count; ++i) stack(0x50, value());
    part(depth - 1);
    for (unsigned i = 0; i < count; ++i) stack(0x58, value());
  }
  void stack(unsigned opcode, uint8_t reg) {
    if (reg >= 8) put({0x41});
    put({opcode | (reg & 7u)});
  }
  void call(unsigned depth) {
    put({0xe8});
    const size_t callee = hole();
    put({0xe9});
    const size_t behind = hole();
    bind(callee);
    ++calls_;
    part(depth - 1);
    --calls_;
    put({0xc3});
    bind(behind);
  }

  Random& random_;
  std::vector<uint8_t> code_;
  unsigned calls_ = 0;  // around what is being generated
};

class StoppingIo : public EmptyCpuIo {
 public:
  void write_port(IoPort, unsigned, uint32_t) override { vcpu->request_stop(); }
  Vcpu* vcpu = nullptr;
};

/// A machine with one vCPU, all programs loaded.
class Machine {
 public:
  Machine(Result<std::unique_ptr<Engine>> engine, const std::vector<std::vector<uint8_t>>& programs)
      : engine_(std::move(*engine)) {
    EXPECT_TRUE(memory_.add({Gpa(0), kMemoryBytes}, ExtentKind::kPrivate, "test"));
    EXPECT_TRUE(engine_->attach(memory_, clock_));
    const std::array<std::byte, 1> nothing{};
    state_ = *FlatGuest::load(memory_, nothing);
    for (size_t i = 0; i < programs.size(); ++i)
      std::memcpy(at(kPrograms + i * kProgramBytes, kProgramBytes), programs[i].data(), programs[i].size());
    cpuid_ = *engine_->supported_cpuid();
    auto vcpu = engine_->create_vcpu({.id = VcpuId{0}, .cpuid = cpuid_, .signal = &signal_});
    EXPECT_TRUE(vcpu) << vcpu.error().message();
    vcpu_ = std::move(*vcpu);
    io_.vcpu = vcpu_.get();
  }

  std::byte* at(uint64_t gpa, uint64_t size) { return memory_.host_address(Gpa(gpa), size); }

  /// Runs program `number` with registers and memory from `random`.
  x86::CpuState run(unsigned number, Random random) {
    for (uint64_t i = 0; i < kAreaBytes; i += 8) {
      const uint64_t word = random();
      std::memcpy(at(kData + i, 8), &word, 8);
      std::memcpy(at(kStack + i, 8), &word, 8);
    }
    x86::CpuState state = state_;
    state.rip = kPrograms + number * kProgramBytes;
    for (uint64_t& gpr : state.gpr) gpr = random() >> random() % 64;
    // Up to 128 bytes before the end of a page, or anywhere.
    const auto place = [&](uint64_t area) {
      const uint64_t page = area + (4 + random() % 8) * kPageSize;
      return random() % 2 == 0 ? page - random() % 128 : page + random() % kPageSize;
    };
    for (const unsigned pointer : {3u, 5u, 6u, 9u, 12u}) state.gpr[pointer] = place(kData);
    state.gpr[4] = place(kStack) & ~uint64_t{random() % 4 == 0 ? 0u : 7u};
    state.gpr[15] = 1 + random() % 6;
    state.rflags = x86::kFlagsOne | (random() & x86::kArithmeticFlags);
    EXPECT_TRUE(vcpu_->set_state(state));
    const Halt halt = vcpu_->run(io_);
    EXPECT_EQ(halt.reason, Halt::Reason::kStopped) << halt.detail;
    return vcpu_->get_state();
  }

 private:
  GuestMemory memory_;
  HostClock clock_;
  VcpuSignal signal_;
  std::vector<CpuidEntry> cpuid_;
  std::unique_ptr<Engine> engine_;
  x86::CpuState state_;
  StoppingIo io_;
  std::unique_ptr<Vcpu> vcpu_;
};

void compare(const JitOptions& options, uint64_t seed) {
  Random random(seed);
  std::vector<std::vector<uint8_t>> programs;
  for (unsigned i = 0; i < kProgramsMax; ++i) {
    programs.push_back(Generator(random).run());
    if (programs.back().size() > kProgramBytes) programs.pop_back();
  }
  Machine interp(make_interp_engine(), programs);
  Machine jit(make_jit_engine(options), programs);
  for (unsigned round = 0; round < 8; ++round) {
    for (unsigned i = 0; i < programs.size(); ++i) {
      const Random input(random());
      const x86::CpuState expected = interp.run(i, input);
      const x86::CpuState actual = jit.run(i, input);
      ASSERT_EQ(actual.gpr, expected.gpr) << "seed " << seed << " program " << i << " round " << round;
      ASSERT_EQ(actual.rip, expected.rip) << "seed " << seed << " program " << i << " round " << round;
      for (const uint64_t area : {kData, kStack}) {
        ASSERT_EQ(std::memcmp(jit.at(area, kAreaBytes), interp.at(area, kAreaBytes), kAreaBytes), 0)
            << "seed " << seed << " program " << i << " round " << round;
      }
    }
  }
}

TEST(RandomPrograms, EndAlike) {
  for (uint64_t seed = 1; seed <= 6; ++seed) compare({}, seed);
}

TEST(RandomPrograms, EndAlikeWithStrictFlags) {
  JitOptions options;
  options.strict_flags = true;
  compare(options, 7);
}

TEST(RandomPrograms, EndAlikeWithFaultInjection) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    JitOptions options;
    options.fault_injection = seed;
    compare(options, seed + 100);
  }
}

}  // namespace
}  // namespace tenon
