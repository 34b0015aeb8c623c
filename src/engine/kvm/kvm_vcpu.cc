#include "engine/kvm/kvm_vcpu.hh"

#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <x86intrin.h>

#include <cstring>
#include <optional>

#include "engine/kvm/kvm_ioctl.hh"
#include "engine/kvm/kvm_state.hh"

namespace tenon::kvm {

namespace {

// The signal that takes a thread out of KVM_RUN. Its handler does nothing: the EINTR is the message.
int kick_signal() { return SIGRTMIN + 1; }

void install_kick_handler() {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    sigemptyset(&action.sa_mask);
    // SAFETY: an empty handler; without SA_RESTART so that the ioctl returns.
    return ::sigaction(kick_signal(), &action, nullptr) == 0;
  }();
  CHECK(installed);
}

}  // namespace

Result<std::unique_ptr<KvmVcpu>> KvmVcpu::create(const Fd& vm, const VcpuConfig& config, const Options& options) {
  install_kick_handler();
  Fd fd(TRY(KVM_IOCTL(vm, KVM_CREATE_VCPU, static_cast<unsigned long>(number(config.id)))));
  Mapping mapping = TRY(Mapping::of_fd(fd, options.run_size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED));
  std::unique_ptr<KvmVcpu> vcpu(new KvmVcpu(std::move(fd), std::move(mapping)));
  TRY(vcpu->set_cpuid(config.cpuid));
  TRY(vcpu->set_tsc(options.host_tsc_offset));
  return vcpu;
}

Result<void> KvmVcpu::set_cpuid(std::span<const CpuidEntry> entries) {
  CpuidList cpuid(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    kvm_cpuid_entry2& out = cpuid[i];
    out.function = entries[i].leaf;
    out.index = entries[i].subleaf;
    out.flags = entries[i].subleaf_matters ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    out.eax = entries[i].result.eax;
    out.ebx = entries[i].result.ebx;
    out.ecx = entries[i].result.ecx;
    out.edx = entries[i].result.edx;
  }
  TRY(KVM_IOCTL(fd_, kSetCpuid2, cpuid.data()));
  return {};
}

Result<void> KvmVcpu::set_tsc(uint64_t host_tsc_offset) {
  // KVM API, "Generic vcpu interface: KVM_VCPU_TSC_CTRL": the same offset on each vCPU keeps their TSCs equal.
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uintptr_t>(&host_tsc_offset);
  if (KVM_IOCTL(fd_, KVM_SET_DEVICE_ATTR, &attribute)) return {};
  // Before Linux 5.16: write the counter itself; KVM matches vCPUs written within a second.
  MsrList msrs(1);
  msrs[0].index = 0x10;  // IA32_TIME_STAMP_COUNTER
  msrs[0].data = __rdtsc() + host_tsc_offset;
  TRY(KVM_IOCTL(fd_, kSetMsrs, msrs.data()));
  return {};
}

Halt KvmVcpu::run(CpuIo& io) {
  thread_.store(::pthread_self());
  std::optional<Halt> halt;
  while (!halt) {
    if (stop_requested_.load()) page().immediate_exit = 1;  // finish a pending I/O, then return (KVM API 5)
    if (::ioctl(fd_.get(), KVM_RUN, nullptr) < 0) {
      if (errno == EINTR || errno == EAGAIN)
        halt = handle(Interrupted{}, io);
      else
        halt = Halt{Halt::Reason::kError, Error::from_errno("KVM_RUN").message()};
      continue;
    }
    halt = std::visit([&](const auto& exit) { return handle(exit, io); }, classify(page()));
  }
  thread_.store(0);
  return *halt;
}

void KvmVcpu::request_stop() {
  stop_requested_.store(true);
  // run() stores thread_ before it looks at stop_requested_: either it sees the flag or we see the thread. The signal
  // may fall between that look and KVM_RUN: immediate_exit, set here too, covers it.
  __atomic_store_n(&page().immediate_exit, 1, __ATOMIC_RELEASE);
  if (const pthread_t thread = thread_.load(); thread != 0) ::pthread_kill(thread, kick_signal());
}

std::optional<Halt> KvmVcpu::handle(const PortAccess& access, CpuIo& io) {
  port_accesses_.fetch_add(access.count, std::memory_order_relaxed);
  std::byte* element = access.data;
  for (uint32_t i = 0; i < access.count; ++i, element += access.size_bytes) {
    uint32_t value = 0;
    if (access.is_write) {
      std::memcpy(&value, element, access.size_bytes);
      io.write_port(access.port, access.size_bytes, value);
    } else {
      value = io.read_port(access.port, access.size_bytes);
      std::memcpy(element, &value, access.size_bytes);
    }
  }
  return std::nullopt;
}

std::optional<Halt> KvmVcpu::handle(const MmioAccess& access, CpuIo& io) {
  mmio_accesses_.fetch_add(1, std::memory_order_relaxed);
  // KVM splits at 8 bytes; odd lengths (page-crossing accesses) go through byte by byte.
  const unsigned step = (access.size_bytes & (access.size_bytes - 1)) == 0 ? access.size_bytes : 1;
  for (unsigned done = 0; done < access.size_bytes; done += step) {
    const Gpa gpa(access.gpa.value() + done);
    uint64_t value = 0;
    if (access.is_write) {
      std::memcpy(&value, access.data + done, step);
      io.write_mmio(gpa, step, value);
    } else {
      value = io.read_mmio(gpa, step);
      std::memcpy(access.data + done, &value, step);
    }
  }
  return std::nullopt;
}

std::optional<Halt> KvmVcpu::handle(const MsrAccess& access, CpuIo& io) {
  // KVM API 5, KVM_EXIT_X86_RDMSR/WRMSR: error = 1 makes KVM inject #GP.
  if (access.is_write) {
    page().msr.error = io.write_msr(access.index, page().msr.data) ? 0 : 1;
    return std::nullopt;
  }
  uint64_t value = 0;
  page().msr.error = io.read_msr(access.index, value) ? 0 : 1;
  page().msr.data = value;
  return std::nullopt;
}

std::optional<Halt> KvmVcpu::handle(const Shutdown&, CpuIo&) { return Halt{Halt::Reason::kTripleFault, {}}; }

std::optional<Halt> KvmVcpu::handle(const Interrupted&, CpuIo&) {
  __atomic_store_n(&page().immediate_exit, 0, __ATOMIC_RELAXED);
  if (stop_requested_.exchange(false)) return Halt{Halt::Reason::kStopped, {}};
  return std::nullopt;
}

std::optional<Halt> KvmVcpu::handle(const Failure& failure, CpuIo&) {
  const Result<x86::CpuState> state = get_cpu_state(fd_);
  const uint64_t rip = state ? state->rip : 0;
  return Halt{Halt::Reason::kError, fmt::format("{} (guest RIP {:#x})", failure.detail, rip)};
}

x86::CpuState KvmVcpu::get_state() {
  // A stopped vCPU's registers can always be read: the requests and their sizes are right by construction.
  return MUST(get_cpu_state(fd_));
}

Result<void> KvmVcpu::set_state(const x86::CpuState& state) { return set_cpu_state(fd_, state); }

VcpuStats KvmVcpu::stats() const {
  return {.port_accesses = port_accesses_.load(std::memory_order_relaxed),
          .mmio_accesses = mmio_accesses_.load(std::memory_order_relaxed)};
}

}  // namespace tenon::kvm
