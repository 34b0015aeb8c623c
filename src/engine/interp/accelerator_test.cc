// What the run loop promises to an Accelerator: when it is asked, what it is told, and that it is never left unheard.
#include "engine/interp/accelerator.hh"

#include <algorithm>
#include <thread>

#include "engine/interp/interp_test_support.hh"

namespace tenon::interp {
namespace {

class ScriptedAccelerator : public Accelerator {
 public:
  bool run(Cpu& cpu) override {
    ++runs;
    return on_run && on_run(cpu);
  }
  void forget_code_translations(bool keep_global) override { forgotten.push_back(keep_global ? 1 : 0); }
  void forget_code_translation(uint64_t linear, uint64_t) override { forgotten.push_back(linear); }
  void forget_code_translations_of(uint64_t) override {}
  void code_context_changed(Cpu&) override { ++contexts; }
  void code_changed(Gpa gpa, uint64_t size_bytes) override { changed.push_back({gpa.value(), size_bytes}); }
  void any_code_changed() override { ++anything; }

  struct Range {
    uint64_t gpa, size_bytes;
    bool operator==(const Range&) const = default;
  };
  std::function<bool(Cpu&)> on_run;
  unsigned runs = 0;
  unsigned contexts = 0;
  unsigned anything = 0;
  std::vector<uint64_t> forgotten;
  std::vector<Range> changed;
};

class AcceleratorTest : public testing::Test {
 protected:
  AcceleratorTest() { machine.vcpu->set_accelerator(&accelerator); }
  ~AcceleratorTest() override { machine.vcpu->set_accelerator(nullptr); }
  bool told(uint64_t gpa, uint64_t size_bytes) {
    return std::ranges::find(accelerator.changed, ScriptedAccelerator::Range{gpa, size_bytes}) !=
           accelerator.changed.end();
  }

  TestMachine machine;
  ScriptedAccelerator accelerator;
};

GUEST_CODE(sum_loop, "64", R"(
  xor eax, eax
  mov ecx, 100
1: add rax, rcx
  dec ecx
  jnz 1b
)" DONE);

TEST_F(AcceleratorTest, WhatItDoesNotRunIsInterpreted) {
  machine.enter_64(sum_loop);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRax), 5050u);
  EXPECT_GE(accelerator.runs, 100u);
  EXPECT_GE(accelerator.contexts, 1u);
}

TEST_F(AcceleratorTest, RunsInPlaceOfTraces) {
  machine.enter_64(sum_loop);
  accelerator.on_run = [](Cpu& cpu) {  // one instruction at a time
    EXPECT_EQ(cpu.attention, 0u);
    cpu.interpret_one();
    return true;
  };
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRax), 5050u);
  EXPECT_EQ(accelerator.runs, 304u - 1);  // all but what follows the OUT
}

GUEST_CODE(trap_flag, "64", R"(
  pushfq
  or dword ptr [rsp], 0x100
  popfq
  nop
  nop
)" DONE);

GUEST_CODE(step_handler, "64", R"(
  inc ebx
  cmp ebx, 2
  jb 1f
  and dword ptr [rsp + 16], 0xfffffeff
1: iretq
)");

TEST_F(AcceleratorTest, IsNotAskedWhileStepping) {
  machine.enter_64(trap_flag);
  machine.set_gate_64(1, TestMachine::kHandlers);
  machine.load(TestMachine::kHandlers, step_handler);
  accelerator.on_run = [](Cpu& cpu) {
    EXPECT_EQ(cpu.system_flags & x86::kTf, 0u);
    return false;
  };
  machine.state.gpr[x86::kRbx] = 0;
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRbx), 2u);
}

GUEST_CODE(spin, "64", "1: jmp 1b\n");
GUEST_CODE(stop_handler, "64", "out 0xf4, al\n 1: jmp 1b\n");

/// Runs until it is poked, as translated code does.
bool run_until_poked(Cpu& cpu) {
  while (cpu.translated.poke.load() == 0) std::this_thread::yield();
  return true;
}

TEST_F(AcceleratorTest, AnInterruptPokesIt) {
  machine.enter_64(spin);
  machine.state.rflags |= x86::kIf;
  machine.set_gate_64(0x40, TestMachine::kHandlers);
  machine.load(TestMachine::kHandlers, stop_handler);
  accelerator.on_run = [](Cpu& cpu) { return cpu.rip < TestMachine::kHandlers + 16 ? false : run_until_poked(cpu); };
  std::thread sender([&] {
    machine.io.interrupt = 0x40;
    machine.signal.raise(VcpuSignal::kInterrupt);
  });
  machine.run_to_done();
  sender.join();
  EXPECT_EQ(machine.io.interrupt, -1);
}

TEST_F(AcceleratorTest, APokeForNothingGoesOnAndLooksAtTheDeadline) {
  machine.enter_64(spin);
  unsigned runs = 0;
  accelerator.on_run = [&](Cpu& cpu) {
    EXPECT_EQ(cpu.translated.poke.load(), 0u);
    if (++runs == 3) machine.clock.advance_ns(1000);
    if (runs == 4) machine.signal.raise(VcpuSignal::kStop);
    if (runs < 4) cpu.translated.poke.store(1);  // the host's timer
    return true;
  };
  machine.signal.set_deadline_ns(1000);
  machine.run_to_done();
  EXPECT_EQ(runs, 4u);
  EXPECT_EQ(machine.io.timer_expirations, 1u);
}

GUEST_CODE(patch_once, "64", R"(
  lea rdi, [rip + 2f]
  call 2f
  mov dword ptr [rdi + 1], 7
  call 2f
)" DONE R"(
.balign 64
2: mov eax, 0
  ret
)");

TEST_F(AcceleratorTest, IsToldWhatItsOwnGuestWrites) {
  machine.enter_64(patch_once);
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRax), 7u);
  EXPECT_EQ(accelerator.changed, (std::vector<ScriptedAccelerator::Range>{{machine.gpr(x86::kRdi) + 1, 4}}));
}

GUEST_CODE(many_stores, "64", R"(
  mov ecx, 100
1: mov [rip + 2f + 0x200], ecx
  dec ecx
  jnz 1b
2:
)" DONE);

TEST_F(AcceleratorTest, IsToldOfAPageGivenUpForData) {
  machine.enter_64(many_stores);
  machine.run_to_done();
  EXPECT_TRUE(told(TestMachine::kCode, kPageSize));
}

TEST_F(AcceleratorTest, IsToldWhatDevicesWriteBeforeGuestCodeRuns) {
  machine.enter_64(spin);
  const auto write = [&](uint64_t gpa) { machine.poke<uint32_t>(gpa, 0x90909090); };
  unsigned runs = 0;
  machine.memory.code_watch().page(Gpa(TestMachine::kCode))->granules.fetch_or(2);
  accelerator.on_run = [&](Cpu& cpu) {
    switch (++runs) {
      case 1: write(TestMachine::kCode + 0x44); return run_until_poked(cpu);
      case 2:
        EXPECT_TRUE(told(TestMachine::kCode + 0x40, 64));
        EXPECT_EQ(accelerator.anything, 0u);
        for (unsigned i = 0; i < 2 * CodeChanges::kLines; ++i) write(TestMachine::kCode + 0x48);
        return run_until_poked(cpu);
      default:
        EXPECT_EQ(accelerator.anything, 1u);
        machine.signal.raise(VcpuSignal::kStop);
        return run_until_poked(cpu);
    }
  };
  machine.run_to_done();
  EXPECT_EQ(runs, 3u);
}

GUEST_CODE(forgetting, "64", "mov rax, cr3\n mov cr3, rax\n invlpg [0x5000]\n" DONE);

TEST_F(AcceleratorTest, IsToldThatTranslationsAreForgotten) {
  machine.enter_64(forgetting);
  accelerator.forgotten.clear();
  machine.run_to_done();
  const auto& forgotten = accelerator.forgotten;
  EXPECT_NE(std::ranges::find(forgotten, 1u), forgotten.end());
  EXPECT_NE(std::ranges::find(forgotten, 0x5000u), forgotten.end());
}

}  // namespace
}  // namespace tenon::interp
