#include "tests/differential/host_cpu.hh"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstring>
#include <memory>

extern "C" {
extern tenon::differential::MachineState tenon_host_after;
void tenon_host_run(const tenon::differential::MachineState* before);
extern const char tenon_host_done[];
extern const char tenon_host_recover[];
void tenon_host_trap(int, siginfo_t*, void*);
void tenon_host_trapped(int, siginfo_t*, void* context);
}

namespace tenon::differential {

namespace {

constexpr uint8_t kInt3 = 0xcc;
// GprIndex order in the signal frame (sys/ucontext.h).
constexpr int kGregs[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/// A component whose XSTATE_BV bit is 0 is in its initial state whatever the area holds (SDM Vol. 1 13.7, 13.6).
void fill_initial_components(MachineState& state) {
  std::byte* area = state.xsave.data();
  uint64_t components = 0;
  std::memcpy(&components, area + 512, sizeof components);
  if ((components & 1) == 0) {  // x87: FCW 37FH, registers empty
    std::byte mxcsr[8];
    std::memcpy(mxcsr, area + 24, sizeof mxcsr);
    std::memset(area, 0, 160);
    const uint16_t control = 0x37f;
    std::memcpy(area, &control, sizeof control);
    std::memcpy(area + 24, mxcsr, sizeof mxcsr);
  }
  if ((components & 2) == 0) std::memset(area + 160, 0, 256);
  if ((components & 4) == 0) std::memset(area + 576, 0, 256);
}

Outcome last_outcome;
bool in_guest = false;  // a signal at any other moment is the engine's under test, or a bug

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
struct sigaction previous_actions[NSIG];

}  // namespace

}  // namespace tenon::differential

// Called by tenon_host_trap with the C library's FS base back in place.
void tenon_host_trapped(int signal_number, siginfo_t* info, void* context) {
  using namespace tenon::differential;
  auto* frame = static_cast<ucontext_t*>(context);
  if (!in_guest) {
    const struct sigaction& previous = previous_actions[signal_number];
    if ((previous.sa_flags & SA_SIGINFO) != 0) return previous.sa_sigaction(signal_number, info, context);
    ::signal(signal_number, SIG_DFL);
    return;  // faults again, fatally
  }
  greg_t* gregs = frame->uc_mcontext.gregs;
  for (int i = 0; i < 16; ++i) tenon_host_after.gpr[static_cast<size_t>(i)] = static_cast<uint64_t>(gregs[kGregs[i]]);
  tenon_host_after.rip = static_cast<uint64_t>(gregs[REG_RIP]);
  tenon_host_after.rflags = static_cast<uint64_t>(gregs[REG_EFL]);
  // SAFETY: with AVX enabled the kernel's frame is the XSAVE area in standard form, at least 832 bytes.
  std::memcpy(tenon_host_after.xsave.data(), frame->uc_mcontext.fpregs, tenon_host_after.xsave.size());
  last_outcome.faulted = true;
  last_outcome.vector = static_cast<uint8_t>(gregs[REG_TRAPNO]);
  last_outcome.error_code = static_cast<uint32_t>(gregs[REG_ERR]);
  last_outcome.fault_address = last_outcome.vector == 14 ? static_cast<uint64_t>(gregs[REG_CR2]) : 0;
  gregs[REG_RIP] = reinterpret_cast<greg_t>(tenon_host_recover);
  gregs[REG_EFL] = 2;
}

namespace tenon::differential {

Result<std::unique_ptr<HostCpu>> HostCpu::create() {
  std::unique_ptr<HostCpu> host(new HostCpu);
  // SAFETY: fixed addresses far below everything the loader maps; MAP_FIXED_NOREPLACE refuses if that is ever untrue.
  // Present from the start: the first write to a read-only page would else be reported as one to a missing page.
  const int fixed = MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE | MAP_LOCKED;
  const Fd file(::memfd_create("tenon-differential", MFD_CLOEXEC));
  if (!file.is_open() || ::ftruncate(file.get(), kWindowReadable + kPage) < 0)
    return fail_errno("memfd for the window");
  const auto map = [&](uint64_t address, size_t size, int protection, uint64_t offset) {
    return ::mmap(reinterpret_cast<void*>(address), size, protection, fixed, file.get(), static_cast<off_t>(offset)) !=
           MAP_FAILED;
  };
  for (uint64_t far = 0; far <= kFarMax * kFar; far += kFar) {
    if (!map(far + kWindow, kWindowWritable, PROT_READ | PROT_WRITE, 0) ||
        !map(far + kWindow + kWindowWritable, kPage, PROT_READ, kWindowWritable) ||
        !map(far + kCodePage, kPage, PROT_READ | PROT_EXEC, kWindowReadable))
      return fail_errno("mmap the window at its fixed addresses");
  }
  void* view = ::mmap(nullptr, kWindowReadable + kPage, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (view == MAP_FAILED) return fail_errno("mmap the window's view");
  host->window_view_ = {static_cast<std::byte*>(view), kWindowReadable};
  host->code_view_ = static_cast<std::byte*>(view) + kWindowReadable;
  std::memset(host->code_view_, kInt3, kPage);

  static std::byte signal_stack[64 * 1024];
  const stack_t stack{.ss_sp = signal_stack, .ss_flags = 0, .ss_size = sizeof signal_stack};
  if (::sigaltstack(&stack, nullptr) < 0) return fail_errno("sigaltstack");
  struct sigaction action {};
  action.sa_sigaction = tenon_host_trap;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (const int number : kSignals)
    if (::sigaction(number, &action, &previous_actions[number]) < 0) return fail_errno("sigaction");
  return host;
}

HostCpu::~HostCpu() {
  ::munmap(window_view_.data(), kWindowReadable + kPage);
  for (uint64_t far = 0; far <= kFarMax * kFar; far += kFar) {
    ::munmap(reinterpret_cast<void*>(far + kWindow), kWindowReadable);
    ::munmap(reinterpret_cast<void*>(far + kCodePage), kPage);
  }
}

void HostCpu::write_code(std::span<const uint8_t> code, uint64_t address, Ending ending) {
  constexpr size_t kJumpSize = 14;
  const uint64_t offset = address % kPage;
  CHECK(address - offset == kCodePage + address / kFar * kFar && offset + code.size() + kJumpSize <= kPage);
  std::byte* at = code_view_ + offset;
  std::memset(code_view_ + last_code_, kInt3, 15 + kJumpSize);
  last_code_ = offset;
  std::memcpy(at, code.data(), code.size());
  if (ending == Ending::kTrap) return;
  // jmp [rip + 0]; .quad tenon_host_done
  const uint8_t jump[6] = {0xff, 0x25, 0, 0, 0, 0};
  const uint64_t done = reinterpret_cast<uintptr_t>(tenon_host_done);
  std::memcpy(at + code.size(), jump, sizeof jump);
  std::memcpy(at + code.size() + sizeof jump, &done, sizeof done);
}

Outcome HostCpu::run(std::span<const uint8_t> code, uint64_t address, Ending ending, const MachineState& before,
                     MachineState& after) {
  write_code(code, address, ending);
  last_outcome = {};
  tenon_host_after.rip = address + code.size();
  // XSAVE leaves components in their initial state unwritten: their image must be the initial one (SDM Vol. 1 13.7).
  tenon_host_after.xsave.fill(std::byte{0});
  in_guest = true;
  tenon_host_run(&before);
  in_guest = false;
  after = tenon_host_after;
  fill_initial_components(after);
  if (last_outcome.vector == 3 && after.rip == address + code.size() + 1) {
    after.rip -= 1;
    return {};  // ran to its end
  }
  return last_outcome;
}

}  // namespace tenon::differential
