#include "base/float_trap.hh"

#include <signal.h>
#include <ucontext.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "base/mutex.hh"

namespace tenon {

namespace {

constexpr int kSlots = 64;

/// begin is written last and cleared first, so that the handler, which takes no lock, sees whole slots only.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<uintptr_t> resume{0};
};

std::array<Slot, kSlots> slots;
Mutex slots_mutex;                    // writers of `slots`, and installation
bool installed = false;               // guarded by slots_mutex
struct sigaction previous_action {};  // written once, before the handler can run

void on_float_exception(int signal_number, siginfo_t* info, void* context) {
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const auto rip = static_cast<uintptr_t>(registers[REG_RIP]);
  for (const Slot& slot : slots) {
    const uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    if (begin == 0 || rip < begin || rip >= slot.end.load(std::memory_order_relaxed)) continue;
    registers[REG_RIP] = static_cast<greg_t>(slot.resume.load(std::memory_order_relaxed));
    return;
  }
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) return previous_action.sa_sigaction(signal_number, info, context);
  if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN)
    return previous_action.sa_handler(signal_number);
  // A bug elsewhere: the instruction faults again, with the default action.
  signal(SIGFPE, SIG_DFL);
}

Result<void> install_handler() TENON_REQUIRES(slots_mutex) {
  if (installed) return {};
  if (sigaction(SIGFPE, nullptr, &previous_action) != 0) return fail_errno("read the action of SIGFPE");
  struct sigaction action {};
  action.sa_sigaction = on_float_exception;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGFPE, &action, nullptr) != 0) return fail_errno("install the handler of SIGFPE");
  installed = true;
  return {};
}

}  // namespace

Result<FloatTrapRange> FloatTrapRange::add(std::span<const std::byte> code, const std::byte* resume) {
  const MutexLock lock(slots_mutex);
  TRY(install_handler());
  for (int i = 0; i < kSlots; ++i) {
    Slot& slot = slots[static_cast<size_t>(i)];
    if (slot.begin.load(std::memory_order_relaxed) != 0) continue;
    slot.end.store(reinterpret_cast<uintptr_t>(code.data() + code.size()), std::memory_order_relaxed);
    slot.resume.store(reinterpret_cast<uintptr_t>(resume), std::memory_order_relaxed);
    slot.begin.store(reinterpret_cast<uintptr_t>(code.data()), std::memory_order_release);
    return FloatTrapRange(i);
  }
  return fail(ErrorCode::kBusy, "all 64 slots for code with floating-point traps are taken; run fewer engines here");
}

FloatTrapRange::~FloatTrapRange() {
  if (slot_ < 0) return;
  const MutexLock lock(slots_mutex);
  slots[static_cast<size_t>(slot_)].begin.store(0, std::memory_order_release);
}

}  // namespace tenon
