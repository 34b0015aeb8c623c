#include "base/host_fault.hh"

#include <signal.h>
#include <ucontext.h>

#include <array>
#include <atomic>
#include <optional>

#include "base/mutex.hh"

namespace tenon {

namespace {

constexpr int kSlots = 64;
constexpr std::array<int, 3> kSignals{SIGSEGV, SIGBUS, SIGFPE};

/// begin is written last and cleared first, so that the handler, which takes no lock, sees whole slots only.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<HostFaultHandler> handler{nullptr};
  std::atomic<void*> context{nullptr};

  void set(std::span<const std::byte> code, HostFaultHandler new_handler, void* new_context) {
    end.store(reinterpret_cast<uintptr_t>(code.data() + code.size()), std::memory_order_relaxed);
    handler.store(new_handler, std::memory_order_relaxed);
    context.store(new_context, std::memory_order_relaxed);
    begin.store(reinterpret_cast<uintptr_t>(code.data()), std::memory_order_release);
  }
  void clear() { begin.store(0, std::memory_order_release); }

  bool take(HostFault& fault) const {
    const uintptr_t first = begin.load(std::memory_order_acquire);
    if (first == 0 || fault.instruction < first || fault.instruction >= end.load(std::memory_order_relaxed))
      return false;
    return handler.load(std::memory_order_relaxed)(context.load(std::memory_order_relaxed), fault);
  }
};

std::array<Slot, kSlots> slots;
thread_local constinit Slot slot_of_this_thread;
Mutex slots_mutex;                                                 // writers of `slots`, and installation
bool installed = false;                                            // guarded by slots_mutex
std::array<struct sigaction, kSignals.size()> previous_actions{};  // written once, before the handler can run

const struct sigaction& previous_action(int signal_number) {
  size_t at = 0;
  while (kSignals[at] != signal_number) ++at;
  return previous_actions[at];
}

bool take(HostFault& fault) {
  if (slot_of_this_thread.take(fault)) return true;
  for (const Slot& slot : slots) {
    if (slot.take(fault)) return true;
  }
  return false;
}

void on_fault(int signal_number, siginfo_t* info, void* context) {
  const bool was_sent = info->si_code <= 0;  // by kill() and its like: no instruction has faulted
  if (!was_sent) {
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    const bool has_address = signal_number != SIGFPE && info->si_code != SI_KERNEL;
    HostFault fault{.signal = signal_number,
                    .address = has_address ? reinterpret_cast<uintptr_t>(info->si_addr) : 0,
                    .instruction = static_cast<uintptr_t>(registers[REG_RIP]),
                    .stack = static_cast<uintptr_t>(registers[REG_RSP])};
    if (take(fault)) {
      registers[REG_RIP] = static_cast<greg_t>(fault.instruction);
      registers[REG_RSP] = static_cast<greg_t>(fault.stack);
      return;
    }
  }
  const struct sigaction& previous = previous_action(signal_number);
  if ((previous.sa_flags & SA_SIGINFO) != 0) return previous.sa_sigaction(signal_number, info, context);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal_number);
  // A bug elsewhere: the instruction faults again, with the default action.
  signal(signal_number, SIG_DFL);
  if (was_sent) raise(signal_number);
}

Result<void> install_handlers() TENON_REQUIRES(slots_mutex) {
  if (installed) return {};
  for (size_t i = 0; i < kSignals.size(); ++i) {
    if (sigaction(kSignals[i], nullptr, &previous_actions[i]) != 0) return fail_errno("read the action of a signal");
  }
  for (const int signal_number : kSignals) {
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    if (sigaction(signal_number, &action, nullptr) != 0) return fail_errno("install the handler of a fault's signal");
  }
  installed = true;
  return {};
}

}  // namespace

Result<HostFaultRange> HostFaultRange::add(std::span<const std::byte> code, HostFaultHandler handler, void* context) {
  const MutexLock lock(slots_mutex);
  TRY(install_handlers());
  for (int i = 0; i < kSlots; ++i) {
    Slot& slot = slots[static_cast<size_t>(i)];
    if (slot.begin.load(std::memory_order_relaxed) != 0) continue;
    slot.set(code, handler, context);
    return HostFaultRange(i);
  }
  return fail(ErrorCode::kBusy, "all 64 slots for code whose faults are caught are taken; run fewer engines here");
}

HostFaultRange::~HostFaultRange() {
  if (slot_ < 0) return;
  const MutexLock lock(slots_mutex);
  slots[static_cast<size_t>(slot_)].clear();
}

Result<void> watch_faults_on_this_thread(std::span<const std::byte> code, HostFaultHandler handler, void* context) {
  const MutexLock lock(slots_mutex);
  TRY(install_handlers());
  slot_of_this_thread.clear();
  slot_of_this_thread.set(code, handler, context);
  return {};
}

void forget_faults_on_this_thread() { slot_of_this_thread.clear(); }

}  // namespace tenon
