// Two vCPUs on two threads: code pages appear under the other's write TLB entries, split locks, cross-modifying code.
#include <thread>

#include "engine/interp/interp_test_support.hh"

namespace tenon::interp {
namespace {

/// A second vCPU on the memory of a TestMachine, in the same mode.
struct SecondVcpu {
  explicit SecondVcpu(TestMachine& machine, uint64_t rip) {
    vcpu = std::make_unique<InterpVcpu>(VcpuConfig{.id = VcpuId{1}, .cpuid = machine.cpuid, .signal = &signal},
                                        machine.memory, machine.clock, machine.safepoint);
    EXPECT_TRUE(vcpu->prepare());
    state = machine.state;
    state.rip = rip;
    state.gpr[x86::kRsp] = TestMachine::kStack - 0x4000;
    io.signal = &signal;
  }
  void run() {
    EXPECT_TRUE(vcpu->set_state(state));
    EXPECT_EQ(vcpu->run(io).reason, Halt::Reason::kStopped);
    state = vcpu->get_state();
  }
  VcpuSignal signal;
  TestIo io;
  std::unique_ptr<InterpVcpu> vcpu;
  x86::CpuState state;
};

// Writer: patches the immediate of the function in another page, publishes its number, waits for the reader to have
// called it. The page is data for the writer (it holds a write-TLB entry) until the reader first calls into it.
GUEST_CODE(patcher, "64", R"(
  mov rdi, 0x50000
  mov rsi, 0x60000
  mov dword ptr [rdi + 0x800], 1     # takes the write translation
  mov ecx, 1
1: mov [rdi + 1], ecx
  mov [rsi], ecx
2: pause
  cmp [rsi + 64], ecx
  jne 2b
  inc ecx
  cmp ecx, 2000
  jbe 1b
)" DONE);
GUEST_CODE(caller, "64", R"(
  mov rdi, 0x50000
  mov rsi, 0x60000
  xor ebx, ebx
  mov ecx, 1
1: pause
  cmp [rsi], ecx
  jne 1b
  call rdi
  cmp eax, ecx
  je 2f
  inc ebx                            # stale code
2: mov [rsi + 64], ecx
  inc ecx
  cmp ecx, 2000
  jbe 1b
)" DONE);
GUEST_CODE(patched, "64", "mov eax, 0\n ret");

TEST(Safepoint, CodePatchedByAnotherVcpuIsNeverStale) {
  TestMachine machine;
  machine.load(0x50000, patched);
  machine.load(0x18000, caller);
  machine.enter_64(patcher);
  SecondVcpu second(machine, 0x18000);
  std::thread thread([&] { second.run(); });
  machine.run_to_done();
  thread.join();
  EXPECT_EQ(second.state.gpr[x86::kRbx], 0u);
  EXPECT_EQ(second.state.gpr[x86::kRcx], 2001u);
}

GUEST_CODE(split_adder, "64", R"(
  mov rsi, 0x60ffe
  mov ecx, 3000
1: lock add dword ptr [rsi], 1
  dec ecx
  jnz 1b
)" DONE);

TEST(Safepoint, SplitLocksAreAtomicAmongEachOther) {
  TestMachine machine;
  machine.load(0x18000, split_adder);
  machine.enter_64(split_adder);
  SecondVcpu second(machine, 0x18000);
  std::thread thread([&] { second.run(); });
  machine.run_to_done();
  thread.join();
  EXPECT_EQ(machine.peek<uint32_t>(0x60ffe), 6000u);
}

GUEST_CODE(locked_adder, "64", R"(
  mov rsi, 0x60000
  mov ecx, 20000
1: lock inc qword ptr [rsi]
  mov eax, 1
  lock xadd [rsi + 8], rax
2: mov rax, [rsi + 16]
  lea rdx, [rax + 1]
  lock cmpxchg [rsi + 16], rdx
  jne 2b
  dec ecx
  jnz 1b
)" DONE);

TEST(Safepoint, LockedOperationsAreAtomic) {
  TestMachine machine;
  machine.load(0x18000, locked_adder);
  machine.enter_64(locked_adder);
  SecondVcpu second(machine, 0x18000);
  std::thread thread([&] { second.run(); });
  machine.run_to_done();
  thread.join();
  for (uint64_t at = 0; at < 24; at += 8) EXPECT_EQ(machine.peek<uint64_t>(0x60000 + at), 40000u) << at;
}

// Code pages keep appearing on one vCPU while the other runs, sleeps in HLT, and is woken.
GUEST_CODE(page_toucher, "64", R"(
  mov rdi, 0x200000
  mov ecx, 400
1: mov byte ptr [rdi], 0xc3          # RET in a page of its own
  call rdi
  add rdi, 0x1000
  dec ecx
  jnz 1b
)" DONE);
GUEST_CODE(sleeper, "64", "sti\n 1: hlt\n jmp 1b\n");

TEST(Safepoint, SleepingVcpusAreNotWaitedFor) {
  TestMachine machine;
  machine.load(0x18000, sleeper);
  machine.enter_64(page_toucher);
  SecondVcpu second(machine, 0x18000);
  std::thread thread([&] { second.run(); });
  machine.run_to_done();
  EXPECT_EQ(machine.gpr(x86::kRcx), 0u);
  second.vcpu->request_stop();
  thread.join();
}

}  // namespace
}  // namespace tenon::interp
