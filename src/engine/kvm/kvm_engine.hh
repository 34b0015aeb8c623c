// The KVM engine: Linux's own hypervisor behind the engine contract, with in-kernel local APIC, IOAPIC, 8259 and 8254,
// irqfd, ioeventfd and MSR-filter exits.
//
// Manual: Linux Documentation/virt/kvm/api.rst (sections cited as "KVM API 4.x").
// The presence of /dev/kvm proves nothing: software KVMs exist on which a stock kernel fails. Whoever chooses an engine
// runs machine/engine_selftest.hh on it first.
// Scaling: one fd and one kvm_run page a vCPU; nothing is shared between vCPUs here, interrupts stay in the kernel.
#pragma once

#include <memory>

#include "engine/engine.hh"

namespace tenon {

/// kNotFound where /dev/kvm is absent, kIo where it may not be opened, kUnsupported where a needed capability is
/// missing; the message says which and what to do.
Result<std::unique_ptr<Engine>> make_kvm_engine();

}  // namespace tenon
