// What a host thread needs to run translated code, and what becomes of the host's signals there.
//
// Memory of a shadow return stack, from low to high: a guard page, the stack, a page of sentinels, a guard page.
// Sentinels stand for returns that no call here belongs to: each word is the address of Stubs::return_empty. A fault
// in a guard page starts the stack anew and repeats the instruction; a return whose call was forgotten is a miss.
//
// A signal may come at any instruction of translated code, where RSP is no stack for C++: the thread has an alternate
// signal stack, and blocks all signals but those handled here with SA_ONSTACK and those of its own faults. The rest of
// the process handles signals on other threads.
//
// Source: System V ABI (FS is the C library's, GS is free), arch_prctl(2), timer_create(2), sigaltstack(2).
#include <asm/prctl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/bits.hh"
#include "base/fd.hh"
#include "base/host_fault.hh"
#include "engine/jit/runtime.hh"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace tenon::jit {
namespace {

using interp::Cpu;

constexpr size_t kSignalStackBytes = 64 << 10;

/// Nobody else's: SIGRTMIN + 1 is the KVM engine's kick.
int timer_signal() { return SIGRTMIN + 2; }

/// Memory with a page without access on both sides.
Result<Mapping> guarded(size_t size_bytes, const char* name) {
  Mapping memory = TRY(Mapping::anonymous(size_bytes + 2 * kPageSize, kPageSize, name));
  std::byte* const last = memory.data() + memory.size_bytes() - kPageSize;
  for (std::byte* page : {memory.data(), last}) {
    if (::mprotect(page, kPageSize, PROT_NONE) != 0) return fail_errno(std::string("mprotect a guard page of ") + name);
  }
  return memory;
}

Result<void> set_gs_base(uint64_t base) {
  if (::syscall(SYS_arch_prctl, ARCH_SET_GS, base) != 0) return fail_errno("arch_prctl(ARCH_SET_GS)");
  return {};
}

}  // namespace

struct HostThread::Host {
  Mapping return_stacks[2];
  Mapping signal_stack;
  uint64_t exit_fault = 0;
  stack_t old_signal_stack{};
  sigset_t old_mask{};
  timer_t timer{};
  bool has_signal_stack = false;
  bool has_mask = false;
  bool has_timer = false;

  Result<uint64_t> make_return_stack(unsigned privilege, uint64_t sentinel);
  Result<void> make_signal_stack();
  Result<void> choose_signals();
  Result<void> make_timer();
};

namespace {

/// Of the HostThread of this thread, for the timer's handler: the signal may come when it is gone.
thread_local constinit HostThread* this_thread = nullptr;

}  // namespace

void HostThread::on_timer() {
  // Before the word: arm_deadline() must not take the timer for armed when it looks next.
  armed_ns_.store(kNoDeadline, std::memory_order_relaxed);
  cpu_.translated.poke.store(1, std::memory_order_seq_cst);
}

namespace {

Result<void> install_timer_handler() {
  static const int result = [] {
    struct sigaction action {};
    action.sa_handler = [](int) {
      if (this_thread != nullptr) this_thread->on_timer();
    };
    action.sa_flags = SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    return ::sigaction(timer_signal(), &action, nullptr);
  }();
  if (result != 0) return fail_errno("install the handler of the vCPU timer's signal");
  return {};
}

}  // namespace

/// Returns its top.
Result<uint64_t> HostThread::Host::make_return_stack(unsigned privilege, uint64_t sentinel) {
  Mapping& return_stack = return_stacks[privilege];
  return_stack = TRY(guarded(kReturnStackBytes + kPageSize, "tenon:return-stack"));
  std::byte* const top = return_stack.data() + kPageSize + kReturnStackBytes;
  for (size_t at = 0; at < kPageSize; at += sizeof sentinel) std::memcpy(top + at, &sentinel, sizeof sentinel);
  return reinterpret_cast<uint64_t>(top);
}

Result<void> HostThread::Host::make_signal_stack() {
  signal_stack = TRY(guarded(kSignalStackBytes, "tenon:signal-stack"));
  stack_t stack{};
  stack.ss_sp = signal_stack.data() + kPageSize;
  stack.ss_size = kSignalStackBytes;
  if (::sigaltstack(&stack, &old_signal_stack) != 0) return fail_errno("sigaltstack");
  has_signal_stack = true;
  return {};
}

Result<void> HostThread::Host::choose_signals() {
  sigset_t blocked;
  sigfillset(&blocked);
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, timer_signal()})
    sigdelset(&blocked, number);
  if ((errno = ::pthread_sigmask(SIG_SETMASK, &blocked, &old_mask)) != 0) return fail_errno("pthread_sigmask");
  has_mask = true;
  return {};
}

Result<void> HostThread::Host::make_timer() {
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = timer_signal();
  event.sigev_notify_thread_id = static_cast<pid_t>(::syscall(SYS_gettid));
  if (::timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) return fail_errno("timer_create");
  has_timer = true;
  return {};
}

HostThread::HostThread(Cpu& cpu) : cpu_(cpu), host_(std::make_unique<Host>()) {}

Result<std::unique_ptr<HostThread>> HostThread::create(Cpu& cpu, uint64_t code, size_t size_bytes, const Stubs& stubs) {
  std::unique_ptr<HostThread> thread(new HostThread(cpu));
  this_thread = thread.get();
  Host& host = *thread->host_;
  host.exit_fault = stubs.exit_fault;
  for (unsigned privilege = 0; privilege < 2; ++privilege)
    cpu.translated.return_stack_tops[privilege] = TRY(host.make_return_stack(privilege, stubs.return_empty));
  thread->reset_return_stack();
  TRY(host.make_signal_stack());
  TRY(install_timer_handler());
  TRY(host.choose_signals());
  TRY(host.make_timer());
  TRY(set_gs_base(reinterpret_cast<uint64_t>(&cpu)));
  // SAFETY: the caller's executable memory, which outlives the HostThread; only its addresses are used.
  const std::span<const std::byte> range(reinterpret_cast<const std::byte*>(code), size_bytes);
  TRY(watch_faults_on_this_thread(
      range, [](void* context, HostFault& fault) { return static_cast<HostThread*>(context)->on_fault(fault); },
      thread.get()));
  return thread;
}

HostThread::~HostThread() {
  if (host_->has_timer) ::timer_delete(host_->timer);
  if (this_thread != this) return;  // its thread has ended, and with it all that is undone here
  forget_faults_on_this_thread();
  this_thread = nullptr;  // a signal of the timer may still be pending
  set_gs_base(0);
  if (host_->has_signal_stack) ::sigaltstack(&host_->old_signal_stack, nullptr);
  if (host_->has_mask) ::pthread_sigmask(SIG_SETMASK, &host_->old_mask, nullptr);
}

/// In the signal handler.
bool HostThread::on_fault(HostFault& fault) {
  interp::TranslatedState& state = cpu_.translated;
  for (unsigned privilege = 0; privilege < 2; ++privilege) {
    const Mapping& stack = host_->return_stacks[privilege];
    if (fault.address - reinterpret_cast<uintptr_t>(stack.data()) >= stack.size_bytes()) continue;
    fault.stack = state.return_stack_tops[privilege];
    return true;
  }
  state.exit_code = static_cast<uint64_t>(ExitCode::kHostFault);
  state.exit_argument = fault.instruction;
  fault.instruction = host_->exit_fault;
  return true;
}

void HostThread::reset_return_stack() {
  interp::TranslatedState& state = cpu_.translated;
  state.return_stack_top = state.return_stack_tops[state.return_stack_side];
  state.return_stack = state.return_stack_top;
  state.other_return_stack = state.return_stack_tops[1 - state.return_stack_side];
}

void HostThread::reset_return_stack(unsigned privilege) {
  interp::TranslatedState& state = cpu_.translated;
  const bool in_use = privilege == state.return_stack_side;
  (in_use ? state.return_stack : state.other_return_stack) = state.return_stack_tops[privilege];
}

void HostThread::use_return_stack(unsigned privilege) {
  interp::TranslatedState& state = cpu_.translated;
  if (privilege == state.return_stack_side) return;
  std::swap(state.return_stack, state.other_return_stack);
  state.return_stack_side = privilege;
  state.return_stack_top = state.return_stack_tops[privilege];
}

void HostThread::arm(uint64_t deadline_ns) {
  const uint64_t now = cpu_.clock->now_ns();
  if (now >= deadline_ns) {
    cpu_.translated.poke.store(1, std::memory_order_relaxed);
    return;
  }
  // Guest time advances as the host's does while the VM runs. Where it does not, the timer comes too early or too late
  // for a guest whose time is not the host's either, and the run loop compares with the clock before it acts.
  const uint64_t left = std::min<uint64_t>(deadline_ns - now, uint64_t{3600} * kNanosecondsPerSecond);
  itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(left / kNanosecondsPerSecond);
  when.it_value.tv_nsec = static_cast<long>(left % kNanosecondsPerSecond);
  // Before the timer runs: a signal that comes at once says that it is not armed any more.
  armed_ns_.store(deadline_ns, std::memory_order_relaxed);
  ::timer_settime(host_->timer, 0, &when, nullptr);
}

Result<void> check_host_cpu() {
  std::string missing;
  const auto need = [&](bool present, const char* name) {
    if (!present) missing += missing.empty() ? name : std::string(", ") + name;
  };
  need(__builtin_cpu_supports("avx") != 0, "AVX");  // and XSAVE, with YMM enabled by the operating system
  need(__builtin_cpu_supports("bmi2") != 0, "BMI2");
  uint32_t eax = 0x80000001, ebx = 0, ecx = 0, edx = 0;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  need((ecx & 1) != 0, "LAHF in 64-bit mode");
  if (missing.empty()) return {};
  return fail(ErrorCode::kUnsupported, "the host CPU lacks " + missing + ": use --engine interp or kvm");
}

}  // namespace tenon::jit
