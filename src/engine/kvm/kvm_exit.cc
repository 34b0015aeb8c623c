#include "engine/kvm/kvm_exit.hh"

#include <fmt/format.h>

namespace tenon::kvm {

namespace {

PortAccess port_access(kvm_run& run) {
  return {.port = IoPort{run.io.port},
          .is_write = run.io.direction == KVM_EXIT_IO_OUT,
          .size_bytes = run.io.size,
          .count = run.io.count,
          .data = reinterpret_cast<std::byte*>(&run) + run.io.data_offset};
}

Failure internal_error(const kvm_run& run) {
  // KVM API 5, KVM_EXIT_INTERNAL_ERROR: suberror 1 is an instruction that KVM could not emulate.
  if (run.internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
    return {"KVM could not emulate an instruction; is it a software KVM?"};
  return {fmt::format("KVM internal error, suberror {}", run.internal.suberror)};
}

}  // namespace

Exit classify(kvm_run& run) {
  switch (run.exit_reason) {
    case KVM_EXIT_IO: return port_access(run);
    case KVM_EXIT_MMIO:
      return MmioAccess{.gpa = Gpa(run.mmio.phys_addr),
                        .is_write = run.mmio.is_write != 0,
                        .size_bytes = run.mmio.len,
                        .data = reinterpret_cast<std::byte*>(run.mmio.data)};
    case KVM_EXIT_X86_RDMSR: return MsrAccess{.index = run.msr.index, .is_write = false};
    case KVM_EXIT_X86_WRMSR: return MsrAccess{.index = run.msr.index, .is_write = true};
    case KVM_EXIT_SHUTDOWN: return Shutdown{};
    case KVM_EXIT_INTR: return Interrupted{};
    case KVM_EXIT_FAIL_ENTRY:
      return Failure{fmt::format("KVM could not enter the guest, hardware reason {:#x}",
                                 uint64_t{run.fail_entry.hardware_entry_failure_reason})};
    case KVM_EXIT_INTERNAL_ERROR: return internal_error(run);
    default: return Failure{fmt::format("KVM exit reason {} is not handled", uint32_t{run.exit_reason})};
  }
}

}  // namespace tenon::kvm
