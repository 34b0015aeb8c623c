// The paravirtual interface of KVM as guests see it: CPUID leaves, MSRs, clock structures, hypercalls.
//
// Source: Linux Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst; arch/x86/include/asm/pvclock-abi.h.
#pragma once

#include <cstdint>

#include "base/byte_order.hh"

namespace tenon::kvm_pv {

constexpr uint32_t kSignatureLeaf = 0x40000000;  // EBX ECX EDX: "KVMKVMKVM\0\0\0"
constexpr uint32_t kFeaturesLeaf = 0x40000001;
constexpr uint32_t kFrequencyLeaf = 0x40000010;  // EAX: TSC in kHz, EBX: APIC timer in kHz
constexpr char kSignature[] = "KVMKVMKVM\0\0";
static_assert(sizeof kSignature == 12);

/// Bits of EAX of the features leaf.
enum Features : uint32_t {
  kNoIoDelay = 1u << 1,      // no need to wait after port accesses
  kClockSource2 = 1u << 3,   // kMsrWallClock, kMsrSystemTime
  kPvEoi = 1u << 6,          // kMsrPvEoi
  kMsiExtDestId = 1u << 15,  // bits 11:5 of the MSI address are destination ID bits 14:8
  kClockStable = 1u << 24,   // the clock is monotonic across vCPUs
};

constexpr uint32_t kMsrWallClock = 0x4b564d00;
constexpr uint32_t kMsrSystemTime = 0x4b564d01;
constexpr uint32_t kMsrPvEoi = 0x4b564d04;
constexpr uint64_t kSystemTimeEnable = 1;

/// Wall clock at guest time 0; odd `version` while it is being written.
struct WallClock {
  le32 version;
  le32 seconds;
  le32 nanoseconds;
};
static_assert(sizeof(WallClock) == 12);

/// Guest time = system_time + ((tsc - tsc_timestamp) << tsc_shift) * tsc_to_system_mul / 2^32; negative shifts go
/// right.
struct VcpuTime {
  le32 version;  // odd while it is being written
  le32 pad0;
  le64 tsc_timestamp;
  le64 system_time;  // ns
  le32 tsc_to_system_mul;
  uint8_t tsc_shift;  // signed
  uint8_t flags;
  uint8_t pad[2];
};
static_assert(sizeof(VcpuTime) == 32);
constexpr uint8_t kTimeTscStable = 1;

/// Hypercall results (negative errno).
constexpr int64_t kErrorNoSuchCall = -1000;
constexpr int64_t kErrorNotPermitted = -1;

}  // namespace tenon::kvm_pv
