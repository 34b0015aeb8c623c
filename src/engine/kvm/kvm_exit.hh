// KVM's exits as a sum type: what the guest did, with its payload, out of the kvm_run page (KVM API 5).
#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include "vm/address.hh"

namespace tenon::kvm {

/// IN, OUT, INS or OUTS: `count` elements of `size_bytes` at `data` (inside the kvm_run mapping).
struct PortAccess {
  IoPort port{};
  bool is_write = false;
  unsigned size_bytes = 0;
  uint32_t count = 0;
  std::byte* data = nullptr;
};
struct MmioAccess {
  Gpa gpa;
  bool is_write = false;
  unsigned size_bytes = 0;
  std::byte* data = nullptr;
};
struct MsrAccess {
  uint32_t index = 0;
  bool is_write = false;
};
struct Shutdown {};     // triple fault
struct Interrupted {};  // a signal or immediate_exit: look at the stop flag
struct Failure {        // KVM cannot go on
  std::string detail;
};

using Exit = std::variant<PortAccess, MmioAccess, MsrAccess, Shutdown, Interrupted, Failure>;

/// What `run` says after KVM_RUN returned 0. `run` is the whole mapping.
Exit classify(kvm_run& run);

}  // namespace tenon::kvm
